package queuetest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

var errWork = errors.New("the work failed")

// outcomeRules hold what a handler returns to what becomes of its delivery.
func outcomeRules() []rule {
	return []rule{
		{"NilIsAcknowledged", "what succeeded must not be done again", true, nilIsAcknowledged},
		{"AnErrorComesBackAfterTheBackoff", "a failed message is never lost, and the broken party gets time to recover", true, errorComesBack},
		{"TheBackoffGrowsToItsMaximum", "a party that's down for long isn't asked at full speed, nor forgotten", false, backoffGrows},
		{"RetryAfterDecidesTheDelay", "the party that failed often says itself when to ask again", true, retryAfterDecides},
		{"RetryAfterZeroComesBackAtOnce", "the error's own delay goes before the consumer's backoff, also when it's none", false, retryAfterZero},
		{"RetryAfterBeyondTheBrokersLimitIsNeverEarly", "a delay that the broker can't hold is carried on by the library, not cut short", false, retryAfterLong},
		{"RejectGoesToTheDeadLetterQueueAtOnce", "what can't succeed isn't tried again, nor thrown away", true, rejectIsDeadLettered},
		{"RejectWithoutADeadLetterQueueIsKept", "a message without a way out is reported and comes back at the maximum backoff; it's never removed", false, rejectIsKept},
		{"DropRemoves", "the handler may decide that a message is worth nothing", true, dropRemoves},
		{"SnoozeIsNoFailure", "'not yet' isn't 'failed': it mustn't use up the attempts", true, snoozeIsNoFailure},
		{"APanicIsAFailureWithItsStack", "one bad message mustn't end the process, and whoever looks for the bug needs the place", true, panicIsAFailure},
		{"GoexitIsAFailure", "a handler that ends its goroutine (as a test's FailNow does) mustn't take a slot with it", false, goexitIsAFailure},
		{"WrappedOutcomesCount", "errors are wrapped on their way up; the decision within must not be lost by it", false, wrappedOutcomes},
		{"OneFailureLeavesTheOthersAlone", "one bad message never fails its batch-mates", true, failureStaysAlone},
		{"HandlerTimeoutIsAFailure", "a handler that hangs mustn't hold a slot for ever", false, handlerTimeout},
		{"StatsCountEachOutcome", "people decide by these numbers", false, statsCount},
	}
}

func nilIsAcknowledged(e *env) {
	q := e.open()
	r := e.recorder()
	c := e.consume(q, r.ok())
	e.publish(q, text("one"))
	r.awaitEnds("one", 1)
	c.stop()
	e.expectGone(q)
	r.expect("one", 1)
	if s := c.outcomes(); len(s) != 1 || s[0].Outcome.Kind != queue.Success || s[0].Err != nil {
		e.Errorf("Settled was told %+v, want one success", s)
	}
}

func errorComesBack(e *env) {
	q := e.open()
	r := e.recorder()
	c := e.consume(q, r.handle(func(_ context.Context, _ *queue.Delivery, nth int) error {
		if nth == 1 {
			return errWork
		}
		return nil
	}), backoff(2*e.unit, 2*e.unit))
	e.publish(q, text("one"))
	calls := r.awaitEnds("one", 2)
	e.between("coming back after a failure", calls[1].start.Sub(calls[0].end), 2*e.unit-e.early(), 2*e.unit)
	equal(e, "Failures of the second delivery", calls[1].d.Failures, 1)
	c.stop()
	e.expectGone(q)
	r.expect("one", 2)
	if s := c.outcomes(); len(s) != 2 || s[0].Outcome.Kind != queue.Failed || !errors.Is(s[0].Err, errWork) || s[0].Failures != 1 || s[0].Delay != 2*e.unit {
		e.Errorf("Settled was told %+v, want first a failure with its error, one failure and a delay of %v", s, 2*e.unit)
	}
}

func backoffGrows(e *env) {
	q := e.open()
	r := e.recorder()
	c := e.consume(q, r.handle(func(_ context.Context, _ *queue.Delivery, nth int) error {
		if nth <= 4 {
			return errWork
		}
		return nil
	}), backoff(e.unit, 4*e.unit))
	e.publish(q, text("one"))
	calls := r.awaitEnds("one", 5)
	for i, want := range []time.Duration{e.unit, 2 * e.unit, 4 * e.unit, 4 * e.unit} {
		e.between(fmt.Sprintf("coming back after failure %d", i+1), calls[i+1].start.Sub(calls[i].end), want-e.early(), want)
	}
	c.stop()
}

