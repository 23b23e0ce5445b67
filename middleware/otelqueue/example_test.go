package otelqueue_test

import (
	"context"
	"fmt"
	"log/slog"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/middleware/otelqueue"
	"github.com/anyqueue/anyqueue/queue"
)

// A message that's published in one program and handled in another one belongs to the
// same trace.
func Example() {
	spans := tracetest.NewSpanRecorder() // in a program: an exporter
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	tel, err := otelqueue.New(&otelqueue.Options{TracerProvider: provider})
	if err != nil {
		fmt.Println(err)
		return
	}
	broker := memory.New(&memory.Options{Create: true})
	q, err := broker.Open(context.Background(), "orders", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer q.Close(context.Background())

	pub := queue.WrapPublisher(q, tel.Publisher())
	if err := pub.Publish(context.Background(), &queue.Message{ID: "42", Body: []byte("a book")}); err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	c, err := queue.NewConsumer(q, func(context.Context, *queue.Delivery) error {
		stop()
		return nil
	}, &queue.ConsumerOptions{Middleware: []queue.Middleware{tel.Consumer()}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := c.Run(ctx); err != nil {
		fmt.Println(err)
	}
	traces := map[string]string{}
	for _, s := range spans.Ended() {
		traces[s.Name()] = s.SpanContext().TraceID().String()
	}
	fmt.Println("one trace:", traces["send orders"] == traces["process orders"])
	// Output: one trace: true
}
