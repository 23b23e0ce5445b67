package otelqueue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

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
	if len(msgs) != 1 || msgs[0] == nil {
		return p.several(ctx, began, msgs)
	}
	m := msgs[0]
	ctx, span := p.start(ctx, &p.send, m)
	e, _ := envelopes.Get().(*envelope)
	err := p.next.Publish(ctx, p.carry(ctx, span, e, m)...)
	e.recycle()
	p.t.end(span, err)
	p.measure(ctx, 1, began, err)
	return err
}

// several publishes any number of messages but one.
func (p *publisher) several(ctx context.Context, began time.Time, msgs []*queue.Message) error {
	out := make([]*queue.Message, len(msgs))
	links := make([]trace.Link, 0, min(len(msgs), maxLinks))
	for i, m := range msgs {
		if m == nil { // the publisher says so
			continue
		}
		each, span := p.start(ctx, &p.create, m)
		span.End()
		out[i] = p.carry(each, span, &envelope{}, m)[0]
		if sc := span.SpanContext(); sc.IsValid() && len(links) < maxLinks {
			links = append(links, trace.Link{SpanContext: sc})
		}
	}
	opts := p.send.client[:len(p.send.client):len(p.send.client)]
	ctx, span := p.t.tracer.Start(ctx, p.send.span, append(opts, trace.WithLinks(links...), trace.WithAttributes(attrBatchCount.Int(len(msgs))))...)
	err := p.next.Publish(ctx, out...)
	p.t.end(span, err)
	p.measure(ctx, len(msgs), began, err)
	return err
}

// maxLinks is what the SDK keeps by default.
const maxLinks = 128

// start begins the span of a message.
func (p *publisher) start(ctx context.Context, op *operation, m *queue.Message) (context.Context, trace.Span) {
	var span trace.Span
	if m.ID == "" {
		ctx, span = p.t.tracer.Start(ctx, op.span, op.producer...)
	} else {
		ctx, span = op.start(ctx, p.t.tracer, m.ID)
	}
	if m.OrderingKey != "" && op.system == systemGCP {
		span.SetAttributes(attrGCPOrderingKey.String(m.OrderingKey))
	}
	if p.t.opts.BodySize {
		span.SetAttributes(attrBodySize.Int(len(m.Body)))
	}
	return ctx, span
}

// envelope is a message with a context in its attributes. It's used again: a publisher
// doesn't keep what it's given after it has returned.
type envelope struct {
	message    queue.Message
	attributes map[string]string
	list       [1]*queue.Message
}

var envelopes = sync.Pool{New: func() any { return &envelope{} }}

// maxRecycled bounds the memory that a rare message with many attributes leaves behind.
const maxRecycled = 32

func (e *envelope) recycle() {
	attrs := e.attributes
	if len(attrs) > maxRecycled {
		attrs = nil
	}
	clear(attrs)
	*e = envelope{attributes: attrs}
	envelopes.Put(e)
}

// carry returns m with the context of ctx in its attributes, or m itself where that
// doesn't fit.
func (p *publisher) carry(ctx context.Context, span trace.Span, e *envelope, m *queue.Message) []*queue.Message {
	e.list[0] = m
	if !span.SpanContext().IsValid() {
		return e.list[:]
	}
	if e.attributes == nil {
		e.attributes = make(map[string]string, len(m.Attributes)+1)
	}
	maps.Copy(e.attributes, m.Attributes)
	p.t.opts.Propagator.Inject(ctx, carrier(e.attributes))
	if most := p.wire.MaxAttributes; most > 0 && len(e.attributes)+ownAttributes > most {
		return e.list[:]
	}
	e.message = *m
	e.message.Attributes = e.attributes
	e.list[0] = &e.message
	return e.list[:]
}

// ownAttributes is how many the library itself may add to a message of usual size:
// its metadata, and the encoding of a body that isn't text.
const ownAttributes = 2

// carrier is a propagation.TextMapCarrier.
type carrier map[string]string

func (c carrier) Get(key string) string { return c[key] }
func (c carrier) Set(key, value string) { c[key] = value }
func (c carrier) Keys() []string        { return slices.Collect(maps.Keys(c)) }

func (p *publisher) measure(ctx context.Context, n int, began time.Time, err error) {
	m := &p.t.metrics
	took := time.Since(began).Seconds()
	if err == nil {
		m.operation.Record(ctx, took, p.send.record...)
		m.sent.Add(ctx, int64(n), p.send.add...)
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
		m.sent.Add(ctx, int64(n-bad), p.send.add...)
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
