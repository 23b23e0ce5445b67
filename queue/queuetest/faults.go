package queuetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// faultRules hold the engine to what it does when calls to the broker fail. The
// failures are the suite's own, so they're the same on every backend.
func faultRules() []rule {
	return []rule{
		{"ASettlementThatFailsIsTriedAgain", "one lost call must not cost a repeat", false, settleHeals},
		{"OneFailedSettlementLeavesTheOthersAlone", "one failed acknowledgement never stops a consumer", false, settleFailsAlone},
		{"ASettlementThatKeepsFailingIsGivenUpWithItsLease", "the message comes again; the consumer goes on", false, settleFailsForEver},
		{"ASettlementOfALostLeaseIsNotTriedAgain", "it's pointless, and somebody else has the message", false, settleLeaseLost},
		{"AFailedReleaseKeepsItsTime", "the delay runs from the failure, not from the last try to say so", false, releaseRetryKeepsTime},
		{"ALostAnswerToAnAckIsHarmless", "the ack has taken effect, and saying it again must not hurt", false, ackAnswerLost},
		{"PassingErrorsOfReceiveHeal", "a broker that's away for a while must not end a consumer", true, receiveHeals},
		{"ReceiveErrorsBackOff", "a broker that's down isn't asked at full speed", false, receiveBacksOff},
		{"AFinalErrorOfReceiveEndsRun", "a missing queue or permission needs a person", true, receiveFinal},
		{"AFinalErrorStillDrains", "what's under way is finished and settled", false, finalErrorDrains},
		{"DeliveriesBesideAnErrorAreHandled", "what the broker has handed over is ours", false, deliveriesWithError},
		{"ADuplicateDeliveryIsHandledAndSettled", "brokers deliver at least once", false, duplicateDelivery},
		{"AQueueThatIsClosedBeneathItsConsumerEndsRun", "every wait ends", false, closedBeneath},
		{"EmptyReceivesWithoutAWaitDoNotSpin", "a broker that answers at once must not cost a whole CPU", false, emptyReceivesDoNotSpin},
	}
}

func settleHeals(e *env) {
	q := e.open()
	f := newFaultQueue(q)
	var mu sync.Mutex
	tries := map[string]int{}
	f.settle = func(ctx context.Context, s []queue.Settlement, next settleFunc) error {
		return settleSome(ctx, s, next, func(s queue.Settlement) error {
			mu.Lock()
			defer mu.Unlock()
			name := f.name(s.Delivery)
			tries[name]++
			if tries[name] <= 3 {
				return errFault
			}
			return nil
		})
	}
	var told atomic.Int32
	r := e.recorder()
	c := e.consume(f, r.ok(), func(o *queue.ConsumerOptions) {
		o.Hooks.SettleFailed = func(d *queue.Delivery, kind queue.SettleKind, err error, retrying bool) {
			if !errors.Is(err, errFault) || kind != queue.Ack || !retrying {
				e.Errorf("SettleFailed was told %v, %v, retrying %v", kind, err, retrying)
			}
			told.Add(1)
		}
	})
	e.publishCount(q, "m", 4)
	r.awaitAll("m", 4)
	e.await("every ack to succeed", func() bool {
		ok := 0
		for _, s := range f.settlements("") {
			if s.err == nil {
				ok++
			}
		}
		return ok == 4
	})
	c.stop()
	e.expectGone(q)
	for i := range 4 {
		r.expect(fmt.Sprint("m", i), 1)
	}
	equal(e, "calls of the hook SettleFailed", told.Load(), 12)
	if s := c.Stats(); s.SettleErrors != 12 || s.SettleLost != 0 {
		e.Errorf("Stats: SettleErrors %d, SettleLost %d; want 12 and 0", s.SettleErrors, s.SettleLost)
	}
}

