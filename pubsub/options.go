package pubsub

import (
	"fmt"
	"time"

	"google.golang.org/api/option"

	"github.com/anyqueue/anyqueue/queue"
)

// Options are the settings of a Backend. The zero value is usable.
type Options struct {
	// Project is the id of the project that names belong to; a full name as
	// OpenOptions.Address leads to others. Default: the client's; for NewBackend that
	// of the environment.
	Project string

	// ClientOptions are for the client that NewBackend makes; New has its client.
	ClientOptions []option.ClientOption

	// Wait is how long a receive waits for its first message: 1 s to 1 minute.
	// Default 20 s.
	Wait time.Duration

	// Metrics tells how many messages a subscription has, which Pub/Sub itself
	// doesn't: see pubsub/cloudmonitoring. Without it Stats knows nothing.
	Metrics Metrics
}

const (
	defaultWait = 20 * time.Second
	maxWait     = time.Minute

	defaultAckDeadline = 10 * time.Second // the least that a subscription has; a single lease may be shorter
	maxAckDeadline     = 10 * time.Minute
	defaultRetention   = 7 * 24 * time.Hour
	longestRetention   = 31 * 24 * time.Hour

	maxMessages = 1000 // of a request
	maxRequest  = 10_000_000
	// requestReserve is for what a request holds beside its messages: the
	// topic's name, and the framing.
	requestReserve = 4096
)

func (o Options) validate() (Options, error) {
	if o.Wait == 0 {
		o.Wait = defaultWait
	}
	if o.Wait < time.Second || o.Wait > maxWait {
		return o, &queue.InvalidError{Field: "Wait", Reason: fmt.Sprintf("%v isn't 1 s to 1 m", o.Wait)}
	}
	return o, nil
}

// seconds rounds up, as Pub/Sub counts in whole ones.
func seconds(d time.Duration) int32 {
	return int32((d + time.Second - 1) / time.Second) //nolint:gosec // callers keep it within 10 minutes
}
