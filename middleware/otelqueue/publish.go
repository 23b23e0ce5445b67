package otelqueue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/anyqueue/anyqueue/queue"
)

// Publisher wraps a publisher: each Publish is a span of kind producer, and each
// message carries the trace context in attributes of its own (traceparent, and
// tracestate when there's one). Several messages in one Publish get a span each, of
// the operation create, to which the span of the call has links.
//
// A message that has as many attributes as its system takes goes without a context:
// telemetry never makes a Publish fail. What it replaces is a context that a
// forwarded message has brought along.
func (t *Telemetry) Publisher() queue.PublisherMiddleware {
	return func(next queue.Publisher) queue.Publisher {
		caps := capabilities(next)
		p := &publisher{t: t, next: next, wire: caps.Wire, destination: caps.Source.Name}
		base := destinationOf(&caps)
		p.send = newOperation(base, opSend)
		p.create = newOperation(base, opCreate)
		return p
	}
}

type publisher struct {
	t            *Telemetry
	next         queue.Publisher
	wire         queue.Wire
	destination  string
	send, create operation
}

// Unwrap returns the publisher beneath.
func (p *publisher) Unwrap() queue.Publisher { return p.next }

// Publish implements queue.Publisher.
func (p *publisher) Publish(ctx context.Context, msgs ...*queue.Message) error {
	began := time.Now()
	span, ctx, out := p.begin(ctx, msgs)
	err := p.next.Publish(ctx, out...)
	p.t.end(span, err)
	p.measure(ctx, len(msgs), began, err)
	return err
}

// begin starts the spans and returns the messages with their contexts.
func (p *publisher) begin(ctx context.Context, msgs []*queue.Message) (trace.Span, context.Context, []*queue.Message) {
	if len(msgs) == 1 {
		ctx, span := p.t.tracer.Start(ctx, p.send.span, trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(p.attributes(&p.send, msgs[0])...))
		if !span.SpanContext().IsValid() {
			return span, ctx, msgs
		}
		return span, ctx, []*queue.Message{p.carry(ctx, msgs[0])}
	}
	out := make([]*queue.Message, len(msgs))
	links := make([]trace.Link, 0, min(len(msgs), maxLinks))
	for i, m := range msgs {
		if m == nil { // the publisher says so
			continue
		}
		each, span := p.t.tracer.Start(ctx, p.create.span, trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(p.attributes(&p.create, m)...))
		span.End()
		out[i] = m
		if sc := span.SpanContext(); sc.IsValid() {
			out[i] = p.carry(each, m)
			if len(links) < maxLinks {
				links = append(links, trace.Link{SpanContext: sc})
			}
		}
	}
	ctx, span := p.t.tracer.Start(ctx, p.send.span, trace.WithSpanKind(trace.SpanKindClient), trace.WithLinks(links...),
		trace.WithAttributes(append(p.send.attributes[:len(p.send.attributes):len(p.send.attributes)], attrBatchCount.Int(len(msgs)))...))
	return span, ctx, out
}

// maxLinks is what the SDK keeps by default.
const maxLinks = 128

func (p *publisher) attributes(op *operation, m *queue.Message) []attribute.KeyValue {
	attrs := op.attributes[:len(op.attributes):len(op.attributes)]
	if m == nil {
		return attrs
	}
	if m.ID != "" {
		attrs = append(attrs, attrMessageID.String(m.ID))
	}
	if m.OrderingKey != "" && op.system == systemGCP {
		attrs = append(attrs, attrGCPOrderingKey.String(m.OrderingKey))
	}
	if p.t.opts.BodySize {
		attrs = append(attrs, attrBodySize.Int(len(m.Body)))
	}
	return attrs
}

// carry returns m with the context in its attributes, or m itself where that
// doesn't fit.
func (p *publisher) carry(ctx context.Context, m *queue.Message) *queue.Message {
	c := carrier{}
	p.t.opts.Propagator.Inject(ctx, c)
	n := len(m.Attributes)
	for k := range c {
		if _, has := m.Attributes[k]; !has {
			n++
		}
	}
	if most := p.wire.MaxAttributes; len(c) == 0 || most > 0 && n+ownAttributes > most {
		return m
	}
	cp := *m
	cp.Attributes = make(map[string]string, n)
	maps.Copy(cp.Attributes, m.Attributes)
	maps.Copy(cp.Attributes, c)
	return &cp
}

// ownAttributes is how many the library itself may add to a message of usual size:
// its metadata, and the encoding of a body that isn't text.
const ownAttributes = 2

// carrier is a propagation.TextMapCarrier.
type carrier map[string]string

func (c carrier) Get(key string) string { return c[key] }
func (c carrier) Set(key, value string) { c[key] = value }
func (c carrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for k := range c {
		keys = append(keys, k)
	}
	return keys
}

func (p *publisher) measure(ctx context.Context, n int, began time.Time, err error) {
	m := &p.t.metrics
	took := time.Since(began).Seconds()
	if err == nil {
		m.operation.Record(ctx, took, metric.WithAttributeSet(p.send.set))
		m.sent.Add(ctx, int64(n), metric.WithAttributeSet(p.send.set))
		return
	}
	failed := metric.WithAttributeSet(p.send.with(attrErrorType.String(errorType(err))))
	m.operation.Record(ctx, took, failed)
	bad := 0
	for _, e := range queue.PublishErrors(err, n) {
		if e != nil {
			bad++
		}
	}
	m.sent.Add(ctx, int64(bad), failed)
	if bad < n {
		m.sent.Add(ctx, int64(n-bad), metric.WithAttributeSet(p.send.set))
	}
}

// end ends a span.
func (t *Telemetry) end(span trace.Span, err error, opts ...trace.SpanEndOption) {
	if err != nil && span.IsRecording() {
		span.SetAttributes(attrErrorType.String(errorType(err)))
		span.SetStatus(codes.Error, err.Error())
	}
	span.End(opts...)
}

// errorType is a word for the kind of an error, of which there are few.
func errorType(err error) string {
	for _, k := range []struct {
		is   error
		name string
	}{
		{queue.ErrUnknownOutcome, "unknown_outcome"}, {queue.ErrThrottled, "throttled"}, {queue.ErrPermission, "permission_denied"},
		{queue.ErrQueueNotFound, "queue_not_found"}, {queue.ErrLeaseLost, "lease_lost"}, {queue.ErrDraining, "draining"},
		{queue.ErrUnsupported, "unsupported"}, {queue.ErrInvalid, "invalid"}, {queue.ErrClosed, "closed"}, {queue.ErrFull, "full"},
		{context.DeadlineExceeded, "timeout"}, {context.Canceled, "canceled"},
	} {
		if errors.Is(err, k.is) {
			return k.name
		}
	}
	if _, ok := errors.AsType[*queue.PanicError](err); ok {
		return "panic"
	}
	if _, ok := errors.AsType[*queue.LimitError](err); ok {
		return "limit"
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return fmt.Sprintf("%T", err)
		}
		err = inner
	}
}
