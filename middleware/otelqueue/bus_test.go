package otelqueue_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/middleware/otelqueue"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/config"
)

// bus is a Bus with telemetry on both sides, on the world's broker.
func (w *world) bus(text string) *config.Bus {
	w.Helper()
	f, err := config.Parse("queues.yaml", []byte("backend: memory\n"+text), nil)
	require.NoError(w, err)
	b, err := config.OpenFile(f, config.Backends{"memory": w.broker}, &config.Options{
		Middleware: []queue.Middleware{w.tel.Consumer()}, PublisherMiddleware: []queue.PublisherMiddleware{w.tel.Publisher()},
		Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(w, err)
	return b
}

// attributed is a message with n attributes.
func attributed(n int) *queue.Message {
	m := &queue.Message{Body: []byte("x"), Attributes: map[string]string{}}
	for i := range n {
		m.Attributes[fmt.Sprint("a", i)] = "v"
	}
	return m
}

// A queue of a Bus has no name and no limits until it's open.
func TestPublishersOfABusAreKnownFromTheFirstMessageOn(t *testing.T) {
	for name, publisher := range map[string]func(w *world, b *config.Bus) queue.Publisher{
		"by the options": func(_ *world, b *config.Bus) queue.Publisher { return b.Publisher("orders") },
		"wrapped before it's open": func(w *world, b *config.Bus) queue.Publisher {
			plain, err := config.OpenFile(b.File(), config.Backends{"memory": w.broker}, nil)
			require.NoError(w, err)
			return queue.WrapPublisher(plain.Publisher("orders"), w.tel.Publisher())
		},
	} {
		t.Run(name, func(t *testing.T) {
			observe(t, memory.SQSStandard, func(w *world) {
				b := w.bus("queues: {orders: {delay: 5s}}")
				pub := publisher(w, b)
				full := attributed(10)
				require.NoError(w, pub.Publish(w.Context(), full), "it's valid on SQS")
				require.NoError(w, pub.Publish(w.Context(), &queue.Message{ID: "a", Body: []byte("x")}))
				require.NoError(w, pub.Publish(w.Context(), full, attributed(1)))
				for _, name := range []string{"send orders", "create orders"} {
					spans := w.named(name)
					require.Len(w, spans, map[string]int{"send orders": 3, "create orders": 2}[name])
					for _, s := range spans {
						assert.Equal(w, "memory orders", value(s, "messaging.system")+" "+value(s, "messaging.destination.name"))
					}
				}
				assert.Equal(w, map[string]int64{"orders": 4}, w.sums("messaging.client.sent.messages", "messaging.destination.name"))
				carried := map[string]int{}
				for _, m := range w.broker.Messages("orders") {
					has := m.Attributes["traceparent"] != ""
					carried[fmt.Sprint(len(m.Attributes), " ", has)]++
				}
				assert.Equal(w, map[string]int{"10 false": 2, "1 true": 1, "2 true": 1}, carried)
				require.NoError(w, b.Close(context.Background()))
			})
		})
	}
}

// The first Publish may be one of several messages.
func TestSpansOfSeveralMessagesAreNamedWhenTheQueueIsKnown(t *testing.T) {
	observe(t, memory.Portable, func(w *world) {
		b := w.bus("queues: {orders: {}}")
		plain, err := config.OpenFile(b.File(), config.Backends{"memory": w.broker}, nil)
		require.NoError(w, err)
		pub := queue.WrapPublisher(plain.Publisher("orders"), w.tel.Publisher())
		require.NoError(w, pub.Publish(w.Context(), attributed(1), attributed(8), attributed(10)))
		assert.Len(w, w.named("create orders"), 3)
		send := w.named("send orders")
		require.Len(w, send, 1)
		assert.Len(w, send[0].Links(), 3)
		assert.Len(w, w.spans.Ended(), 4)
		require.NoError(w, plain.Close(context.Background()))
	})
}

func TestAQueueThatCannotBeOpenedHasNoName(t *testing.T) {
	observe(t, memory.Portable, func(w *world) {
		f, err := config.Parse("queues.yaml", []byte("backend: memory\nqueues: {orders: {}}"), nil)
		require.NoError(w, err)
		b, err := config.OpenFile(f, config.Backends{"memory": memory.New(nil)}, nil)
		require.NoError(w, err)
		pub := queue.WrapPublisher(b.Publisher("orders"), w.tel.Publisher())
		require.ErrorIs(w, pub.Publish(w.Context(), attributed(0)), queue.ErrQueueNotFound)
		spans := w.named("send")
		require.Len(w, spans, 1)
		assert.Equal(w, codes.Error, spans[0].Status().Code)
		assert.Equal(w, "queue_not_found", value(spans[0], "error.type"))
		for _, kv := range spans[0].Attributes() {
			assert.NotEmpty(w, kv.Value.String(), kv.Key)
		}
	})
}

func TestTheContextNeverMakesAMessageTooLarge(t *testing.T) {
	most := queue.PubSubWire().MaxBytes - queue.PubSubWire().ReserveBytes
	for name, tt := range map[string]struct {
		like    memory.Like
		m       *queue.Message
		carried bool
		more    propagation.TextMapPropagator
	}{
		"as large as SQS takes":           {memory.SQSStandard, &queue.Message{Body: []byte(strings.Repeat("x", 1<<20))}, false, nil},
		"a hundred bytes less":            {memory.SQSStandard, &queue.Message{Body: []byte(strings.Repeat("x", 1<<20-100))}, true, nil},
		"binary, larger on the wire":      {memory.SQSStandard, &queue.Message{Body: make([]byte, (1<<20)/4*3-40)}, false, nil},
		"as large as Pub/Sub takes":       {memory.PubSub, &queue.Message{Body: make([]byte, most)}, false, nil},
		"a value that Pub/Sub can't take": {memory.PubSub, attributed(1), false, long{}},
		"the same on SQS":                 {memory.SQSStandard, attributed(1), true, long{}},
	} {
		t.Run(name, func(t *testing.T) {
			observe(t, tt.like, func(w *world) {
				tel := w.tel
				if tt.more != nil {
					var err error
					tel, err = otelqueue.New(&otelqueue.Options{
						TracerProvider: sdktrace.NewTracerProvider(), Propagator: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, tt.more),
					})
					require.NoError(w, err)
				}
				for range 2 { // alone, and beside another one
					pub := queue.WrapPublisher(w.q, tel.Publisher())
					require.NoError(w, pub.Publish(w.Context(), tt.m))
					require.NoError(w, pub.Publish(w.Context(), tt.m, &queue.Message{Body: []byte("another")}))
				}
				got := w.broker.Messages("orders")
				require.Len(w, got, 6)
				for _, m := range got {
					if string(m.Body) != "another" {
						assert.Equal(w, tt.carried, m.Attributes["traceparent"] != "")
					}
				}
			})
		})
	}
}

// long is a propagator with much to say.
type long struct{ propagation.Baggage }

func (long) Inject(_ context.Context, c propagation.TextMapCarrier) {
	c.Set("baggage", strings.Repeat("b", 2000))
}

// What lies beneath may add attributes of its own, or have limits that it doesn't tell.
func TestAMessageThatIsTooLargeWithItsContextIsPublishedWithout(t *testing.T) {
	observe(t, memory.Portable, func(w *world) {
		var got []int
		picky := queue.PublisherFunc(func(_ context.Context, msgs ...*queue.Message) error {
			errs := make([]error, len(msgs))
			for i, m := range msgs {
				if got = append(got, len(m.Attributes)); len(m.Attributes) > 2 {
					errs[i] = &queue.LimitError{Field: "attributes", Got: int64(len(m.Attributes)), Max: 2}
				}
			}
			return queue.NewPublishError(errs)
		})
		pub := queue.WrapPublisher(picky, w.tel.Publisher())
		require.NoError(w, pub.Publish(w.Context(), attributed(2)))
		assert.Equal(w, []int{3, 2}, got)
		got = nil
		require.NoError(w, pub.Publish(w.Context(), attributed(1), attributed(2)))
		assert.Equal(w, []int{2, 3, 2}, got)
		keyed := attributed(2)
		keyed.OrderingKey = "k"
		err := pub.Publish(w.Context(), attributed(3), keyed, attributed(2))
		errs := queue.PublishErrors(err, 3)
		assert.Error(w, errs[0], "it's too large without, too")
		assert.Error(w, errs[1], "those after it have gone")
		assert.NoError(w, errs[2])
		got = nil
		require.NoError(w, pub.Publish(w.Context(), keyed), "alone, nothing can overtake it")
		assert.Error(w, pub.Publish(w.Context(), attributed(3)))
		_, ok := errors.AsType[*queue.LimitError](err)
		assert.True(w, ok)
	})
}
