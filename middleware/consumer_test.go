package middleware_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
)

// The tests here run middleware in consumers, on the broker in memory and on
// virtual time.

func open(t *testing.T, b *memory.Broker, name string) queue.Queue {
	t.Helper()
	q, err := b.Open(t.Context(), name, nil)
	require.NoError(t, err)
	return q
}

func publish(t *testing.T, q queue.Queue, tenant string, n int) {
	t.Helper()
	for i := range n {
		require.NoError(t, q.Publish(t.Context(), &queue.Message{
			ID: fmt.Sprintf("%s-%d", tenant, i), Body: []byte("x"), Attributes: map[string]string{"tenant": tenant},
		}))
	}
}

// runs starts a consumer and returns how to stop it.
func runs(t *testing.T, q queue.Queue, h queue.Handler, concurrency int, mw ...queue.Middleware) (*queue.Consumer, func()) {
	t.Helper()
	c, err := queue.NewConsumer(q, h, &queue.ConsumerOptions{Concurrency: concurrency, Middleware: mw, Logger: quiet()})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var ended sync.WaitGroup
	ended.Go(func() { assert.NoError(t, c.Run(ctx)) })
	return c, func() {
		cancel()
		ended.Wait()
	}
}

// tally counts what runs, in all and by name.
type tally struct {
	mu      sync.Mutex
	running map[string]int
	highest map[string]int
	done    map[string]int
}

func newTally() *tally {
	return &tally{running: map[string]int{}, highest: map[string]int{}, done: map[string]int{}}
}

func (c *tally) add(names []string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range names {
		c.running[k] += n
		c.highest[k] = max(c.highest[k], c.running[k])
		if n < 0 {
			c.done[k]++
		}
	}
}

func (c *tally) count(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.done[name]
}

func (c *tally) peak(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.highest[name]
}

// handler takes d, and counts its deliveries by queue, tenant and "all".
func (c *tally) handler(d time.Duration) queue.Handler { return c.between(d, d) }

func (c *tally) between(least, most time.Duration) queue.Handler {
	return func(_ context.Context, del *queue.Delivery) error {
		names := []string{"all", del.Source.Name, del.Attributes["tenant"]}
		c.add(names, 1)
		time.Sleep(least + rand.N(most-least+1))
		c.add(names, -1)
		return nil
	}
}

func TestLimitSharedByTwoQueuesIsFairAndHard(t *testing.T) {
	t.Parallel()
	for _, most := range []int{1, 4} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := memory.New(&memory.Options{Create: true})
				one, two := open(t, b, "one"), open(t, b, "two")
				limit := middleware.Limit(most, middleware.LimitOptions{})
				c := newTally()
				publish(t, one, "x", 300)
				_, stopOne := runs(t, one, c.between(time.Second/2, 3*time.Second/2), 16, limit)
				time.Sleep(1500 * time.Millisecond) // one has everything before two comes
				publish(t, two, "y", 300)
				_, stopTwo := runs(t, two, c.between(time.Second/2, 3*time.Second/2), 16, limit)
				before := c.count("one")
				time.Sleep(100 * time.Second)
				got := []int{c.count("one") - before, c.count("two")}
				assert.InEpsilon(t, 100*most, got[0]+got[1], 0.25, "slots were left idle")
				assert.InEpsilon(t, got[0], got[1], 0.25, "of %v", got)
				assert.Equal(t, most, c.peak("all"))
				stopOne()
				stopTwo()
				assert.Zero(t, limit.InUse())
			})
		})
	}
}