func settleFailsAlone(e *env) {
	q := e.open()
	f := newFaultQueue(q)
	f.settle = func(ctx context.Context, s []queue.Settlement, next settleFunc) error {
		return settleSome(ctx, s, next, func(s queue.Settlement) error {
			if f.name(s.Delivery) == "m3" {
				return errFault
			}
			return nil
		})
	}
	r := e.recorder()
	c := e.consume(f, r.ok())
	e.publishCount(q, "m", 8)
	r.awaitEnds("m3", 2) // its lease has ended: it came again
	c.stop()
	for i := range 8 {
		if i != 3 {
			r.expect(fmt.Sprint("m", i), 1)
		}
	}
}

func settleFailsForEver(e *env) {
	q := e.open()
	f := newFaultQueue(q)
	var down atomic.Bool
	down.Store(true)
	f.settle = func(ctx context.Context, s []queue.Settlement, next settleFunc) error {
		if down.Load() {
			return errFault
		}
		return next(ctx, s...)
	}
	r := e.recorder()
	c := e.consume(f, r.ok())
	e.publish(q, text("m"))
	r.awaitEnds("m", 2)
	e.await("the first ack to be given up", func() bool { return c.Stats().SettleLost > 0 })
	down.Store(false)
	// The consumer is as good as new.
	e.publishCount(q, "n", 5)
	r.awaitAll("n", 5)
	e.await("an ack of the first message", func() bool {
		return slices.ContainsFunc(f.settlements("m"), func(s settleCall) bool { return s.err == nil })
	})
	c.stop()
	e.expectGone(q)
	if s := c.Stats(); s.SettleErrors < 2 {
		e.Errorf("Stats().SettleErrors is %d; it's tried again for as long as the lease lasts", s.SettleErrors)
	}
}

func settleLeaseLost(e *env) {
	q := e.open()
	f := newFaultQueue(q)
	var first atomic.Bool
	f.settle = func(ctx context.Context, s []queue.Settlement, next settleFunc) error {
		return settleSome(ctx, s, next, func(queue.Settlement) error {
			if first.CompareAndSwap(false, true) {
				return fmt.Errorf("too late: %w", queue.ErrLeaseLost)
			}
			return nil
		})
	}
	var told atomic.Int32
	r := e.recorder()
	c := e.consume(f, r.ok(), func(o *queue.ConsumerOptions) {
		o.Hooks.SettleFailed = func(_ *queue.Delivery, _ queue.SettleKind, err error, retrying bool) {
			if retrying || !errors.Is(err, queue.ErrLeaseLost) {
				e.Errorf("SettleFailed was told %v, retrying %v", err, retrying)
			}
			told.Add(1)
		}
	})
	e.publish(q, text("m"))
	r.awaitEnds("m", 2)
	c.stop()
	equal(e, "calls of the hook SettleFailed", told.Load(), 1)
	equal(e, "Stats().SettleLost", c.Stats().SettleLost, 1)
	equal(e, "settlements", len(f.settlements("m")), 2)
	e.expectGone(q)
}

func releaseRetryKeepsTime(e *env) {
	q := e.open()
	f := newFaultQueue(q)
	down := e.unit // for this long no release succeeds
	var since time.Time
	var mu sync.Mutex
	f.settle = func(ctx context.Context, s []queue.Settlement, next settleFunc) error {
		mu.Lock()
		if since.IsZero() {
			since = time.Now()
		}
		up := time.Since(since) >= down
		mu.Unlock()
		if !up {
			return errFault
		}
		return next(ctx, s...)
	}
	r := e.recorder()
	delay := 3 * e.unit
	c := e.consume(f, r.handle(func(_ context.Context, _ *queue.Delivery, nth int) error {
		if nth == 1 {
			return queue.RetryAfter(delay, errWork)
		}
		return nil
	}))
	e.publish(q, text("m"))
	calls := r.awaitEnds("m", 2)
	c.stop()
	e.between("coming back after RetryAfter", calls[1].start.Sub(calls[0].end), delay-e.early(), delay+time.Second)
	e.expectGone(q)
}

