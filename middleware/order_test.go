package middleware_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
)

// ledger counts what was settled and how, between the consumer and its queue.
type ledger struct {
	queue.Queue
	mu   sync.Mutex
	acks map[string]int // by message id
}

func (l *ledger) Unwrap() queue.Queue { return l.Queue }

func (l *ledger) Settle(ctx context.Context, s ...queue.Settlement) error {
	l.mu.Lock()
	for i := range s {
		if s[i].Kind == queue.Ack {
			l.acks[s[i].Delivery.ID]++
		}
	}
	l.mu.Unlock()
	return l.Queue.Settle(ctx, s...)
}

// script is what the handler does with each kind of message, by the number of
// times that it was called for the message. The last entry goes on for ever.
type script []func(ctx context.Context) error

var (
	doOK     = func(context.Context) error { return nil }
	doFail   = func(context.Context) error { return errDown }
	doPanic  = func(context.Context) error { panic("index out of range") }
	doReject = func(context.Context) error { return queue.Reject(errDown) }
	doSnooze = func(context.Context) error { return queue.Snooze(time.Minute) }
	doHang   = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
)

var scripts = map[string]script{
	"succeeds":             {doOK},
	"fails twice":          {doFail, doFail, doOK},
	"fails always":         {doFail},
	"panics once":          {doPanic, doOK},
	"panics always":        {doPanic},
	"rejects":              {doReject},
	"fails, then rejects":  {doFail, doReject},
	"snoozes often":        {doSnooze, doSnooze, doSnooze, doSnooze, doSnooze, doSnooze, doOK},
	"hangs once":           {doHang, doOK},
	"hangs always":         {doHang},
	"fails, panics, hangs": {doFail, doPanic, doHang, doOK},
	"asks for an early retry": {
		func(context.Context) error { return queue.RetryAfter(time.Millisecond, errDown) }, doOK,
	},
}

// deadInTheEnd are those that no number of tries helps.
var deadInTheEnd = map[string]bool{"fails always": true, "panics always": true, "rejects": true, "fails, then rejects": true, "hangs always": true}

// world is what one order is tried in.
type world struct {
	broker  *memory.Broker
	orders  *ledger
	limit   *middleware.Limiter
	store   *middleware.MemoryStore
	mu      sync.Mutex
	calls   map[string]int
	success map[string]int
	parts   map[string]queue.Middleware
	takes   time.Duration // the handler, at least
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		broker: memory.New(&memory.Options{Create: true}),
		limit:  middleware.Limit(3, middleware.LimitOptions{}),
		store:  middleware.NewMemoryStore(0),
		calls:  map[string]int{}, success: map[string]int{},
	}
	q, err := w.broker.Open(t.Context(), "orders", nil)
	require.NoError(t, err)
	dlq, err := w.broker.Open(t.Context(), "orders-dlq", nil)
	require.NoError(t, err)
	w.orders = &ledger{Queue: q, acks: map[string]int{}}
	w.parts = map[string]queue.Middleware{
		"Retry":          middleware.Retry(middleware.RetryOptions{InPlace: 1}),
		"DeadLetter":     middleware.DeadLetter(dlq, middleware.DeadLetterOptions{MaxFailures: 5}),
		"Timeout":        middleware.Timeout(3 * time.Second),
		"Recover":        middleware.Recover(),
		"Idempotent":     middleware.Idempotent(w.store, middleware.IdempotentOptions{Logger: quiet()}),
		"Log":            middleware.Log(middleware.LogOptions{Logger: quiet()}),
		"Limit":          w.limit,
		"RateLimit":      middleware.RateLimit(10, middleware.RateLimitOptions{}),
		"CircuitBreaker": middleware.CircuitBreaker(middleware.CircuitBreakerOptions{OpenFor: time.Second, MaxOpenFor: 10 * time.Second, Logger: quiet()}),
	}
	return w
}

