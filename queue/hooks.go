package queue

import (
	"runtime/debug"
	"time"
)

// Hooks are functions that a Consumer calls as things happen. Each may be nil.
// They are called concurrently and must not block, panic or end their goroutine;
// what they're given is only theirs to read, and only until they return. Middleware
// that has a method Hooks() *Hooks adds its own.
type Hooks struct {
	// Settled is called after a handler has returned and its outcome is
	// decided, before the broker is told.
	Settled func(Settled)

	// SettleFailed is called when the broker didn't take a settlement; retrying
	// says whether it's tried again.
	SettleFailed func(d *Delivery, kind SettleKind, err error, retrying bool)

	// LeaseLost is called when a lease was lost while its handler ran.
	LeaseLost func(d *Delivery)

	// Received is called after each receive, before what it has brought is handled.
	Received func(Received)

	// SettleCalled is called after each call to Subscriber.Settle, ExtendCalled after
	// each to Extend.
	SettleCalled func(SettleCall)
	ExtendCalled func(ExtendCall)

	// LogsDeliveries says that these hooks log what becomes of each delivery,
	// so that the consumer's own lines about it are left out.
	LogsDeliveries bool
}

// Settled tells what became of one delivery.
type Settled struct {
	Delivery *Delivery
	Outcome  Outcome
	Err      error
	Took     time.Duration // of the handler
	Waited   time.Duration // from the receive to the handler's start
	// Interrupted says that a shutdown or a lost lease cut the handler short:
	// the delivery comes back without counting as a failure.
	Interrupted bool
	// Unroutable says that the delivery was rejected and has no dead-letter
	// queue: it comes back at the maximum backoff.
	Unroutable bool
	Failures   int           // with this one
	Delay      time.Duration // until it comes back, when it does
	GiveUp     GiveUp        // policy of the consumer's middleware, if any
	GivesUpIn  time.Duration // by age; 0: not by age, or now due
}

// Received tells of one receive.
type Received struct {
	Asked      int         // at most so many
	Deliveries []*Delivery // what it has brought
	Began      time.Time
	Took       time.Duration // an empty one has mostly waited
	Err        error
}

// SettleCall tells of one call to Subscriber.Settle.
type SettleCall struct {
	Acks, Releases, Defers int
	Failed                 int // of all of these
	Began                  time.Time
	Took                   time.Duration
	Err                    error
}

// ExtendCall tells of one call to Subscriber.Extend.
type ExtendCall struct {
	Leases, Failed int
	Began          time.Time
	Took           time.Duration
	Err            error
}

// tellReceived calls the hooks. The consumer's lock isn't held.
func (c *Consumer) tellReceived(r Received) {
	for _, h := range c.hooks {
		if h.Received != nil {
			c.guard(func() { h.Received(r) })
		}
	}
}

func (c *Consumer) tellSettleCall(batch []Settlement, began time.Time, err error) {
	if len(c.hooks) == 0 {
		return
	}
	call := SettleCall{Began: began, Took: time.Since(began), Err: err}
	for i := range batch {
		switch batch[i].Kind {
		case Ack:
			call.Acks++
		case Release:
			call.Releases++
		case Defer:
			call.Defers++
		}
	}
	call.Failed = countErrors(err, len(batch))
	for _, h := range c.hooks {
		if h.SettleCalled != nil {
			c.guard(func() { h.SettleCalled(call) })
		}
	}
}

func (c *Consumer) tellExtendCall(leases int, began time.Time, err error) {
	if len(c.hooks) == 0 {
		return
	}
	call := ExtendCall{Leases: leases, Failed: countErrors(err, leases), Began: began, Took: time.Since(began), Err: err}
	for _, h := range c.hooks {
		if h.ExtendCalled != nil {
			c.guard(func() { h.ExtendCalled(call) })
		}
	}
}

func countErrors(err error, n int) int {
	failed := 0
	for _, e := range settleErrors(err, n) {
		if e != nil {
			failed++
		}
	}
	return failed
}

// guard keeps a hook that panics from ending the process.
func (c *Consumer) guard(hook func()) {
	defer func() {
		if p := recover(); p != nil {
			c.opts.Logger.Error("a hook panicked", "queue", c.opts.Name, "err", p, "stack", string(debug.Stack()))
		}
	}()
	hook()
}