func ackAnswerLost(e *env) {
	q := e.open()
	f := newFaultQueue(q)
	var first atomic.Bool
	f.settle = func(ctx context.Context, s []queue.Settlement, next settleFunc) error {
		err := next(ctx, s...)
		if err == nil && first.CompareAndSwap(false, true) {
			return fmt.Errorf("%w: no answer", queue.ErrUnknownOutcome)
		}
		return err
	}
	r := e.recorder()
	c := e.consume(f, r.ok())
	e.publishCount(q, "m", 3)
	r.awaitAll("m", 3)
	c.stop()
	e.expectGone(q)
	for i := range 3 {
		r.expect(fmt.Sprint("m", i), 1)
	}
}

func receiveHeals(e *env) {
	q := e.open()
	f := newFaultQueue(q)
	passing := []error{errFault, queue.ErrThrottled, fmt.Errorf("call: %w", context.DeadlineExceeded), queue.ErrUnknownOutcome}
	var failed atomic.Uint64
	var healed atomic.Bool
	f.receive = func(ctx context.Context, most int, next receiveFunc) ([]*queue.Delivery, error) {
		if !healed.Load() {
			n := failed.Add(1) - 1
			return nil, passing[n%uint64(len(passing))]
		}
		return next(ctx, most)
	}
	r := e.recorder()
	e.publishCount(q, "m", 3)
	c := e.consume(f, r.ok())
	e.await("each error to come, and to show in the statistics", func() bool {
		return failed.Load() >= uint64(len(passing)) && c.Stats().LastError != nil
	})
	healed.Store(true)
	r.awaitAll("m", 3)
	e.await("the statistics to show that it's healed", func() bool { return c.Stats().LastError == nil })
	c.stop()
	if s := c.Stats(); s.ReceiveErrors != failed.Load() || s.LastErrorAt.IsZero() {
		e.Errorf("Stats: ReceiveErrors %d, LastErrorAt %v; %d receives failed", s.ReceiveErrors, s.LastErrorAt, failed.Load())
	}
	for _, call := range r.all() {
		equal(e, "Failures", call.d.Failures, 0)
	}
}

func receiveBacksOff(e *env) {
	q := e.open()
	f := newFaultQueue(q)
	var calls atomic.Int32
	f.receive = func(context.Context, int, receiveFunc) ([]*queue.Delivery, error) {
		calls.Add(1)
		return nil, errFault
	}
	c := e.consume(f, e.recorder().ok())
	outage := e.longer(time.Hour, 3*time.Second)
	e.quiet(outage)
	n := calls.Load()
	if limit := int32(e.longer(500, 30)); n > limit || n < 3 {
		e.Errorf("%d receives in an outage of %v; want 3 to %d", n, outage, limit)
	}
	begun := time.Now()
	c.stop()
	e.between("a drain between two tries", time.Since(begun), 0, time.Second)
}

func receiveFinal(e *env) {
	for _, final := range []error{queue.ErrQueueNotFound, queue.ErrPermission, queue.ErrUnsupported, &queue.InvalidError{Field: "x", Reason: "y"}, queue.ErrClosed} {
		q := e.open()
		f := newFaultQueue(q)
		f.receive = func(context.Context, int, receiveFunc) ([]*queue.Delivery, error) {
			return nil, fmt.Errorf("the broker says: %w", final)
		}
		c := e.consume(f, e.recorder().ok())
		if !c.ended(e.patience) {
			e.Fatalf("Run goes on after %v", final)
		}
		e.wantErr(c.err, final, "Run after a final error")
		if c.Stats().Running {
			e.Error("Stats().Running is true after Run")
		}
	}
}

