package memory_test

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
)

func benchQueue(b *testing.B) queue.Queue {
	b.Helper()
	q, err := memory.New(&memory.Options{Create: true}).Open(b.Context(), "bench", nil)
	if err != nil {
		b.Fatal(err)
	}
	return q
}

func benchMessage() *queue.Message {
	return &queue.Message{
		Body:       make([]byte, 1024),
		Attributes: map[string]string{"tenant": "acme", "kind": "order", "trace": "0af7651916cd43dd8448eb211c80319c"},
	}
}

func BenchmarkPublish(b *testing.B) {
	q, m := benchQueue(b), benchMessage()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := q.Publish(b.Context(), m); err != nil {
			b.Fatal(err)
		}
		if i%100_000 == 99_999 { // what's stored isn't what's measured
			b.StopTimer()
			q = benchQueue(b)
			b.StartTimer()
		}
	}
}

func BenchmarkPublishReceiveAck(b *testing.B) {
	q, m := benchQueue(b), benchMessage()
	b.ReportAllocs()
	for b.Loop() {
		if err := q.Publish(b.Context(), m); err != nil {
			b.Fatal(err)
		}
		ds, err := q.Receive(b.Context(), 16)
		if err != nil {
			b.Fatal(err)
		}
		for _, d := range ds {
			if err := q.Settle(b.Context(), queue.Settlement{Delivery: d}); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkThroughput has 8 publishers and a receiver that acknowledges each
// batch, as the engine does at full load.
func BenchmarkThroughput(b *testing.B) {
	q := benchQueue(b)
	b.ReportAllocs()
	b.ResetTimer()
	var (
		wg   sync.WaitGroup
		done atomic.Int64
	)
	const (
		publishers = 8
		ahead      = 4096 // so that it's not the memory of a backlog that's measured
	)
	for p := range publishers {
		wg.Go(func() {
			m := benchMessage()
			for i := p; i < b.N; i += publishers {
				for i-int(done.Load()) > ahead {
					runtime.Gosched()
				}
				if err := q.Publish(context.Background(), m); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	settlements := make([]queue.Settlement, 0, 64)
	for n := 0; n < b.N; {
		ds, err := q.Receive(context.Background(), 64)
		if err != nil {
			b.Fatal(err)
		}
		settlements = settlements[:0]
		for _, d := range ds {
			settlements = append(settlements, queue.Settlement{Delivery: d})
		}
		if err := q.Settle(context.Background(), settlements...); err != nil {
			b.Fatal(err)
		}
		n += len(ds)
		done.Store(int64(n))
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
}

// BenchmarkWakeUp measures the time from a publish to the return of a waiting
// Receive.
func BenchmarkWakeUp(b *testing.B) {
	q, m := benchQueue(b), benchMessage()
	waiting, got := make(chan struct{}), make(chan time.Time)
	go func() {
		for range waiting {
			ds, err := q.Receive(context.Background(), 1)
			if err != nil {
				b.Error(err)
			}
			got <- time.Now()
			if err := q.Settle(context.Background(), queue.Settlement{Delivery: ds[0]}); err != nil {
				b.Error(err)
			}
		}
	}()
	var sum time.Duration
	n := 0
	for b.Loop() {
		waiting <- struct{}{}
		time.Sleep(50 * time.Microsecond) // the receiver has to be waiting
		start := time.Now()
		if err := q.Publish(b.Context(), m); err != nil {
			b.Fatal(err)
		}
		sum += (<-got).Sub(start)
		n++
	}
	close(waiting)
	b.ReportMetric(float64(sum.Nanoseconds())/float64(n), "ns/wake-up")
}

// BenchmarkQueuedMemory reports what a queued message costs beyond its body and
// its attributes' text.
func BenchmarkQueuedMemory(b *testing.B) {
	const n = 200_000
	var before, after runtime.MemStats
	for b.Loop() {
		q, m := benchQueue(b), benchMessage()
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range n {
			if err := q.Publish(b.Context(), m); err != nil {
				b.Fatal(err)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(q)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n-1024, "B/queued")
}

// BenchmarkPublishToHandler is the whole way: 8 publishers, the engine with 16
// handlers, acknowledgements.
func BenchmarkPublishToHandler(b *testing.B) {
	q := benchQueue(b)
	var (
		wg   sync.WaitGroup
		done atomic.Int64
		all  = make(chan struct{})
	)
	c, err := queue.NewConsumer(q, func(context.Context, *queue.Delivery) error {
		if done.Add(1) == int64(b.N) {
			close(all)
		}
		return nil
	}, &queue.ConsumerOptions{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error)
	go func() { ended <- c.Run(ctx) }()
	b.ReportAllocs()
	b.ResetTimer()
	const publishers = 8
	for p := range publishers {
		wg.Go(func() {
			m := benchMessage()
			for i := p; i < b.N; i += publishers {
				if err := q.Publish(context.Background(), m); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	<-all
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
	cancel()
	if err := <-ended; err != nil {
		b.Error(err)
	}
}
