package queuetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// leaseRules hold the engine to keeping leases as long as handlers run, and no
// longer.
func leaseRules() []rule {
	return []rule{
		{"ASlowHandlerRunsOnce", "the lease is kept while the handler runs: nobody else gets the message", true, slowHandlerOnce},
		{"ManySlowHandlersRunOnce", "all leases are kept at once, in more than one request where need be", false, manySlowHandlers},
		{"TheLeaseEndsAtMaxExtension", "a handler that hangs must not hide its message for ever: it has failed, while that can still be settled", false, maxExtension},
		{"ExtendLeaseAsksForMore", "work that is known to take long can say so", false, extendLease},
		{"LeaseDeadlineIsLive", "a handler can plan by what's really left", false, leaseDeadlineLive},
		{"OutsideOfAHandlerThereIsNoLease", "a mistake is told, not ignored", false, noLeaseOutside},
		{"TheBrokersOwnMaximumEndsTheLease", "what the broker doesn't extend can't be kept; the handler is told in time", false, brokersMaximum},
		{"AFailedExtensionIsTriedAgain", "one lost call must not cost the lease", false, extensionHeals},
		{"AnExtensionNeverOverwritesABackoff", "a late renewal after a release would hide the message longer, or shorter, than decided", false, extensionBeforeSettle},
		{"NoHandlerStartsOnAnExpiredLease", "somebody else has the message by then", false, expiredNeverStarts},
		{"WhatWaitsForASlotKeepsItsLease", "a message in our hands isn't handled twice because a slot took long", false, waitingKeepsLease},
	}
}

func slowHandlerOnce(e *env) {
	q := e.open()
	r := e.recorder()
	slow := r.handle(func(ctx context.Context, _ *queue.Delivery, _ int) error {
		return linger(ctx, time.Duration(pick(e.h.long(), 5, 3))*e.lease)
	})
	one, two := e.consume(q, slow), e.consume(e.again(q), slow)
	e.publish(q, text("m"))
	call := r.awaitEnds("m", 1)[0]
	one.stop()
	two.stop()
	if call.err != nil {
		e.Errorf("the handler's context ended: %v", call.err)
	}
	e.expectGone(q)
	r.expect("m", 1)
}

func manySlowHandlers(e *env) {
	q := e.open()
	const n = 27
	r := e.recorder()
	slow := r.handle(func(ctx context.Context, _ *queue.Delivery, _ int) error {
		return linger(ctx, 5*e.lease/2)
	})
	e.publishCount(q, "m", n)
	one := e.consume(q, slow, concurrency(n))
	r.awaitStarts("", n)
	two := e.consume(e.again(q), slow)
	r.awaitAll("m", n)
	one.stop()
	two.stop()
	for _, call := range r.all() {
		if call.nth > 1 || call.err != nil {
			e.Errorf("%q: call %d ended with %v", call.name, call.nth, call.err)
		}
	}
	e.expectGone(q)
}

// causes collects why contexts of handlers ended.
type causes struct {
	mu  sync.Mutex
	got []error
}

// untilDone waits for the end of ctx and notes its cause.
func (c *causes) untilDone(ctx context.Context) {
	<-ctx.Done()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = append(c.got, context.Cause(ctx))
}

func (c *causes) first() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.got) == 0 {
		return nil
	}
	return c.got[0]
}

func maxExtension(e *env) {
	q := e.open()
	r := e.recorder()
	var why causes
	most := e.lease*2 + e.lease/2
	c := e.consume(q, r.handle(func(ctx context.Context, _ *queue.Delivery, nth int) error {
		if nth > 1 {
			return nil
		}
		why.untilDone(ctx)
		return ctx.Err()
	}), func(o *queue.ConsumerOptions) { o.MaxExtension = most })
	e.publish(q, text("m"))
	calls := r.awaitEnds("m", 2)
	c.stop()
	e.wantErr(why.first(), context.DeadlineExceeded, "the cause of the handler's context")
	e.between("the first call", calls[0].end.Sub(calls[0].start), most-2*e.lease/5, most)
	equal(e, "Failures after a handler that hung", calls[1].d.Failures, 1)
	r.expect("m", 2)
	equal(e, "Stats().LeasesLost", c.Stats().LeasesLost, 0)
	equal(e, "Stats().Failed", c.Stats().Failed, 1)
	e.expectGone(q)
}

