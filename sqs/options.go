package sqs

import (
	"fmt"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// Options are the settings of a Backend. The zero value is usable.
type Options struct {
	// Wait is how long a receive waits for its first message: 1 to 20 seconds,
	// in whole ones. Default 20 s. A shorter one costs more requests of an idle
	// consumer; Close waits less.
	Wait time.Duration
}

const (
	maxWait       = 20 * time.Second
	maxVisibility = 12 * time.Hour
	maxDelay      = 15 * time.Minute
	maxEntries    = 10      // of a request
	maxRequest    = 1 << 20 // bytes of the messages of a request

	defaultVisibility = 30 * time.Second
	defaultRetention  = 4 * 24 * time.Hour
	longestRetention  = 14 * 24 * time.Hour
)

func (o Options) validate() (Options, error) {
	if o.Wait == 0 {
		o.Wait = maxWait
	}
	if o.Wait < time.Second || o.Wait > maxWait || o.Wait%time.Second != 0 {
		return o, &queue.InvalidError{Field: "Wait", Reason: fmt.Sprintf("%v isn't 1 to 20 whole seconds", o.Wait)}
	}
	return o, nil
}

// seconds rounds up, as SQS counts in whole ones.
func seconds(d time.Duration) int32 {
	return int32((d + time.Second - 1) / time.Second) //nolint:gosec // callers keep it within 12 hours
}
