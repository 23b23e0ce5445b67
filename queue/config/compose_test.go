package config_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/config"
)

// trace is middleware that notes what it sees.
type trace struct {
	name string
	to   *list[string]
}

func (tr trace) Wrap(next queue.Handler) queue.Handler {
	return func(ctx context.Context, d *queue.Delivery) error {
		_, timed := ctx.Deadline()
		tr.to.add(fmt.Sprintf("%s: begins, timed %t", tr.name, timed))
		err := next(ctx, d)
		tr.to.add(fmt.Sprintf("%s: %v", tr.name, queue.OutcomeOf(err).Kind))
		return err
	}
}

// What the file composes and what a program composes from the same pieces, in
// the order that the package documents, behave alike to the event and the time.
func TestFileComposesWhatAProgramComposesByHand(t *testing.T) {
	t.Parallel()
	byFile := func(t *testing.T, broker *memory.Broker, events *list[string], h queue.Handler) func() {
		f := parse(t, `
backend: memory
limits: {crm: {concurrency: 5, rate: 100/s}}
queues:
  leads:
    concurrency: 1
    limit: crm
    rate: 50/s
    timeout: 3s
    retry: {min: 1s, max: 1m, in_place: 1}
    dead_letter: {queue: leads-dlq, max_failures: 2}
  leads-dlq: {}
`)
		b, err := config.OpenFile(f, config.Backends{"memory": broker}, &config.Options{
			Logger: quiet, Middleware: []queue.Middleware{trace{"outer", events}},
		})
		require.NoError(t, err)
		b.Handle("leads", h, trace{"inner", events})
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error)
		go func() { ran <- b.Run(ctx) }()
		return func() {
			cancel()
			assert.NoError(t, <-ran)
			assert.NoError(t, b.Close(t.Context()))
		}
	}
	byHand := func(t *testing.T, broker *memory.Broker, events *list[string], h queue.Handler) func() {
		leads, err := broker.Open(t.Context(), "leads", &queue.OpenOptions{Mode: queue.ForConsume})
		require.NoError(t, err)
		dead, err := broker.Open(t.Context(), "leads-dlq", &queue.OpenOptions{Mode: queue.ForPublish})
		require.NoError(t, err)
		c, err := queue.NewConsumer(leads, h, &queue.ConsumerOptions{
			Concurrency: 1,
			Backoff:     queue.Backoff{Min: time.Second, Max: time.Minute},
			Logger:      quiet,
			Middleware: []queue.Middleware{
				trace{"outer", events},
				middleware.Limit(5, middleware.LimitOptions{}),
				middleware.RateLimit(100, middleware.RateLimitOptions{}),
				middleware.RateLimit(50, middleware.RateLimitOptions{}),
				middleware.DeadLetter(dead, middleware.DeadLetterOptions{MaxFailures: 2}),
				middleware.Retry(middleware.RetryOptions{InPlace: 1}),
				middleware.Timeout(3 * time.Second),
				trace{"inner", events},
			},
		})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error)
		go func() { ran <- c.Run(ctx) }()
		return func() {
			cancel()
			assert.NoError(t, <-ran)
			assert.NoError(t, leads.Close(t.Context()))
			assert.NoError(t, dead.Close(t.Context()))
		}
	}
	results := map[string][]string{}
	for name, start := range map[string]func(*testing.T, *memory.Broker, *list[string], queue.Handler) func(){
		"by file": byFile, "by hand": byHand,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				broker := memory.New(&memory.Options{Create: true})
				var events list[string]
				var tries atomic.Int64
				stop := start(t, broker, &events, func(ctx context.Context, d *queue.Delivery) error {
					if tries.Add(1) == 2 {
						<-ctx.Done()
						return ctx.Err()
					}
					return errors.New("no")
				})
				q, err := broker.Open(t.Context(), "leads", nil)
				require.NoError(t, err)
				require.NoError(t, q.Publish(t.Context(), &queue.Message{ID: "1", Body: []byte("x")}))
				time.Sleep(time.Minute)
				stop()
				require.NoError(t, q.Close(t.Context()))
				for _, d := range broker.Messages("leads-dlq") {
					events.add(fmt.Sprintf("dead: %s after %d, %s", d.ID, d.DeadLetter.Failures, d.DeadLetter.Error))
				}
				results[name] = events.got()
			})
		})
	}
	want := []string{
		"outer: begins, timed false",
		"inner: begins, timed true", "inner: failed",
		"inner: begins, timed true", "inner: failed", // in place, until it timed out
		"outer: retry",
		"outer: begins, timed false",
		"inner: begins, timed true", "inner: failed",
		"inner: begins, timed true", "inner: failed",
		"outer: dead_lettered",
		"dead: 1 after 2, no",
	}
	assert.Equal(t, want, results["by hand"])
	assert.Equal(t, want, results["by file"])
}

// peak raises most to n.
func peak(most *atomic.Int64, n int64) {
	for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
	}
}