func TestLimitIsRaisedAndLoweredWhileItRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(&memory.Options{Create: true})
		q := open(t, b, "orders")
		publish(t, q, "x", 500)
		limit := middleware.Limit(2, middleware.LimitOptions{})
		c := newTally()
		_, stop := runs(t, q, c.handler(time.Second), 16, limit)
		defer stop()
		step := func(most int) int {
			require.NoError(t, limit.SetMax(most))
			time.Sleep(2300 * time.Millisecond) // those that were running end; and no handler ends when we look
			before := c.count("all")
			time.Sleep(10 * time.Second)
			return c.count("all") - before
		}
		assert.Equal(t, 20, step(2))
		assert.Equal(t, 100, step(10))
		assert.Equal(t, 10, step(1))
		assert.Equal(t, 160, step(100), "the consumer's own bound")
	})
}

func TestLimitByTenantLetsOthersFlowPast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(&memory.Options{Create: true})
		q := open(t, b, "orders")
		publish(t, q, "flood", 200)
		publish(t, q, "small", 20)
		c := newTally()
		limit := middleware.Limit(2, middleware.LimitOptions{Key: tenant, KeyMax: map[string]int{"flood": 1}})
		_, stop := runs(t, q, c.handler(time.Second), 8, limit)
		time.Sleep(12 * time.Second)
		assert.Equal(t, 20, c.count("small"), "the flood holds back others")
		assert.InDelta(t, 12, c.count("flood"), 1)
		require.NoError(t, b.WaitIdle(t.Context()))
		stop()
		assert.Equal(t, 200, c.count("flood"))
		assert.Equal(t, 1, c.peak("flood"))
		assert.Equal(t, 2, c.peak("small"))
	})
}

func TestRateLimitPacesAConsumer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(&memory.Options{Create: true})
		one, two := open(t, b, "one"), open(t, b, "two")
		publish(t, one, "x", 1000)
		publish(t, two, "y", 1000)
		c := newTally()
		rate := middleware.RateLimit(10, middleware.RateLimitOptions{Burst: 1})
		_, stopOne := runs(t, one, c.handler(0), 16, rate)
		_, stopTwo := runs(t, two, c.handler(0), 16, rate)
		time.Sleep(20 * time.Second)
		assert.InDelta(t, 200, c.count("all"), 2)
		assert.Greater(t, min(c.count("one"), c.count("two")), 60, "they don't take turns")
		require.NoError(t, rate.SetRate(100, 1))
		before := c.count("all")
		time.Sleep(10 * time.Second)
		assert.InDelta(t, 1000, c.count("all")-before, 10)
		stopOne()
		stopTwo()
	})
}

func TestCircuitBreakerStopsFetchingDuringAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(&memory.Options{Create: true})
		q := open(t, b, "orders")
		start := time.Now()
		var mu sync.Mutex
		calls, worst := 0, 0
		h := func(_ context.Context, d *queue.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			worst = max(worst, d.Attempt)
			if time.Since(start) < 10*time.Minute {
				calls++
				return errDown
			}
			return nil
		}
		breaker := middleware.CircuitBreaker(middleware.CircuitBreakerOptions{Failures: 5, MaxOpenFor: 30 * time.Second, Logger: quiet()})
		publish(t, q, "x", 100)
		_, stop := runs(t, q, h, 4, breaker)
		time.Sleep(time.Minute)
		assert.NotEqual(t, middleware.BreakerClosed, breaker.State())
		require.NoError(t, b.WaitIdle(t.Context()))
		assert.Equal(t, middleware.BreakerClosed, breaker.State())
		stop()
		assert.Less(t, time.Since(start), 12*time.Minute, "it didn't notice that the outage was over")
		// 5 to 8 open it; then there's a probe after 10, 20 and each 30 s.
		assert.LessOrEqual(t, calls, 8+22, "attempts were burnt")
		assert.LessOrEqual(t, worst, 8)
	})
}

// asked is a gate that counts how often it's asked.
type asked struct {
	queue.Binder
	n *atomic.Int64
}

func (a asked) Bind(in queue.ConsumerInfo) (queue.Middleware, error) {
	m, err := a.Binder.Bind(in)
	g, isGate := m.(queue.Gate)
	if err == nil && !isGate {
		return nil, errors.New("no gate")
	}
	return askedGate{g, a.n}, err
}