func (w *world) handle(ctx context.Context, d *queue.Delivery) error {
	id := d.ID
	select {
	case <-time.After(w.takes):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	w.mu.Lock()
	n := w.calls[id]
	w.calls[id]++
	w.mu.Unlock()
	d.ID, d.Body, d.Attributes, d.Failures = "changed", nil, nil, 99
	s := scripts[id]
	err := s[min(n, len(s)-1)](ctx)
	if err == nil {
		w.mu.Lock()
		w.success[id]++
		w.mu.Unlock()
	}
	return err
}

// run consumes until nothing is left and checks that nothing was lost or settled
// twice.
func (w *world) run(t *testing.T, order []string, consume func(*testing.T, *world, *queue.Consumer)) {
	t.Helper()
	mw := make([]queue.Middleware, len(order))
	for i, name := range order {
		mw[i] = w.parts[name]
	}
	c, err := queue.NewConsumer(w.orders, w.handle, &queue.ConsumerOptions{Middleware: mw, Logger: quiet(), DrainTimeout: -1})
	require.NoError(t, err)
	for id := range scripts {
		require.NoError(t, w.orders.Publish(t.Context(), &queue.Message{ID: id, Body: []byte(id)}))
	}
	consume(t, w, c)

	dead := map[string]int{}
	for _, d := range w.broker.Messages("orders-dlq") {
		dead[d.ID]++
		assert.Equal(t, d.ID, string(d.Body), "the dead letter isn't what was published")
	}
	for id := range scripts {
		assert.Equal(t, 1, w.orders.acks[id], "%s: settled once and for all", id)
		want := 1
		if deadInTheEnd[id] {
			want = 0
		}
		assert.Equal(t, want, w.success[id], "%s: handled", id)
		assert.Equal(t, 1-want, dead[id], "%s: dead letters", id)
	}
	assert.Zero(t, w.limit.InUse(), "a gate was entered and not left")
	assert.LessOrEqual(t, w.store.Len(), len(scripts)-len(deadInTheEnd), "a failure was remembered as done")
}

// consume runs the consumer until its queue is empty.
func consume(t *testing.T, w *world, c *queue.Consumer) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var ended sync.WaitGroup
	ended.Go(func() { assert.NoError(t, c.Run(ctx)) })
	limit, stop := context.WithTimeout(t.Context(), 100*time.Hour)
	defer stop()
	require.NoError(t, w.broker.WaitIdle(limit, "orders"))
	cancel()
	ended.Wait()
}

// consumeBetweenRestarts does so too, but is stopped every few seconds, which
// cuts the handlers short.
func consumeBetweenRestarts(t *testing.T, w *world, c *queue.Consumer) {
	t.Helper()
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		require.NoError(t, c.Run(ctx))
		cancel()
	}
	consume(t, w, c)
	assert.NotZero(t, c.Stats().Interrupted, "no handler was cut short")
}

// orders are the recommended one, its reverse, and samples of the others.
func orders(n int) [][]string {
	best := []string{"Log", "Limit", "RateLimit", "CircuitBreaker", "DeadLetter", "Retry", "Idempotent", "Timeout", "Recover"}
	out := [][]string{best, {"Recover", "Timeout", "Idempotent", "Retry", "DeadLetter", "CircuitBreaker", "RateLimit", "Limit", "Log"}}
	r := rand.New(rand.NewPCG(1, 2))
	for len(out) < n {
		o := make([]string, len(best))
		for i, j := range r.Perm(len(best)) {
			o[i] = best[j]
		}
		out = append(out, o)
	}
	return out
}

func TestInAnyOrderNothingIsLostOrSettledTwice(t *testing.T) {
	t.Parallel()
	n := 120
	if testing.Short() {
		n = 20
	}
	for _, order := range orders(n) {
		t.Run(strings.Join(order, ">"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				newWorld(t).run(t, order, consume)
			})
		})
	}
}

func TestInAnyOrderNothingIsLostWhenTheDeadLetterQueueIsDown(t *testing.T) {
	t.Parallel()
	for i, order := range orders(30) {
		t.Run(strings.Join(order, ">"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.broker.Fail(memory.Fault{Call: memory.OnPublish, Queue: "orders-dlq", Times: 5 + i})
				w.run(t, order, consume)
			})
		})
	}
}

func TestInAnyOrderNothingIsLostOverRestarts(t *testing.T) {
	t.Parallel()
	for _, order := range orders(40) {
		t.Run(strings.Join(order, ">"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.takes = time.Second
				w.run(t, order, consumeBetweenRestarts)
			})
		})
	}
}

// In any subset and order, too: each piece works without the others.
func TestEachMiddlewareWorksWithoutTheOthers(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 40 {
		order := orders(2 + i)[1+i]
		order = slices.Clone(order[:1+r.IntN(len(order)-1)])
		for _, needed := range []string{"DeadLetter", "Timeout"} { // some of the handlers never end otherwise
			if !slices.Contains(order, needed) {
				order = append(order, needed)
			}
		}
		t.Run(fmt.Sprint(i, " ", strings.Join(order, ">")), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				newWorld(t).run(t, order, consume)
			})
		})
	}
}

