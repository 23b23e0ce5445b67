package config_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/config"
)

func counting(n *atomic.Int64) queue.Handler {
	return func(context.Context, *queue.Delivery) error {
		n.Add(1)
		return nil
	}
}

func TestPauseHoldsUntilResume(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, "queues: {orders: {}}")
		b.ensure("orders")
		var n atomic.Int64
		b.Handle("orders", counting(&n))
		// Before Run it holds for the consumer to come.
		require.NoError(t, b.Pause("orders", config.Change{Actor: "ada", Reason: "CRM is down"}))
		b.run()
		b.publish("orders", "a")
		time.Sleep(time.Hour)
		assert.Zero(t, n.Load())
		s, err := b.State("orders")
		require.NoError(t, err)
		assert.Equal(t, config.Running, s.Status)
		assert.True(t, s.Stats.Paused)
		assert.Equal(t, "ada", s.Paused.Actor)
		assert.Equal(t, "CRM is down", s.Paused.Reason)
		require.NoError(t, b.Resume("orders", config.Change{Actor: "ada"}))
		time.Sleep(time.Second)
		assert.EqualValues(t, 1, n.Load())
		s, err = b.State("orders")
		require.NoError(t, err)
		assert.Nil(t, s.Paused)
		require.NoError(t, b.finish())
		assert.Len(t, b.log.with("changed live", "queue=orders", "actor=ada", `reason="CRM is down"`), 1)
	})
}

func TestAPauseEndsByItselfWhenItsTimeIsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, "queues: {orders: {}}")
		b.ensure("orders")
		var n atomic.Int64
		b.Handle("orders", counting(&n))
		b.run()
		synctest.Wait()
		require.NoError(t, b.Pause("orders", config.Change{For: 10 * time.Minute}))
		require.NoError(t, b.Pause("orders", config.Change{For: time.Hour}), "it takes the first one's place")
		b.publish("orders", "a")
		time.Sleep(time.Hour - time.Second)
		assert.Zero(t, n.Load())
		time.Sleep(2 * time.Second)
		assert.EqualValues(t, 1, n.Load())
		require.NoError(t, b.finish())
		assert.Len(t, b.log.with("its time is over"), 1)
	})
}

func TestConcurrencyIsChangedLiveAndBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, "queues: {orders: {concurrency: 2}}")
		b.ensure("orders")
		var running atomic.Int64
		b.Handle("orders", func(ctx context.Context, _ *queue.Delivery) error {
			running.Add(1)
			defer running.Add(-1)
			select {
			case <-time.After(time.Minute):
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
		b.run()
		for range 100 {
			b.publish("orders", "x")
		}
		time.Sleep(time.Second)
		assert.EqualValues(t, 2, running.Load())
		require.NoError(t, b.SetConcurrency("orders", 7, config.Change{Actor: "bob", For: 5 * time.Minute}))
		time.Sleep(time.Second)
		assert.EqualValues(t, 7, running.Load())
		s, err := b.State("orders")
		require.NoError(t, err)
		assert.Equal(t, 7, s.Concurrency.Value)
		assert.Equal(t, 7, s.Stats.InUse)
		time.Sleep(7 * time.Minute)
		assert.EqualValues(t, 2, running.Load())
		require.NoError(t, b.SetConcurrency("orders", 3, config.Change{}))
		require.NoError(t, b.SetConcurrency("orders", 0, config.Change{}), "what the file says")
		s, err = b.State("orders")
		require.NoError(t, err)
		assert.Nil(t, s.Concurrency)
		assert.Equal(t, 2, s.Stats.Concurrency)
		require.NoError(t, b.finish())
	})
}

