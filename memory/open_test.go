package memory_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
)

func TestMissingQueueIsNotFoundUnlessItMayBeCreated(t *testing.T) {
	t.Parallel()
	b := memory.New(nil)
	_, err := b.Open(t.Context(), "orders", nil)
	require.ErrorIs(t, err, queue.ErrQueueNotFound)
	require.ErrorContains(t, err, "Ensure", "it says what to do")
	assert.Empty(t, b.Queues())

	_, err = b.Ensure(t.Context(), "orders", nil)
	require.NoError(t, err)
	q := openOn(t, b, "orders", false)
	assert.Equal(t, "memory:orders", q.Capabilities().Address)

	b = memory.New(&memory.Options{Create: true})
	openOn(t, b, "orders", false)
	assert.Equal(t, []string{"orders"}, b.Queues())
}

func TestOptionsThatCannotBeMeantMakeEveryCallFail(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		opts memory.Options
	}{
		{"Like", memory.Options{Like: 99}},
		{"Like", memory.Options{Like: -1}},
		{"Lease", memory.Options{Lease: -1}},
		{"Retention", memory.Options{Retention: -1}},
		{"MaxMessages", memory.Options{MaxMessages: -1}},
		{"MaxBytes", memory.Options{MaxBytes: -1}},
		{"Duplicate", memory.Options{Duplicate: 1.1}},
		{"Reorder", memory.Options{Reorder: -0.1}},
		{"lease", memory.Options{Like: memory.PubSub, Lease: time.Second}},
		{"lease", memory.Options{Like: memory.SQSStandard, Lease: 13 * time.Hour}},
		{"lease", memory.Options{Like: memory.SQSStandard, Lease: 1500 * time.Millisecond}},
		{"retention", memory.Options{Like: memory.SQSStandard, Retention: time.Second}},
		{"retention", memory.Options{Like: memory.PubSub, Retention: 32 * 24 * time.Hour}},
	}
	for _, tc := range tests {
		b := memory.New(&tc.opts)
		_, err := b.Open(t.Context(), "orders", nil)
		require.ErrorIs(t, err, queue.ErrInvalid)
		require.ErrorContains(t, err, tc.name)
		_, err = b.Ensure(t.Context(), "orders", nil)
		require.ErrorIs(t, err, queue.ErrInvalid)
	}
}

func TestOpenChecksWhatItIsAskedFor(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		like  memory.Like
		queue string
		opts  queue.OpenOptions
		want  error
	}{
		{"a short name", memory.Portable, "ab", queue.OpenOptions{}, queue.ErrInvalid},
		{"Google's name", memory.Portable, "google", queue.OpenOptions{}, queue.ErrInvalid},
		{"an empty address", memory.Portable, "orders", queue.OpenOptions{Address: "memory:"}, queue.ErrInvalid},
		{"any address", memory.Portable, "x", queue.OpenOptions{Address: "memory:an address"}, nil},
		{"an address without scheme", memory.Portable, "x", queue.OpenOptions{Address: "arn:aws:sqs:eu-west-1:1:orders"}, nil},
		{"a long lease", memory.Portable, "orders", queue.OpenOptions{Lease: 1000 * time.Hour}, nil},
		{"a negative lease", memory.Portable, "orders", queue.OpenOptions{Lease: -1}, queue.ErrInvalid},
		{"a lease too long", memory.PubSub, "orders", queue.OpenOptions{Lease: 11 * time.Minute}, queue.ErrInvalid},
		{"ordered on standard", memory.SQSStandard, "orders", queue.OpenOptions{Ordered: true}, queue.ErrUnsupported},
		{"ordered on Pub/Sub", memory.PubSub, "orders", queue.OpenOptions{Ordered: true}, nil},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			q, err := memory.New(&memory.Options{Like: tc.like, Create: true}).Open(t.Context(), tc.queue, &tc.opts)
			if tc.want != nil {
				require.ErrorIs(t, err, tc.want)
				return
			}
			require.NoError(t, err)
			if tc.opts.Lease > 0 {
				assert.Equal(t, tc.opts.Lease, q.Capabilities().Lease)
			}
			require.NoError(t, q.Close(t.Context()))
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := memory.New(&memory.Options{Create: true}).Open(ctx, "orders", nil)
	require.ErrorIs(t, err, context.Canceled)
}

func TestQueueIsOpenedAsItWasMade(t *testing.T) {
	t.Parallel()
	tests := []struct {
		like       memory.Like
		made, open bool
		ok         bool
	}{
		{memory.Portable, true, true, true},
		{memory.Portable, true, false, false}, // on SQS it would be another queue
		{memory.Portable, false, true, false},
		{memory.SQSFIFO, false, false, true}, // every queue is a FIFO queue
		{memory.SQSFIFO, true, false, true},
		{memory.PubSub, true, false, true},
		{memory.PubSub, false, true, false},
	}
	for _, tc := range tests {
		t.Run(fmt.Sprint(tc.like, tc.made, tc.open), func(t *testing.T) {
			t.Parallel()
			b := memory.New(&memory.Options{Like: tc.like})
			_, err := b.Ensure(t.Context(), "orders", &queue.QueueSpec{Ordered: tc.made})
			require.NoError(t, err)
			q, err := b.Open(t.Context(), "orders", &queue.OpenOptions{Ordered: tc.open})
			if !tc.ok {
				require.ErrorIs(t, err, queue.ErrInvalid)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tc.made || tc.like == memory.SQSFIFO, q.Capabilities().Ordering)
		})
	}
}