type askedGate struct {
	queue.Gate
	n *atomic.Int64
}

func (a askedGate) Enter(d *queue.Delivery) queue.Entry {
	a.n.Add(1)
	return a.Gate.Enter(d)
}

// A gate that admits what another one refuses gives its place back each time. If
// that woke a consumer at once, which does the same, they would never rest.
func TestGatesThatDisagreeDoNotSpin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(&memory.Options{Create: true})
		one, two := open(t, b, "one"), open(t, b, "two")
		publish(t, one, "x", 50)
		publish(t, two, "x", 50)
		c := newTally()
		var n atomic.Int64
		breaker := middleware.CircuitBreaker(middleware.CircuitBreakerOptions{Logger: quiet()})
		gates := []queue.Middleware{
			asked{middleware.Limit(2, middleware.LimitOptions{}), &n},
			asked{middleware.RateLimit(1000, middleware.RateLimitOptions{Burst: 1}), &n},
			asked{breaker, &n},
			asked{middleware.Limit(1, middleware.LimitOptions{Key: tenant}), &n},
		}
		_, stopOne := runs(t, one, c.handler(time.Second), 8, gates...)
		_, stopTwo := runs(t, two, c.handler(time.Second), 8, gates...)
		time.Sleep(10 * time.Second)
		breaker.Trip()
		require.NoError(t, b.WaitIdle(t.Context()))
		assert.Equal(t, 100, c.count("all"))
		assert.Equal(t, 1, c.peak("all"))
		// Each of 100 starts may be preceded by a question to each gate about each delivery that waits.
		assert.Less(t, n.Load(), int64(100*100*4))
		stopOne()
		stopTwo()
	})
}

func TestRetryAndDeadLetterInAConsumer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(&memory.Options{Create: true})
		q, dlq := open(t, b, "orders"), open(t, b, "orders-dlq")
		var log bytes.Buffer
		start := time.Now()
		var at []time.Duration
		c, err := queue.NewConsumer(q, func(context.Context, *queue.Delivery) error {
			at = append(at, time.Since(start))
			return errDown
		}, &queue.ConsumerOptions{Logger: lines(&log, slog.LevelInfo), Middleware: []queue.Middleware{
			middleware.Log(middleware.LogOptions{}),
			middleware.DeadLetter(dlq, middleware.DeadLetterOptions{MaxAge: 10 * time.Second}),
			middleware.Retry(middleware.RetryOptions{Backoff: queue.Backoff{Min: time.Second, Jitter: -1}}),
		}})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		var ended sync.WaitGroup
		ended.Go(func() { assert.NoError(t, c.Run(ctx)) })
		publish(t, q, "x", 1)
		require.NoError(t, b.WaitIdle(t.Context(), "orders"))
		cancel()
		ended.Wait()
		require.Len(t, at, 5)
		for i, want := range []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second, 15 * time.Second} {
			assert.InDelta(t, want, at[i], float64(time.Second/4), "attempt %d", i+1) // settlements are gathered for a moment
		}
		dead := b.Messages("orders-dlq")
		require.Len(t, dead, 1)
		assert.Equal(t, queue.ReasonAge, dead[0].DeadLetter.Reason)
		assert.Equal(t, 5, dead[0].DeadLetter.Failures)
		want := []string{
			`level=WARN msg=retry id=x-0 queue=orders attempt=1 failures=1 took=0s in=1s err="503 service unavailable" gives_up=10s`,
			`level=WARN msg=retry id=x-0 queue=orders attempt=2 failures=2 took=0s in=2s err="503 service unavailable" gives_up=9s`,
			`level=WARN msg=retry id=x-0 queue=orders attempt=3 failures=3 took=0s in=4s err="503 service unavailable" gives_up=7s`,
			`level=WARN msg=retry id=x-0 queue=orders attempt=4 failures=4 took=0s in=8s err="503 service unavailable" gives_up=3s`,
			`level=ERROR msg=dead_letter id=x-0 queue=orders attempt=5 failures=5 took=0s to=orders-dlq err="503 service unavailable"`,
		}
		got := strings.Split(strings.TrimSpace(log.String()), "\n")
		assert.Equal(t, want, got[1:], "the first is the consumer's own")
	})
}

