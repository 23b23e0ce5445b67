package queuetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// drainRules hold the end of Run to what a shutdown needs.
func drainRules() []rule {
	return []rule{
		{"RunningHandlersFinish", "a deployment isn't seen by the work that's under way", true, drainFinishes},
		{"AShutdownAsSuchDoesNotCancelHandlers", "handlers that obey their context would fail for nothing", false, drainDoesNotCancel},
		{"WhatWasNotStartedIsGivenBackAtOnce", "others go on with it at once, not when a lease ends", false, drainGivesBack},
		{"AfterDrainTimeoutHandlersAreCancelled", "the platform kills what takes longer", true, drainCancels},
		{"WhatWasCutShortComesBackAtOnce", "it's given back when its handler has returned", false, cutShortComesBack},
		{"AHandlerThatIgnoresItsContextIsNamed", "every wait ends, and whoever looks must know what hung", true, drainAbandons},
		{"WhatWasAbandonedIsNotSettled", "no second delivery beside a running handler by our own doing; when its lease ends it comes back", false, abandonedNotSettled},
		{"WhatAnOpenReceiveStillBringsIsGivenBack", "the broker has handed it over: nobody else could have it until its lease ends", false, lateReceiveGivenBack},
		{"SettlementsAreFlushed", "what was handled is acknowledged before Run returns", true, drainFlushes},
		{"AnAckBehindAnExtensionIsFlushed", "a handler may return just as its lease is being renewed; its ack must not get lost by that", false, drainFlushesBehindExtension},
		{"ADrainWaitsForFailingSettlements", "a broker that's back in a moment mustn't cost repeats", false, drainRetriesSettlements},
		{"ABrokerThatIsGoneDoesNotHoldUpADrain", "every wait ends, also for settlements", false, drainWithoutBroker},
		{"AnIdleDrainIsQuick", "nothing to wait for, nothing waited", false, idleDrain},
		{"LeasesAreKeptDuringADrain", "a handler that finishes within the drain must not run twice", false, drainKeepsLeases},
	}
}

func drainFinishes(e *env) {
	q := e.open()
	e.publishCount(q, "m", 12)
	r := e.recorder()
	hold := e.latch()
	c := e.consume(q, r.handle(func(ctx context.Context, _ *queue.Delivery, _ int) error { return hold.obey(ctx) }), concurrency(4))
	r.awaitStarts("", 4)
	c.cancel()
	e.await("a drain", func() bool { return c.Stats().Draining })
	e.quiet(e.unit / 2)
	equal(e, "handlers running in a drain", r.inUse(), 4)
	hold.open()
	c.stop()
	equal(e, "handlers started in a drain, beyond those that ran", r.started("")-4, 0)
	for _, call := range r.all() {
		if call.err != nil {
			e.Errorf("%q ended with %v", call.name, call.err)
		}
	}
	if s := c.Stats(); s.Running || s.Draining || s.Succeeded != 4 {
		e.Errorf("Stats after the drain: %+v", s)
	}
	// The four are done, the eight are there, and nothing else.
	rest := e.recorder()
	c2 := e.consume(q, rest.ok())
	e.await("the rest", func() bool { return rest.finished() == 8 })
	c2.stop()
	e.expectGone(q)
	for _, call := range rest.all() {
		if r.started(call.name) > 0 {
			e.Errorf("%q was handled before and after the drain", call.name)
		}
	}
}

func drainDoesNotCancel(e *env) {
	q := e.open()
	r := e.recorder()
	limit := e.longer(10*time.Minute, 4*e.unit)
	c := e.consume(q, r.handle(func(ctx context.Context, _ *queue.Delivery, _ int) error {
		return linger(ctx, limit/2)
	}), drainTimeout(limit))
	e.publish(q, text("m"))
	r.awaitStarts("m", 1)
	begun := time.Now()
	c.stop()
	e.between("the drain", time.Since(begun), 0, limit/2)
	if call := r.of("m")[0]; call.err != nil {
		e.Errorf("the handler's context ended after %v: %v", call.end.Sub(call.start), call.err)
	}
	e.expectGone(q)
}

func drainGivesBack(e *env) {
	q := e.open()
	f := hoard(q, 8)
	e.publishCount(q, "m", 8)
	r := e.recorder()
	hold := e.latch()
	c := e.consume(f, r.handle(func(context.Context, *queue.Delivery, int) error {
		hold.wait()
		return nil
	}), concurrency(2))
	r.awaitStarts("", 2)
	other := e.recorder()
	oc := e.consume(e.again(q), other.ok())
	begun := time.Now()
	c.cancel()
	e.await("another consumer to get the rest", func() bool { return other.finished() == 6 })
	e.between("the rest", time.Since(begun), 0, e.lease/2)
	hold.open()
	c.stop()
	oc.stop()
	equal(e, "messages that the draining consumer started", r.started(""), 2)
	e.expectGone(q)
}

