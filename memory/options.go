package memory

import (
	"fmt"
	"time"

	"github.com/anyqueue/anyqueue/internal/broker"
	"github.com/anyqueue/anyqueue/queue"
)

// Like says whose limits and semantics a Broker has.
type Like int

const (
	// Portable is what works on every backend: the strictest limits of all, and
	// an ordered queue locks a key while a message of it is being handled.
	Portable Like = iota
	// SQSStandard is a standard queue of Amazon SQS.
	SQSStandard
	// SQSFIFO is a FIFO queue of Amazon SQS.
	SQSFIFO
	// PubSub is a topic of Google Cloud Pub/Sub with one subscription.
	PubSub
)

func (l Like) String() string {
	if l < 0 || int(l) >= len(personalities) {
		return fmt.Sprintf("Like(%d)", int(l))
	}
	return personalities[l].name
}

// Options are the settings of a Broker. The zero value is usable.
type Options struct {
	// Like says whose limits and semantics to have. Default: Portable.
	Like Like

	// Create makes Open create a queue that doesn't exist. Without it that's
	// queue.ErrQueueNotFound, as on the other backends, and Ensure creates
	// queues.
	Create bool

	// Lease is how long a delivery is the receiver's before it must be
	// extended, unless Ensure or Open say otherwise. Default: 30 s; like
	// Pub/Sub 10 s.
	Lease time.Duration

	// Retention is how long a queue keeps a message, unless Ensure says
	// otherwise. Default: for ever; like SQS 4 days, like Pub/Sub 7 days.
	Retention time.Duration

	// MaxMessages and MaxBytes bound each queue: Publish fails with
	// queue.ErrFull beyond. Messages that are being handled count, bytes are
	// those of bodies and attributes. Default: unbounded.
	MaxMessages int
	MaxBytes    int64

	// Duplicate and Reorder are the probabilities, from 0 to 1, with which a
	// message without an ordering key is delivered twice, and with which it's
	// passed over by a later one. Default: 0; SQS standard and Pub/Sub do both.
	Duplicate float64
	Reorder   float64

	// Seed makes what is random (Duplicate, Reorder and the ids) the same in each run.
	// Default: random.
	Seed uint64
}

func (o *Options) validate() error {
	for _, f := range []struct {
		name string
		bad  bool
		want string
	}{
		{"Like", o.Like < 0 || int(o.Like) >= len(personalities), "unknown"},
		{"Lease", o.Lease < 0, "negative"},
		{"Retention", o.Retention < 0, "negative"},
		{"MaxMessages", o.MaxMessages < 0, "negative"},
		{"MaxBytes", o.MaxBytes < 0, "negative"},
		{"Duplicate", !(o.Duplicate >= 0 && o.Duplicate <= 1), "must be from 0 to 1"},
		{"Reorder", !(o.Reorder >= 0 && o.Reorder <= 1), "must be from 0 to 1"},
	} {
		if f.bad {
			return &queue.InvalidError{Field: "memory.Options." + f.name, Reason: f.want}
		}
	}
	p := &personalities[o.Like]
	if err := p.checkLease(o.Lease); err != nil {
		return err
	}
	return p.checkRetention(o.Retention)
}

// personality has what differs between the kinds of Like.
type personality struct {
	name   string
	system string // whose options a message may have, and whose name errors give
	wire   func() queue.Wire

	lease                    time.Duration
	minLease, maxLease       time.Duration // that can be asked for; 0: any
	leaseUnit                time.Duration
	retention, deadRetention time.Duration
	minRetention             time.Duration // and deadRetention is the longest
	maxReceive, maxSettle    int
	poll                     time.Duration // how long Receive waits; 0: until it's ended
	maxInFlight              int

	alwaysOrdered bool
	neverOrdered  bool
	looseOrdered  bool // an ordered queue may be opened without saying so
	ordered       broker.Ordering
	dedup         time.Duration
	delays        bool          // of one message, by hops if need be
	maxDelay      time.Duration // native
	delayUnit     time.Duration
	maxTotal      time.Duration // of a lease with its extensions
	maxExtension  time.Duration
	maxRedelivery time.Duration

	attempts     queue.AttemptCount
	byReturns    bool // attempts are counted when they fail, and only with a dead-letter policy
	minDead      int  // limits of the broker's own dead-letter policy
	maxDead      int
	silentAck    bool // acknowledging after the lease was lost succeeds, without effect
	silentExtend bool // and so does all else
	allOrNothing bool // a publish that fails, fails as a whole
	purgeEvery   time.Duration
	approximate  bool // statistics
	noAge        bool // no age of the oldest message
}

const day = 24 * time.Hour

