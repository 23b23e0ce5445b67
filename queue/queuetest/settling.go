package queuetest

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// settlingRules hold the engine to how it groups settlements.
func settlingRules() []rule {
	return []rule{
		{"SettlementsAreGrouped", "a request for each would cost ten times the money", false, settlementsGrouped},
		{"AnAckDoesNotLingerLong", "what waits for company isn't safe yet: a crash would repeat it", false, ackLingersShortly},
		{"AKeysNextMessageDoesNotWaitForCompany", "where the broker locks keys, the next one waits for the ack", false, keyDoesNotLinger},
		{"AShortLeaseShortensTheLinger", "an ack mustn't use up the lease that it ends", false, shortLeaseLinger},
	}
}

func settlementsGrouped(e *env) {
	q := e.open()
	f := newFaultQueue(q)
	var calls atomic.Int32
	f.settle = func(ctx context.Context, s []queue.Settlement, next settleFunc) error {
		calls.Add(1)
		return next(ctx, s...)
	}
	const n = 200
	e.publishCount(q, "m", n)
	r := e.recorder()
	c := e.consume(f, r.ok(), concurrency(16))
	r.awaitAll("m", n)
	c.stop()
	if got := calls.Load(); got > n/4 {
		e.Errorf("%d messages were settled in %d calls", n, got)
	}
	e.expectGone(q)
}

// maxLinger is the longest that an ack may wait for company.
const maxLinger = 50 * time.Millisecond

func ackLingersShortly(e *env) { e.wantLinger(e.open(), maxLinger) }

func shortLeaseLinger(e *env) {
	lease := e.longer(10*time.Second, e.lease) // the shortest that Pub/Sub gives
	e.wantLinger(e.open(queue.QueueSpec{Lease: lease}), min(maxLinger, lease/20))
}

// wantLinger fails unless lone acks are sent within most.
func (e *env) wantLinger(q queue.Queue, most time.Duration) {
	e.Helper()
	f := newFaultQueue(q)
	r := e.recorder()
	c := e.consume(f, r.ok())
	for i := range 5 {
		name := fmt.Sprint("m", i)
		e.publish(q, text(name))
		call := r.awaitEnds(name, 1)[0]
		e.await("the ack", func() bool { return len(f.settlements(name)) == 1 })
		if d := f.settlements(name)[0].at.Sub(call.end); d > most+e.longer(0, time.Second) {
			e.Errorf("a lone ack was sent %v after its handler had returned, want at most %v", d, most)
		}
	}
	c.stop()
}

func keyDoesNotLinger(e *env) {
	q, ok := e.ordered()
	if !ok {
		return
	}
	const n = 20
	e.byKey(q, n, "a")
	r := e.recorder()
	begun := time.Now()
	c := e.consume(q, r.ok())
	r.awaitAll("a", n)
	if took := time.Since(begun); took > e.longer(maxLinger, e.patience) {
		e.Errorf("%d messages of one key, which need no time, took %v", n, took)
	}
	c.stop()
	e.expectOrder(r, n, "a")
}
