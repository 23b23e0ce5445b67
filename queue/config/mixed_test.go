package config_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/config"
)

// What comes from one cloud is passed on to the other, and dead-lettered there.
func TestOneBusConsumesFromTwoBackends(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		here, there := memory.New(&memory.Options{Like: memory.SQSStandard}), memory.New(&memory.Options{Like: memory.PubSub})
		bus, err := config.OpenFile(parse(t, `
backend: here
ensure: true
queues:
  orders: {}
  invoices: {backend: there, dead_letter: {queue: invoices-dlq}}
  invoices-dlq: {backend: there}
`), config.Backends{"here": here, "there": there}, &config.Options{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		invoices := bus.Publisher("invoices")
		bus.Handle("orders", func(ctx context.Context, d *queue.Delivery) error {
			return invoices.Publish(ctx, &queue.Message{Body: d.Body})
		})
		var (
			mu  sync.Mutex
			got []string
		)
		bus.Handle("invoices", func(_ context.Context, d *queue.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, string(d.Body))
			if string(d.Body) == "bad" {
				return queue.Reject(assert.AnError)
			}
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- bus.Run(ctx) }()
		require.NoError(t, bus.Publisher("orders").Publish(ctx, &queue.Message{Body: []byte("good")}, &queue.Message{Body: []byte("bad")}))
		time.Sleep(time.Minute)
		mu.Lock()
		assert.ElementsMatch(t, []string{"good", "bad"}, got)
		mu.Unlock()
		cancel()
		require.NoError(t, <-ran)
		require.NoError(t, bus.Close(context.Background()))
		assert.Empty(t, here.Messages("orders"))
		assert.Len(t, there.Messages("invoices-dlq"), 1)
		assert.Empty(t, here.Queues()[1:], "each queue is on its own backend alone")
	})
}

func TestASlowAndAFailingQueueDoNotDelayAnother(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, "ensure: true\ndefaults: {drain_timeout: 0s}\nqueues: {well: {concurrency: 2}, blocked: {concurrency: 2}, failing: {concurrency: 2}}")
		b.Handle("blocked", func(ctx context.Context, _ *queue.Delivery) error {
			<-ctx.Done()
			return ctx.Err()
		})
		b.Handle("failing", func(context.Context, *queue.Delivery) error { return assert.AnError })
		var late []time.Duration
		b.Handle("well", func(_ context.Context, d *queue.Delivery) error {
			if waited := time.Since(d.EnqueuedAt); waited > 0 {
				late = append(late, waited)
			}
			return nil
		})
		b.run()
		for range 100 {
			b.publish("blocked", "a")
			b.publish("failing", "b")
			b.publish("well", "c")
			time.Sleep(time.Second)
		}
		states := map[string]queue.ConsumerStats{}
		for _, s := range b.States() {
			states[s.Queue] = s.Stats
		}
		assert.Equal(t, uint64(100), states["well"].Succeeded)
		assert.Empty(t, late)
		assert.Equal(t, 2, states["blocked"].InUse)
		assert.Greater(t, states["failing"].Failed, uint64(100))
		require.NoError(t, b.finish())
	})
}
