package config_test

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/config"
)

// polling is a backend whose receives go on at the broker when they're cut off,
// so that closing a queue waits for them, as on SQS.
type polling struct{ *memory.Broker }

func (p polling) Open(ctx context.Context, name string, opts *queue.OpenOptions) (queue.Queue, error) {
	q, err := p.Broker.Open(ctx, name, opts)
	return poll{q}, err
}

type poll struct{ queue.Queue }

func (q poll) Capabilities() queue.Capabilities {
	c := q.Queue.Capabilities()
	c.CancelSafe = false
	return c
}

func (q poll) Close(ctx context.Context) error {
	select {
	case <-time.After(20 * time.Second):
	case <-ctx.Done():
	}
	return q.Queue.Close(context.WithoutCancel(ctx))
}

func TestAnIdleBusStopsWithItsReceiveGrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.NewTextHandler(io.Discard, nil))
		b, err := config.OpenFile(parse(t, "backend: memory\nqueues: {orders: {}}"),
			config.Backends{"memory": polling{memory.New(&memory.Options{Create: true})}}, &config.Options{Logger: log})
		require.NoError(t, err)
		b.Handle("orders", func(context.Context, *queue.Delivery) error { return nil })
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- b.Run(ctx) }()
		time.Sleep(time.Minute)
		begun := time.Now()
		cancel()
		assert.NoError(t, <-ran)
		assert.LessOrEqual(t, time.Since(begun), queue.DefaultReceiveGrace+time.Second/2)
		assert.NoError(t, b.Close(t.Context()))
	})
}

func TestNoQueueDrainsForLongerThanTheProgramAllows(t *testing.T) {
	t.Parallel()
	for timeout, want := range map[string]time.Duration{"10m": 5 * time.Second, "": 5 * time.Second, "2s": 2 * time.Second, "0s": 0} {
		t.Run(timeout, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				text := "ensure: true\nbackend: memory\nqueues: {orders: {}}"
				if timeout != "" {
					text = "ensure: true\nbackend: memory\nqueues: {orders: {drain_timeout: " + timeout + "}}"
				}
				bus, err := config.OpenFile(parse(t, text), config.Backends{"memory": memory.New(nil)}, &config.Options{DrainTimeout: 5 * time.Second})
				require.NoError(t, err)
				bus.Handle("orders", func(ctx context.Context, _ *queue.Delivery) error {
					<-ctx.Done()
					return ctx.Err()
				})
				ctx, cancel := context.WithCancel(t.Context())
				ran := make(chan error, 1)
				go func() { ran <- bus.Run(ctx) }()
				require.NoError(t, bus.Publisher("orders").Publish(ctx, &queue.Message{Body: []byte("a")}))
				synctest.Wait()
				begun := time.Now()
				cancel()
				require.NoError(t, <-ran)
				assert.Equal(t, want, time.Since(begun))
				require.NoError(t, bus.Close(context.Background()))
			})
		})
	}
}
