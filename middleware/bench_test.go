package middleware_test

import (
	"context"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
)

// forwards is the least that middleware can do: one closure that calls the next.
func forwards(next queue.Handler) queue.Handler {
	return func(ctx context.Context, d *queue.Delivery) error { return next(ctx, d) }
}

// BenchmarkChain says what ten middlewares that do nothing cost, beside none.
func BenchmarkChain(b *testing.B) {
	ten := make([]queue.Middleware, 10)
	for i := range ten {
		ten[i] = queue.MiddlewareFunc(forwards)
	}
	for name, mw := range map[string][]queue.Middleware{"none": nil, "ten": ten} {
		b.Run(name, func(b *testing.B) {
			h := queue.Chain(handle, mw...)
			d := delivery("a", 0)
			ctx := b.Context()
			b.ReportAllocs()
			for b.Loop() {
				if h(ctx, d) != nil {
					b.Fatal("failed")
				}
			}
		})
	}
}

// nowhere is a log that costs what it costs to write one.
type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkMiddleware says what each adds to a success, with a body of 1 KiB and
// three attributes.
func BenchmarkMiddleware(b *testing.B) {
	drop := slog.New(slog.NewTextHandler(nowhere{}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	forgets := queue.PublisherFunc(func(context.Context, ...*queue.Message) error { return nil })
	// More keys than the store holds, so that none is a repeat.
	keys := make([]string, 4096)
	for i := range keys {
		keys[i] = "orders/" + strconv.Itoa(i)
	}
	n := 0
	for name, m := range map[string]queue.Middleware{
		"Retry":        middleware.Retry(middleware.RetryOptions{}),
		"RetryInPlace": middleware.Retry(middleware.RetryOptions{InPlace: 2}),
		"DeadLetter":   middleware.DeadLetter(forgets, middleware.DeadLetterOptions{}),
		"Idempotent": middleware.Idempotent(middleware.NewMemoryStore(1000), middleware.IdempotentOptions{
			Key: func(*queue.Delivery) string {
				n++
				return keys[n%len(keys)]
			},
		}),
		"Timeout": middleware.Timeout(time.Minute),
		"Recover": middleware.Recover(),
		"Log":     middleware.Log(middleware.LogOptions{Logger: drop}),
	} {
		b.Run(name, func(b *testing.B) {
			if bd, ok := m.(queue.Binder); ok && name != "Log" { // a consumer tells it; here it sees for itself
				var err error
				if m, err = bd.Bind(info()); err != nil {
					b.Fatal(err)
				}
			}
			h := m.Wrap(handle)
			d := delivery("a", 0)
			d.Body = make([]byte, 1024)
			d.Attributes = map[string]string{"tenant": "acme", "type": "order", "trace": "0123456789abcdef"}
			ctx := b.Context()
			b.ReportAllocs()
			for b.Loop() {
				if err := h(ctx, d); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkGate says what a gate adds to a delivery: one question about room, one
// entry and its end.
func BenchmarkGate(b *testing.B) {
	for name, m := range map[string]queue.Binder{
		"Limit":          middleware.Limit(16, middleware.LimitOptions{}),
		"LimitByKey":     middleware.Limit(16, middleware.LimitOptions{Key: tenant}),
		"RateLimit":      middleware.RateLimit(1e6, middleware.RateLimitOptions{Burst: 1e9}),
		"RateLimitByKey": middleware.RateLimit(1e6, middleware.RateLimitOptions{Burst: 1e9, Key: tenant}),
		"CircuitBreaker": middleware.CircuitBreaker(middleware.CircuitBreakerOptions{}),
	} {
		b.Run(name, func(b *testing.B) {
			bound, err := m.Bind(info())
			if err != nil {
				b.Fatal(err)
			}
			g, ok := bound.(queue.Gate)
			if !ok {
				b.Fatal("no gate")
			}
			defer g.Attach(func() {})()
			d := delivery("a", 0)
			b.ReportAllocs()
			for b.Loop() {
				g.Room()
				e := g.Enter(d)
				if !e.OK {
					b.Fatal("refused")
				}
				g.Leave(e.Ticket, started)
			}
		})
	}
}
