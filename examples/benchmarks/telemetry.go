package main

import (
	"context"
	"fmt"
	"sync/atomic"

	"go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/anyqueue/anyqueue/middleware/otelqueue"
	"github.com/anyqueue/anyqueue/queue"
)

const (
	telemetryTime   = 5000 // ns that a delivery may cost more with telemetry
	telemetryAllocs = 15
)

// measureTelemetry takes the engine alone, on deliveries that carry a trace: without
// anything, with hooks that only count, and with package otelqueue on the SDK, which
// samples every span and hands it to its exporter before it goes on, so that none is
// dropped, and nothing is left for later. A program that samples less, and exports in
// batches, pays less.
func measureTelemetry(o options, _ []contender, r *report) error {
	round := func(fn func(n int) (figures, error)) func() (figures, error) {
		return func() (figures, error) { return fn(o.deliveries) }
	}
	f, err := interleave(o.rounds, round(telemetryOff), round(hooksOnly), round(telemetryOn))
	if err != nil {
		return err
	}
	r.add("telemetry, per delivery", map[string]figures{"off": f[0], "hooks that count": f[1], "on, every span": f[2]})
	for _, t := range []struct {
		figure, unit string
		want         float64
	}{{cpuFigure, "ns", telemetryTime}, {allocsFigure, "allocations", telemetryAllocs}} {
		added := f[2][t.figure] - f[0][t.figure]
		r.target(target{Name: "traces and metrics of a delivery add", Unit: t.unit, Want: t.want, Got: added, Figure: added})
	}
	return nil
}

// traced is a trivial whose deliveries carry a trace, and come from a queue that has a
// name.
type traced struct{ *trivial }

func newTraced(n int) traced {
	t := traced{newTrivial(n)}
	attributes := newAttributes()
	attributes["traceparent"] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, d := range t.ring {
		d.Source, d.Attributes = t.Capabilities().Source, attributes
	}
	return t
}

// Capabilities implements queue.Queue's.
func (traced) Capabilities() queue.Capabilities {
	return queue.Capabilities{Source: queue.Endpoint{System: "memory", Name: "bench"}, Address: "memory:bench"}
}

func telemetryOff(n int) (figures, error) {
	t := newTraced(n)
	return engineOn(t.trivial, t, consumerOptions(handlers))
}

// hooksOnly is what the engine's own part costs.
func hooksOnly(n int) (figures, error) {
	var settled, received atomic.Int64
	opts := consumerOptions(handlers)
	opts.Hooks = &queue.Hooks{
		Settled:      func(queue.Settled) { settled.Add(1) },
		SettleFailed: func(*queue.Delivery, queue.SettleKind, error, bool) {},
		LeaseLost:    func(*queue.Delivery) {},
		Received:     func(r queue.Received) { received.Add(int64(len(r.Deliveries))) },
		SettleCalled: func(queue.SettleCall) {},
		ExtendCalled: func(queue.ExtendCall) {},
	}
	t := newTraced(n)
	f, err := engineOn(t.trivial, t, opts)
	if err == nil && (settled.Load() != int64(n) || received.Load() != int64(n)) {
		err = fmt.Errorf("hooks were told of %d received and %d settled of %d deliveries", received.Load(), settled.Load(), n)
	}
	return f, err
}

func telemetryOn(n int) (figures, error) {
	spans := &spanStore{}
	traces := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.AlwaysSample()), sdktrace.WithSyncer(spans))
	metrics := metric.NewMeterProvider(metric.WithReader(metric.NewManualReader()))
	tel, err := otelqueue.New(&otelqueue.Options{TracerProvider: traces, MeterProvider: metrics})
	if err != nil {
		return nil, err
	}
	opts := consumerOptions(handlers)
	opts.Middleware = []queue.Middleware{tel.Consumer()}
	t := newTraced(n)
	f, err := engineOn(t.trivial, t, opts)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	if err := errorsFirst(traces.Shutdown(ctx), metrics.Shutdown(ctx)); err != nil {
		return nil, err
	}
	if spans.handled != n || spans.others == 0 {
		return nil, fmt.Errorf("%d spans of %d handlers, and %d of receives and settlements", spans.handled, n, spans.others)
	}
	f["spans/delivery"] = float64(spans.handled+spans.others) / float64(n)
	return f, nil
}

// spanStore keeps spans in memory, but not for ever. It's called by one at a time.
type spanStore struct {
	spans           []sdktrace.ReadOnlySpan
	handled, others int
}

// spansKept is about as much as an exporter that sends them has on its way.
const spansKept = 4096

// ExportSpans implements sdktrace.SpanExporter.
func (s *spanStore) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	for _, span := range spans {
		if span.Name() == "process bench" {
			s.handled++
		} else {
			s.others++
		}
	}
	if len(s.spans) >= spansKept {
		clear(s.spans)
		s.spans = s.spans[:0]
	}
	s.spans = append(s.spans, spans...)
	return nil
}

// Shutdown implements sdktrace.SpanExporter.
func (*spanStore) Shutdown(context.Context) error { return nil }
