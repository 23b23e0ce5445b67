package queue

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// batchRun calls a batch handler for deliveries, each in a goroutine of its own,
// and keeps what they returned.
type batchRun struct {
	h    Handler
	wg   sync.WaitGroup
	mu   sync.Mutex
	errs map[string]error
}

func runBatch(h Handler) *batchRun { return &batchRun{h: h, errs: map[string]error{}} }

func (r *batchRun) deliver(ctx context.Context, id, key string) {
	r.wg.Go(func() {
		err := r.h(ctx, &Delivery{Message: Message{ID: id, OrderingKey: key}, Source: Endpoint{"fake", "q"}})
		r.mu.Lock()
		defer r.mu.Unlock()
		r.errs[id] = err
	})
	synctest.Wait() // one after the other
}

// returned are the ids whose handlers have returned.
func (r *batchRun) returned() []string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []string
	for id := range r.errs {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func idsOf(ds []*Delivery) []string {
	var ids []string
	for _, d := range ds {
		ids = append(ids, d.ID)
	}
	return ids
}

func TestBatchStartsWhenItIsFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var batches [][]string
		r := runBatch(Batch(2, time.Hour, func(_ context.Context, ds []*Delivery) []error {
			batches = append(batches, idsOf(ds))
			return make([]error, len(ds))
		}))
		began := time.Now()
		for _, id := range []string{"a", "b", "c", "d"} {
			r.deliver(t.Context(), id, "")
		}
		r.wg.Wait()
		assert.Equal(t, [][]string{{"a", "b"}, {"c", "d"}}, batches)
		assert.Zero(t, time.Since(began))
		assert.Equal(t, map[string]error{"a": nil, "b": nil, "c": nil, "d": nil}, r.errs)
	})
}

func TestBatchWaitsFromItsFirstDelivery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var at []time.Duration
		r := runBatch(Batch(10, 5*time.Second, func(_ context.Context, ds []*Delivery) []error {
			at = append(at, time.Since(began))
			return make([]error, len(ds))
		}))
		time.Sleep(time.Second)
		r.deliver(t.Context(), "a", "")
		time.Sleep(4 * time.Second)
		r.deliver(t.Context(), "b", "")
		time.Sleep(2 * time.Second) // the first batch has gone at 6 s
		r.deliver(t.Context(), "c", "")
		r.wg.Wait()
		assert.Equal(t, []time.Duration{6 * time.Second, 12 * time.Second}, at)
	})
}

func TestBatchGivesEachDeliveryItsResult(t *testing.T) {
	t.Parallel()
	bad := errors.New("bad")
	cases := map[string]struct {
		results []error
		panics  any
		want    []func(error) bool
	}{
		"each its own": {results: []error{nil, Reject(bad), bad}, want: []func(error) bool{isNil, rejected, failed2}},
		"too few":      {results: []error{nil}, want: []func(error) bool{isNil, failed2, failed2}},
		"none at all":  {results: nil, want: []func(error) bool{failed2, failed2, failed2}},
		"too many":     {results: []error{nil, nil, bad, bad, bad}, want: []func(error) bool{isNil, isNil, failed2}},
		"a panic":      {panics: bad, want: []func(error) bool{panicked, panicked, panicked}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := runBatch(Batch(3, time.Minute, func(_ context.Context, ds []*Delivery) []error {
					slices.Reverse(ds) // results go by what was given
					if c.panics != nil {
						panic(c.panics)
					}
					return c.results
				}))
				for i := range 3 {
					r.deliver(t.Context(), fmt.Sprint(i), "")
				}
				r.wg.Wait()
				for i, want := range c.want {
					assert.True(t, want(r.errs[fmt.Sprint(i)]), "%d: %v", i, r.errs[fmt.Sprint(i)])
				}
			})
		})
	}
}

func isNil(err error) bool    { return err == nil }
func rejected(err error) bool { return OutcomeOf(err).Kind == Rejected }
func failed2(err error) bool  { return OutcomeOf(err).Kind == Failed }
func panicked(err error) bool {
	p, ok := errors.AsType[*PanicError](err)
	return ok && len(p.Stack) > 0
}

func TestBatchFunctionThatEndsItsGoroutineIsAFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := runBatch(Batch(2, 0, func(context.Context, []*Delivery) []error {
			runtime.Goexit()
			return nil
		}))
		r.deliver(t.Context(), "a", "")
		r.wg.Wait()
		assert.ErrorIs(t, r.errs["a"], errBatchGoexit)
	})
}

func TestBatchNeverHoldsTwoOfOneKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var batches [][]string
		r := runBatch(Batch(3, time.Second, func(_ context.Context, ds []*Delivery) []error {
			batches = append(batches, idsOf(ds))
			return make([]error, len(ds))
		}))
		r.deliver(t.Context(), "k1", "k")
		r.deliver(t.Context(), "k2", "k")
		r.deliver(t.Context(), "l1", "l")
		r.deliver(t.Context(), "x1", "")
		r.deliver(t.Context(), "x2", "")
		r.deliver(t.Context(), "x3", "")
		r.wg.Wait()
		assert.Equal(t, [][]string{{"k1", "l1", "x1"}, {"k2", "x2", "x3"}}, batches)
	})
}

func TestSameKeyOfAnotherQueueMayShareABatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := 0
		h := Batch(2, time.Hour, func(_ context.Context, ds []*Delivery) []error {
			n = len(ds)
			return make([]error, len(ds))
		})
		var wg sync.WaitGroup
		for _, q := range []string{"a", "b"} {
			wg.Go(func() {
				assert.NoError(t, h(t.Context(), &Delivery{Message: Message{OrderingKey: "k"}, Source: Endpoint{"fake", q}}))
			})
		}
		wg.Wait()
		assert.Equal(t, 2, n)
	})
}

func TestDeliveryWhoseContextEndsLeavesABatchThatGathers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var batches [][]string
		r := runBatch(Batch(3, time.Minute, func(_ context.Context, ds []*Delivery) []error {
			batches = append(batches, idsOf(ds))
			return make([]error, len(ds))
		}))
		ctx, cancel := context.WithCancelCause(t.Context())
		r.deliver(ctx, "a", "k")
		r.deliver(t.Context(), "b", "")
		cancel(ErrDraining)
		assert.Equal(t, []string{"a"}, r.returned())
		assert.ErrorIs(t, r.errs["a"], ErrDraining)
		assert.True(t, Interrupted(ctx, r.errs["a"]))
		r.deliver(t.Context(), "a2", "k") // its key is free again
		r.deliver(t.Context(), "c", "")
		r.wg.Wait()
		assert.Equal(t, [][]string{{"b", "a2", "c"}}, batches)
	})
}

func TestBatchThatEverybodyHasLeftIsNeverRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		h := Batch(3, time.Minute, func(_ context.Context, ds []*Delivery) []error {
			calls++
			return make([]error, len(ds))
		})
		r := runBatch(h)
		ctx, cancel := context.WithCancelCause(t.Context())
		r.deliver(ctx, "a", "")
		cancel(ErrLeaseLost)
		r.wg.Wait()
		time.Sleep(30 * time.Second)
		began := time.Now()
		r.deliver(t.Context(), "b", "") // a batch of its own, with a wait of its own
		r.wg.Wait()
		assert.Equal(t, time.Minute, time.Since(began))
		assert.Equal(t, 1, calls)
		require.ErrorIs(t, h(ctx, &Delivery{}), ErrLeaseLost, "too late to join")
	})
}

func TestEveryCallerWaitsForTheBatchFunction(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		finish := make(chan struct{})
		var inside context.Context
		r := runBatch(Batch(2, time.Minute, func(ctx context.Context, ds []*Delivery) []error {
			inside = ctx
			<-finish
			return make([]error, len(ds))
		}))
		a, cancelA := context.WithCancelCause(context.WithValue(t.Context(), testKey{}, "a"))
		b, cancelB := context.WithCancelCause(context.WithValue(t.Context(), testKey{}, "b"))
		r.deliver(a, "a", "")
		r.deliver(b, "b", "")
		assert.Equal(t, "a", inside.Value(testKey{}))

		cancelA(ErrLeaseLost)
		assert.Empty(t, r.returned())
		assert.NoError(t, inside.Err(), "the other one's work goes on")
		cancelB(ErrDraining)
		assert.Empty(t, r.returned())
		require.Error(t, inside.Err())
		assert.ErrorIs(t, context.Cause(inside), ErrDraining)
		close(finish)
		r.wg.Wait()
		assert.Equal(t, map[string]error{"a": nil, "b": nil}, r.errs, "what was done is done")
	})
}

type testKey struct{}

func TestBatchContextEndsWithTheBatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var inside context.Context
		r := runBatch(Batch(1, 0, func(ctx context.Context, ds []*Delivery) []error {
			inside = ctx
			return []error{ctx.Err()}
		}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		r.deliver(ctx, "a", "")
		r.wg.Wait()
		assert.NoError(t, r.errs["a"])
		assert.Error(t, inside.Err())
	})
}

func TestBatchThatCannotBeMeantIsRefused(t *testing.T) {
	t.Parallel()
	fn := func(context.Context, []*Delivery) []error {
		t.Error("called")
		return nil
	}
	for name, h := range map[string]Handler{
		"n of 0": Batch(0, time.Second, fn), "negative n": Batch(-1, time.Second, fn), "negative wait": Batch(2, -1, fn), "no function": Batch(2, 1, nil),
	} {
		err := h(t.Context(), &Delivery{})
		assert.ErrorIs(t, err, ErrInvalid, name)
		assert.Equal(t, Failed, OutcomeOf(err).Kind, "%s: nothing is lost", name)
	}
}

func TestBatchInAConsumer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(30 * time.Second)
		f.put(msgs(5)...)
		var sizes []int
		c, err := NewConsumer(f, Batch(3, time.Second, func(ctx context.Context, ds []*Delivery) []error {
			sizes = append(sizes, len(ds))
			out := make([]error, len(ds))
			for i, d := range ds {
				if d.ID == "m1" {
					out[i] = RetryAfter(time.Hour, errTest)
				}
			}
			return out
		}), nil)
		require.NoError(t, err)
		r := run(c)
		time.Sleep(2 * time.Second)
		f.put(msgs(6)[5:]...)
		synctest.Wait()
		began := time.Now()
		require.NoError(t, r.stop())
		assert.LessOrEqual(t, time.Since(began), 2*time.Second, "a shutdown waits for the batch's wait, not for it to be full")
		assert.Equal(t, []int{3, 2, 1}, sizes)
		assert.Equal(t, map[SettleKind]int{Ack: 5, Release: 1}, f.kinds())
	})
}

func TestLeasesOfABatchAreExtendedTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(30 * time.Second)
		f.put(msgs(3)...)
		c, err := NewConsumer(f, Batch(3, time.Minute, func(ctx context.Context, ds []*Delivery) []error {
			at, ok := LeaseDeadline(ctx)
			assert.True(t, ok)
			assert.Equal(t, time.Now().Add(30*time.Second), at)
			at, err := ExtendLease(ctx, time.Hour)
			assert.NoError(t, err)
			assert.Equal(t, time.Now().Add(time.Hour), at)
			return make([]error, len(ds))
		}), nil)
		require.NoError(t, err)
		r := run(c)
		synctest.Wait()
		require.NoError(t, r.stop())
		f.mu.Lock()
		defer f.mu.Unlock()
		var extended []string
		for _, e := range f.extends {
			extended = append(extended, e.ids...)
		}
		slices.Sort(extended)
		assert.Equal(t, []string{"m0", "m1", "m2"}, extended)
	})
}

func BenchmarkBatch(b *testing.B) {
	h := Batch(16, time.Millisecond, func(_ context.Context, ds []*Delivery) []error { return make([]error, len(ds)) })
	d := &Delivery{}
	ctx := context.Background()
	b.SetParallelism(16)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := h(ctx, d); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func TestBatchTellsTheContextsOfItsDeliveries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		var got []any
		r := runBatch(Batch(3, time.Minute, func(ctx context.Context, ds []*Delivery) []error {
			assert.Equal(t, "a's", ctx.Value(key{}), "it has the first one's values")
			inner, cancel := context.WithCancel(ctx)
			defer cancel()
			for i, c := range BatchContexts(inner) {
				got = append(got, ds[i].ID, c.Value(key{}), context.Cause(c))
			}
			return make([]error, len(ds))
		}))
		gone, leave := context.WithCancel(t.Context())
		r.deliver(gone, "left", "")
		leave()
		synctest.Wait()
		for _, id := range []string{"a", "b", "c"} {
			r.deliver(context.WithValue(t.Context(), key{}, id+"'s"), id, "")
		}
		assert.Equal(t, []string{"a", "b", "c", "left"}, r.returned())
		assert.Equal(t, []any{"a", "a's", nil, "b", "b's", nil, "c", "c's", nil}, got)
		assert.Nil(t, BatchContexts(t.Context()))
	})
}