func finalErrorDrains(e *env) {
	q := e.open()
	f := newFaultQueue(q)
	var gone atomic.Bool
	f.receive = func(ctx context.Context, most int, next receiveFunc) ([]*queue.Delivery, error) {
		if gone.Load() {
			return nil, queue.ErrPermission
		}
		return next(ctx, min(most, 2))
	}
	r := e.recorder()
	hold := e.latch()
	c := e.consume(f, r.handle(func(ctx context.Context, _ *queue.Delivery, _ int) error { return hold.obey(ctx) }))
	e.publishCount(q, "m", 2)
	r.awaitStarts("", 2)
	gone.Store(true)
	e.publish(q, text("wake"))
	e.await("a drain", func() bool { return c.Stats().Draining })
	hold.open()
	if !c.ended(e.patience) {
		e.Fatal("Run goes on")
	}
	e.wantErr(c.err, queue.ErrPermission, "Run after a final error")
	for i := range 2 {
		if call := r.of(fmt.Sprint("m", i)); len(call) != 1 || call[0].err != nil {
			e.Errorf("m%d: %+v", i, call)
		}
	}
	acks := 0
	for _, s := range f.settlements("") {
		if s.kind == queue.Ack && s.err == nil {
			acks++
		}
	}
	if acks < 2 {
		e.Errorf("%d acks, want one for each that was under way", acks)
	}
}

func deliveriesWithError(e *env) {
	q := e.open()
	f := newFaultQueue(q)
	f.receive = func(ctx context.Context, most int, next receiveFunc) ([]*queue.Delivery, error) {
		ds, err := next(ctx, most)
		if err == nil && len(ds) > 0 {
			err = errFault // a part of the answer was unreadable
		}
		return ds, err
	}
	r := e.recorder()
	e.publishCount(q, "m", 3)
	c := e.consume(f, r.ok())
	r.awaitAll("m", 3)
	c.stop()
	e.expectGone(q)
	for i := range 3 {
		r.expect(fmt.Sprint("m", i), 1)
	}
}

func duplicateDelivery(e *env) {
	q := e.open()
	f := newFaultQueue(q)
	f.receive = func(ctx context.Context, most int, next receiveFunc) ([]*queue.Delivery, error) {
		ds, err := next(ctx, most)
		for _, d := range slices.Clone(ds) {
			cp := *d
			cp.Body = slices.Clone(d.Body)
			ds = append(ds, &cp)
		}
		return ds, err
	}
	r := e.recorder()
	e.publishCount(q, "m", 4)
	c := e.consume(f, r.handle(func(ctx context.Context, _ *queue.Delivery, _ int) error {
		return linger(ctx, e.longer(time.Second, 20*time.Millisecond))
	}))
	e.await("each to be handled twice", func() bool { return r.finished() == 8 })
	c.stop()
	e.expectGone(q)
	for i := range 4 {
		r.expect(fmt.Sprint("m", i), 2)
	}
}

func closedBeneath(e *env) {
	q := e.open()
	own := e.again(q)
	r := e.recorder()
	c := e.consume(own, r.ok())
	e.publish(q, text("m"))
	r.awaitEnds("m", 1)
	ctx, cancel := context.WithTimeout(e.ctx, e.unit)
	defer cancel()
	_ = own.Close(ctx) // it may have waited in vain for the open receive
	if !c.ended(e.patience) {
		e.Fatal("Run goes on after its queue was closed")
	}
	e.wantErr(c.err, queue.ErrClosed, "Run after its queue was closed")
}

func emptyReceivesDoNotSpin(e *env) {
	q := e.open()
	f := newFaultQueue(q)
	var calls atomic.Int64
	var empty atomic.Bool
	empty.Store(true)
	f.receive = func(ctx context.Context, most int, next receiveFunc) ([]*queue.Delivery, error) {
		if empty.Load() {
			calls.Add(1)
			return nil, nil
		}
		return next(ctx, most)
	}
	r := e.recorder()
	c := e.consume(f, r.ok())
	const watch = 2 * time.Second
	e.quiet(watch)
	if n := calls.Load(); n > 200 {
		e.Errorf("%d empty receives in %v", n, watch)
	}
	empty.Store(false)
	e.publish(q, text("m"))
	r.awaitEnds("m", 1)
	c.stop()
}
