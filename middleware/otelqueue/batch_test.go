package otelqueue_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
)

func TestABatchIsLinkedToAllItsMessages(t *testing.T) {
	observe(t, memory.Portable, func(w *world) {
		ids := []string{"a", "b", "c"}
		for _, id := range ids {
			require.NoError(w, w.pub.Publish(w.Context(), &queue.Message{ID: id, Body: []byte("x")}))
		}
		runs := 0
		w.consume(queue.Batch(3, time.Second, w.tel.Batch(func(ctx context.Context, ds []*queue.Delivery) []error {
			_, span := w.tracer.Start(ctx, "insert")
			span.End()
			_, leased := queue.LeaseDeadline(ctx)
			assert.True(w, leased, "it's still the batch's context")
			if runs++; runs == 1 {
				return []error{nil, queue.Snooze(time.Second)} // the third has none
			}
			return make([]error, len(ds))
		})))
		handlers := map[trace.SpanID]string{}
		var batches []trace.SpanContext
		for _, s := range w.named("process orders") {
			if value(s, "messaging.batch.message_count") == "" {
				handlers[s.SpanContext().SpanID()] = value(s, "messaging.message.id")
				continue
			}
			batches = append(batches, s.SpanContext())
			assert.Equal(w, trace.SpanKindConsumer, s.SpanKind())
			assert.False(w, s.Parent().IsValid(), "it's nobody's in particular")
			assert.Equal(w, "memory orders", value(s, "messaging.system")+" "+value(s, "messaging.destination.name"))
			if len(batches) > 1 {
				assert.Equal(w, codes.Unset, s.Status().Code)
				continue
			}
			assert.Equal(w, "3", value(s, "messaging.batch.message_count"))
			assert.Equal(w, "1 of 3 failed; the first: no result", s.Status().Description)
			var linked []string
			for _, l := range s.Links() {
				linked = append(linked, l.Attributes[0].Value.AsString())
			}
			assert.ElementsMatch(w, ids, linked)
		}
		require.GreaterOrEqual(w, len(batches), 2)
		assert.Equal(w, batches[0].SpanID(), w.named("insert")[0].Parent().SpanID())
		for _, s := range w.spans.Ended() {
			if value(s, "messaging.batch.message_count") != "" && s.Name() == "process orders" {
				for _, l := range s.Links() {
					assert.Equal(w, l.Attributes[0].Value.AsString(), handlers[l.SpanContext.SpanID()], "of each its own handler's span")
				}
			}
		}
		assert.Len(w, handlers, 5)
	})
}

// Without the middleware there are only the contexts that the messages carry.
func TestABatchWithoutHandlersSpansIsLinkedToTheProducers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	fn := w.tel.Batch(func(_ context.Context, ds []*queue.Delivery) []error {
		if len(ds) == 1 {
			panic("oops")
		}
		return []error{errors.New("no"), nil}
	})
	one := &queue.Delivery{Source: queue.Endpoint{System: "memory", Name: "orders"}}
	two := &queue.Delivery{Source: queue.Endpoint{System: "memory", Name: "mails"}, Message: queue.Message{Attributes: map[string]string{
		"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}}}
	fn(t.Context(), []*queue.Delivery{one, two})
	assert.Panics(t, func() { fn(t.Context(), []*queue.Delivery{one}) })
	mixed, failed := w.named("process"), w.named("process orders")
	require.Len(t, mixed, 1)
	require.Len(t, mixed[0].Links(), 1)
	assert.Equal(t, "b7ad6b7169203331", mixed[0].Links()[0].SpanContext.SpanID().String())
	assert.Equal(t, "*errors.errorString", value(mixed[0], "error.type"))
	assert.Empty(t, value(mixed[0], "messaging.destination.name"), "they came from two queues")
	require.Len(t, failed, 1)
	assert.Equal(t, "panic", value(failed[0], "error.type"))
	assert.ErrorIs(t, queue.Batch(1, 0, w.tel.Batch(nil))(t.Context(), one), queue.ErrInvalid)
}