// The table in the package's documentation.
func TestEffectsOfTheOrder(t *testing.T) {
	t.Parallel()
	never := func(error) bool { return false }
	type result struct {
		kind  queue.OutcomeKind
		calls int
		dead  string // the error of the dead letter
	}
	for name, tc := range map[string]struct {
		handler  func(ctx context.Context) error
		failures int
		broken   bool // the idempotency store
		mw       func(dl, id queue.Middleware) []queue.Middleware
		want     result
	}{
		"Retry inside of DeadLetter: what If refuses is dead-lettered": {
			doFail, 0, false,
			func(dl, _ queue.Middleware) []queue.Middleware {
				return []queue.Middleware{dl, middleware.Retry(middleware.RetryOptions{If: never})}
			},
			result{queue.DeadLettered, 1, errDown.Error()},
		},
		"Retry outside of DeadLetter: it's unroutable": {
			doFail, 0, false,
			func(dl, _ queue.Middleware) []queue.Middleware {
				return []queue.Middleware{middleware.Retry(middleware.RetryOptions{If: never}), dl}
			},
			result{queue.Rejected, 1, ""},
		},
		"Retry inside of DeadLetter: all tries in place, also at the limit": {
			doFail, 4, false,
			func(dl, _ queue.Middleware) []queue.Middleware {
				return []queue.Middleware{dl, middleware.Retry(middleware.RetryOptions{InPlace: 2})}
			},
			result{queue.DeadLettered, 3, errDown.Error()},
		},
		"Retry outside of DeadLetter: one try at the limit": {
			doFail, 4, false,
			func(dl, _ queue.Middleware) []queue.Middleware {
				return []queue.Middleware{middleware.Retry(middleware.RetryOptions{InPlace: 2}), dl}
			},
			result{queue.DeadLettered, 1, errDown.Error()},
		},
		"Idempotent inside of DeadLetter: a failing store counts": {
			doOK, 4, true,
			func(dl, id queue.Middleware) []queue.Middleware { return []queue.Middleware{dl, id} },
			result{queue.DeadLettered, 0, "middleware: idempotency store: begin orders/a: connection refused"},
		},
		"Idempotent outside of DeadLetter: it's not given up for that": {
			doOK, 4, true,
			func(dl, id queue.Middleware) []queue.Middleware { return []queue.Middleware{id, dl} },
			result{queue.Failed, 0, ""},
		},
		"Timeout inside of Retry: each try": {
			doHang, 0, false,
			func(_, _ queue.Middleware) []queue.Middleware {
				return []queue.Middleware{middleware.Retry(middleware.RetryOptions{InPlace: 2}), middleware.Timeout(time.Second)}
			},
			result{queue.Retry, 3, ""},
		},
		"Timeout outside of Retry: all of them": {
			doHang, 0, false,
			func(_, _ queue.Middleware) []queue.Middleware {
				return []queue.Middleware{middleware.Timeout(time.Second), middleware.Retry(middleware.RetryOptions{InPlace: 2})}
			},
			result{queue.Retry, 1, ""},
		},
		"Timeout inside of DeadLetter: named in the dead letter": {
			doHang, 4, false,
			func(dl, _ queue.Middleware) []queue.Middleware {
				return []queue.Middleware{dl, middleware.Timeout(time.Second)}
			},
			result{queue.DeadLettered, 1, "middleware: handler timed out after 1s: context deadline exceeded"},
		},
		"Timeout outside of DeadLetter: named, too": {
			doHang, 4, false,
			func(dl, _ queue.Middleware) []queue.Middleware {
				return []queue.Middleware{middleware.Timeout(time.Second), dl}
			},
			result{queue.DeadLettered, 1, "middleware: handler timed out after 1s: context deadline exceeded"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				to, store := &target{}, newStore()
				if tc.broken {
					store.begin = 99
				}
				calls := 0
				h := queue.Chain(func(ctx context.Context, _ *queue.Delivery) error {
					calls++
					return tc.handler(ctx)
				}, tc.mw(
					middleware.DeadLetter(to, middleware.DeadLetterOptions{MaxFailures: 5}),
					middleware.Idempotent(store, middleware.IdempotentOptions{Logger: quiet()}),
				)...)
				got := result{kind: queue.OutcomeOf(h(t.Context(), delivery("a", tc.failures))).Kind, calls: calls}
				for _, m := range to.messages() {
					got.dead = history(t, m).Error
				}
				assert.Equal(t, tc.want, got)
			})
		})
	}
}