var personalities = [...]personality{
	Portable: {
		name: "Portable", system: "memory", wire: queue.PortableWire,
		lease: 30 * time.Second, ordered: broker.OneByOne,
		delays: true, maxDelay: broker.MaxDelay, attempts: queue.AttemptsExact,
	},
	SQSStandard: {
		name: "SQSStandard", system: "aws_sqs", wire: queue.SQSWire,
		lease: 30 * time.Second, minLease: time.Second, maxLease: 12 * time.Hour, leaseUnit: time.Second,
		retention: 4 * day, minRetention: time.Minute, deadRetention: 14 * day,
		maxReceive: 10, maxSettle: 10, poll: 20 * time.Second, maxInFlight: 120_000,
		neverOrdered: true, delays: true, maxDelay: 15 * time.Minute, delayUnit: time.Second,
		maxTotal: 12 * time.Hour, maxExtension: 12 * time.Hour, maxRedelivery: 12 * time.Hour,
		attempts: queue.AttemptsApproximate, maxDead: 1000,
		silentAck: true, purgeEvery: time.Minute, approximate: true, noAge: true,
	},
	SQSFIFO: {
		name: "SQSFIFO", system: "aws_sqs", wire: queue.SQSWire,
		lease: 30 * time.Second, minLease: time.Second, maxLease: 12 * time.Hour, leaseUnit: time.Second,
		retention: 4 * day, minRetention: time.Minute, deadRetention: 14 * day,
		maxReceive: 10, maxSettle: 10, poll: 20 * time.Second, maxInFlight: 120_000,
		alwaysOrdered: true, ordered: broker.Grouped, dedup: 5 * time.Minute,
		maxTotal: 12 * time.Hour, maxExtension: 12 * time.Hour, maxRedelivery: 12 * time.Hour,
		attempts: queue.AttemptsApproximate, maxDead: 1000,
		purgeEvery: time.Minute, approximate: true, noAge: true,
	},
	PubSub: {
		name: "PubSub", system: "gcp_pubsub", wire: queue.PubSubWire,
		lease: 10 * time.Second, minLease: 10 * time.Second, maxLease: 10 * time.Minute, leaseUnit: time.Second,
		retention: 7 * day, minRetention: 10 * time.Minute, deadRetention: 31 * day,
		maxReceive: 1000, maxSettle: 1000, poll: 20 * time.Second,
		looseOrdered: true, ordered: broker.Resend, delays: true,
		maxExtension: 10 * time.Minute, maxRedelivery: 10 * time.Minute,
		attempts: queue.AttemptsApproximate, byReturns: true, minDead: 5, maxDead: 100,
		silentAck: true, silentExtend: true, allOrNothing: true, approximate: true,
	},
}

func (p *personality) checkLease(d time.Duration) error {
	switch {
	case d == 0:
		return nil
	case d < 0:
		return &queue.InvalidError{Field: "lease", Reason: "negative"}
	case p.maxLease > 0 && (d < p.minLease || d > p.maxLease):
		return &queue.InvalidError{Field: "lease", Reason: fmt.Sprintf("%v isn't from %v to %v, as on %s", d, p.minLease, p.maxLease, p.system)}
	case p.leaseUnit > 0 && d%p.leaseUnit != 0:
		return &queue.InvalidError{Field: "lease", Reason: fmt.Sprintf("%v isn't in whole seconds, as on %s", d, p.system)}
	}
	return nil
}

func (p *personality) checkRetention(d time.Duration) error {
	switch {
	case d == 0:
		return nil
	case d < 0:
		return &queue.InvalidError{Field: "retention", Reason: "negative"}
	case p.deadRetention > 0 && (d < p.minRetention || d > p.deadRetention):
		return &queue.InvalidError{Field: "retention", Reason: fmt.Sprintf("%v isn't from %v to %v, as on %s", d, p.minRetention, p.deadRetention, p.system)}
	}
	return nil
}

// capabilities of a queue; b.mu is held.
func (b *Broker) capabilities(q *core) queue.Capabilities {
	p := b.like
	c := queue.Capabilities{
		Source: q.source, Address: addressPrefix + q.name, Wire: q.wire,
		MaxReceive: p.maxReceive, MaxSettle: p.maxSettle,
		MaxLease: p.maxTotal, MaxExtension: p.maxExtension,
		Delays: p.delays, MaxDelay: p.maxDelay, DelayUnit: p.delayUnit,
		MaxRedeliveryDelay: p.maxRedelivery, Retention: q.spec.retention,
		Ordering:  q.spec.ordered,
		KeyLocked: q.spec.ordered && p.ordered != broker.Resend,
		Dedup:     p.dedup > 0,
		Attempts:  p.attempts, ReleaseCounts: true,
		BrokerMaxAttempts: q.spec.deadAfter,
		SettleConfirmed:   !p.silentAck,
		CancelSafe:        true,
	}
	if p.byReturns && q.spec.deadAfter == 0 {
		c.Attempts = queue.AttemptsUnknown
	}
	if q.spec.ordered && p.ordered == broker.OneByOne {
		// What a FIFO queue of SQS can't do isn't portable.
		c.Delays, c.MaxDelay = false, 0
	}
	return c
}
