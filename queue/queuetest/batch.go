package queuetest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// batchRules hold queue.Batch to what its handlers build on.
func batchRules() []rule {
	return []rule{
		{"DeliveriesAreGathered", "a bulk call is cheaper than many", false, batchGathers},
		{"APartialBatchStartsAfterItsWait", "the last messages of an evening aren't kept until morning", false, batchPartial},
		{"EachDeliveryHasItsOwnResult", "one bad message never fails its batch-mates", false, batchResults},
		{"AMissingResultIsAFailure", "what nobody has spoken for isn't done", false, batchMissing},
		{"APanicFailsTheBatchAndLosesNothing", "all of them come back", false, batchPanics},
		{"NeverTwoOfOneKeyInABatch", "one key is handled one at a time, in order", false, batchKeys},
	}
}

// batches records the batches that a function was given.
type batches struct {
	mu    sync.Mutex
	sizes []int
	keys  [][]string
}

func (b *batches) note(ds []*queue.Delivery) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var keys []string
	for _, d := range ds {
		keys = append(keys, d.OrderingKey)
	}
	b.sizes, b.keys = append(b.sizes, len(ds)), append(b.keys, keys)
}

// record wraps a batch handler so that its deliveries are recorded one by one.
func (r *recorder) record(h queue.Handler) queue.Handler {
	return r.handle(func(ctx context.Context, d *queue.Delivery, _ int) error { return h(ctx, d) })
}

func batchGathers(e *env) {
	q := e.open()
	b := &batches{}
	r := e.recorder()
	e.publishCount(q, "m", 20)
	begun := time.Now()
	c := e.consume(q, r.record(queue.Batch(5, e.lease, func(_ context.Context, ds []*queue.Delivery) []error {
		b.note(ds)
		return make([]error, len(ds))
	})), concurrency(10))
	r.awaitAll("m", 20)
	// Full batches don't wait; only at the end there may be partial ones.
	e.between("twenty messages in batches of five", time.Since(begun), 0, e.lease)
	c.stop()
	for _, n := range b.sizes {
		if n > 5 {
			e.Errorf("a batch had %d deliveries; the limit is 5", n)
		}
	}
	if len(b.sizes) > 10 {
		e.Errorf("20 messages came in %d batches of at most 5: %v", len(b.sizes), b.sizes)
	}
	e.expectGone(q)
}

func batchPartial(e *env) {
	q := e.open()
	r := e.recorder()
	c := e.consume(q, r.record(queue.Batch(5, e.unit, func(_ context.Context, ds []*queue.Delivery) []error {
		return make([]error, len(ds))
	})))
	e.publishCount(q, "m", 3)
	r.awaitAll("m", 3)
	first := r.all()[0]
	e.between("a partial batch", first.end.Sub(first.start), e.unit-e.early(), e.unit)
	c.stop()
}

func batchResults(e *env) {
	q := e.open()
	r := e.recorder()
	c := e.consume(q, r.record(queue.Batch(6, e.unit, func(_ context.Context, ds []*queue.Delivery) []error {
		out := make([]error, len(ds))
		for i, d := range ds {
			switch {
			case d.Failures > 0:
			case string(d.Body) == "m2":
				out[i] = errWork
			case string(d.Body) == "m4":
				out[i] = queue.Drop(errWork)
			}
		}
		return out
	})))
	e.publishCount(q, "m", 6)
	r.awaitAll("m", 6)
	r.awaitEnds("m2", 2)
	c.stop()
	e.expectGone(q)
	for i := range 6 {
		r.expect(fmt.Sprint("m", i), pick(i == 2, 2, 1))
	}
	equal(e, "Stats().Dropped", c.Stats().Dropped, 1)
}

func batchMissing(e *env) {
	q := e.open()
	r := e.recorder()
	var mu sync.Mutex
	calls := 0
	c := e.consume(q, r.record(queue.Batch(4, e.unit, func(_ context.Context, ds []*queue.Delivery) []error {
		mu.Lock()
		defer mu.Unlock()
		if calls++; calls == 1 {
			return nil
		}
		return make([]error, len(ds))
	})))
	e.publishCount(q, "m", 4)
	e.await("all four to come again", func() bool { return r.finished() == 8 })
	c.stop()
	e.expectGone(q)
	for _, call := range r.all() {
		equal(e, "Failures of "+call.name, call.d.Failures, call.nth-1)
	}
}

func batchPanics(e *env) {
	q := e.open()
	r := e.recorder()
	var mu sync.Mutex
	calls := 0
	c := e.consume(q, r.record(queue.Batch(4, e.unit, func(_ context.Context, ds []*queue.Delivery) []error {
		mu.Lock()
		calls++
		first := calls == 1
		mu.Unlock()
		if first {
			panicHere()
		}
		return make([]error, len(ds))
	})))
	e.publishCount(q, "m", 4)
	e.await("all four to come again", func() bool { return r.finished() == 8 })
	c.stop()
	e.expectGone(q)
}

func batchKeys(e *env) {
	q, ok := e.ordered()
	if !ok {
		return
	}
	b := &batches{}
	r := e.recorder()
	c := e.consume(q, r.record(queue.Batch(6, e.unit, func(_ context.Context, ds []*queue.Delivery) []error {
		b.note(ds)
		return make([]error, len(ds))
	})))
	e.byKey(q, 6, "a", "b", "c")
	for _, k := range []string{"a", "b", "c"} {
		r.awaitAll(k, 6)
	}
	c.stop()
	e.expectOrder(r, 6, "a", "b", "c")
	together := false
	for _, keys := range b.keys {
		seen := map[string]bool{}
		for _, k := range keys {
			if seen[k] {
				e.Errorf("a batch had two deliveries of the key %q: %v", k, keys)
			}
			seen[k] = true
		}
		together = together || len(keys) > 1
	}
	if !together {
		e.Errorf("never two keys were in one batch: %v", b.keys)
	}
}
