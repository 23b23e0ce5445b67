package otelqueue

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/anyqueue/anyqueue/queue"
)

// Batch wraps a function for queue.Batch in a span of kind consumer, "process <queue>":
//
//	h := queue.Batch(100, time.Second, tel.Batch(insert))
//
// It has links to the spans of all the batch's handlers, which Consumer makes, or else to
// the contexts that the messages carry. As it's part of many traces it begins one of its
// own; without it what the function does belongs to the trace of the first message. It's
// an error when a delivery failed. Metrics there are of the handlers, so of each message.
func (t *Telemetry) Batch(fn func(ctx context.Context, ds []*queue.Delivery) []error) func(context.Context, []*queue.Delivery) []error {
	if fn == nil {
		return nil // queue.Batch refuses it
	}
	return func(ctx context.Context, ds []*queue.Delivery) (results []error) {
		ctx, span := t.startBatch(ctx, ds)
		returned := false
		defer func() {
			if !returned { // a panic, or a Goexit, which go on
				t.end(span, &queue.PanicError{})
				return
			}
			endBatch(span, results, len(ds))
		}()
		results = fn(ctx, ds)
		returned = true
		return results
	}
}

func (t *Telemetry) startBatch(ctx context.Context, ds []*queue.Delivery) (context.Context, trace.Span) {
	attrs := []attribute.KeyValue{attrOperationName.String(opProcess), attrOperationType.String(opProcess), attrBatchCount.Int(len(ds))}
	name := opProcess
	if source, ok := commonSource(ds); ok {
		attrs = append(attrs, destinationOf(&queue.Capabilities{Source: source}, consuming)...)
		name += " " + source.Name
	}
	contexts := queue.BatchContexts(ctx)
	links := make([]trace.Link, 0, min(len(ds), maxLinks))
	for i, d := range ds[:min(len(ds), maxLinks)] {
		var sc trace.SpanContext
		if i < len(contexts) {
			sc = trace.SpanContextFromContext(contexts[i])
		}
		if !sc.IsValid() {
			sc = t.spanContext(context.Background(), d.Attributes)
		}
		if sc.IsValid() {
			links = append(links, trace.Link{SpanContext: sc, Attributes: []attribute.KeyValue{attrMessageID.String(d.ID)}})
		}
	}
	return t.tracer.Start(ctx, name, trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindConsumer), trace.WithLinks(links...), trace.WithAttributes(attrs...))
}

// commonSource is the queue that all of ds came from.
func commonSource(ds []*queue.Delivery) (queue.Endpoint, bool) {
	var source queue.Endpoint
	for i, d := range ds {
		if i > 0 && d.Source != source {
			return source, false
		}
		source = d.Source
	}
	return source, source.Name != ""
}

var errNoResult = errors.New("no result")

func endBatch(span trace.Span, results []error, n int) {
	var first error
	failed := 0
	for i := range n {
		err := errNoResult
		if i < len(results) {
			err = results[i]
		}
		if err == nil || queue.OutcomeOf(err).Kind == queue.Snoozed {
			continue
		}
		if failed++; failed == 1 {
			first = err
		}
	}
	if failed > 0 {
		span.SetAttributes(attrErrorType.String(errorType(first)))
		span.SetStatus(codes.Error, fmt.Sprintf("%d of %d failed; the first: %v", failed, n, first))
	}
	span.End()
}
