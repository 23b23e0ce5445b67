package queuetest

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// leaseLostRules hold the engine to what it does when the broker has taken a
// delivery away from a running handler.
func leaseLostRules() []rule {
	return []rule{
		{"TheHandlerIsToldByItsContext", "somebody else may have the message: to go on is waste, or harm", true, lostTellsHandler},
		{"AFailureAfterALostLeaseIsNotSettled", "only the new owner's word counts now", false, lostFailureNotSettled},
		{"ASuccessAfterALostLeaseIsAcknowledged", "if nobody has taken the message yet, this keeps it from being done again", false, lostSuccessAcked},
		{"ADecisionAfterALostLeaseIsNotSettled", "a release by the old owner would take the message from the new one", false, lostSnoozeNotSettled},
		{"OneLostLeaseLeavesTheOthersAlone", "leases are renewed together, and lost one by one", false, lostAlone},
		{"ALostLeaseIsNoFailure", "the work wasn't found to be bad", false, lostIsNoFailure},
	}
}

// losing returns a queue on which the broker takes the first delivery of each
// message named by lose away when its lease is renewed. The broker doesn't
// really take it: its lease runs out, as nobody extends it.
func (e *env) losing(q queue.Queue, lose string) *faultQueue {
	f := newFaultQueue(q)
	var gone atomic.Bool
	f.extend = func(ctx context.Context, d time.Duration, ds []*queue.Delivery, next extendFunc) ([]time.Time, error) {
		return extendSome(ctx, d, ds, next, func(d *queue.Delivery) error {
			if f.name(d) == lose && gone.CompareAndSwap(false, true) {
				return queue.ErrLeaseLost
			}
			return nil
		})
	}
	return f
}

func lostTellsHandler(e *env) {
	q := e.open()
	f := e.losing(q, "m")
	r := e.recorder()
	var why causes
	var told atomic.Int32
	c := e.consume(f, r.handle(func(ctx context.Context, _ *queue.Delivery, nth int) error {
		if nth > 1 {
			return nil
		}
		why.untilDone(ctx)
		if !errors.Is(ctx.Err(), context.Canceled) {
			e.Errorf("ctx.Err() is %v, want context.Canceled", ctx.Err())
		}
		if _, err := queue.ExtendLease(ctx, e.lease); !errors.Is(err, queue.ErrLeaseLost) {
			e.Errorf("ExtendLease with a lost lease: %v", err)
		}
		return ctx.Err()
	}), func(o *queue.ConsumerOptions) {
		o.Hooks.LeaseLost = func(d *queue.Delivery) { told.Add(1) }
	})
	e.publish(q, text("m"))
	calls := r.awaitEnds("m", 2)
	c.stop()
	e.wantErr(why.first(), queue.ErrLeaseLost, "the cause of the handler's context")
	e.between("until the handler was told", calls[0].end.Sub(calls[0].start), 0, e.lease)
	equal(e, "calls of the hook LeaseLost", told.Load(), 1)
	equal(e, "Stats().LeasesLost", c.Stats().LeasesLost, 1)
	e.expectGone(q)
}

func lostFailureNotSettled(e *env) { e.lostIsNotSettled(errWork) }

func lostSnoozeNotSettled(e *env) {
	e.lostIsNotSettled(queue.Snooze(0))
	e.lostIsNotSettled(queue.RetryAfter(0, errWork))
}

// lostIsNotSettled returns err from a handler that has lost its lease.
func (e *env) lostIsNotSettled(err error) {
	e.Helper()
	q := e.open()
	f := e.losing(q, "m")
	r := e.recorder()
	c := e.consume(f, r.handle(func(ctx context.Context, _ *queue.Delivery, nth int) error {
		if nth > 1 {
			return nil
		}
		<-ctx.Done()
		return err
	}))
	e.publish(q, text("m"))
	calls := r.awaitEnds("m", 2)
	c.stop()
	for _, s := range f.settlements("m") {
		if s.kind != queue.Ack || s.at.Before(calls[1].start) {
			e.Errorf("%v by the one that had lost the lease and returned %q", s.kind, err)
		}
	}
	if n := len(f.settlements("m")); n != 1 {
		e.Errorf("%d settlements, want one ack by the second delivery", n)
	}
	e.expectGone(q)
}

func lostSuccessAcked(e *env) {
	q := e.open()
	f := e.losing(q, "m")
	r := e.recorder()
	c := e.consume(f, r.handle(func(ctx context.Context, _ *queue.Delivery, _ int) error {
		<-ctx.Done()
		return nil
	}))
	e.publish(q, text("m"))
	call := r.awaitEnds("m", 1)[0]
	e.await("the ack", func() bool { return len(f.settlements("m")) > 0 })
	c.stop()
	if s := f.settlements("m"); len(s) != 1 || s[0].kind != queue.Ack || s[0].err != nil {
		e.Errorf("settlements: %+v, want one ack", s)
	}
	if !call.end.Before(call.d.Deadline) {
		e.Fatalf("the handler was told only at %v, when the lease had ended at %v", call.end, call.d.Deadline)
	}
	equal(e, "Stats().Succeeded", c.Stats().Succeeded, 1)
	e.expectGone(q)
	r.expect("m", 1)
}

func lostAlone(e *env) {
	q := e.open()
	f := e.losing(q, "m2")
	r := e.recorder()
	c := e.consume(f, r.handle(func(ctx context.Context, d *queue.Delivery, nth int) error {
		return linger(ctx, 3*e.lease)
	}))
	e.publishCount(q, "m", 5)
	r.awaitEnds("m2", 2)
	for _, name := range []string{"m0", "m1", "m3", "m4"} {
		if call := r.awaitEnds(name, 1)[0]; call.err != nil {
			e.Errorf("%q ended with %v", name, call.err)
		}
	}
	c.stop()
	e.expectGone(q)
	for _, name := range []string{"m0", "m1", "m3", "m4"} {
		r.expect(name, 1)
	}
	equal(e, "Stats().LeasesLost", c.Stats().LeasesLost, 1)
}

func lostIsNoFailure(e *env) {
	q := e.open()
	f := e.losing(q, "m")
	r := e.recorder()
	c := e.consume(f, r.handle(func(ctx context.Context, _ *queue.Delivery, nth int) error {
		switch nth {
		case 1:
			<-ctx.Done()
			return ctx.Err()
		case 2:
			return errWork
		}
		return nil
	}))
	e.publish(q, text("m"))
	calls := r.awaitEnds("m", 3)
	c.stop()
	equal(e, "Failures after a lost lease", calls[1].d.Failures, 0)
	equal(e, "Failures after a lost lease and a failure", calls[2].d.Failures, 1)
	if s := c.outcomes(); !s[0].Interrupted {
		e.Errorf("Settled was told %+v, want an interruption", s[0])
	}
	equal(e, "Stats().Interrupted", c.Stats().Interrupted, 1)
}