func extendLease(e *env) {
	q := e.open()
	r := e.recorder()
	most := 2 * e.lease
	work := 4 * e.lease
	two := e.again(q)
	h := r.handle(func(ctx context.Context, _ *queue.Delivery, _ int) error {
		begun := time.Now()
		at, err := queue.ExtendLease(ctx, work+e.lease)
		if err != nil {
			e.Errorf("ExtendLease: %v", err)
		}
		caps := q.Capabilities()
		if caps.MaxExtension == 0 || caps.MaxExtension >= work+e.lease {
			e.between("the lease that ExtendLease granted", at.Sub(begun), work+e.lease-time.Second, work+e.lease)
		}
		if _, err := queue.ExtendLease(ctx, -time.Second); !errors.Is(err, queue.ErrInvalid) {
			e.Errorf("ExtendLease by a negative time: %v", err)
		}
		return linger(ctx, work)
	})
	limit := func(o *queue.ConsumerOptions) { o.MaxExtension = most }
	c, other := e.consume(q, h, limit), e.consume(two, h, limit)
	e.publish(q, text("m"))
	call := r.awaitEnds("m", 1)[0]
	c.stop()
	other.stop()
	if call.err != nil {
		e.Errorf("the handler's context ended after %v: %v", call.end.Sub(call.start), call.err)
	}
	e.expectGone(q)
	r.expect("m", 1)
}

func leaseDeadlineLive(e *env) {
	q := e.open()
	r := e.recorder()
	c := e.consume(q, r.handle(func(ctx context.Context, d *queue.Delivery, _ int) error {
		first, ok := queue.LeaseDeadline(ctx)
		if !ok || !first.Equal(d.Deadline) {
			e.Errorf("LeaseDeadline at the start is %v (%v), Delivery.Deadline %v", first, ok, d.Deadline)
		}
		// Contexts that are made from it carry the lease too.
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for range 6 {
			if err := linger(ctx, e.lease/3); err != nil {
				return err
			}
			if at, ok := queue.LeaseDeadline(ctx); !ok || !at.After(time.Now()) {
				e.Errorf("LeaseDeadline is %v (%v) at %v, in a handler whose lease is kept", at, ok, time.Now())
			}
		}
		if last, _ := queue.LeaseDeadline(ctx); !last.After(first) {
			e.Errorf("LeaseDeadline is still %v after two leases", last)
		}
		if !d.Deadline.Equal(first) {
			e.Errorf("Delivery.Deadline moved to %v", d.Deadline)
		}
		return nil
	}))
	e.publish(q, text("m"))
	r.awaitEnds("m", 1)
	c.stop()
	r.expect("m", 1)
}

func noLeaseOutside(e *env) {
	if _, ok := queue.LeaseDeadline(e.ctx); ok {
		e.Error("LeaseDeadline outside of a handler reports a lease")
	}
	_, err := queue.ExtendLease(e.ctx, time.Minute)
	e.wantErr(err, queue.ErrUnsupported, "ExtendLease outside of a handler")
	// After its handler has returned, a context has no lease to extend.
	q := e.open()
	ctxs := make(chan context.Context, 1)
	c := e.consume(q, func(ctx context.Context, _ *queue.Delivery) error {
		ctxs <- ctx
		return nil
	})
	e.publish(q, text("m"))
	ctx := <-ctxs
	c.stop()
	_, err = queue.ExtendLease(ctx, time.Minute)
	e.wantErr(err, queue.ErrLeaseLost, "ExtendLease after the handler has returned")
}

// brokersMaximum runs a handler for longer than a broker keeps any lease.
func brokersMaximum(e *env) {
	q := e.open()
	most := q.Capabilities().MaxLease
	r := e.recorder()
	var why causes
	work := 13 * time.Hour
	c := e.consume(q, r.handle(func(ctx context.Context, _ *queue.Delivery, nth int) error {
		if nth > 1 {
			return nil
		}
		if most > 0 {
			why.untilDone(ctx)
			return ctx.Err()
		}
		return linger(ctx, work)
	}), func(o *queue.ConsumerOptions) { o.MaxExtension = 24 * time.Hour })
	e.publish(q, text("m"))
	if !e.eventually(2*work, func() bool { return r.finished() >= 1 }) {
		e.Fatalf("the handler hasn't ended after %v", 2*work)
	}
	if most == 0 {
		c.stop()
		r.expect("m", 1)
		return
	}
	calls := r.awaitEnds("m", 2)
	c.stop()
	e.wantErr(why.first(), context.DeadlineExceeded, "the cause of the handler's context")
	e.between("the first call", calls[0].end.Sub(calls[0].start), most-time.Minute, most)
	e.expectGone(q)
}