func retryAfterDecides(e *env) {
	q := e.open()
	r := e.recorder()
	c := e.consume(q, r.handle(func(_ context.Context, _ *queue.Delivery, nth int) error {
		if nth == 1 {
			return queue.RetryAfter(3*e.unit, errWork)
		}
		return nil
	}))
	e.publish(q, text("one"))
	calls := r.awaitEnds("one", 2)
	e.between("coming back after RetryAfter", calls[1].start.Sub(calls[0].end), 3*e.unit-e.early(), 3*e.unit)
	equal(e, "Failures of the second delivery", calls[1].d.Failures, 1)
	c.stop()
}

func retryAfterZero(e *env) {
	q := e.open()
	r := e.recorder()
	c := e.consume(q, r.handle(func(_ context.Context, _ *queue.Delivery, nth int) error {
		if nth == 1 {
			return queue.RetryAfter(0, errWork)
		}
		return nil
	}), backoff(100*e.unit, 100*e.unit))
	e.publish(q, text("one"))
	calls := r.awaitEnds("one", 2)
	e.between("coming back after RetryAfter(0)", calls[1].start.Sub(calls[0].end), 0, 0)
	c.stop()
}

// retryAfterLong asks for more than any broker holds a message back by itself.
func retryAfterLong(e *env) {
	q := e.open()
	const long = 30 * time.Hour
	caps := q.Capabilities()
	if r := caps.Retention; r > 0 && r <= 2*long {
		e.Fatalf("the queue keeps messages for %v: too short for this test", r)
	}
	m := text("one")
	m.ID = "the-id"
	m.Attributes = map[string]string{"a": "b"}
	r := e.recorder()
	c := e.consume(q, r.handle(func(_ context.Context, d *queue.Delivery, nth int) error {
		if nth <= 2 {
			// What the handler does to its delivery mustn't travel on.
			d.Body[0], d.ID, d.Attributes["a"] = 'X', "changed", "changed"
			return queue.RetryAfter(long, errWork)
		}
		return nil
	}))
	e.publish(q, m)
	for nth := 1; nth <= 2; nth++ {
		if !e.eventually(long+e.patience, func() bool { return r.started("one") > nth }) {
			e.Fatalf("the message hasn't come back after RetryAfter(%v); the handler saw %d calls", long, len(r.all()))
		}
		calls := r.of("one")
		// A due time travels in whole milliseconds, rounded up.
		e.between("coming back", calls[nth].start.Sub(calls[nth-1].end), long, long)
		equal(e, "Failures", calls[nth].d.Failures, nth)
		equal(e, "ID", calls[nth].d.ID, "the-id")
		equal(e, "attribute", calls[nth].d.Attributes["a"], "b")
		if age := calls[nth].start.Sub(calls[nth].d.EnqueuedAt); age < time.Duration(nth)*long-time.Second {
			e.Errorf("EnqueuedAt is %v ago; it must still be the time of the first publish, %v ago", age, time.Duration(nth)*long)
		}
	}
	c.stop()
	e.expectGone(q)
	r.expect("one", 3)
}

func rejectIsDeadLettered(e *env) {
	q, dead := e.openPair(queue.QueueSpec{})
	r := e.recorder()
	c := e.consume(q, r.handle(func(context.Context, *queue.Delivery, int) error {
		return queue.Reject(errWork)
	}), with(&deadLetters{to: dead, name: e.name(dead)}))
	e.publish(q, text("one"))
	r.awaitEnds("one", 1)
	got := e.awaitDead(dead, "one")
	if dl := got.DeadLetter; dl == nil || dl.Reason != queue.ReasonRejected || dl.Error != errWork.Error() {
		e.Errorf("the copy's history is %+v, want reason %q and error %q", got.DeadLetter, queue.ReasonRejected, errWork)
	}
	c.stop()
	e.expectGone(q)
	r.expect("one", 1)
	equal(e, "Stats().DeadLettered", c.Stats().DeadLettered, 1)
}

func rejectIsKept(e *env) {
	q := e.open()
	r := e.recorder()
	c := e.consume(q, r.handle(func(_ context.Context, _ *queue.Delivery, nth int) error {
		if nth <= 2 {
			return queue.Reject(errWork)
		}
		return nil
	}), backoff(e.unit, 3*e.unit))
	e.publish(q, text("one"))
	calls := r.awaitEnds("one", 3)
	for i := range 2 {
		e.between("coming back after Reject", calls[i+1].start.Sub(calls[i].end), 3*e.unit-e.early(), 3*e.unit)
	}
	c.stop()
	s := c.outcomes()
	if len(s) != 3 || !s[0].Unroutable || !s[1].Unroutable || s[2].Unroutable || s[0].Outcome.Kind != queue.Rejected {
		e.Errorf("Settled was told %+v, want two unroutable rejects", s)
	}
	equal(e, "Stats().Rejected", c.Stats().Rejected, 2)
}

