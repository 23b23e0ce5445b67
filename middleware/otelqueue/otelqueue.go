package otelqueue

import (
	"fmt"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/anyqueue/anyqueue/queue"
)

// scope is the instrumentation scope of spans and metrics.
const scope = "github.com/anyqueue/anyqueue/middleware/otelqueue"

// Options are the settings of New. The zero value is usable.
type Options struct {
	// TracerProvider and MeterProvider get the spans and the metrics. Default: the
	// global ones of package otel.
	TracerProvider trace.TracerProvider
	MeterProvider  metric.MeterProvider

	// Propagator writes the trace context into a message's attributes and reads it
	// from them. Default: W3C trace context (traceparent, tracestate), whatever the
	// global one is, as messages are read by others than this program.
	Propagator propagation.TextMapPropagator

	// BodySize adds messaging.message.body.size, which the conventions leave to be
	// asked for.
	BodySize bool
}

// Telemetry makes spans and metrics. Its methods may be called concurrently; one is
// enough for all queues of a program.
type Telemetry struct {
	opts    Options
	tracer  trace.Tracer
	w3c     bool // the propagator is the default
	metrics instruments
	running consumers
}

// New returns Telemetry. Nil options are the defaults. It fails only when the
// MeterProvider refuses an instrument.
func New(opts *Options) (*Telemetry, error) {
	t := &Telemetry{}
	if opts != nil {
		t.opts = *opts
	}
	if t.opts.TracerProvider == nil {
		t.opts.TracerProvider = otel.GetTracerProvider()
	}
	if t.opts.MeterProvider == nil {
		t.opts.MeterProvider = otel.GetMeterProvider()
	}
	if t.opts.Propagator == nil {
		t.opts.Propagator = propagation.TraceContext{}
	}
	_, t.w3c = t.opts.Propagator.(propagation.TraceContext)
	t.tracer = t.opts.TracerProvider.Tracer(scope)
	if err := t.metrics.init(t.opts.MeterProvider.Meter(scope), &t.running); err != nil {
		return nil, fmt.Errorf("otelqueue: %w", err)
	}
	return t, nil
}

// capabilities are those of the queue behind p, or none.
func capabilities(p any) queue.Capabilities {
	if c, ok := queue.As[interface{ Capabilities() queue.Capabilities }](p); ok {
		return c.Capabilities()
	}
	return queue.Capabilities{}
}