// What was changed live isn't forgotten when a consumer is started again.
func TestAChangeOutlivesAConsumerThatFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, "queues: {orders: {}, mails: {}}")
		b.ensure("mails")
		var n atomic.Int64
		b.Handle("orders", counting(&n))
		b.Handle("mails", counting(&n))
		require.NoError(t, b.Pause("orders", config.Change{}))
		b.run()
		time.Sleep(10 * time.Second)
		s, err := b.State("orders")
		require.NoError(t, err)
		assert.Equal(t, config.Failing, s.Status)
		assert.ErrorIs(t, s.Err, queue.ErrQueueNotFound)
		assert.Positive(t, s.Failures)
		assert.True(t, s.RetryAt.After(time.Now()))
		b.ensure("orders")
		b.publish("orders", "a")
		b.publish("mails", "a")
		time.Sleep(5 * time.Minute)
		s, err = b.State("orders")
		require.NoError(t, err)
		assert.Equal(t, config.Running, s.Status)
		assert.NoError(t, s.Err)
		assert.True(t, s.Stats.Paused)
		assert.EqualValues(t, 1, n.Load(), "a missing queue never hurts another")
		require.NoError(t, b.finish())
		s, err = b.State("orders")
		require.NoError(t, err)
		assert.Equal(t, config.Stopped, s.Status)
	})
}

func TestWrongChangesAreRefused(t *testing.T) {
	t.Parallel()
	b := setup(t, "queues: {orders: {}, mails: {}}")
	b.Handle("orders", counting(new(atomic.Int64)))
	for name, err := range map[string]error{
		"an unknown queue":       b.Pause("order", config.Change{}),
		"a queue without worker": b.Pause("mails", config.Change{}),
		"a negative time":        b.Pause("orders", config.Change{For: -1}),
		"a negative concurrency": b.SetConcurrency("orders", -1, config.Change{}),
		"too much concurrency":   b.SetConcurrency("orders", queue.MaxConcurrency+1, config.Change{}),
		"an unknown queue again": b.Resume("order", config.Change{}),
	} {
		assert.ErrorIs(t, err, queue.ErrInvalid, name)
	}
	_, err := b.State("order")
	assert.ErrorIs(t, err, queue.ErrInvalid)
}

func TestOnlySelectsWhatRunConsumes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broker := memory.New(&memory.Options{Create: true})
		text := "backend: memory\nqueues: {blast-list: {}, blast-sender: {}, webhooks: {}}"
		open := func(only ...string) (*config.Bus, error) {
			return config.OpenFile(parse(t, text), config.Backends{"memory": broker}, &config.Options{Only: only})
		}
		b, err := open("blast-*")
		require.NoError(t, err)
		counts := map[string]*atomic.Int64{}
		for _, name := range []string{"blast-list", "blast-sender", "webhooks"} {
			counts[name] = new(atomic.Int64)
			b.Handle(name, counting(counts[name]))
			require.NoError(t, b.Publisher(name).Publish(t.Context(), &queue.Message{Body: []byte("x")}))
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.Run(ctx) }()
		time.Sleep(time.Minute)
		assert.EqualValues(t, 1, counts["blast-list"].Load())
		assert.EqualValues(t, 1, counts["blast-sender"].Load())
		assert.Zero(t, counts["webhooks"].Load())
		var selected []string
		for _, s := range b.States() {
			if s.Selected {
				selected = append(selected, s.Queue)
			}
		}
		assert.Equal(t, []string{"blast-list", "blast-sender"}, selected)
		stop()
		require.NoError(t, <-ended)
		require.NoError(t, b.Close(t.Context()))

		_, err = open("blats-*")
		assert.ErrorContains(t, err, "blats-*")
		_, err = open("[")
		assert.ErrorIs(t, err, queue.ErrInvalid)
		none, err := open("webhooks")
		require.NoError(t, err)
		none.Handle("blast-list", counting(new(atomic.Int64)))
		assert.ErrorIs(t, none.Run(t.Context()), queue.ErrInvalid, "nothing would run")
		require.NoError(t, none.Close(t.Context()))
	})
}

// ask returns the status and the answer of a health handler.
func ask(t *testing.T, h http.Handler) (int, config.Health) {
	t.Helper()
	r := httptest.NewRecorder()
	h.ServeHTTP(r, httptest.NewRequest(http.MethodGet, "/", nil))
	var health config.Health
	require.NoError(t, json.Unmarshal(r.Body.Bytes(), &health))
	assert.Equal(t, r.Code == http.StatusOK, health.OK)
	return r.Code, health
}

