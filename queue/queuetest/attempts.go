package queuetest

import (
	"context"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// attemptRules hold the counts of deliveries and failures to what happened.
func attemptRules() []rule {
	return []rule{
		{"TheFirstDeliveryHasNoFailures", "policies count from here", true, firstDelivery},
		{"FailuresCountWhatFailed", "giving up after N failures must mean N", true, failuresCount},
		{"FailuresArePerMessage", "one message's failures must not use up another's attempts", false, failuresPerMessage},
		{"SnoozesAndFailuresAreToldApart", "a message that waited often has not failed often", false, snoozesApart},
		{"ReleasedUnstartedIsNoFailure", "a receive isn't a failure: what a shutdown gives back was never tried", false, releasedIsNoFailure},
		{"InterruptedByADrainIsNoFailure", "a deployment must not push healthy messages towards the dead-letter queue", false, interruptedIsNoFailure},
		{"FailuresSurviveAHop", "a message that's published again on its way carries its past along", false, failuresSurviveHop},
		{"AConsumerRunsAgain", "a consumer can be stopped and started in one process", false, consumerRunsAgain},
	}
}

// wantAttempt checks the broker's count of the nth delivery.
func (e *env) wantAttempt(caps queue.Capabilities, d queue.Delivery, nth int) {
	e.Helper()
	switch caps.Attempts {
	case queue.AttemptsUnknown:
		equal(e, "Attempt, where the broker doesn't count", d.Attempt, 0)
	case queue.AttemptsExact:
		equal(e, "Attempt", d.Attempt, nth)
	case queue.AttemptsApproximate:
		if d.Attempt < 1 {
			e.Errorf("Attempt is %d on a broker that counts", d.Attempt)
		}
	}
}

func firstDelivery(e *env) {
	q := e.open()
	r := e.recorder()
	c := e.consume(q, r.ok())
	before := time.Now()
	e.publish(q, text("one"))
	after := time.Now()
	got := r.awaitEnds("one", 1)[0].d
	c.stop()
	e.wantAttempt(q.Capabilities(), got, 1)
	equal(e, "Failures", got.Failures, 0)
	if got.BrokerID == "" || got.ID != got.BrokerID {
		e.Errorf("ID is %q and BrokerID %q; a message without an ID is known by the broker's", got.ID, got.BrokerID)
	}
	if src := q.Capabilities().Source; got.Source != src || src.Name != e.name(q) || src.System == "" {
		e.Errorf("Source is %+v, Capabilities().Source %+v; the queue's name is %q", got.Source, src, e.name(q))
	}
	if got.DeadLetter != nil {
		e.Errorf("DeadLetter is %+v on a message that never was one", got.DeadLetter)
	}
	// A server's clock, and what it keeps of it, may be a second off.
	off := e.longer(0, 2*time.Second)
	if got.EnqueuedAt.Before(before.Add(-off)) || got.EnqueuedAt.After(after.Add(off)) {
		e.Errorf("EnqueuedAt is %v; it was published between %v and %v", got.EnqueuedAt, before, after)
	}
	if from := got.AgeFrom(); !from.Equal(got.EnqueuedAt) {
		e.Errorf("AgeFrom is %v, want EnqueuedAt %v", from, got.EnqueuedAt)
	}
}

func failuresCount(e *env) {
	q := e.open()
	r := e.recorder()
	c := e.consume(q, r.handle(func(_ context.Context, _ *queue.Delivery, nth int) error {
		switch nth {
		case 1, 2:
			return errWork
		case 3:
			return queue.RetryAfter(e.unit, errWork)
		}
		return nil
	}))
	e.publish(q, text("one"))
	for i, call := range r.awaitEnds("one", 4) {
		equal(e, "Failures", call.d.Failures, i)
		e.wantAttempt(q.Capabilities(), call.d, i+1)
	}
	c.stop()
}

func failuresPerMessage(e *env) {
	q := e.open()
	r := e.recorder()
	c := e.consume(q, r.handle(func(_ context.Context, d *queue.Delivery, nth int) error {
		if string(d.Body) == "bad" && nth <= 3 {
			return errWork
		}
		if string(d.Body) == "poor" && nth <= 1 {
			return errWork
		}
		return nil
	}))
	e.publish(q, text("bad"), text("poor"), text("good"))
	bad, poor, good := r.awaitEnds("bad", 4), r.awaitEnds("poor", 2), r.awaitEnds("good", 1)
	c.stop()
	equal(e, "Failures of the bad one's last delivery", bad[3].d.Failures, 3)
	equal(e, "Failures of the poor one's last delivery", poor[1].d.Failures, 1)
	equal(e, "Failures of the good one", good[0].d.Failures, 0)
}

func snoozesApart(e *env) {
	q := e.open()
	r := e.recorder()
	c := e.consume(q, r.handle(func(_ context.Context, _ *queue.Delivery, nth int) error {
		switch nth {
		case 1, 2, 4:
			return queue.Snooze(e.unit)
		case 3, 5:
			return errWork
		}
		return nil
	}))
	e.publish(q, text("one"))
	calls := r.awaitEnds("one", 6)
	c.stop()
	for i, want := range []int{0, 0, 0, 1, 1, 2} {
		if got := calls[i].d.Failures; got != want {
			e.Errorf("Failures of delivery %d: got %d, want %d", i+1, got, want)
		}
	}
}

// hoard makes the first Receive hold what it brings until everything of n
// messages is there, so that a consumer has more than it can start.
func hoard(q queue.Queue, n int) *faultQueue {
	f := newFaultQueue(q)
	batch := n
	if m := q.Capabilities().MaxReceive; m > 0 {
		batch = min(n, m)
	}
	done := make(chan struct{}, 1)
	f.receive = func(ctx context.Context, most int, next receiveFunc) ([]*queue.Delivery, error) {
		select {
		case done <- struct{}{}:
		default:
			return next(ctx, most)
		}
		var all []*queue.Delivery
		for len(all) < n && ctx.Err() == nil {
			ds, err := next(ctx, min(batch, n-len(all)))
			all = append(all, ds...)
			if err != nil {
				return all, err
			}
		}
		return all, nil
	}
	return f
}

func releasedIsNoFailure(e *env) {
	q := e.open()
	f := hoard(q, 5)
	hold := e.latch()
	r := e.recorder()
	c := e.consumer(f, r.handle(func(_ context.Context, _ *queue.Delivery, nth int) error {
		if r.started("") == 1 {
			hold.wait()
		}
		return nil
	}), concurrency(1))
	e.publishCount(q, "m", 5)
	c.run()
	r.awaitStarts("", 1)
	c.cancel()
	e.await("a drain that waits for the handler", func() bool { return c.Stats().Draining })
	hold.open()
	c.stop()
	if n := r.started(""); n != 1 {
		e.Fatalf("%d handlers were started; a drain starts none, and the first one held the only slot", n)
	}
	if s := c.Stats(); s.Released < 4 {
		e.Fatalf("Stats().Released is %d; four messages were received and not started", s.Released)
	}
	c.run()
	r.awaitAll("m", 5)
	c.stop()
	for _, call := range r.all() {
		if call.d.Failures != 0 {
			e.Errorf("%q has %d failures; it was only ever given back unstarted", call.name, call.d.Failures)
		}
	}
}

func interruptedIsNoFailure(e *env) {
	q := e.open()
	r := e.recorder()
	c := e.consume(q, r.handle(func(ctx context.Context, _ *queue.Delivery, nth int) error {
		if nth == 1 {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}), drainTimeout(e.unit))
	e.publish(q, text("one"))
	r.awaitStarts("one", 1)
	c.stop()
	equal(e, "Stats().Interrupted", c.Stats().Interrupted, 1)
	equal(e, "Stats().Failed", c.Stats().Failed, 0)
	c.run()
	calls := r.awaitEnds("one", 2)
	c.stop()
	equal(e, "Failures", calls[1].d.Failures, 0)
	if s := c.outcomes(); !s[0].Interrupted || s[0].Failures != 0 {
		e.Errorf("Settled was told %+v, want an interruption without a failure", s[0])
	}
}

// failuresSurviveHop asks for delays beyond what the broker can do, so that the
// message is published again.
func failuresSurviveHop(e *env) {
	q := e.open()
	caps := q.Capabilities()
	if caps.MaxRedeliveryDelay == 0 || !caps.Delays {
		// The broker itself holds a message back for any time: no hop. What it
		// then promises, RetryAfterBeyondTheBrokersLimitIsNeverEarly asserts.
		e.Logf("no hops here: MaxRedeliveryDelay %v, Delays %v", caps.MaxRedeliveryDelay, caps.Delays)
	}
	delay := caps.MaxRedeliveryDelay + time.Hour
	r := e.recorder()
	c := e.consume(q, r.handle(func(_ context.Context, _ *queue.Delivery, nth int) error {
		switch nth {
		case 1:
			return errWork // not by a hop
		case 2, 3:
			return queue.RetryAfter(delay, errWork)
		case 4:
			return errWork
		}
		return nil
	}))
	e.publish(q, text("one"))
	if !e.eventually(2*delay+e.patience, func() bool { return r.finished() == 5 }) {
		e.Fatalf("the handler was called %d times, want 5", r.finished())
	}
	c.stop()
	for i, call := range r.all() {
		if call.d.Failures != i {
			e.Errorf("Failures of delivery %d: got %d, want %d", i+1, call.d.Failures, i)
		}
	}
}

func consumerRunsAgain(e *env) {
	q := e.open()
	r := e.recorder()
	c := e.consume(q, r.ok())
	e.publishCount(q, "a", 3)
	r.awaitAll("a", 3)
	if err := c.Run(e.ctx); err == nil {
		e.Error("a second Run beside the first was accepted")
	} else {
		e.wantErr(err, queue.ErrInvalid, "a second Run beside the first")
	}
	c.stop()
	e.publishCount(q, "b", 3)
	e.quiet(e.unit)
	if n := r.started(""); n != 3 {
		e.Errorf("%d messages were handled after Run had returned", n-3)
	}
	c.run()
	r.awaitAll("b", 3)
	c.stop()
	equal(e, "Stats().Succeeded over both runs", c.Stats().Succeeded, 6)
}
