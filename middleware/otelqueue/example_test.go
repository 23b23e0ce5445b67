package otelqueue_test

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/middleware/otelqueue"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/admin"
	"github.com/anyqueue/anyqueue/queue/config"
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

// How much waits in the queues of a file, and how long already, as gauges: package admin
// asks the brokers, here once a minute.
func ExampleTelemetry_RecordStats() {
	reader := metric.NewManualReader() // in a program: one with an exporter
	tel, err := otelqueue.New(&otelqueue.Options{MeterProvider: metric.NewMeterProvider(metric.WithReader(reader))})
	if err != nil {
		fmt.Println(err)
		return
	}
	file, err := config.Parse("queues.yaml", []byte("backend: memory\nqueues: {orders: {}}"), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	bus, err := config.OpenFile(file, config.Backends{"memory": memory.New(&memory.Options{Create: true})}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	defer bus.Close(context.Background())
	if err := bus.Publisher("orders").Publish(ctx, &queue.Message{Body: []byte("a book")}); err != nil {
		fmt.Println(err)
	}

	a, err := admin.New(ctx, bus, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	err = a.Collect(ctx, time.Minute, func(stats []admin.QueueStats) {
		for _, s := range stats {
			if s.Err == nil {
				tel.RecordStats(ctx, s.Endpoint, s.Address, s.Stats)
			}
		}
		stop() // a program goes on
	})
	if err != nil {
		fmt.Println(err)
	}
	var got metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &got); err != nil {
		fmt.Println(err)
	}
	for _, m := range got.ScopeMetrics[0].Metrics {
		if gauge, ok := m.Data.(metricdata.Gauge[int64]); ok && m.Name == "anyqueue.queue.messages" {
			for _, p := range gauge.DataPoints {
				if state, _ := p.Attributes.Value("anyqueue.message.state"); state.AsString() == "ready" {
					fmt.Println("ready:", p.Value)
				}
			}
		}
	}
	// Output: ready: 1
}

// With a Bus both sides are given once, for all queues. What's done for several messages
// at once is a span with links to those of all.
func ExampleTelemetry_Batch() {
	spans := tracetest.NewSpanRecorder() // in a program: an exporter
	tel, err := otelqueue.New(&otelqueue.Options{TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))})
	if err != nil {
		fmt.Println(err)
		return
	}
	file, err := config.Parse("queues.yaml", []byte("backend: memory\nqueues: {rows: {}}"), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	bus, err := config.OpenFile(file, config.Backends{"memory": memory.New(&memory.Options{Create: true})}, &config.Options{
		Middleware:          []queue.Middleware{tel.Consumer()},
		PublisherMiddleware: []queue.PublisherMiddleware{tel.Publisher()},
		Logger:              slog.New(slog.DiscardHandler),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	bus.Handle("rows", queue.Batch(3, time.Minute, tel.Batch(func(_ context.Context, ds []*queue.Delivery) []error {
		stop()
		return make([]error, len(ds))
	})))
	for range 3 {
		if err := bus.Publisher("rows").Publish(ctx, &queue.Message{Body: []byte("a row")}); err != nil {
			fmt.Println(err)
		}
	}
	if err := bus.Run(ctx); err != nil {
		fmt.Println(err)
	}
	if err := bus.Close(context.Background()); err != nil {
		fmt.Println(err)
	}
	for _, s := range spans.Ended() {
		if len(s.Links()) > 0 && s.Name() == "process rows" {
			fmt.Println(s.Name(), "of", len(s.Links()), "messages")
		}
	}
	// Output: process rows of 3 messages
}
