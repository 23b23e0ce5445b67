package otelqueue_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/middleware/otelqueue"
	"github.com/anyqueue/anyqueue/queue"
)

// exporter keeps spans as an in-memory one does, but not for ever.
type exporter struct{ spans []sdktrace.ReadOnlySpan }

func (e *exporter) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	if len(e.spans) > 10_000 {
		e.spans = e.spans[:0]
	}
	e.spans = append(e.spans, spans...)
	return nil
}
func (*exporter) Shutdown(context.Context) error { return nil }

// One message, published and handled, without telemetry and with it: the difference is
// what it costs.
func Benchmark(b *testing.B) {
	for _, on := range []bool{false, true} {
		b.Run(fmt.Sprint("telemetry=", on), func(b *testing.B) {
			broker := memory.New(&memory.Options{Create: true})
			q, err := broker.Open(context.Background(), "orders", nil)
			require.NoError(b, err)
			var pub queue.Publisher = q
			opts := &queue.ConsumerOptions{Logger: slog.New(slog.DiscardHandler), ReceiveGrace: -1}
			if on {
				spans := sdktrace.NewTracerProvider(sdktrace.WithBatcher(&exporter{}))
				defer spans.Shutdown(context.Background())
				tel, err := otelqueue.New(&otelqueue.Options{TracerProvider: spans, MeterProvider: metric.NewMeterProvider(metric.WithReader(metric.NewManualReader()))})
				require.NoError(b, err)
				pub = queue.WrapPublisher(q, tel.Publisher())
				opts.Middleware = []queue.Middleware{tel.Consumer()}
			}
			const window = 256
			credits := make(chan struct{}, window)
			c, err := queue.NewConsumer(q, func(context.Context, *queue.Delivery) error {
				<-credits
				return nil
			}, opts)
			require.NoError(b, err)
			ctx, stop := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- c.Run(ctx) }()
			m := &queue.Message{ID: "m", Body: make([]byte, 1024), Attributes: map[string]string{"a": "1", "b": "2"}} // with a context they're three
			b.ReportAllocs()
			for b.Loop() {
				credits <- struct{}{}
				if err := pub.Publish(ctx, m); err != nil {
					b.Fatal(err)
				}
			}
			require.NoError(b, broker.WaitIdle(context.Background()))
			b.StopTimer()
			stop()
			require.NoError(b, <-ended)
		})
	}
}
