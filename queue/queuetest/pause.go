package queuetest

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// pauseRules hold Pause and Resume to what people expect of them.
func pauseRules() []rule {
	return []rule{
		{"APausedConsumerStartsNothing", "people pause a queue to stop what it does to others", true, pausedStartsNothing},
		{"RunningHandlersGoOn", "a pause isn't a shutdown", false, pausedHandlersGoOn},
		{"OthersGetWhatAPausedConsumerHeld", "messages mustn't be hidden for as long as a pause lasts", false, pausedGivesBack},
		{"APauseBeforeRunHolds", "a desired state must hold from the start", false, pausedBeforeRun},
		{"PauseAndResumeMayBeRepeated", "two people press the button", false, pausedTwice},
		{"AResumeAtAnyMomentReceivesAgain", "a resume may come just as the pause cuts off the open receive", false, resumeAtAnyMoment},
		{"APausedConsumerDrains", "a deployment mustn't hang on a pause", false, pausedDrains},
	}
}

func pausedStartsNothing(e *env) {
	q := e.open()
	r := e.recorder()
	c := e.consume(q, r.ok())
	e.publishCount(q, "a", 3)
	r.awaitAll("a", 3)
	c.Pause()
	if !c.Stats().Paused {
		e.Error("Stats().Paused is false after Pause")
	}
	e.publishCount(q, "b", 5)
	e.quiet(e.longer(2*time.Hour, 3*e.unit))
	equal(e, "handlers that were started", r.started(""), 3)
	calls := c.Stats().ReceiveCalls
	e.quiet(e.longer(time.Hour, e.unit))
	equal(e, "Stats().ReceiveCalls during a pause", c.Stats().ReceiveCalls, calls)
	c.Resume()
	begun := time.Now()
	r.awaitAll("b", 5)
	// A receive that the pause cut off may have hidden some for a lease.
	e.between("after Resume", time.Since(begun), 0, e.longer(0, e.lease))
	c.stop()
	for _, call := range r.all() {
		equal(e, "Failures of "+call.name, call.d.Failures, 0)
	}
}

func pausedHandlersGoOn(e *env) {
	q := e.open()
	r := e.recorder()
	hold := e.latch()
	c := e.consume(q, r.handle(func(ctx context.Context, _ *queue.Delivery, _ int) error { return hold.obey(ctx) }))
	e.publish(q, text("m"))
	r.awaitStarts("m", 1)
	c.Pause()
	e.quiet(3 * e.lease) // its lease is kept all the same
	equal(e, "running handlers during a pause", c.Stats().InUse, 1)
	hold.open()
	if call := r.awaitEnds("m", 1)[0]; call.err != nil {
		e.Errorf("the handler's context ended: %v", call.err)
	}
	c.stop()
	e.expectGone(q)
	r.expect("m", 1)
}

func pausedGivesBack(e *env) {
	q := e.open()
	f := hoard(q, 10)
	r := e.recorder()
	hold := e.latch()
	e.publishCount(q, "m", 10)
	c := e.consume(f, r.handle(func(context.Context, *queue.Delivery, int) error {
		hold.wait()
		return nil
	}), concurrency(2))
	r.awaitStarts("", 2)
	c.Pause()
	if s := c.Stats(); s.Buffered != 0 || s.Held != 0 {
		e.Errorf("after Pause there are %d buffered and %d held", s.Buffered, s.Held)
	}
	begun := time.Now()
	other := e.recorder()
	oc := e.consume(e.again(q), other.ok())
	e.await("another consumer to get the rest", func() bool { return other.finished() == 8 })
	e.between("the rest", time.Since(begun), 0, e.lease/2)
	hold.open()
	c.stop()
	oc.stop()
	equal(e, "messages that the paused consumer started", r.started(""), 2)
}

func pausedBeforeRun(e *env) {
	q := e.open()
	r := e.recorder()
	c := e.consumer(q, r.ok())
	c.Pause()
	c.run()
	e.publish(q, text("m"))
	e.quiet(2 * e.unit)
	equal(e, "handlers that were started", r.started(""), 0)
	c.Resume()
	r.awaitEnds("m", 1)
	c.stop()
}

func pausedTwice(e *env) {
	q := e.open()
	r := e.recorder()
	c := e.consume(q, r.ok())
	c.Resume() // nothing to end
	for range 5 {
		c.Pause()
		c.Pause()
		c.Resume()
		c.Resume()
	}
	e.publishCount(q, "m", 5)
	r.awaitAll("m", 5)
	c.Pause()
	e.quiet(e.unit)
	c.Resume()
	e.publishCount(q, "n", 5)
	r.awaitAll("n", 5)
	c.stop()
	e.expectGone(q)
}

// resumeAtAnyMoment resumes around the time at which an open receive loses its
// grace.
func resumeAtAnyMoment(e *env) {
	q := e.open()
	r := e.recorder()
	const grace, rounds = 100 * time.Millisecond, 30
	f := newFaultQueue(q)
	f.caps = func(c *queue.Capabilities) { c.CancelSafe = false } // else there's no grace
	var dead atomic.Int32
	f.receive = func(ctx context.Context, most int, next receiveFunc) ([]*queue.Delivery, error) {
		if ctx.Err() != nil && dead.Add(1) > rounds {
			e.quiet(e.unit) // or it would go on without an end, and without time passing
		}
		return next(ctx, most)
	}
	c := e.consume(f, r.ok(), func(o *queue.ConsumerOptions) { o.ReceiveGrace = grace })
	for i := range rounds {
		c.Pause()
		e.quiet(grace + time.Duration(i%5/4)*time.Millisecond)
		c.Resume()
		begun := time.Now()
		e.publish(q, text(fmt.Sprint("m", i)))
		r.awaitStarts(fmt.Sprint("m", i), 1)
		// A receive that was cut off may have hidden it for a lease.
		e.between("a message after Resume", time.Since(begun), 0, e.longer(0, e.lease))
	}
	c.stop()
	if n := dead.Load(); n > rounds {
		e.Errorf("%d receives began with a context that had ended", n)
	}
}

func pausedDrains(e *env) {
	q := e.open()
	r := e.recorder()
	c := e.consume(q, r.ok())
	e.publish(q, text("m"))
	r.awaitEnds("m", 1)
	c.Pause()
	e.quiet(2 * e.unit)
	begun := time.Now()
	c.stop()
	e.between("the drain of a paused consumer", time.Since(begun), 0, e.unit)
	// The pause outlives the run, as a desired state.
	c.run()
	e.publish(q, text("n"))
	e.quiet(2 * e.unit)
	r.expect("n", 0)
	c.Resume()
	r.awaitEnds("n", 1)
	c.stop()
}