func drainCancels(e *env) {
	q := e.open()
	r := e.recorder()
	var why causes
	limit := 2 * e.unit
	c := e.consume(q, r.handle(func(ctx context.Context, _ *queue.Delivery, _ int) error {
		why.untilDone(ctx)
		return ctx.Err()
	}), drainTimeout(limit))
	e.publish(q, text("m"))
	r.awaitStarts("m", 1)
	begun := time.Now()
	c.stop()
	e.between("the drain", time.Since(begun), limit-e.early(), limit+time.Second)
	e.wantErr(why.first(), queue.ErrDraining, "the cause of the handler's context")
	equal(e, "Stats().Interrupted", c.Stats().Interrupted, 1)
	// A negative time cancels at once.
	c = e.consume(q, r.handle(func(ctx context.Context, _ *queue.Delivery, _ int) error {
		<-ctx.Done()
		return ctx.Err()
	}), drainTimeout(-1))
	r.awaitStarts("m", 2)
	begun = time.Now()
	c.stop()
	e.between("a drain that may not wait", time.Since(begun), 0, time.Second)
}

func cutShortComesBack(e *env) {
	q := e.open()
	r := e.recorder()
	slow := e.unit / 2 // what a handler needs to notice that it's over
	c := e.consume(q, r.handle(func(ctx context.Context, _ *queue.Delivery, _ int) error {
		<-ctx.Done()
		_ = linger(context.WithoutCancel(ctx), min(slow, 500*time.Millisecond))
		return ctx.Err()
	}), drainTimeout(e.unit))
	e.publishCount(q, "m", 3)
	r.awaitStarts("", 3)
	other := e.recorder()
	c.cancel()
	oc := e.consume(e.again(q), other.ok())
	c.stop()
	begun := time.Now()
	other.awaitAll("m", 3)
	e.between("what was cut short", time.Since(begun), 0, e.lease/2)
	oc.stop()
	for i := range 3 {
		name := fmt.Sprint("m", i)
		if first, second := r.of(name)[0], other.of(name)[0]; second.start.Before(first.end) {
			e.Errorf("%q was delivered again at %v, while its handler ran until %v", name, second.start, first.end)
		}
	}
}

func drainAbandons(e *env) {
	q := e.open()
	r := e.recorder()
	hold := e.latch()
	limit := e.unit
	c := e.consume(q, r.handle(func(_ context.Context, d *queue.Delivery, _ int) error {
		if string(d.Body) == "stubborn" {
			hold.wait()
		}
		return nil
	}), drainTimeout(limit))
	m := text("stubborn")
	m.ID = "the-stubborn-one"
	e.publish(q, m, text("good"))
	r.awaitStarts("stubborn", 1)
	r.awaitEnds("good", 1)
	begun := time.Now()
	err := c.stopErr()
	var ab *queue.AbandonedError
	if !errors.As(err, &ab) || !slices.Equal(ab.IDs, []string{"the-stubborn-one"}) {
		e.Errorf("Run returned %v, want an *AbandonedError that names the-stubborn-one", err)
	}
	e.between("the drain", time.Since(begun), limit-e.early(), limit+time.Second)
	equal(e, "Stats().InUse after the drain", c.Stats().InUse, 0)
	hold.open()
	e.await("the handler to return", func() bool { return r.inUse() == 0 })
	// It comes back, and only once its lease is over.
	other := e.recorder()
	oc := e.consume(e.again(q), other.ok())
	call := other.awaitEnds("stubborn", 1)[0]
	oc.stop()
	equal(e, "ID", call.d.ID, m.ID)
	other.expect("good", 0)
}

func abandonedNotSettled(e *env) {
	q := e.open()
	f := newFaultQueue(q)
	r := e.recorder()
	hold := e.latch()
	c := e.consume(f, r.handle(func(context.Context, *queue.Delivery, int) error {
		hold.wait()
		return nil
	}), drainTimeout(-1))
	e.publish(q, text("m"))
	r.awaitStarts("m", 1)
	if err := c.stopErr(); err == nil {
		e.Error("Run returned nil beside a running handler")
	}
	begun := time.Now()
	other := e.recorder()
	oc := e.consume(e.again(q), other.ok())
	other.awaitEnds("m", 1)
	oc.stop()
	e.between("coming back", time.Since(begun), 0, e.lease)
	hold.open()
	e.await("the handler to return", func() bool { return r.inUse() == 0 })
	e.quiet(e.unit)
	if s := f.settlements("m"); len(s) > 0 {
		e.Errorf("an abandoned delivery was settled: %+v", s)
	}
	// The consumer isn't broken by it.
	c.run()
	e.publish(q, text("next"))
	r.awaitEnds("next", 1)
	c.stop()
	e.expectGone(q)
}

