package otelqueue

import (
	"context"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/anyqueue/anyqueue/queue"
)

// operation is what's the same for each span and measurement of one kind on one
// queue, made once.
type operation struct {
	span       string // its name
	system     string
	attributes []attribute.KeyValue

	// Options for what's done for each message, so that they aren't made for each.
	producer, consumer, client []trace.SpanStartOption
	measured

	// With the message's id besides: of one span at a time.
	identified *sync.Pool
}

// identified are the options of a span that tells a message's id. They are used again
// when the span has begun, as a tracer copies what it's given.
type identified struct {
	attributes []attribute.KeyValue // the id is the last
	options    []trace.SpanStartOption
}

func newIdentified(kind trace.SpanKind, base []attribute.KeyValue) *sync.Pool {
	return &sync.Pool{New: func() any {
		attrs := append(slices.Clone(base), attrMessageID.String(""))
		return &identified{attrs, []trace.SpanStartOption{trace.WithSpanKind(kind), trace.WithAttributes(attrs...)}}
	}}
}

// start begins a span of one message.
func (o *operation) start(ctx context.Context, t trace.Tracer, id string) (context.Context, trace.Span) {
	i, _ := o.identified.Get().(*identified)
	i.attributes[len(i.attributes)-1] = attrMessageID.String(id)
	ctx, span := t.Start(ctx, o.span, i.options...)
	o.identified.Put(i)
	return ctx, span
}

// measured are the options of a measurement.
type measured struct {
	record []metric.RecordOption
	add    []metric.AddOption
}

func measuredAs(attrs ...attribute.KeyValue) measured {
	set := metric.WithAttributeSet(attribute.NewSet(attrs...))
	return measured{[]metric.RecordOption{set}, []metric.AddOption{set}}
}

// What an operation does with a queue.
const (
	producing = iota
	consuming
)

// destinationOf are the attributes that name a queue, as far as it's known.
func destinationOf(caps *queue.Capabilities, doing int) []attribute.KeyValue {
	if caps.Source.System == "" {
		return nil
	}
	attrs := []attribute.KeyValue{attrSystem.String(caps.Source.System), attrDestination.String(caps.Source.Name)}
	switch caps.Source.System {
	case systemGCP: // where it's reached isn't known
		if i := strings.LastIndex(caps.Address, "/subscriptions/"); i >= 0 && doing == consuming {
			attrs = append(attrs, attrSubscription.String(caps.Address[i+len("/subscriptions/"):]))
		}
	case systemSQS:
		if caps.Address != "" {
			attrs = append(attrs, attrSQSQueueURL.String(caps.Address))
			attrs = append(attrs, serverOf(caps.Address)...)
		}
	}
	return attrs
}

// serverOf are the attributes of the server that a URL leads to.
func serverOf(address string) []attribute.KeyValue {
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" {
		return nil
	}
	attrs := []attribute.KeyValue{attrServerAddress.String(u.Hostname())}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	if n, err := strconv.Atoi(port); err == nil {
		attrs = append(attrs, attrServerPort.Int(n))
	}
	return attrs
}

func newOperation(base []attribute.KeyValue, name string) operation {
	op := operation{span: name, attributes: append([]attribute.KeyValue{attrOperationName.String(name), attrOperationType.String(name)}, base...)}
	for _, kv := range base {
		switch kv.Key {
		case attrDestination:
			op.span = name + " " + kv.Value.AsString()
		case attrSystem:
			op.system = kv.Value.AsString()
		}
	}
	op.measured = measuredAs(op.attributes...)
	kind := func(k trace.SpanKind) []trace.SpanStartOption {
		return []trace.SpanStartOption{trace.WithSpanKind(k), trace.WithAttributes(op.attributes...)}
	}
	op.producer, op.consumer, op.client = kind(trace.SpanKindProducer), kind(trace.SpanKindConsumer), kind(trace.SpanKindClient)
	op.identified = newIdentified(trace.SpanKindProducer, op.attributes)
	if name == opProcess {
		op.identified = newIdentified(trace.SpanKindConsumer, op.attributes)
	}
	return op
}

// with is the set with more attributes.
func (o *operation) with(more ...attribute.KeyValue) attribute.Set {
	return attribute.NewSet(append(more, o.attributes...)...)
}