func TestSharedLimitBoundsAllItsQueues(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, `
ensure: true
limits: {crm: {concurrency: 3}}
queues:
  one: {limit: crm}
  two: {limit: crm}
  free: {}
`)
		var running, most, free atomic.Int64
		busy := func(context.Context, *queue.Delivery) error {
			peak(&most, running.Add(1))
			time.Sleep(time.Second)
			running.Add(-1)
			return nil
		}
		b.Handle("one", busy)
		b.Handle("two", busy)
		b.Handle("free", func(context.Context, *queue.Delivery) error { free.Add(1); return nil })
		for range 10 {
			b.publish("one", "x")
			b.publish("two", "x")
			b.publish("free", "x")
		}
		begun := time.Now()
		b.run()
		synctest.Wait()
		assert.Equal(t, int64(10), free.Load(), "others aren't held back")
		require.NoError(t, b.broker.WaitIdle(t.Context()))
		assert.Equal(t, int64(3), most.Load())
		assert.GreaterOrEqual(t, time.Since(begun), 6*time.Second, "20 seconds of work, three at a time")
		assert.NoError(t, b.finish())
	})
}

func TestRateAndConcurrencyOfAQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, "ensure: true\nqueues: {slow: {rate: 6/m}, narrow: {concurrency: 2}}")
		var at list[time.Time]
		b.Handle("slow", func(context.Context, *queue.Delivery) error { at.add(time.Now()); return nil })
		var running, most atomic.Int64
		b.Handle("narrow", func(context.Context, *queue.Delivery) error {
			peak(&most, running.Add(1))
			time.Sleep(time.Second)
			running.Add(-1)
			return nil
		})
		for range 6 {
			b.publish("slow", "x")
			b.publish("narrow", "x")
		}
		b.run()
		require.NoError(t, b.broker.WaitIdle(t.Context()))
		starts := at.got()
		require.Len(t, starts, 6)
		for i := range 5 {
			assert.GreaterOrEqual(t, starts[i+1].Sub(starts[i]), 10*time.Second)
		}
		assert.Equal(t, int64(2), most.Load())
		assert.NoError(t, b.finish())
	})
}

func TestBlockedKeyOfAnOrderedQueueWaitsWhileOthersGoOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, `
ensure: true
queues:
  orders:
    ordered: true
    retry: {min: 1s, max: 10s}
    dead_letter: {queue: orders-dlq, max_failures: 3, on_exhausted: block}
  orders-dlq: {ordered: true}
`)
		var healed atomic.Bool
		var r recorder
		b.Handle("orders", func(ctx context.Context, d *queue.Delivery) error {
			if string(d.Body) == "a1" && !healed.Load() {
				return errors.New("no")
			}
			return r.handle(ctx, d)
		})
		b.run()
		pub := b.Publisher("orders")
		for _, body := range []string{"a1", "a2", "b1"} {
			require.NoError(t, pub.Publish(t.Context(), &queue.Message{Body: []byte(body), OrderingKey: body[:1]}))
		}
		time.Sleep(10 * time.Minute)
		assert.Equal(t, []string{"b1"}, r.got(), "nothing overtakes what failed")
		healed.Store(true)
		time.Sleep(time.Minute)
		assert.Equal(t, []string{"b1", "a1", "a2"}, r.got())
		assert.Empty(t, b.broker.Messages("orders-dlq"))
		assert.NoError(t, b.finish())
	})
}

func TestMaxAgeGivesUpAndOffDoesNot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, `
ensure: true
defaults: {retry: {min: 1m, max: 10m}, dead_letter: {queue: dead}}
queues:
  hour: {dead_letter: {max_age: 1h}}
  day: {}
  ever: {dead_letter: {max_age: off}}
  dead: {}
`)
		for _, name := range []string{"hour", "day", "ever"} {
			b.Handle(name, func(context.Context, *queue.Delivery) error { return errors.New("no") })
			b.publish(name, name)
		}
		b.run()
		dead := func() (bodies []string) {
			for _, d := range b.broker.Messages("dead") {
				bodies = append(bodies, string(d.Body))
			}
			return bodies
		}
		time.Sleep(59 * time.Minute)
		assert.Empty(t, dead())
		time.Sleep(11 * time.Minute)
		assert.Equal(t, []string{"hour"}, dead())
		time.Sleep(23 * time.Hour)
		assert.Equal(t, []string{"hour", "day"}, dead(), "a day is the default")
		time.Sleep(2 * 24 * time.Hour)
		assert.Equal(t, []string{"hour", "day"}, dead())
		assert.NoError(t, b.finish())
	})
}

func TestLeaseIsKeptForMaxExtension(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, "ensure: true\nqueues: {orders: {lease: 10s, max_extension: 45s}}")
		lost := make(chan error, 1)
		var calls atomic.Int64
		b.Handle("orders", func(ctx context.Context, _ *queue.Delivery) error {
			if calls.Add(1) > 1 {
				return nil
			}
			<-ctx.Done()
			lost <- context.Cause(ctx)
			return ctx.Err()
		})
		begun := time.Now()
		b.publish("orders", "x")
		b.run()
		assert.ErrorIs(t, <-lost, context.DeadlineExceeded)
		assert.Equal(t, 42500*time.Millisecond, time.Since(begun), "in time to settle it")
		assert.NoError(t, b.finish())
	})
}

