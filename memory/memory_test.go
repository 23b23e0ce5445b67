package memory_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
)

// open opens a queue of a new broker, and closes it when the test ends.
func open(t *testing.T, o *memory.Options, ordered bool) (*memory.Broker, queue.Queue) {
	t.Helper()
	if o == nil {
		o = &memory.Options{}
	}
	o.Create = true
	b := memory.New(o)
	return b, openOn(t, b, "orders", ordered)
}

func openOn(t *testing.T, b *memory.Broker, name string, ordered bool) queue.Queue {
	t.Helper()
	q, err := b.Open(t.Context(), name, &queue.OpenOptions{Ordered: ordered})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, q.Close(context.Background())) })
	return q
}

// receive takes what's ready, at most n.
func receive(t *testing.T, q queue.Queue, n int) []*queue.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
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

func TestUnsettledDeliveryComesBackWhenItsLeaseEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, q := open(t, nil, false)
		publish(t, q, "", "a")
		first := receive(t, q, 10)
		require.Len(t, first, 1)
		assert.Equal(t, 1, first[0].Attempt)

		start := time.Now()
		second, err := q.Receive(t.Context(), 10)
		require.NoError(t, err)
		require.Len(t, second, 1)
		assert.Equal(t, 2, second[0].Attempt)
		assert.Equal(t, 30*time.Second, time.Since(start).Round(time.Second))
		assert.Equal(t, first[0].ID, second[0].ID)

		err = q.Settle(t.Context(), queue.Settlement{Delivery: first[0], Kind: queue.Ack})
		require.ErrorIs(t, err, queue.ErrLeaseLost)
		ack(t, q, second...)
		assert.Empty(t, receive(t, q, 10))
	})
}

func TestKeyIsWithheldWhileItsHeadIsLeasedOrBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, q := open(t, nil, true)
		publish(t, q, "k", "1", "2", "3")
		publish(t, q, "l", "x")
		ds := receive(t, q, 10)
		require.Equal(t, []string{"1", "x"}, bodies(ds))
		ack(t, q, ds[1])
		assert.Empty(t, receive(t, q, 10))
		release(t, q, ds[0], time.Minute)
		assert.Empty(t, receive(t, q, 10))
		time.Sleep(time.Minute)
		for _, want := range []string{"1", "2", "3"} {
			ds := receive(t, q, 10)
			require.Equal(t, []string{want}, bodies(ds))
			ack(t, q, ds...)
		}
	})
}

func TestDelayIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, q := open(t, nil, false)
		start := time.Now()
		require.NoError(t, q.Publish(t.Context(), &queue.Message{Body: []byte("a"), Delay: 1500 * time.Millisecond}))
		require.NoError(t, q.Publish(t.Context(), &queue.Message{Body: []byte("b"), DeliverAt: start.Add(time.Hour)}))
		for _, want := range []time.Duration{1500 * time.Millisecond, time.Hour} {
			ds, err := q.Receive(t.Context(), 10)
			require.NoError(t, err)
			require.Len(t, ds, 1)
			assert.Equal(t, want, time.Since(start))
			ack(t, q, ds...)
		}
	})
}
