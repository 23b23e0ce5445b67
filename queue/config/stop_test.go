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
