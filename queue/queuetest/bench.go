package queuetest

import (
	"bytes"
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// Bench measures a backend with messages of 1 KiB and three attributes: what a
// publish costs, alone and a hundred in a call, and what a message costs from
// its publish to its acknowledgement by one of 16 handlers. It runs on real
// time, whatever h says.
func Bench(b *testing.B, h Harness) {
	h.Virtual = false
	h.validate(b)
	b.Run("Publish", func(b *testing.B) { benchPublish(b, &h, 1) })
	b.Run("Publish100", func(b *testing.B) { benchPublish(b, &h, 100) })
	b.Run("PublishToAcknowledged", func(b *testing.B) { benchAcknowledged(b, &h) })
}

func benchMessage() *queue.Message {
	return &queue.Message{
		Body:       bytes.Repeat([]byte("0123456789abcdef"), 64),
		Attributes: map[string]string{"content-type": "application/json", "tenant": "t-0042", "trace": "00-4bf92f3577b34da6a3ce929d0e0e4736"},
	}
}

// openOne opens one queue outside of the suite.
func openOne(t testing.TB, h *Harness) queue.Queue {
	t.Helper()
	in := h.New(t)
	e := &env{h: h, in: in, ctx: context.WithoutCancel(t.Context()), lease: h.Lease, log: &logBuffer{}, names: map[queue.Queue]opening{}}
	name := uniqueName()
	spec := &queue.QueueSpec{Ordered: h.Ordered, Lease: h.Lease}
	if err := e.create(name, spec); err != nil {
		t.Fatalf("creating a queue: %v", err)
	}
	q, err := e.openNamed(opening{name, queue.OpenOptions{Ordered: h.Ordered, Lease: h.Lease, Logger: e.log.logger()}})
	if err != nil {
		t.Fatalf("opening a queue: %v", err)
	}
	t.Cleanup(func() {
		if err := q.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return q
}

func benchPublish(b *testing.B, h *Harness, n int) {
	q := openOne(b, h)
	ctx := b.Context()
	msgs := make([]*queue.Message, n)
	for i := range msgs {
		msgs[i] = benchMessage()
	}
	purger, canPurge := queue.As[queue.Purger](q)
	b.ReportAllocs()
	b.SetBytes(int64(n * len(msgs[0].Body)))
	published := 0
	for b.Loop() {
		if err := q.Publish(ctx, msgs...); err != nil {
			b.Fatalf("Publish: %v", err)
		}
		if published += n; canPurge && published >= 100_000 { // what's kept isn't what's measured
			b.StopTimer()
			if err := purger.Purge(ctx); err != nil {
				b.Fatalf("Purge: %v", err)
			}
			published = 0
			b.StartTimer()
		}
	}
}

func benchAcknowledged(b *testing.B, h *Harness) {
	q := openOne(b, h)
	var handled atomic.Int64
	done := make(chan struct{})
	total := int64(b.N)
	c, err := queue.NewConsumer(q, func(context.Context, *queue.Delivery) error {
		if handled.Add(1) == total {
			close(done)
		}
		return nil
	}, &queue.ConsumerOptions{Concurrency: 16, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatalf("NewConsumer: %v", err)
	}
	stop := Start(b, c)
	ctx := b.Context()
	b.ReportAllocs()
	b.SetBytes(int64(len(benchMessage().Body)))
	b.SetParallelism(4)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		m := benchMessage()
		for pb.Next() {
			if err := q.Publish(ctx, m); err != nil {
				b.Errorf("Publish: %v", err)
				return
			}
		}
	})
	if b.Failed() {
		return
	}
	t := time.NewTimer(time.Minute + time.Duration(b.N)*time.Millisecond)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
		b.Fatalf("%d of %d messages were handled", handled.Load(), total)
	}
	stop()
	b.StopTimer()
	if s := c.Stats(); s.Succeeded != uint64(total) || s.SettleErrors > 0 {
		b.Errorf("Stats: succeeded %d of %d, settle errors %d", s.Succeeded, total, s.SettleErrors)
	}
}