func TestDeadLettersOfAnOrderedQueueNeedNoOrder(t *testing.T) {
	t.Parallel()
	for _, like := range []memory.Like{memory.Portable, memory.SQSFIFO, memory.PubSub} {
		t.Run(like.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := memory.New(&memory.Options{Create: true, Like: like})
				q, err := b.Open(t.Context(), "orders", &queue.OpenOptions{Ordered: true})
				require.NoError(t, err)
				dlq := open(t, b, "orders-dlq")
				var mu sync.Mutex
				broken, got := true, []string(nil)
				_, stop := runs(t, q, func(_ context.Context, d *queue.Delivery) error {
					mu.Lock()
					defer mu.Unlock()
					if broken && string(d.Body) == "2" {
						return queue.Reject(errDown)
					}
					got = append(got, d.OrderingKey+string(d.Body))
					return nil
				}, 4, middleware.DeadLetter(dlq, middleware.DeadLetterOptions{}))
				for _, body := range []string{"1", "2", "3"} {
					require.NoError(t, q.Publish(t.Context(), &queue.Message{Body: []byte(body), OrderingKey: "k"}))
				}
				require.NoError(t, b.WaitIdle(t.Context(), "orders"))
				mu.Lock()
				broken = false
				mu.Unlock()
				require.Len(t, b.Messages("orders-dlq"), 1)
				_, err = queue.Redrive(t.Context(), dlq, q, nil)
				require.NoError(t, err)
				require.NoError(t, b.WaitIdle(t.Context(), "orders"))
				stop()
				assert.Equal(t, []string{"k1", "k3", "k2"}, got)
			})
		})
	}
}

func TestAnInvalidOptionMakesNewConsumerFail(t *testing.T) {
	t.Parallel()
	q := open(t, memory.New(&memory.Options{Create: true}), "orders")
	_, err := queue.NewConsumer(q, ok, &queue.ConsumerOptions{Middleware: []queue.Middleware{middleware.Timeout(-1)}})
	require.ErrorIs(t, err, queue.ErrInvalid)
	_, err = queue.NewConsumer(q, ok, &queue.ConsumerOptions{Middleware: []queue.Middleware{
		middleware.DeadLetter(q, middleware.DeadLetterOptions{}),
	}})
	require.ErrorIs(t, err, queue.ErrInvalid, "a queue as its own dead-letter queue")
}

func TestDeadLetterByFailuresIsRefusedWhereNobodyCounts(t *testing.T) {
	t.Parallel()
	b := memory.New(&memory.Options{Create: true, Like: memory.PubSub})
	q, dlq := open(t, b, "orders"), open(t, b, "orders-dlq")
	_, err := queue.NewConsumer(q, ok, &queue.ConsumerOptions{Logger: quiet(), Middleware: []queue.Middleware{
		middleware.DeadLetter(dlq, middleware.DeadLetterOptions{MaxFailures: 5}),
	}})
	require.ErrorIs(t, err, queue.ErrInvalid)
	_, err = queue.NewConsumer(q, ok, &queue.ConsumerOptions{Logger: quiet(), Middleware: []queue.Middleware{
		middleware.DeadLetter(dlq, middleware.DeadLetterOptions{MaxAge: time.Hour}),
	}})
	require.NoError(t, err)
}