func TestLeaseComesFromTheNearestSetting(t *testing.T) {
	t.Parallel()
	b := memory.New(&memory.Options{Lease: time.Minute, Create: true})
	_, err := b.Ensure(t.Context(), "ensured", &queue.QueueSpec{Lease: 2 * time.Minute})
	require.NoError(t, err)
	for _, tc := range []struct {
		name string
		opts queue.OpenOptions
		want time.Duration
	}{
		{"created", queue.OpenOptions{}, time.Minute},
		{"ensured", queue.OpenOptions{}, 2 * time.Minute},
		{"ensured", queue.OpenOptions{Lease: 3 * time.Minute}, 3 * time.Minute},
	} {
		q, err := b.Open(t.Context(), tc.name, &tc.opts)
		require.NoError(t, err)
		assert.Equal(t, tc.want, q.Capabilities().Lease)
		publish(t, q, "", "x")
		d := receive(t, q, 1)[0]
		assert.WithinDuration(t, time.Now().Add(tc.want), d.Deadline, 10*time.Second)
		ack(t, q, d)
	}
}

func TestClosedQueueSaysSo(t *testing.T) {
	t.Parallel()
	b, _ := open(t, nil, false)
	q, err := b.Open(t.Context(), "orders", nil)
	require.NoError(t, err)
	publish(t, q, "", "a")
	d := receive(t, q, 1)[0]
	require.NoError(t, q.Close(t.Context()))
	require.NoError(t, q.Close(t.Context()), "twice is harmless")

	require.ErrorIs(t, q.Publish(t.Context(), &queue.Message{}), queue.ErrClosed)
	_, err = q.Receive(t.Context(), 1)
	require.ErrorIs(t, err, queue.ErrClosed)
	require.ErrorIs(t, settle(q, d, queue.Ack), queue.ErrClosed)
	_, err = q.Extend(t.Context(), time.Second, d)
	require.ErrorIs(t, err, queue.ErrClosed)
	inspector, ok := queue.As[queue.Inspector](q)
	require.True(t, ok)
	_, err = inspector.Stats(t.Context())
	require.ErrorIs(t, err, queue.ErrClosed)
	assert.Len(t, b.Messages("orders"), 1, "the message stays for others")
}

func TestUseAcrossABubbleIsAnErrorAndNoHang(t *testing.T) {
	t.Parallel()
	outside := memory.New(&memory.Options{Create: true})
	q, err := outside.Open(t.Context(), "orders", nil)
	require.NoError(t, err)
	publish(t, q, "", "a")
	d := receive(t, q, 1)[0]

	var inside queue.Queue
	var insideBroker *memory.Broker
	misuse := func(t *testing.T, ctx context.Context, b *memory.Broker, q queue.Queue, d *queue.Delivery) {
		t.Helper()
		calls := map[string]func() error{
			"publish":  func() error { return q.Publish(ctx, &queue.Message{}) },
			"receive":  func() error { _, err := q.Receive(ctx, 1); return err },
			"settle":   func() error { return q.Settle(ctx, queue.Settlement{Delivery: d}) },
			"extend":   func() error { _, err := q.Extend(ctx, time.Second, d); return err },
			"open":     func() error { _, err := b.Open(ctx, "orders", nil); return err },
			"ensure":   func() error { _, err := b.Ensure(ctx, "orders", nil); return err },
			"waitidle": func() error { return b.WaitIdle(ctx) },
			"close":    func() error { return q.Close(ctx) },
		}
		for name, call := range calls {
			err := call()
			require.ErrorIs(t, err, queue.ErrInvalid, name)
			require.ErrorContains(t, err, "synctest", name)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		misuse(t, context.Background(), outside, q, d)
		insideBroker = memory.New(&memory.Options{Create: true})
		inside, err = insideBroker.Open(t.Context(), "orders", nil)
		require.NoError(t, err)
	})
	misuse(t, context.Background(), insideBroker, inside, d)
	require.NoError(t, q.Close(t.Context()))
}

func TestIdleQueuesCostNextToNothing(t *testing.T) {
	const n = 1000
	b := memory.New(&memory.Options{Create: true})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	goroutines := runtime.NumGoroutine()
	qs := make([]queue.Queue, n)
	for i := range qs {
		var err error
		qs[i], err = b.Open(t.Context(), fmt.Sprint("queue-", i), nil)
		require.NoError(t, err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	assert.Less(t, (after.HeapAlloc-before.HeapAlloc)/n, uint64(3<<10), "bytes for each queue")
	assert.LessOrEqual(t, runtime.NumGoroutine(), goroutines)
	runtime.KeepAlive(qs)
}

func TestLikeHasNames(t *testing.T) {
	t.Parallel()
	for l, want := range map[memory.Like]string{
		memory.Portable: "Portable", memory.SQSStandard: "SQSStandard", memory.SQSFIFO: "SQSFIFO", memory.PubSub: "PubSub", 77: "Like(77)",
	} {
		assert.Equal(t, want, l.String())
	}
	assert.True(t, strings.HasPrefix(memory.Call(9).String(), "Call("))
}
