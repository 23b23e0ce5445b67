package queuetest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// subscriberRules hold a backend's Subscriber to what the engine builds on,
// without the engine.
func subscriberRules() []rule {
	return []rule{
		{"ReceiveReturnsAtMostWhatWasAskedFor", "what's beyond the free slots would age its lease and burn an attempt", true, receiveAtMost},
		{"AnEmptyReceiveEndsWithItsContext", "every wait ends; a shutdown waits for it", true, emptyReceive},
		{"AMessageWakesAnOpenReceive", "a message mustn't wait for the next poll", false, messageWakes},
		{"WhatIsNeverSettledComesBackWhenItsLeaseEnds", "a process may die with a message in its hands; and nobody else gets it before", true, unsettledComesBack},
		{"ReleaseBringsItBackAtOnce", "what can't be used now is for somebody else", true, releaseAtOnce},
		{"ReleaseWithADelayIsNeverEarly", "the delay of a failure rests on it", true, releaseDelayed},
		{"AckRemoves", "what's done isn't done again", true, ackRemoves},
		{"ManySettlementsInOneCall", "the backend splits what the broker doesn't take in one request", false, manySettlements},
		{"EachSettlementOfACallStandsAlone", "one call may acknowledge, release and delay", false, mixedSettlements},
		{"ConcurrentReceivesShareTheMessages", "a lease has one owner", false, concurrentReceives},
		{"ExtendKeepsTheLeaseAsLongAsItSays", "the engine plans by the deadlines that were granted", true, extendKeeps},
		{"ExtendIsClampedToWhatTheBrokerAllows", "a broker's maximum shortens a lease; it must not end it", false, extendClamped},
		{"ADelayOfZeroAfterAnExtensionIsAtOnce", "what was extended and is given back must not wait for its old deadline", false, releaseAfterExtend},
		{"AStaleSettlementHarmsNobody", "whoever lost a lease must not take the message from its new owner", false, staleSettlement},
		{"SettlingTwiceIsHarmless", "an answer may be lost and the call repeated", false, settleTwice},
		{"DeferBringsItBackWhenDueWithWhatIsKnown", "a delay beyond what the broker can do is a promise as well", false, deferComesBack},
		{"ADeliveryThatIsNotItsOwnIsAnError", "a mix-up of two queues must not be taken for success, nor panic", false, foreignDelivery},
	}
}

// take receives, as the engine would, until it has n deliveries.
func (e *env) take(q queue.Queue, n int) []*queue.Delivery {
	e.Helper()
	ctx, cancel := context.WithTimeout(e.ctx, e.patience)
	defer cancel()
	most := q.Capabilities().MaxReceive
	var out []*queue.Delivery
	for len(out) < n {
		want := n - len(out)
		if most > 0 {
			want = min(want, most)
		}
		ds, err := q.Receive(ctx, want)
		out = append(out, ds...)
		if len(out) < n && (err != nil || ctx.Err() != nil) {
			e.Fatalf("Receive brought %d of %d deliveries in %v: %v", len(out), n, e.patience, err)
		}
	}
	return out
}

func (e *env) settle(q queue.Queue, s ...queue.Settlement) {
	e.Helper()
	if err := q.Settle(e.ctx, s...); err != nil {
		e.Fatalf("Settle: %v", err)
	}
}

func ack(d *queue.Delivery) queue.Settlement { return queue.Settlement{Delivery: d, Kind: queue.Ack} }

func release(d *queue.Delivery, delay time.Duration) queue.Settlement {
	return queue.Settlement{Delivery: d, Kind: queue.Release, Delay: delay}
}

func receiveAtMost(e *env) {
	q := e.open()
	e.publishCount(q, "m", 12)
	got := 0
	for _, n := range []int{1, 3, 5} {
		ds, err := q.Receive(e.ctx, n)
		if err != nil {
			e.Fatalf("Receive: %v", err)
		}
		if len(ds) > n {
			e.Errorf("Receive(%d) returned %d deliveries", n, len(ds))
		}
		got += len(ds)
	}
	if got == 0 {
		e.Error("twelve messages are there, and three receives brought none")
	}
}