func dropRemoves(e *env) {
	q := e.open()
	r := e.recorder()
	c := e.consume(q, r.handle(func(context.Context, *queue.Delivery, int) error { return queue.Drop(errWork) }))
	e.publish(q, text("one"))
	r.awaitEnds("one", 1)
	c.stop()
	e.expectGone(q)
	r.expect("one", 1)
	equal(e, "Stats().Dropped", c.Stats().Dropped, 1)
	if log := e.log.String(); !strings.Contains(log, errWork.Error()) {
		e.Errorf("the log doesn't say why the message was dropped:\n%s", log)
	}
}

func snoozeIsNoFailure(e *env) {
	q := e.open()
	r := e.recorder()
	c := e.consume(q, r.handle(func(_ context.Context, _ *queue.Delivery, nth int) error {
		if nth <= 3 {
			return queue.Snooze(2 * e.unit)
		}
		return nil
	}))
	e.publish(q, text("one"))
	calls := r.awaitEnds("one", 4)
	for i := range 3 {
		e.between("coming back after Snooze", calls[i+1].start.Sub(calls[i].end), 2*e.unit-e.early(), 2*e.unit)
		equal(e, "Failures after Snooze", calls[i+1].d.Failures, 0)
	}
	c.stop()
	equal(e, "Stats().Snoozed", c.Stats().Snoozed, 3)
	equal(e, "Stats().Failed", c.Stats().Failed, 0)
}

func panicIsAFailure(e *env) {
	q := e.open()
	r := e.recorder()
	c := e.consume(q, r.handle(func(_ context.Context, d *queue.Delivery, nth int) error {
		if string(d.Body) == "bad" && nth == 1 {
			panicHere()
		}
		return nil
	}))
	e.publish(q, text("bad"), text("good"))
	r.awaitEnds("good", 1)
	calls := r.awaitEnds("bad", 2)
	equal(e, "Failures after a panic", calls[1].d.Failures, 1)
	c.stop()
	equal(e, "Stats().Panics", c.Stats().Panics, 1)
	for _, s := range c.outcomes() {
		if s.Err == nil {
			continue
		}
		var p *queue.PanicError
		if !errors.As(s.Err, &p) || p.Value != "told to" || !strings.Contains(string(p.Stack), "panicHere") {
			e.Errorf("Settled was told %v, want a *PanicError with its value and a stack that names the place", s.Err)
		}
	}
}

//go:noinline
func panicHere() { panic("told to") }

func goexitIsAFailure(e *env) {
	q := e.open()
	r := e.recorder()
	c := e.consume(q, r.handle(func(_ context.Context, _ *queue.Delivery, nth int) error {
		if nth == 1 {
			runtime.Goexit()
		}
		return nil
	}), concurrency(1))
	e.publishCount(q, "m", 3)
	r.awaitAll("m", 3)
	e.await("each message to come back", func() bool { return r.finished() == 6 })
	c.stop()
	equal(e, "handlers in use after the drain", c.Stats().InUse, 0)
	e.expectGone(q)
}

func wrappedOutcomes(e *env) {
	cases := []struct {
		name    string
		err     error
		handled int // times, until nothing comes any more
		kind    queue.OutcomeKind
	}{
		{"dropped", fmt.Errorf("step 2: %w", queue.Drop(errWork)), 1, queue.Dropped},
		{"joined drop and snooze", errors.Join(queue.Snooze(e.unit), queue.Drop(errWork)), 1, queue.Dropped},
		{"joined retry and drop", errors.Join(errWork, queue.RetryAfter(e.unit, errWork), queue.Drop(errWork)), 1, queue.Dropped},
		{"outermost drop", queue.Drop(fmt.Errorf("w: %w", queue.RetryAfter(e.unit, errWork))), 1, queue.Dropped},
		{"outermost retry", queue.RetryAfter(e.unit, queue.Drop(errWork)), 2, queue.Retry},
		{"wrapped snooze", fmt.Errorf("later: %w", queue.Snooze(e.unit)), 2, queue.Snoozed},
		{"joined snooze and error", errors.Join(errWork, queue.Snooze(e.unit)), 2, queue.Snoozed},
		{"joined retry and snooze", errors.Join(queue.Snooze(e.unit), queue.RetryAfter(e.unit, errWork)), 2, queue.Retry},
		{"plain", fmt.Errorf("step 2: %w", errWork), 2, queue.Failed},
	}
	q := e.open()
	r := e.recorder()
	by := map[string]error{}
	for _, c := range cases {
		by[c.name] = c.err
	}
	c := e.consume(q, r.handle(func(_ context.Context, d *queue.Delivery, nth int) error {
		if nth > 1 {
			return nil
		}
		return by[string(d.Body)]
	}))
	for _, cs := range cases {
		e.publish(q, text(cs.name))
	}
	for _, cs := range cases {
		r.awaitEnds(cs.name, cs.handled)
	}
	c.stop()
	e.expectGone(q)
	first := map[string]queue.OutcomeKind{}
	for _, s := range c.outcomes() {
		name := string(s.Delivery.Body)
		if _, seen := first[name]; !seen {
			first[name] = s.Outcome.Kind
		}
	}
	for _, cs := range cases {
		r.expect(cs.name, cs.handled)
		equal(e, "outcome of "+cs.name, first[cs.name], cs.kind)
	}
}

