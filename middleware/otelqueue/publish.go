package otelqueue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
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
// It's for queue.WrapPublisher, and for config.Options.PublisherMiddleware, which gives
// it to the publishers of a Bus.
//
// A message without room for a context goes without: telemetry never makes a Publish
// fail. What it replaces is a context that a forwarded message has brought along.
func (t *Telemetry) Publisher() queue.PublisherMiddleware {
	return func(next queue.Publisher) queue.Publisher {
		p := &publisher{t: t, next: next}
		p.known.Store(newDestination(capabilities(next)))
		return p
	}
}

type publisher struct {
	t     *Telemetry
	next  queue.Publisher
	known atomic.Pointer[destination]
}

// destination is what's known of the queue that's published to: nothing, as long as it
// isn't open.
type destination struct {
	caps         queue.Capabilities
	send, create operation
}

func newDestination(caps queue.Capabilities) *destination {
	d := &destination{caps: caps}
	base := destinationOf(&caps, producing)
	d.send, d.create = newOperation(base, opSend), newOperation(base, opCreate)
	if !d.known() { // what every system can do
		d.caps = queue.Capabilities{Wire: queue.PortableWire(), Delays: true, Ordering: true, Dedup: true}
	}
	return d
}

func (d *destination) known() bool { return d.caps.Source.System != "" }

// destination asks as long as it isn't known.
func (p *publisher) destination() *destination {
	d := p.known.Load()
	if d.known() {
		return d
	}
	if caps := capabilities(p.next); caps.Source.System != "" {
		d = newDestination(caps)
		p.known.Store(d)
	}
	return d
}

// Unwrap returns the publisher beneath.
func (p *publisher) Unwrap() queue.Publisher { return p.next }

// Publish implements queue.Publisher.
func (p *publisher) Publish(ctx context.Context, msgs ...*queue.Message) error {
	began := time.Now()
	d := p.destination()
	if len(msgs) != 1 || msgs[0] == nil {
		return p.several(ctx, began, d, msgs)
	}
	m := msgs[0]
	ctx, span := p.start(ctx, &d.send, m)
	e, _ := envelopes.Get().(*envelope)
	p.carry(ctx, d, span, e, m)
	err := p.next.Publish(ctx, e.list[:]...)
	if err != nil && e.list[0] != m && beyondLimit(err) {
		err = p.next.Publish(ctx, m)
	}
	e.recycle()
	if !d.known() {
		d = p.destination()
		p.rename(span, d, &d.send, m)
	}
	p.t.end(span, err)
	p.measure(ctx, d, 1, began, err)
	return err
}

// rename tells a span of what wasn't known when it began.
func (p *publisher) rename(span trace.Span, d *destination, op *operation, m *queue.Message) {
	if !d.known() {
		return
	}
	span.SetName(op.span)
	span.SetAttributes(op.attributes...)
	if m != nil {
		p.describe(span, op, m)
	}
}

// several publishes any number of messages but one.
func (p *publisher) several(ctx context.Context, began time.Time, d *destination, msgs []*queue.Message) error {
	out := make([]*queue.Message, len(msgs))
	links := make([]trace.Link, 0, min(len(msgs), maxLinks))
	var unnamed []trace.Span // by index; those that aren't to end before they have their names
	if !d.known() {
		unnamed = make([]trace.Span, len(msgs))
	}
	for i, m := range msgs {
		if m == nil { // the publisher says so
			continue
		}
		each, span := p.start(ctx, &d.create, m)
		if unnamed != nil {
			unnamed[i] = span
		} else {
			span.End()
		}
		e := &envelope{}
		p.carry(each, d, span, e, m)
		out[i] = e.list[0]
		if sc := span.SpanContext(); sc.IsValid() && len(links) < maxLinks {
			links = append(links, trace.Link{SpanContext: sc})
		}
	}
	created := time.Now()
	opts := slices.Clip(d.send.client)
	ctx, span := p.t.tracer.Start(ctx, d.send.span, append(opts, trace.WithLinks(links...), trace.WithAttributes(attrBatchCount.Int(len(msgs))))...)
	err := p.next.Publish(ctx, out...)
	if err != nil {
		err = p.without(ctx, msgs, out, err)
	}
	if unnamed != nil {
		d = p.destination()
		p.rename(span, d, &d.send, nil)
		for i, create := range unnamed {
			if create != nil {
				p.rename(create, d, &d.create, msgs[i])
				create.End(trace.WithTimestamp(created))
			}
		}
	}
	p.t.end(span, err)
	p.measure(ctx, d, len(msgs), began, err)
	return err
}