func emptyReceive(e *env) {
	q := e.open()
	ctx, cancel := context.WithTimeout(e.ctx, e.unit)
	defer cancel()
	begun := time.Now()
	for ctx.Err() == nil {
		ds, err := q.Receive(ctx, 10)
		if len(ds) > 0 {
			e.Fatalf("an empty queue brought %d deliveries", len(ds))
		}
		if err != nil && ctx.Err() == nil {
			e.Fatalf("Receive on an empty queue: %v", err)
		}
	}
	e.between("a receive whose context ends", time.Since(begun), e.unit, e.unit)
}

func messageWakes(e *env) {
	q := e.open()
	done := make(chan time.Time, 1)
	go func() {
		defer close(done)
		for {
			ds, err := q.Receive(e.ctx, 1)
			if err != nil {
				e.Errorf("Receive: %v", err)
				return
			}
			if len(ds) > 0 {
				done <- time.Now()
				return
			}
		}
	}()
	e.quiet(e.unit)
	begun := time.Now()
	e.publish(q, text("m"))
	e.between("from publish to an open receive", (<-done).Sub(begun), 0, 0)
}

func unsettledComesBack(e *env) {
	q := e.open()
	e.publish(q, text("m"))
	first := e.take(q, 1)[0]
	begun := time.Now()
	if first.Deadline.IsZero() {
		e.Fatal("Deadline is zero: the engine couldn't keep the lease")
	}
	if l := first.Deadline.Sub(begun); l > e.lease+time.Second || l < e.lease/2 {
		e.Errorf("the lease ends in %v; the queue was opened with a lease of %v", l, e.lease)
	}
	second := e.take(q, 1)[0]
	e.between("coming back after the lease", time.Since(begun), e.lease-e.longer(0, time.Second), e.lease)
	equal(e, "BrokerID", second.BrokerID, first.BrokerID)
	equal(e, "body", string(second.Body), "m")
	e.wantAttempt(q.Capabilities(), *second, 2)
	e.settle(q, ack(second))
	e.expectGone(q)
}

func releaseAtOnce(e *env) {
	q := e.open()
	e.publish(q, text("m"))
	d := e.take(q, 1)[0]
	begun := time.Now()
	e.settle(q, release(d, 0))
	d = e.take(q, 1)[0]
	if took := time.Since(begun); took > e.longer(0, e.lease*3/4) {
		e.Errorf("a released message came back after %v, want at once", took)
	}
	equal(e, "body", string(d.Body), "m")
	e.settle(q, ack(d))
}

func releaseDelayed(e *env) {
	q := e.open()
	e.publish(q, text("m"))
	for _, delay := range []time.Duration{e.unit, 3 * e.unit, 2*e.unit + e.unit/3} {
		d := e.take(q, 1)[0]
		begun := time.Now()
		e.settle(q, release(d, delay))
		d = e.take(q, 1)[0]
		e.between(fmt.Sprintf("a release with a delay of %v", delay), time.Since(begun), delay-e.early(), delay+time.Second)
		e.settle(q, release(d, 0))
	}
}

func ackRemoves(e *env) {
	q := e.open()
	e.publishCount(q, "m", 3)
	ds := e.take(q, 3)
	e.settle(q, ack(ds[0]))
	e.settle(q, ack(ds[1]), ack(ds[2]))
	e.expectGone(q)
}

func manySettlements(e *env) {
	q := e.open()
	const n = 33
	e.publishCount(q, "m", n)
	ds := e.take(q, n)
	s := make([]queue.Settlement, n)
	for i, d := range ds {
		s[i] = release(d, 0)
	}
	e.settle(q, s...)
	ds = e.take(q, n)
	for i, d := range ds {
		s[i] = ack(d)
	}
	e.settle(q, s...)
	e.expectGone(q)
}

