package memory

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/queue"
)

// chunked opens a queue in which there's so much already that the next messages are
// stored in chunks, and takes that.
func chunked(t *testing.T, spec queue.QueueSpec) (*handle, *queue.Delivery) {
	t.Helper()
	b := New(nil)
	_, err := b.Ensure(t.Context(), "orders", &spec)
	require.NoError(t, err)
	return fill(t, b)
}

func fill(t *testing.T, b *Broker) (*handle, *queue.Delivery) {
	t.Helper()
	q, err := b.Open(t.Context(), "orders", &queue.OpenOptions{Ordered: b.find("orders").spec.ordered})
	require.NoError(t, err)
	h := q.(*handle)
	require.NoError(t, h.Publish(t.Context(), &queue.Message{Body: make([]byte, muchStored)}))
	return h, take(t, h, 1)[0]
}

func publish(t *testing.T, q queue.Queue, n int) {
	t.Helper()
	for i := range n {
		require.NoError(t, q.Publish(t.Context(), &queue.Message{Body: fmt.Append(nil, "body ", i), Attributes: map[string]string{"no": fmt.Sprint(i)}}))
	}
}

func take(t *testing.T, q queue.Queue, n int) (ds []*queue.Delivery) {
	t.Helper()
	for len(ds) < n {
		got, err := q.Receive(t.Context(), n-len(ds))
		require.NoError(t, err)
		ds = append(ds, got...)
	}
	return ds
}

func settle(t *testing.T, q queue.Queue, k queue.SettleKind, delay time.Duration, ds ...*queue.Delivery) {
	t.Helper()
	for _, d := range ds {
		require.NoError(t, q.Settle(t.Context(), queue.Settlement{Delivery: d, Kind: k, Delay: delay}))
	}
}

func chunkOf(d *queue.Delivery) *chunk { return d.Native.(*delivery).item.Payload.from }

func TestLittleIsStoredAlone(t *testing.T) {
	t.Parallel()
	h, much := chunked(t, queue.QueueSpec{})
	assert.Nil(t, chunkOf(much))
	publish(t, h, 1)
	one := take(t, h, 1)[0]
	assert.NotNil(t, chunkOf(one))
	settle(t, h, queue.Ack, 0, much)
	publish(t, h, 2)
	two := take(t, h, 2)
	assert.Nil(t, chunkOf(two[1]))
	assert.Nil(t, h.core.chunks.cur)
	assert.Equal(t, "body 0", string(one.Body))
}

func TestAnEmptyQueueHasNoChunk(t *testing.T) {
	t.Parallel()
	for name, empty := range map[string]func(t *testing.T, h *handle, much, one *queue.Delivery){
		"acknowledged": func(t *testing.T, h *handle, much, one *queue.Delivery) { settle(t, h, queue.Ack, 0, one, much) },
		"the other way round": func(t *testing.T, h *handle, much, one *queue.Delivery) {
			settle(t, h, queue.Ack, 0, much, one)
		},
		"purged": func(t *testing.T, h *handle, _, _ *queue.Delivery) { require.NoError(t, h.Purge(t.Context())) },
		"still to be read": func(t *testing.T, h *handle, much, one *queue.Delivery) {
			one.Native.(*delivery).Original()
			settle(t, h, queue.Ack, 0, one, much)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, much := chunked(t, queue.QueueSpec{})
			publish(t, h, 1)
			one := take(t, h, 1)[0]
			require.NotNil(t, h.core.chunks.cur)
			empty(t, h, much, one)
			assert.Nil(t, h.core.chunks.cur)
			assert.False(t, h.core.chunks.many.Load())
		})
	}
}

// What's refused would waste its place, and others' with it.
func TestWhatMayBeRefusedIsStoredAlone(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]Options{"by number": {Create: true, MaxMessages: 3}, "by size": {Create: true, MaxBytes: 1 << 20}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := New(&o)
			_, err := b.Ensure(t.Context(), "orders", nil)
			require.NoError(t, err)
			h, _ := fill(t, b)
			publish(t, h, 1)
			assert.Nil(t, chunkOf(take(t, h, 1)[0]))
		})
	}
	t.Run("as a repeat", func(t *testing.T) {
		t.Parallel()
		b := New(&Options{Like: SQSFIFO})
		_, err := b.Ensure(t.Context(), "orders", &queue.QueueSpec{Ordered: true})
		require.NoError(t, err)
		h, _ := fill(t, b)
		require.NoError(t, h.Publish(t.Context(), &queue.Message{DedupID: "a"}))
		assert.Nil(t, chunkOf(take(t, h, 1)[0]))
	})
	t.Run("as what it would replace is gone", func(t *testing.T) {
		t.Parallel()
		h, _ := chunked(t, queue.QueueSpec{})
		publish(t, h, 1)
		d := take(t, h, 1)[0]
		require.NoError(t, h.Settle(t.Context(), queue.Settlement{Delivery: d, Kind: queue.Defer, Until: time.Now()}))
		assert.Nil(t, chunkOf(take(t, h, 1)[0]))
	})
}