func failureStaysAlone(e *env) {
	q := e.open()
	r := e.recorder()
	c := e.consume(q, r.handle(func(_ context.Context, d *queue.Delivery, _ int) error {
		if string(d.Body) == "m4" {
			return errWork
		}
		return nil
	}), backoff(e.unit, e.unit))
	e.publishCount(q, "m", 10)
	r.awaitAll("m", 10)
	r.awaitEnds("m4", 2)
	c.stop()
	for i := range 10 {
		if i != 4 {
			r.expect(fmt.Sprint("m", i), 1)
		}
	}
}

func handlerTimeout(e *env) {
	q := e.open()
	r := e.recorder()
	causes := make(chan error, 1)
	c := e.consume(q, r.handle(func(ctx context.Context, _ *queue.Delivery, nth int) error {
		if nth > 1 {
			return nil
		}
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return ctx.Err()
	}), func(o *queue.ConsumerOptions) { o.HandlerTimeout = e.unit })
	e.publish(q, text("one"))
	calls := r.awaitEnds("one", 2)
	e.between("the first call", calls[0].end.Sub(calls[0].start), e.unit-e.early(), e.unit)
	equal(e, "Failures after a timeout", calls[1].d.Failures, 1)
	e.wantErr(<-causes, context.DeadlineExceeded, "the cause of the handler's context")
	c.stop()
}

func statsCount(e *env) {
	q := e.open()
	r := e.recorder()
	c := e.consume(q, r.handle(func(_ context.Context, d *queue.Delivery, nth int) error {
		if nth > 1 {
			return nil
		}
		switch string(d.Body) {
		case "error", "error2":
			return errWork
		case "retry":
			return queue.RetryAfter(e.unit, errWork)
		case "drop":
			return queue.Drop(errWork)
		case "snooze":
			return queue.Snooze(e.unit)
		case "panic":
			panicHere()
		}
		return nil
	}))
	e.publish(q, text("ok"), text("error"), text("error2"), text("retry"), text("drop"), text("snooze"), text("panic"))
	e.await("seven messages to be done", func() bool { return r.finished() == 12 })
	c.stop()
	s := c.Stats()
	type counts struct{ received, succeeded, failed, dropped, snoozed, panics, rejected uint64 }
	got := counts{s.Received - s.Released, s.Succeeded, s.Failed, s.Dropped, s.Snoozed, s.Panics, s.Rejected}
	// A panic is a failure too.
	if want := (counts{12, 6, 4, 1, 1, 1, 0}); got != want {
		e.Errorf("Stats: got %+v, want %+v", got, want)
	}
	if s.Running || s.InUse != 0 || s.Buffered != 0 || s.Held != 0 || s.Name == "" {
		e.Errorf("Stats after Run: %+v", s)
	}
}

// ---- changes of ConsumerOptions

func backoff(low, high time.Duration) func(*queue.ConsumerOptions) {
	return func(o *queue.ConsumerOptions) { o.Backoff = queue.Backoff{Min: low, Max: high, Jitter: -1} }
}

func concurrency(n int) func(*queue.ConsumerOptions) {
	return func(o *queue.ConsumerOptions) { o.Concurrency = n }
}

func with(mw ...queue.Middleware) func(*queue.ConsumerOptions) {
	return func(o *queue.ConsumerOptions) { o.Middleware = append(o.Middleware, mw...) }
}

func drainTimeout(d time.Duration) func(*queue.ConsumerOptions) {
	return func(o *queue.ConsumerOptions) { o.DrainTimeout = d }
}

// early is how much before its time something may happen on a real server, whose
// clock isn't ours. On virtual time it's nothing.
func (e *env) early() time.Duration { return e.longer(0, 50*time.Millisecond) }