func mixedSettlements(e *env) {
	q := e.open()
	e.publishCount(q, "m", 3)
	ds := e.take(q, 3)
	names := [3]string{}
	for i, d := range ds {
		names[i] = string(d.Body)
	}
	begun := time.Now()
	e.settle(q, ack(ds[0]), release(ds[1], 0), release(ds[2], 2*e.unit))
	d := e.take(q, 1)[0]
	equal(e, "what was released at once", string(d.Body), names[1])
	e.settle(q, ack(d))
	d = e.take(q, 1)[0]
	equal(e, "what was released with a delay", string(d.Body), names[2])
	e.between("a release with a delay", time.Since(begun), 2*e.unit-e.early(), 2*e.unit+time.Second)
	e.settle(q, ack(d))
	e.expectGone(q)
}

func concurrentReceives(e *env) {
	q := e.open()
	const n, workers = 40, 4
	e.publishCount(q, "m", n)
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	var mu sync.Mutex
	seen := map[string]int{}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				ds, err := q.Receive(ctx, 5)
				if err != nil && ctx.Err() == nil {
					e.Errorf("Receive: %v", err)
					return
				}
				for _, d := range ds {
					if err := q.Settle(e.ctx, ack(d)); err != nil {
						e.Errorf("Settle: %v", err)
					}
				}
				mu.Lock()
				for _, d := range ds {
					seen[string(d.Body)]++
				}
				done := len(seen) == n
				mu.Unlock()
				if done {
					cancel()
				}
			}
		})
	}
	e.await("all messages to be received", func() bool { return ctx.Err() != nil })
	wg.Wait()
	for name, k := range seen {
		if k != 1 {
			e.Errorf("%q was received %d times within its lease", name, k)
		}
	}
}

func (e *env) extend(q queue.Queue, d time.Duration, del *queue.Delivery) time.Time {
	e.Helper()
	granted, err := q.Extend(e.ctx, d, del)
	if err != nil || len(granted) != 1 || granted[0].IsZero() {
		e.Fatalf("Extend(%v): %v, %v", d, granted, err)
	}
	return granted[0]
}

func extendKeeps(e *env) {
	q := e.open()
	e.publish(q, text("m"))
	d := e.take(q, 1)[0]
	begun := time.Now()
	want := 3 * e.lease
	if m := q.Capabilities().MaxExtension; m > 0 {
		want = min(want, m)
	}
	granted := e.extend(q, want, d)
	e.between("the granted lease", granted.Sub(begun), want-time.Second, want)
	// A shorter one counts from now as well.
	e.quiet(e.lease / 2)
	granted = e.extend(q, 2*e.lease, d)
	e.between("the lease granted then", granted.Sub(begun), 5*e.lease/2-time.Second, 5*e.lease/2)
	again := e.take(q, 1)[0]
	now := time.Now()
	if now.Before(granted.Add(-e.longer(0, time.Second))) {
		e.Errorf("the message came again at %v, in a lease that was granted until %v", now, granted)
	}
	e.between("coming back after the granted lease", now.Sub(granted), -time.Second, 0)
	equal(e, "body", string(again.Body), "m")
}

func extendClamped(e *env) {
	q := e.open()
	e.publish(q, text("m"))
	d := e.take(q, 1)[0]
	begun := time.Now()
	const huge = 1000 * time.Hour
	granted := e.extend(q, huge, d).Sub(begun)
	most := huge
	caps := q.Capabilities()
	for _, m := range []time.Duration{caps.MaxExtension, caps.MaxLease} {
		if m > 0 {
			most = min(most, m)
		}
	}
	e.between("the granted lease", granted, most-2*time.Second, most)
	if e.h.long() { // the grant is kept
		e.quiet(granted - e.unit)
		ctx, cancel := context.WithTimeout(e.ctx, e.unit/2)
		defer cancel()
		if ds, _ := q.Receive(ctx, 1); len(ds) > 0 {
			e.Errorf("the message came again %v after a lease of %v was granted", time.Since(begun), granted)
		}
	}
	e.settle(q, ack(d))
	e.expectGone(q)
}

