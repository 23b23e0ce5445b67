package sqstest

import (
	"fmt"
	"regexp"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// Options are the settings of a Server. The zero value is usable.
type Options struct {
	// Region and Account are what ARNs and URLs are made of. Default: us-east-1
	// and 000000000000.
	Region, Account string

	// Latency is how much longer each call takes: half of it passes before the
	// work, half after. See also Server.SetLatency. Default: none.
	Latency time.Duration

	// MaxInFlight is how many messages of a queue may be in flight. Beyond, a
	// short poll of a standard queue fails with OverLimit; everything else finds
	// nothing. Default: 120,000.
	MaxInFlight int

	// EndCutPolls makes a long poll end when its caller has gone. Without it the
	// poll goes on until its wait is over, as AWS and other servers do: it takes
	// the next message and hides it for its visibility timeout, though nobody
	// gets it.
	EndCutPolls bool

	// Duplicate and Reorder are the probabilities, 0 to 1, that a standard queue
	// delivers a message twice, and that it passes a message over once. AWS
	// promises neither not to happen. Default: 0.
	Duplicate, Reorder float64
	// Seed is where their randomness begins: the same seed and the same calls
	// give the same results. Default: 1.
	Seed uint64
}

const (
	defaultRegion      = "us-east-1"
	defaultAccount     = "000000000000"
	defaultMaxInFlight = 120_000
)

func (o Options) validate() (Options, error) {
	if o.Region == "" {
		o.Region = defaultRegion
	}
	if o.Account == "" {
		o.Account = defaultAccount
	}
	if o.MaxInFlight == 0 {
		o.MaxInFlight = defaultMaxInFlight
	}
	if o.Seed == 0 {
		o.Seed = 1
	}
	invalid := func(field, format string, args ...any) (Options, error) {
		return o, &queue.InvalidError{Field: "sqstest.Options." + field, Reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case !regexp.MustCompile(`^[a-z0-9-]+$`).MatchString(o.Region):
		return invalid("Region", "%q isn't lower-case letters, digits and hyphens", o.Region)
	case !regexp.MustCompile(`^[0-9]{12}$`).MatchString(o.Account):
		return invalid("Account", "%q isn't twelve digits", o.Account)
	case o.Latency < 0:
		return invalid("Latency", "negative")
	case o.MaxInFlight < 0:
		return invalid("MaxInFlight", "negative")
	case !(o.Duplicate >= 0 && o.Duplicate <= 1):
		return invalid("Duplicate", "not from 0 to 1")
	case !(o.Reorder >= 0 && o.Reorder <= 1):
		return invalid("Reorder", "not from 0 to 1")
	}
	return o, nil
}