func TestFactorAndJitterSayHowTheDelayGrows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, "ensure: true\nqueues: {orders: {retry: {min: 10s, max: 100s, factor: 3, jitter: 0}}}")
		var at list[time.Duration]
		begun := time.Now()
		b.Handle("orders", func(context.Context, *queue.Delivery) error {
			at.add(time.Since(begun))
			if len(at.got()) < 5 {
				return errors.New("no")
			}
			return nil
		})
		b.publish("orders", "x")
		b.run()
		require.NoError(t, b.broker.WaitIdle(t.Context()))
		var delays []time.Duration
		for i, d := range at.got()[1:] {
			delays = append(delays, (d - at.got()[i]).Truncate(time.Second)) // settling lingers for a moment
		}
		assert.Equal(t, []time.Duration{10 * time.Second, 30 * time.Second, 90 * time.Second, 100 * time.Second}, delays)
		assert.NoError(t, b.finish())
	})
}

// poller is a subscription whose receives last until they're cut off, and can't be
// without a loss.
type poller struct {
	queue.Queue
	cut chan time.Time
}

func (p poller) Capabilities() queue.Capabilities {
	c := p.Queue.Capabilities()
	c.CancelSafe = false
	return c
}

func (p poller) Receive(ctx context.Context, _ int) ([]*queue.Delivery, error) {
	<-ctx.Done()
	p.cut <- time.Now()
	return nil, ctx.Err()
}

type pollers struct {
	queue.Backend
	cut chan time.Time
}

func (b pollers) Open(ctx context.Context, name string, opts *queue.OpenOptions) (queue.Queue, error) {
	q, err := b.Backend.Open(ctx, name, opts)
	return poller{q, b.cut}, err
}

func TestReceiveGraceIsHowLongAnOpenPollGoesOn(t *testing.T) {
	t.Parallel()
	for grace, want := range map[string]time.Duration{"{}": queue.DefaultReceiveGrace, "{receive_grace: 7s}": 7 * time.Second, "{receive_grace: off}": 0} {
		synctest.Test(t, func(t *testing.T) {
			backend := pollers{memory.New(&memory.Options{Create: true}), make(chan time.Time, 100)}
			b := openBus(t, "backend: it\nqueues: {orders: "+grace+"}", config.Backends{"it": backend})
			b.Handle("orders", func(context.Context, *queue.Delivery) error { return nil })
			ctx, cancel := context.WithCancel(t.Context())
			ran := make(chan error)
			go func() { ran <- b.Run(ctx) }()
			synctest.Wait()
			begun := time.Now()
			cancel()
			require.NoError(t, <-ran)
			assert.Equal(t, want, (<-backend.cut).Sub(begun), grace)
		})
	}
}

func TestMaxHoldBoundsWhatWaitsInTheProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, "ensure: true\nqueues: {orders: {max_hold: 3, concurrency: 8}}")
		release := make(chan struct{})
		b.Handle("orders", func(context.Context, *queue.Delivery) error { <-release; return nil },
			middleware.Limit(1, middleware.LimitOptions{Key: func(*queue.Delivery) string { return "all are of one tenant" }}))
		for range 40 {
			b.publish("orders", "x")
		}
		b.run()
		most := 0
		for range 50 {
			time.Sleep(100 * time.Millisecond)
			s, err := b.State("orders")
			require.NoError(t, err)
			most = max(most, s.Stats.Held)
		}
		assert.Equal(t, 3, most)
		close(release)
		require.NoError(t, b.broker.WaitIdle(t.Context()))
		assert.NoError(t, b.finish())
	})
}

func TestHooksAreGivenToEveryConsumer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		settled := make(chan string, 10)
		b, err := config.OpenFile(parse(t, "backend: memory\nensure: true\nqueues: {one: {}, two: {}}"),
			config.Backends{"memory": memory.New(nil)}, &config.Options{Logger: quiet, Hooks: &queue.Hooks{
				Settled: func(s queue.Settled) { settled <- s.Delivery.Source.Name },
			}})
		require.NoError(t, err)
		var r recorder
		ctx, cancel := context.WithCancel(t.Context())
		for _, name := range []string{"one", "two"} {
			b.Handle(name, r.handle)
			require.NoError(t, b.Publisher(name).Publish(ctx, &queue.Message{Body: []byte("x")}))
		}
		ran := make(chan error)
		go func() { ran <- b.Run(ctx) }()
		assert.ElementsMatch(t, []string{"one", "two"}, []string{<-settled, <-settled})
		cancel()
		require.NoError(t, <-ran)
		require.NoError(t, b.Close(t.Context()))
	})
}