func releaseAfterExtend(e *env) {
	q := e.open()
	e.publish(q, text("m"))
	d := e.take(q, 1)[0]
	e.extend(q, 5*e.lease, d)
	begun := time.Now()
	e.settle(q, release(d, 0))
	d = e.take(q, 1)[0]
	e.between("coming back", time.Since(begun), 0, 0)
	e.settle(q, ack(d))
}

func staleSettlement(e *env) {
	q := e.open()
	caps := q.Capabilities()
	e.publish(q, text("m"))
	old := e.take(q, 1)[0]
	mine := e.take(q, 1)[0] // the lease of old is over
	for _, s := range []queue.Settlement{release(old, 0), release(old, e.unit), ack(old)} {
		err := q.Settle(e.ctx, s)
		if caps.SettleConfirmed || err != nil {
			e.wantErr(err, queue.ErrLeaseLost, s.Kind.String()+" with an old lease")
		}
	}
	if granted, err := q.Extend(e.ctx, e.lease, old); err != nil {
		e.wantErr(err, queue.ErrLeaseLost, "Extend of an old lease")
	} else if len(granted) != 1 {
		e.Errorf("Extend returned %d deadlines for one delivery", len(granted))
	}
	ctx, cancel := context.WithTimeout(e.ctx, e.lease/3)
	defer cancel()
	if ds, _ := q.Receive(ctx, 1); len(ds) > 0 {
		e.Error("an old lease's settlement took the message from its new owner")
	}
	e.settle(q, release(mine, 0))
	if d := e.take(q, 1)[0]; string(d.Body) != "m" {
		e.Errorf("body %q", d.Body)
	}
}

func settleTwice(e *env) {
	q := e.open()
	e.publish(q, text("m"), text("n"))
	for _, d := range e.take(q, 2) {
		e.settle(q, ack(d))
		for _, s := range []queue.Settlement{ack(d), release(d, 0)} {
			if err := q.Settle(e.ctx, s); err != nil {
				e.wantErr(err, queue.ErrLeaseLost, s.Kind.String()+" after an ack")
			}
		}
	}
	e.expectGone(q)
}

func deferComesBack(e *env) {
	q, ok := e.delayed()
	if !ok {
		return
	}
	m := &queue.Message{ID: "id", Body: []byte("m"), Attributes: map[string]string{"k": "v", "e": ""}}
	e.publish(q, m)
	d := e.take(q, 1)[0]
	enqueued := d.EnqueuedAt
	until := time.Now().Add(3 * e.unit)
	e.settle(q, queue.Settlement{Delivery: d, Kind: queue.Defer, Until: until})
	got, c := e.collect(q)
	e.await("the deferred message", func() bool { return got.len() == 1 })
	e.between("after the due time", time.Since(until), -e.early(), 0)
	c.stop()
	e.expectGone(q)
	now := got.all()[0]
	if now.ID != "id" || string(now.Body) != "m" || now.Attributes["k"] != "v" || len(now.Attributes) != 2 || now.Failures != 0 {
		e.Errorf("it came back as %+v", now)
	}
	if off := now.EnqueuedAt.Sub(enqueued); off < 0 || off > time.Second {
		e.Errorf("EnqueuedAt moved by %v", off)
	}
}

func foreignDelivery(e *env) {
	q := e.open()
	for _, d := range []*queue.Delivery{{}, {BrokerID: "unknown", Message: queue.Message{ID: "unknown"}, Native: "strange"}} {
		if err := q.Settle(e.ctx, ack(d)); err == nil {
			e.Error("Settle of a delivery from elsewhere returned nil")
		}
		if _, err := q.Extend(e.ctx, e.lease, d); err == nil {
			e.Error("Extend of a delivery from elsewhere returned nil")
		}
	}
	// Beside one of its own only the foreign one fails.
	e.publish(q, text("m"))
	own := e.take(q, 1)[0]
	errs := entryErrors(q.Settle(e.ctx, ack(&queue.Delivery{}), ack(own)), 2)
	if errs[0] == nil || errs[1] != nil {
		e.Errorf("Settle of a foreign delivery and one of its own: %v", errs)
	}
	e.expectGone(q)
}
