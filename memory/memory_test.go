package memory_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
)

// open opens a queue of a new broker, and closes it when the test ends.
func open(t *testing.T, o *memory.Options, ordered bool) (*memory.Broker, queue.Queue) {
	t.Helper()
	opts := memory.Options{}
	if o != nil {
		opts = *o
	}
	opts.Create = true
	b := memory.New(&opts)
	return b, openOn(t, b, "orders", ordered)
}

func openOn(t *testing.T, b *memory.Broker, name string, ordered bool) queue.Queue {
	t.Helper()
	q, err := b.Open(t.Context(), name, &queue.OpenOptions{Ordered: ordered})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, q.Close(context.Background())) })
	return q
}

// receive takes what's ready, at most n. It waits for 100 ms when nothing is.
func receive(t *testing.T, q queue.Queue, n int) []*queue.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	ds, err := q.Receive(ctx, n)
	if err != nil {
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
	return ds
}

func bodies(ds []*queue.Delivery) []string {
	out := []string{}
	for _, d := range ds {
		out = append(out, string(d.Body))
	}
	return out
}

func publish(t *testing.T, q queue.Queue, key string, bodies ...string) {
	t.Helper()
	for _, b := range bodies {
		require.NoError(t, q.Publish(t.Context(), &queue.Message{Body: []byte(b), OrderingKey: key}))
	}
}

func ack(t *testing.T, q queue.Queue, ds ...*queue.Delivery) {
	t.Helper()
	for _, d := range ds {
		require.NoError(t, q.Settle(t.Context(), queue.Settlement{Delivery: d, Kind: queue.Ack}))
	}
}

func release(t *testing.T, q queue.Queue, d *queue.Delivery, delay time.Duration) {
	t.Helper()
	require.NoError(t, q.Settle(t.Context(), queue.Settlement{Delivery: d, Kind: queue.Release, Delay: delay}))
}