func extensionHeals(e *env) {
	q := e.open()
	f := newFaultQueue(q)
	var mu sync.Mutex
	n := 0
	f.extend = func(ctx context.Context, d time.Duration, ds []*queue.Delivery, next extendFunc) ([]time.Time, error) {
		mu.Lock()
		n++
		fail := n%2 == 1
		mu.Unlock()
		if fail && n%4 == 1 {
			return nil, errFault // the whole call
		}
		return extendSome(ctx, d, ds, next, func(*queue.Delivery) error {
			if fail {
				return errFault
			}
			return nil
		})
	}
	r := e.recorder()
	slow := r.handle(func(ctx context.Context, _ *queue.Delivery, _ int) error { return linger(ctx, 4*e.lease) })
	c, other := e.consume(f, slow), e.consume(e.again(q), slow)
	other.Pause()
	e.publishCount(q, "m", 3)
	r.awaitStarts("", 3)
	other.Resume()
	r.awaitAll("m", 3)
	c.stop()
	other.stop()
	mu.Lock()
	defer mu.Unlock()
	if n < 4 {
		e.Fatalf("Extend was called %d times in four leases", n)
	}
	for _, call := range r.all() {
		if call.nth > 1 || call.err != nil {
			e.Errorf("%q: call %d ended with %v", call.name, call.nth, call.err)
		}
	}
}

// extensionBeforeSettle makes every extension slow, and lets the handler fail
// while one is under way.
func extensionBeforeSettle(e *env) {
	q := e.open()
	f := newFaultQueue(q)
	begun := make(chan struct{}, 1)
	var mu sync.Mutex
	open := 0
	f.extend = func(ctx context.Context, d time.Duration, ds []*queue.Delivery, next extendFunc) ([]time.Time, error) {
		mu.Lock()
		open++
		mu.Unlock()
		select {
		case begun <- struct{}{}:
		default:
		}
		_ = linger(ctx, e.lease/10)
		granted, err := next(ctx, d, ds...)
		mu.Lock()
		open--
		mu.Unlock()
		return granted, err
	}
	f.settle = func(ctx context.Context, s []queue.Settlement, next settleFunc) error {
		mu.Lock()
		if open > 0 {
			e.Error("a delivery is settled while its extension is under way")
		}
		mu.Unlock()
		return next(ctx, s...)
	}
	r := e.recorder()
	c := e.consume(f, r.handle(func(ctx context.Context, _ *queue.Delivery, nth int) error {
		if nth > 1 {
			return nil
		}
		select {
		case <-begun:
			return errWork
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}), backoff(2*e.unit, 2*e.unit))
	e.publish(q, text("m"))
	calls := r.awaitEnds("m", 2)
	c.stop()
	e.between("coming back after a failure", calls[1].start.Sub(calls[0].end), 2*e.unit-e.early(), 2*e.unit+e.lease/10)
	e.expectGone(q)
}

func expiredNeverStarts(e *env) {
	q := e.open()
	f := newFaultQueue(q)
	var once sync.Once
	f.receive = func(ctx context.Context, most int, next receiveFunc) ([]*queue.Delivery, error) {
		ds, err := next(ctx, most)
		if len(ds) > 0 {
			once.Do(func() { e.quiet(e.lease + e.unit) }) // an answer that took too long
		}
		return ds, err
	}
	r := e.recorder() // its handlers check the lease
	e.publishCount(q, "m", 3)
	c := e.consume(f, r.ok())
	r.awaitAll("m", 3)
	c.stop()
	for i := range 3 {
		r.expect(fmt.Sprint("m", i), 1)
	}
	if c.Stats().Expired == 0 {
		e.Error("Stats().Expired is 0; the first receive was late")
	}
	for _, call := range r.all() {
		equal(e, "Failures of "+call.name, call.d.Failures, 0)
	}
	e.expectGone(q)
}

func waitingKeepsLease(e *env) {
	q := e.open()
	f := hoard(q, 6)
	r := e.recorder()
	e.publishCount(q, "m", 6)
	// The handlers take long; what's received beside them waits or goes back,
	// but never runs beside itself.
	c := e.consume(f, r.handle(func(ctx context.Context, _ *queue.Delivery, _ int) error {
		return linger(ctx, e.lease)
	}), concurrency(2))
	r.awaitAll("m", 6)
	c.stop()
	for i := range 6 {
		r.expect(fmt.Sprint("m", i), 1)
	}
	e.expectGone(q)
}