// without publishes those of msgs again that were refused for their size, and had a
// context. One with a key isn't, as the later ones of that key have gone.
func (p *publisher) without(ctx context.Context, msgs, sent []*queue.Message, err error) error {
	errs := queue.PublishErrors(err, len(msgs))
	var again []*queue.Message
	var at []int
	for i, m := range msgs {
		if m != nil && sent[i] != m && m.OrderingKey == "" && beyondLimit(errs[i]) {
			again, at = append(again, m), append(at, i)
		}
	}
	if len(again) == 0 {
		return err
	}
	for i, e := range queue.PublishErrors(p.next.Publish(ctx, again...), len(again)) {
		errs[at[i]] = e
	}
	return queue.NewPublishError(errs)
}

// beyondLimit says that a message was refused, before it was sent, for what it is.
func beyondLimit(err error) bool {
	_, ok := errors.AsType[*queue.LimitError](err)
	return ok
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
	p.describe(span, op, m)
	return ctx, span
}

// describe adds what few messages have.
func (p *publisher) describe(span trace.Span, op *operation, m *queue.Message) {
	if m.OrderingKey != "" && op.system == systemGCP {
		span.SetAttributes(attrGCPOrderingKey.String(m.OrderingKey))
	}
	if p.t.opts.BodySize {
		span.SetAttributes(attrBodySize.Int(len(m.Body)))
	}
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

// carry puts m into e, with the context of ctx in its attributes where that fits.
func (p *publisher) carry(ctx context.Context, d *destination, span trace.Span, e *envelope, m *queue.Message) {
	e.list[0] = m
	if !span.SpanContext().IsValid() {
		return
	}
	if e.attributes == nil {
		e.attributes = make(map[string]string, len(m.Attributes)+1)
	}
	size := len(m.Body)
	for k, v := range m.Attributes {
		e.attributes[k] = v
		size += len(k) + len(v)
	}
	p.t.opts.Propagator.Inject(ctx, carrier(e.attributes))
	e.message = *m
	e.message.Attributes = e.attributes
	if p.fits(d, e, size) {
		e.list[0] = &e.message
	}
}

// fits reports whether a message with a context isn't too large. Most are far from
// every limit.
func (p *publisher) fits(d *destination, e *envelope, size int) bool {
	w := &d.caps.Wire
	if w.MaxAttributes > 0 && len(e.attributes)+ownAttributes > w.MaxAttributes {
		return false
	}
	if p.t.w3c && e.attributes["tracestate"] == "" && (w.MaxBytes == 0 || size < w.MaxBytes/4) {
		return true
	}
	_, err := d.caps.Prepare(&e.message, time.Now())
	return err == nil
}

// ownAttributes is how many the library itself may add to a message of usual size:
// its metadata, and the encoding of a body that isn't text.
const ownAttributes = 2

// carrier is a propagation.TextMapCarrier.
type carrier map[string]string

func (c carrier) Get(key string) string { return c[key] }
func (c carrier) Set(key, value string) { c[key] = value }
func (c carrier) Keys() []string        { return slices.Collect(maps.Keys(c)) }

func (p *publisher) measure(ctx context.Context, d *destination, n int, began time.Time, err error) {
	m := &p.t.metrics
	took := time.Since(began).Seconds()
	if err == nil {
		m.operation.Record(ctx, took, d.send.record...)
		m.sent.Add(ctx, int64(n), d.send.add...)
		return
	}
	failed := metric.WithAttributeSet(d.send.with(attrErrorType.String(errorType(err))))
	m.operation.Record(ctx, took, failed)
	bad := 0
	for _, e := range queue.PublishErrors(err, n) {
		if e != nil {
			bad++
		}
	}
	m.sent.Add(ctx, int64(bad), failed)
	if bad < n {
		m.sent.Add(ctx, int64(n-bad), d.send.add...)
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