func TestTimeoutKeepsTheLeaseOfASlowHandler(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(&memory.Options{Create: true, Lease: 2 * time.Second})
		q := open(t, b, "orders")
		publish(t, q, "x", 1)
		calls := 0
		c, stop := runs(t, q, func(context.Context, *queue.Delivery) error {
			calls++
			time.Sleep(time.Minute) // ignores its context
			return nil
		}, 1, middleware.Timeout(time.Second))
		require.NoError(t, b.WaitIdle(t.Context()))
		stop()
		assert.Equal(t, 1, calls)
		assert.Equal(t, uint64(1), c.Stats().Succeeded)
	})
}

// Without a timeout, too: at the end of MaxExtension it has failed as any other.
func TestAHandlerThatHangsAgainAndAgainIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(&memory.Options{Create: true})
		q, dlq := open(t, b, "orders"), open(t, b, "orders-dlq")
		publish(t, q, "x", 1)
		calls := 0
		c, stop := runs(t, q, func(ctx context.Context, _ *queue.Delivery) error {
			calls++
			<-ctx.Done()
			return ctx.Err()
		}, 1, middleware.DeadLetter(dlq, middleware.DeadLetterOptions{MaxFailures: 3}))
		begun := time.Now()
		require.NoError(t, b.WaitIdle(t.Context(), "orders"))
		stop()
		assert.Equal(t, 3, calls)
		assert.Less(t, time.Since(begun), 4*queue.DefaultMaxExtension)
		assert.Equal(t, uint64(1), c.Stats().DeadLettered)
		dead := b.Messages("orders-dlq")
		require.Len(t, dead, 1)
		assert.Equal(t, queue.ReasonFailures, dead[0].DeadLetter.Reason)
		assert.Contains(t, dead[0].DeadLetter.Error, "for as long as its lease may be kept", "not only that its context was canceled")
	})
}

// By then somebody else may have it.
func TestAHandlerThatEndsAfterItsLeaseDoesNotGiveUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(&memory.Options{Create: true})
		q, dlq := open(t, b, "orders"), open(t, b, "orders-dlq")
		publish(t, q, "x", 1)
		calls := 0
		c, stop := runs(t, q, func(ctx context.Context, _ *queue.Delivery) error {
			if calls++; calls > 1 {
				return nil
			}
			<-ctx.Done()
			time.Sleep(10 * time.Second) // beyond the end of the lease
			return ctx.Err()
		}, 1, middleware.DeadLetter(dlq, middleware.DeadLetterOptions{MaxFailures: 1}))
		require.NoError(t, b.WaitIdle(t.Context(), "orders"))
		stop()
		assert.Equal(t, 2, calls)
		assert.Empty(t, b.Messages("orders-dlq"))
		assert.Equal(t, uint64(1), c.Stats().Succeeded)
		assert.Equal(t, uint64(1), c.Stats().LeasesLost)
	})
}

func TestDelayOfAQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(&memory.Options{Create: true})
		q := open(t, b, "orders")
		p := queue.WrapPublisher(q, middleware.Delay(5*time.Second))
		start := time.Now()
		var mu sync.Mutex
		at := map[string]time.Duration{}
		_, stop := runs(t, q, func(_ context.Context, d *queue.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			at[d.ID] = time.Since(start)
			return nil
		}, 4)
		require.NoError(t, p.Publish(t.Context(),
			&queue.Message{ID: "plain"}, &queue.Message{ID: "later", Delay: time.Minute}, &queue.Message{ID: "now", DeliverAt: time.Unix(0, 0)}))
		require.NoError(t, b.WaitIdle(t.Context()))
		stop()
		assert.Equal(t, map[string]time.Duration{"now": 0, "plain": 5 * time.Second, "later": time.Minute}, at)

		ordered, err := b.Open(t.Context(), "ordered", &queue.OpenOptions{Ordered: true})
		require.NoError(t, err)
		err = middleware.Delay(time.Second)(ordered).Publish(t.Context(), &queue.Message{OrderingKey: "k"})
		require.ErrorIs(t, err, queue.ErrUnsupported)
	})
}