func TestAChunkIsUsedAgainWhenAllItsMessagesAreGone(t *testing.T) {
	t.Parallel()
	h, _ := chunked(t, queue.QueueSpec{})
	publish(t, h, 3)
	ds := take(t, h, 3)
	k := chunkOf(ds[0])
	require.NotNil(t, k)
	settle(t, h, queue.Ack, 0, ds[:2]...)
	assert.Same(t, k, h.core.chunks.cur)
	assert.EqualValues(t, 1, k.live)
	publish(t, h, 1)
	later := take(t, h, 1)
	assert.Same(t, k, chunkOf(later[0]), "there's room behind them")
	settle(t, h, queue.Ack, 0, ds[2], later[0])
	assert.Nil(t, h.core.chunks.cur)
	assert.Equal(t, []*chunk{k}, h.core.broker.chunks.free)
	publish(t, h, 1)
	again := take(t, h, 1)
	assert.Same(t, k, chunkOf(again[0]))
	assert.Equal(t, "body 2", string(ds[2].Body), "what was delivered is a copy")
	assert.Equal(t, map[string]string{"no": "2"}, ds[2].Attributes)
	body, attrs := ds[2].Native.(*delivery).Original()
	assert.Equal(t, "body 2", string(body), "whatever is in its place now")
	assert.Equal(t, map[string]string{"no": "2"}, attrs)
	settle(t, h, queue.Ack, 0, ds[2])
	assert.EqualValues(t, 1, k.live, "a repeated acknowledgement counts once")
}

func TestFullChunksAreLeftToTheirMessages(t *testing.T) {
	t.Parallel()
	h, _ := chunked(t, queue.QueueSpec{})
	for range 3 * chunkSize / maxInChunk {
		require.NoError(t, h.Publish(t.Context(), &queue.Message{Body: make([]byte, maxInChunk)}))
	}
	ds := take(t, h, 3*chunkSize/maxInChunk)
	chunks := map[*chunk]bool{}
	for _, d := range ds {
		chunks[chunkOf(d)] = true
	}
	assert.Len(t, chunks, 4, "the end of each is too short")
	settle(t, h, queue.Ack, 0, ds...)
	assert.Len(t, h.core.broker.chunks.free, 4)
	require.NoError(t, h.Publish(t.Context(), &queue.Message{Body: make([]byte, maxInChunk+1)}))
	assert.Nil(t, chunkOf(take(t, h, 1)[0]), "it would waste too much")
}

// What stays mustn't keep the memory of what was published beside it.
func TestWhatMayStayForLongIsStoredAlone(t *testing.T) {
	t.Parallel()
	t.Run("given back", func(t *testing.T) {
		h, _ := chunked(t, queue.QueueSpec{})
		publish(t, h, 2)
		ds := take(t, h, 2)
		k := chunkOf(ds[0])
		settle(t, h, queue.Release, time.Millisecond, ds[0])
		assert.Nil(t, chunkOf(ds[0]))
		assert.EqualValues(t, 1, k.live)
		settle(t, h, queue.Ack, 0, ds[1])
		assert.Equal(t, []*chunk{k}, h.core.broker.chunks.free)
		back := take(t, h, 1)[0]
		assert.Equal(t, "body 0", string(back.Body))
		assert.Equal(t, map[string]string{"no": "0"}, back.Attributes)
	})
	t.Run("not acknowledged in time", func(t *testing.T) {
		h, _ := chunked(t, queue.QueueSpec{})
		publish(t, h, 1)
		late := take(t, h, 1)[0]
		k := chunkOf(late)
		body, _ := late.Native.(*delivery).Original()
		assert.Equal(t, "body 0", string(body))
		h.core.q.LoseLeases(0)
		ds := take(t, h, 2) // that which fills it, too
		for _, d := range ds {
			assert.Nil(t, chunkOf(d))
		}
		assert.Same(t, k, chunkOf(late), "its holder may be reading it")
		assert.EqualValues(t, 1, k.live)
		body, _ = late.Native.(*delivery).Original()
		assert.Equal(t, "body 0", string(body))
		assert.ErrorIs(t, h.Settle(t.Context(), queue.Settlement{Delivery: late, Kind: queue.Ack}), queue.ErrLeaseLost)
		settle(t, h, queue.Ack, 0, ds...)
	})
	t.Run("given back after it was peeked at", func(t *testing.T) {
		h, _ := chunked(t, queue.QueueSpec{})
		publish(t, h, 1)
		_, err := h.Peek(t.Context(), 100)
		require.NoError(t, err)
		d := take(t, h, 1)[0]
		settle(t, h, queue.Release, 0, d, d) // the second time is for nothing
		back := take(t, h, 1)[0]
		assert.Nil(t, chunkOf(back))
		assert.Equal(t, "body 0", string(back.Body))
		settle(t, h, queue.Ack, 0, back)
	})
	t.Run("delayed", func(t *testing.T) {
		h, _ := chunked(t, queue.QueueSpec{})
		require.NoError(t, h.Publish(t.Context(), &queue.Message{Delay: time.Millisecond}))
		assert.Nil(t, chunkOf(take(t, h, 1)[0]))
	})
	t.Run("with a key", func(t *testing.T) {
		h, _ := chunked(t, queue.QueueSpec{Ordered: true})
		require.NoError(t, h.Publish(t.Context(), &queue.Message{OrderingKey: "k"}))
		assert.Nil(t, chunkOf(take(t, h, 1)[0]))
	})
}