func TestHealthTellsWhatIsWrongAndReadyWaitsForTheStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, "queues: {orders: {}, missing: {}}")
		b.ensure("orders")
		b.Handle("orders", counting(new(atomic.Int64)))
		b.Handle("missing", counting(new(atomic.Int64)))
		code, _ := ask(t, b.Ready())
		assert.Equal(t, http.StatusServiceUnavailable, code)
		code, _ = ask(t, b.Live())
		assert.Equal(t, http.StatusOK, code)
		b.run()
		time.Sleep(500 * time.Millisecond)
		code, h := ask(t, b.Ready())
		assert.Equal(t, http.StatusOK, code, "a missing queue doesn't keep a deployment from going on")
		require.Len(t, h.Queues, 1)
		assert.Equal(t, "missing", h.Queues[0].Queue)
		assert.Contains(t, h.Queues[0].Err, "not found")
		b.stop()
		synctest.Wait()
		code, _ = ask(t, b.Ready())
		assert.Equal(t, http.StatusServiceUnavailable, code, "it drains")
		require.NoError(t, <-b.ran)
		require.NoError(t, b.Close(t.Context()))
		code, h = ask(t, b.Live())
		assert.Equal(t, http.StatusServiceUnavailable, code)
		assert.Equal(t, "closed", h.Why)
	})
}

// looker is the handler of a log that looks at the Bus with each line.
type looker struct {
	slog.Handler
	bus *atomic.Pointer[config.Bus]
}

func (l looker) Handle(context.Context, slog.Record) error {
	if b := l.bus.Load(); b != nil {
		b.States()
	}
	return nil
}

func TestALogMayAskTheBus(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var bus atomic.Pointer[config.Bus]
		log := slog.New(looker{slog.NewTextHandler(io.Discard, nil), &bus})
		b, err := config.OpenFile(parse(t, "backend: memory\nqueues: {orders: {}, mails: {}, other: {}}"),
			config.Backends{"memory": memory.New(&memory.Options{Create: true})}, &config.Options{Logger: log, Only: []string{"orders"}})
		require.NoError(t, err)
		bus.Store(b)
		b.Handle("orders", counting(new(atomic.Int64)))
		b.Handle("mails", counting(new(atomic.Int64)))
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.Run(ctx) }()
		time.Sleep(time.Second)
		b.Handle("orders", nil) // refused
		require.NoError(t, b.Pause("orders", config.Change{For: time.Second}))
		time.Sleep(2 * time.Second)
		require.NoError(t, b.Resume("orders", config.Change{}))
		stop()
		require.NoError(t, <-ended)
		require.NoError(t, b.Close(t.Context()))
	})
}

// The time of a pause goes on while its consumer is down.
func TestAPauseEndsWhileItsConsumerIsStartedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, "queues: {orders: {}}")
		var n atomic.Int64
		b.Handle("orders", counting(&n))
		require.NoError(t, b.Pause("orders", config.Change{For: 30 * time.Second}))
		b.run()
		time.Sleep(31 * time.Second)
		b.ensure("orders")
		b.publish("orders", "a")
		time.Sleep(2 * time.Minute)
		assert.EqualValues(t, 1, n.Load())
		require.NoError(t, b.finish())
	})
}

// What's changed after the end leaves no timer behind, and no claim that it's in force.
func TestNothingIsChangedAfterClose(t *testing.T) {
	t.Parallel()
	b := setup(t, "queues: {orders: {}}")
	b.Handle("orders", counting(new(atomic.Int64)))
	require.NoError(t, b.Close(t.Context()))
	require.ErrorIs(t, b.Pause("orders", config.Change{For: time.Hour}), queue.ErrClosed)
	require.ErrorIs(t, b.SetConcurrency("orders", 2, config.Change{}), queue.ErrClosed)
}
