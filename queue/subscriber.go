package queue

import (
	"context"
	"fmt"
	"time"
)

// A Subscriber is implemented by backends and driven by the engine (Consumer).
// Applications don't call it.
type Subscriber interface {
	// Receive waits for messages and returns at most max, each with a lease. It
	// may return none after an empty poll, and it may return deliveries
	// together with an error, or after ctx has ended: what the broker has handed
	// over is always returned, and the engine releases what it can't use. Errors
	// that match ErrQueueNotFound, ErrPermission, ErrUnsupported, ErrInvalid or ErrClosed are
	// final; others are passing. It may be called concurrently.
	Receive(ctx context.Context, max int) ([]*Delivery, error)

	// Settle ends leases. It returns nil or a *SettleError with an entry for
	// each settlement that failed; ErrLeaseLost in one says that trying again
	// is pointless. It may be called concurrently, also with many more
	// settlements than the broker takes in a call; the backend splits them. It
	// doesn't keep s after it has returned.
	Settle(ctx context.Context, s ...Settlement) error

	// Extend makes the leases end d from now, clamped per entry to what the
	// broker allows, and returns the deadlines that it granted, in the order of
	// ds; a zero time where the entry failed. The error is nil or a
	// *SettleError; ErrLeaseLost per entry where knowable. It may be called
	// concurrently.
	Extend(ctx context.Context, d time.Duration, ds ...*Delivery) ([]time.Time, error)
}

// Original is implemented by the Native of deliveries whose backend can tell
// what was received, whatever a handler has done to the delivery since. What
// the library publishes again (delay hops, dead letters, redrive) is the
// original. The result may be shared: it must not be written to.
type Original interface {
	Original() (body []byte, attributes map[string]string)
}

// OriginalOptions is implemented by the Native of deliveries that came with
// options of their system. What the library publishes again (delay hops, dead
// letters, redrive) has them too; another system ignores them.
type OriginalOptions interface {
	OriginalOptions() []MessageOption
}

// SettleKind is what Settle does with a delivery.
type SettleKind int

const (
	// Ack removes the message.
	Ack SettleKind = iota
	// Release gives the message back: it can be received again after Delay.
	Release
	// Defer makes the message come back at Until, durably and with what the
	// library knows about it; the backend publishes Settlement.Hop again with
	// that time, and only then removes the original. It's used for delays
	// beyond what a Release can do.
	Defer
)

func (k SettleKind) String() string {
	switch k {
	case Ack:
		return "ack"
	case Release:
		return "release"
	case Defer:
		return "defer"
	}
	return "unknown"
}

// A Settlement ends the lease of one delivery.
type Settlement struct {
	Delivery *Delivery
	Kind     SettleKind
	Delay    time.Duration // of Release, at most Capabilities.MaxRedeliveryDelay
	Until    time.Time     // of Defer

	failures int
}

// Hop returns the message to publish in place of a deferred delivery: the same
// message with its due time, failures and first enqueue in its metadata and
// without a DedupID, so that the broker can't take it for a repeat. Once it's
// durable, a Settle that is tried again must only remove the original. It's for
// backends.
func (s *Settlement) Hop() *Message {
	return hopMessage(s.Delivery, s.Until, s.failures)
}

// A Queue is what a Backend opens. Whoever opens it closes it, after the
// consumers that use it have ended.
type Queue interface {
	Publisher
	Subscriber

	// Capabilities tells what the queue can do; it doesn't change while it's
	// open and makes no request. It may be called concurrently.
	Capabilities() Capabilities

	// Close waits for calls in flight, until ctx ends. Afterwards every call
	// fails with ErrClosed. Closing twice is harmless.
	Close(ctx context.Context) error
}

// AttemptCount tells how far a broker's count of deliveries can be trusted.
type AttemptCount int

// What a broker's count of deliveries can be.
const (
	AttemptsUnknown     AttemptCount = iota // Delivery.Attempt is 0
	AttemptsApproximate                     // may skip or repeat numbers
	AttemptsExact
)

func (a AttemptCount) String() string {
	switch a {
	case AttemptsUnknown:
		return "unknown"
	case AttemptsApproximate:
		return "approximate"
	case AttemptsExact:
		return "exact"
	}
	return fmt.Sprintf("AttemptCount(%d)", int(a))
}

// Capabilities tells what a queue can do. A wrapper that changes a limit has a
// Capabilities method of its own.
type Capabilities struct {
	Source  Endpoint
	Address string // where it is: a URL, an ARN, a resource name

	// Wire has the limits of a message and how it's encoded.
	Wire Wire

	MaxReceive int // most deliveries that one Receive returns; 0: no limit
	MaxSettle  int // most settlements in one request of the broker; 0: no limit

	Lease        time.Duration // length of the lease that Receive gives; 0: unknown
	MaxLease     time.Duration // most that a lease can last in all, the delay of its Release with it; 0: no limit
	MaxExtension time.Duration // most that one Extend can grant; 0: no limit

	// Delays says that a message can be delayed at all, natively or by hops.
	Delays             bool
	MaxDelay           time.Duration // longest native delay of a publish; 0: none
	DelayUnit          time.Duration // delays are rounded up to a multiple; 0: exact
	MaxRedeliveryDelay time.Duration // longest delay of a Release; 0: no limit
	Retention          time.Duration // how long the broker keeps a message, when the queue was opened; 0: unknown or for ever

	// Filter is what a message must match to be received, in the broker's own language;
	// empty: every message is. The broker takes what doesn't match all the same, so that
	// a nil from Publish doesn't say that it's received here.
	Filter string

	Ordering bool // OrderingKey works
	// KeyLocked says that the broker withholds a key's later messages while one is
	// leased. Without it two answers on their way at once may overtake each other, so
	// that where there's Ordering a Consumer receives by one call at a time.
	KeyLocked bool
	Dedup     bool // DedupID works

	Attempts      AttemptCount
	ReleaseCounts bool // an unstarted delivery that's released counts as an attempt

	// BrokerMaxAttempts is the limit after which the broker itself takes the
	// message to a dead-letter queue; 0: none.
	BrokerMaxAttempts int

	// CancelSafe says that a Receive whose context ends leaves no message hidden
	// for a caller that has gone, and costs none an attempt; so ReceiveGrace
	// isn't needed.
	CancelSafe bool

	// SettleConfirmed says that a nil from Settle is the broker's word that the
	// message won't come again; otherwise it's a hint.
	SettleConfirmed bool

	// Assumed names the settings that couldn't be read and were taken from the
	// service's defaults.
	Assumed []string
}