func lateReceiveGivenBack(e *env) {
	q := e.open()
	f := newFaultQueue(q)
	open := make(chan struct{}, 1)
	let := e.latch()
	f.receive = func(ctx context.Context, most int, next receiveFunc) ([]*queue.Delivery, error) {
		select {
		case open <- struct{}{}:
			// An answer that's on its way when the drain begins.
			let.wait()
			return next(context.WithoutCancel(ctx), most)
		default:
			return next(ctx, most)
		}
	}
	e.publishCount(q, "m", 3)
	r := e.recorder()
	c := e.consume(f, r.ok())
	e.await("an open receive", func() bool { return len(open) == 1 })
	c.cancel()
	e.await("a drain", func() bool { return c.Stats().Draining })
	let.open()
	c.stop()
	equal(e, "handlers that were started", r.started(""), 0)
	begun := time.Now()
	other := e.recorder()
	oc := e.consume(q, other.ok())
	other.awaitAll("m", 3)
	e.between("what the late receive had brought", time.Since(begun), 0, e.lease/2)
	oc.stop()
	if s := c.Stats(); s.Received == 0 || s.Received != s.Released {
		e.Errorf("Stats: received %d, released %d", s.Received, s.Released)
	}
}

func drainFlushes(e *env) {
	q := e.open()
	const n = 30
	e.publishCount(q, "m", n)
	f := newFaultQueue(q)
	r := e.recorder()
	c := e.consume(f, r.ok())
	e.await("all messages to be handled", func() bool { return r.finished() == n })
	c.stop() // at once, without a linger
	if s := f.settlements(""); len(s) != n {
		e.Errorf("%d settlements were made before Run returned, want %d", len(s), n)
	}
	e.expectGone(q)
}

func drainFlushesBehindExtension(e *env) {
	q := e.open()
	f := newFaultQueue(q)
	begun := make(chan struct{})
	var once sync.Once
	f.extend = func(ctx context.Context, d time.Duration, ds []*queue.Delivery, next extendFunc) ([]time.Time, error) {
		once.Do(func() { close(begun) })
		_ = linger(ctx, e.lease/10)
		return next(ctx, d, ds...)
	}
	r := e.recorder()
	c := e.consume(f, r.handle(func(ctx context.Context, _ *queue.Delivery, _ int) error {
		select {
		case <-begun:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}))
	e.publish(q, text("m"))
	r.awaitStarts("m", 1)
	c.stop() // begins before the lease is renewed, and ends after
	if s := f.settlements("m"); len(s) != 1 || s[0].kind != queue.Ack || s[0].err != nil {
		e.Errorf("when Run had returned the settlements were %+v, want one ack", s)
	}
	e.expectGone(q)
	r.expect("m", 1)
}

func drainRetriesSettlements(e *env) {
	q := e.open()
	f := newFaultQueue(q)
	var mu sync.Mutex
	fails := 3
	f.settle = func(ctx context.Context, s []queue.Settlement, next settleFunc) error {
		mu.Lock()
		defer mu.Unlock()
		if fails > 0 {
			fails--
			return errFault
		}
		return next(ctx, s...)
	}
	e.publish(q, text("m"))
	r := e.recorder()
	c := e.consume(f, r.ok())
	r.awaitEnds("m", 1)
	c.stop()
	e.expectGone(q)
	r.expect("m", 1)
}

func drainWithoutBroker(e *env) {
	q := e.open()
	f := newFaultQueue(q)
	f.settle = func(context.Context, []queue.Settlement, settleFunc) error { return errFault }
	e.publish(q, text("m"))
	r := e.recorder()
	c := e.consume(f, r.ok())
	r.awaitEnds("m", 1)
	begun := time.Now()
	c.stop()
	// Settlements are tried again until the lease ends.
	e.between("a drain whose settlements all fail", time.Since(begun), 0, e.lease)
	again := e.recorder()
	oc := e.consume(q, again.ok())
	again.awaitEnds("m", 1) // nothing is lost by it
	oc.stop()
}

func idleDrain(e *env) {
	q := e.open()
	c := e.consume(q, e.recorder().ok())
	e.await("an open receive", func() bool { return c.Stats().ReceiveCalls > 0 })
	e.quiet(e.unit)
	begun := time.Now()
	c.stop()
	// An open receive has a second to end by itself.
	e.between("an idle drain", time.Since(begun), 0, queue.DefaultReceiveGrace)
}

func drainKeepsLeases(e *env) {
	q := e.open()
	r := e.recorder()
	slow := r.handle(func(ctx context.Context, _ *queue.Delivery, _ int) error { return linger(ctx, 3*e.lease) })
	c := e.consume(q, slow, drainTimeout(5*e.lease))
	e.publish(q, text("m"))
	r.awaitStarts("m", 1)
	other := e.recorder()
	oc := e.consume(e.again(q), other.ok())
	c.stop()
	oc.stop()
	e.expectGone(q)
	r.expect("m", 1)
	other.expect("m", 0)
}