// A chunk with something that somebody else may still read isn't used again.
func TestWhatOthersMayReadIsNotUsedAgain(t *testing.T) {
	t.Parallel()
	t.Run("peeked at", func(t *testing.T) {
		h, _ := chunked(t, queue.QueueSpec{})
		publish(t, h, 1)
		_, err := h.Peek(t.Context(), 100)
		require.NoError(t, err)
		stays(t, h, take(t, h, 1)[0])
	})
	t.Run("its original", func(t *testing.T) {
		h, _ := chunked(t, queue.QueueSpec{})
		publish(t, h, 1)
		d := take(t, h, 1)[0]
		d.Native.(*delivery).Original()
		stays(t, h, d)
	})
}

func stays(t *testing.T, h *handle, d *queue.Delivery) {
	t.Helper()
	settle(t, h, queue.Ack, 0, d)
	assert.EqualValues(t, 1, chunkOf(d).live)
	assert.Empty(t, h.core.broker.chunks.free)
}

func TestFreeChunksAreBounded(t *testing.T) {
	t.Parallel()
	var p chunkPool
	for range 2 * maxFreeChunks {
		p.put(&chunk{used: 1})
	}
	assert.Len(t, p.free, maxFreeChunks)
	assert.Zero(t, p.get().used)
	assert.Len(t, p.free, maxFreeChunks-1)
}

// Whatever happens to messages at once, each arrives as it was sent.
func TestChunksUnderLoad(t *testing.T) {
	t.Parallel()
	b := New(&Options{Create: true})
	const publishers, each, early = 8, 600, 200
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[string]int{}
	for name := range 2 { // they share the free chunks
		q, err := b.Open(t.Context(), fmt.Sprint("orders", name), nil)
		require.NoError(t, err)
		c, err := queue.NewConsumer(q, func(_ context.Context, d *queue.Delivery) error {
			no := d.Attributes["no"]
			if string(d.Body) != "body "+no+" "+d.Attributes["pad"] {
				t.Errorf("got %q with %v", d.Body, d.Attributes)
			}
			for i := range d.Body {
				d.Body[i] = 'x'
			}
			if d.Attempt == 1 && len(no)%5 == 0 {
				return queue.RetryAfter(time.Millisecond, fmt.Errorf("again"))
			}
			mu.Lock()
			defer mu.Unlock()
			seen[no]++
			return nil
		}, &queue.ConsumerOptions{Concurrency: 16, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		send := func(no string, pad int) {
			text := fmt.Sprintf("%0*d", pad, pad)
			if err := q.Publish(t.Context(), &queue.Message{Body: []byte("body " + no + " " + text), Attributes: map[string]string{"no": no, "pad": text}}); err != nil {
				t.Error(err)
			}
		}
		for i := range early { // so much that chunks are used
			send(fmt.Sprintf("%d-early-%d", name, i), muchStored/early)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			assert.NoError(t, <-done)
		})
		for p := range publishers {
			wg.Go(func() {
				for i := range each {
					send(fmt.Sprintf("%d-%d-%d", name, p, i), i%700)
				}
			})
		}
	}
	wg.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, b.WaitIdle(ctx))
	mu.Lock()
	defer mu.Unlock()
	assert.Equal(t, 2*(publishers*each+early), len(seen)) //nolint:testifylint // Len would print them all
	for no, n := range seen {
		if n != 1 {
			t.Errorf("%s was handled %d times", no, n)
		}
	}
	assert.NotEmpty(t, b.chunks.free)
}