// The rest of it: what's about Idempotent's store, and Recover.
func TestEffectsOfTheOrderOnTheStoreAndOnPanics(t *testing.T) {
	t.Parallel()
	retry := middleware.Retry(middleware.RetryOptions{InPlace: 2})
	for name, tc := range map[string]struct {
		handler func(ctx context.Context) error
		failing int // calls of the store's Begin
		mw      func(id queue.Middleware) []queue.Middleware
		calls   int
		begins  int
	}{
		"Idempotent outside of Retry: one mark": {
			doFail, 0, func(id queue.Middleware) []queue.Middleware { return []queue.Middleware{id, retry} }, 3, 1,
		},
		"Idempotent inside of Retry: one for each try": {
			doFail, 0, func(id queue.Middleware) []queue.Middleware { return []queue.Middleware{retry, id} }, 3, 3,
		},
		"Idempotent outside of Retry: a failing store isn't retried in place": {
			doOK, 1, func(id queue.Middleware) []queue.Middleware { return []queue.Middleware{id, retry} }, 0, 1,
		},
		"Idempotent inside of Retry: it is": {
			doOK, 1, func(id queue.Middleware) []queue.Middleware { return []queue.Middleware{retry, id} }, 1, 2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newStore()
				store.begin = tc.failing
				calls := 0
				h := queue.Chain(func(ctx context.Context, _ *queue.Delivery) error {
					calls++
					return tc.handler(ctx)
				}, tc.mw(middleware.Idempotent(store, middleware.IdempotentOptions{Logger: quiet()}))...)
				_ = h(t.Context(), delivery("a", 0)) // what becomes of it is tested elsewhere
				begins := 0
				for _, c := range store.calls {
					if c == "begin" {
						begins++
					}
				}
				assert.Equal(t, tc.calls, calls)
				assert.Equal(t, tc.begins, begins)
			})
		})
	}

	t.Run("Recover outside of one's own: that sees the panic", func(t *testing.T) {
		saw := ""
		own := queue.MiddlewareFunc(func(next queue.Handler) queue.Handler {
			return func(ctx context.Context, d *queue.Delivery) (err error) {
				defer func() {
					switch v := recover(); {
					case v != nil:
						saw = "a panic"
						panic(v)
					case err != nil:
						saw = "an error"
					}
				}()
				return next(ctx, d)
			}
		})
		h := func(ctx context.Context, _ *queue.Delivery) error { return doPanic(ctx) }
		require.Error(t, queue.Chain(h, middleware.Recover(), own)(t.Context(), delivery("a", 0)))
		assert.Equal(t, "a panic", saw)
		require.Error(t, queue.Chain(h, own, middleware.Recover())(t.Context(), delivery("a", 0)))
		assert.Equal(t, "an error", saw)
	})
}

// slowStore takes its time.
type slowStore struct {
	*middleware.MemoryStore
	took error // what its context said in the end
}

func (s *slowStore) Begin(ctx context.Context, key, token string, ttl time.Duration) (middleware.Mark, error) {
	select {
	case <-time.After(2 * time.Second):
	case <-ctx.Done():
	}
	s.took = ctx.Err()
	return s.MemoryStore.Begin(context.WithoutCancel(ctx), key, token, ttl)
}

func TestTimeoutBoundsTheStoreOnlyFromOutside(t *testing.T) {
	t.Parallel()
	for name, outside := range map[string]bool{"outside": true, "inside": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &slowStore{MemoryStore: middleware.NewMemoryStore(0)}
				mw := []queue.Middleware{middleware.Idempotent(store, middleware.IdempotentOptions{Logger: quiet()}), middleware.Timeout(time.Second)}
				if outside {
					slices.Reverse(mw)
				}
				_ = queue.Chain(ok, mw...)(t.Context(), delivery("a", 0)) // its result is that of Timeout's own tests
				if outside {
					assert.ErrorIs(t, store.took, context.DeadlineExceeded)
				} else {
					assert.NoError(t, store.took)
				}
			})
		})
	}
}
