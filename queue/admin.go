package queue

import (
	"context"
	"time"
)

// The interfaces here are optional: find them with As on a Queue or, for
// Ensurer, on a Backend.

// Inspector looks at a queue without consuming from it.
type Inspector interface {
	// Stats tells the queue's depth, as far as the broker says.
	Stats(ctx context.Context) (Stats, error)

	// Peek returns up to max messages without taking them. What it costs
	// depends on the broker; each backend's doc says.
	Peek(ctx context.Context, max int) ([]*Delivery, error)
}

// Stats is the state of a queue at a time. A nil count is unknown, not zero.
type Stats struct {
	Ready     *int64         // could be received now
	InFlight  *int64         // leased
	Delayed   *int64         // not yet due, or backing off
	Total     *int64         // not done: all of these together, where the system doesn't tell them apart
	OldestAge *time.Duration // of the oldest message that isn't done

	AsOf        time.Time
	Approximate bool
	Source      string // where the numbers come from, for people
}

// Purger removes everything from a queue.
type Purger interface {
	Purge(ctx context.Context) error
}

// Redriver takes back messages that were dead-lettered, so that only this
// queue's own consumers get them: other subscribers of the same topic don't.
// Its semantics are otherwise those of Publish. Use the function Redrive to
// move a whole dead-letter queue.
type Redriver interface {
	PublishBack(ctx context.Context, msgs ...*Message) error
}

// Ensurer creates what a queue needs, or says how what exists differs. It's
// implemented by backends, as a missing queue can't be opened. It never deletes.
type Ensurer interface {
	Ensure(ctx context.Context, name string, spec *QueueSpec) (*EnsureReport, error)
}

// PeekConfirmer is an Inspector whose Peek fails with ErrUnsupported where
// looking has consequences: on SQS it counts as a receive, so that a redrive
// policy may take the message away.
type PeekConfirmer interface {
	// PeekConfirmed is Peek, whatever it costs.
	PeekConfirmed(ctx context.Context, max int) ([]*Delivery, error)
}

// QueueSpec is what Ensure makes true. The zero value is usable: what it doesn't
// name is the service's default for a new queue, and isn't compared with an
// existing one.
type QueueSpec struct {
	Ordered    bool
	Lease      time.Duration // default: the service's
	Retention  time.Duration // default: the service's; for a dead-letter queue the longest there is
	DeadLetter string        // name of the dead-letter queue, ensured first; empty: none
	// BrokerMaxAttempts is the broker's own limit, as a net below the
	// library's policies; 0: none. What the broker doesn't allow becomes the
	// nearest that it does, and the report says so.
	BrokerMaxAttempts int
	IsDeadLetter      bool

	// DeadLetterSpec says more about the dead-letter queue: of it, Lease, Retention and
	// Tags count. Default: the same Tags, and what else a dead-letter queue gets.
	DeadLetterSpec *QueueSpec

	// Tags are labels for people, searches and bills: SQS's tags, Pub/Sub's
	// labels. Others that the queue has are left.
	Tags map[string]string

	// Update changes what exists, as far as the broker can. Otherwise how it
	// differs is only reported.
	Update bool
	DryRun bool // report only
}

// EnsureReport tells what Ensure did, or would do, in words.
type EnsureReport struct {
	Created     []string
	Changed     []string
	Differences []string // left as they are
	// Warnings are what Ensure can't set right, or can't see: permissions that others
	// have to grant.
	Warnings []string
}
