package otelqueue_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/middleware/otelqueue"
	"github.com/anyqueue/anyqueue/queue"
)

// world is a queue with telemetry that's kept in memory.
type world struct {
	*testing.T
	tel    *otelqueue.Telemetry
	spans  *tracetest.SpanRecorder
	reader *metric.ManualReader
	tracer trace.Tracer
	broker *memory.Broker
	q      queue.Queue
	pub    queue.Publisher
}

// newWorld returns telemetry without a queue.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, spans: tracetest.NewSpanRecorder(), reader: metric.NewManualReader()}
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(w.spans))
	w.tracer = provider.Tracer("test")
	var err error
	w.tel, err = otelqueue.New(&otelqueue.Options{TracerProvider: provider, MeterProvider: metric.NewMeterProvider(metric.WithReader(w.reader))})
	require.NoError(t, err)
	return w
}

// observe runs a test on virtual time.
func observe(t *testing.T, like memory.Like, fn func(w *world)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.broker = memory.New(&memory.Options{Create: true, Like: like})
		var err error
		w.q, err = w.broker.Open(t.Context(), "orders", nil)
		require.NoError(t, err)
		w.pub = queue.WrapPublisher(w.q, w.tel.Publisher())
		fn(w)
		require.NoError(t, w.q.Close(context.Background()))
	})
}

// consume handles everything that's in the queue.
func (w *world) consume(h queue.Handler, more ...queue.Middleware) {
	w.Helper()
	c, err := queue.NewConsumer(w.q, h, &queue.ConsumerOptions{
		Middleware: append([]queue.Middleware{w.tel.Consumer()}, more...), Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(w, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	require.NoError(w, w.broker.WaitIdle(w.Context()))
	stop()
	require.NoError(w, <-ended)
}

// named returns the spans of that name, in the order of their ends.
func (w *world) named(name string) []sdktrace.ReadOnlySpan {
	var out []sdktrace.ReadOnlySpan
	for _, s := range w.spans.Ended() {
		if s.Name() == name {
			out = append(out, s)
		}
	}
	return out
}

func value(s sdktrace.ReadOnlySpan, key attribute.Key) string {
	for _, kv := range s.Attributes() {
		if kv.Key == key {
			return kv.Value.String()
		}
	}
	return ""
}

func ok(context.Context, *queue.Delivery) error { return nil }

func TestATraceGoesFromTheProducerToTheHandler(t *testing.T) {
	for _, like := range []memory.Like{memory.Portable, memory.SQSStandard, memory.SQSFIFO, memory.PubSub} {
		t.Run(fmt.Sprint(like), func(t *testing.T) {
			observe(t, like, func(w *world) {
				ctx, request := w.tracer.Start(w.Context(), "request")
				m := &queue.Message{ID: "m1", Body: []byte("x"), Attributes: map[string]string{"k": "v"}}
				require.NoError(w, w.pub.Publish(ctx, m))
				request.End()
				assert.Equal(w, map[string]string{"k": "v"}, m.Attributes, "a publisher never writes to its messages")
				var inside trace.SpanContext
				w.consume(func(ctx context.Context, d *queue.Delivery) error {
					inside = trace.SpanContextFromContext(ctx)
					_, leased := queue.LeaseDeadline(ctx)
					assert.True(w, leased, "it's still the handler's context")
					return nil
				})
				send, process := w.named("send orders")[0], w.named("process orders")[0]
				assert.Equal(w, request.SpanContext().SpanID(), send.Parent().SpanID())
				assert.Equal(w, send.SpanContext().SpanID(), process.Parent().SpanID())
				assert.Equal(w, request.SpanContext().TraceID(), process.SpanContext().TraceID())
				assert.Equal(w, process.SpanContext(), inside)
				assert.Equal(w, trace.SpanKindProducer, send.SpanKind())
				assert.Equal(w, trace.SpanKindConsumer, process.SpanKind())
				receive := w.named("receive orders")[0]
				require.Len(w, receive.Links(), 1)
				assert.Equal(w, send.SpanContext().SpanID(), receive.Links()[0].SpanContext.SpanID())
				assert.Equal(w, "1", value(receive, "messaging.batch.message_count"))
				assert.Len(w, w.named("settle orders"), 1)
			})
		})
	}
}

func TestSeveralMessagesInOnePublishHaveASpanEach(t *testing.T) {
	observe(t, memory.Portable, func(w *world) {
		require.NoError(w, w.pub.Publish(w.Context(), &queue.Message{ID: "a", Body: []byte("x")}, &queue.Message{ID: "b", Body: []byte("x")}))
		w.consume(ok)
		creates, send := w.named("create orders"), w.named("send orders")[0]
		require.Len(w, creates, 2)
		require.Len(w, send.Links(), 2)
		assert.Equal(w, trace.SpanKindClient, send.SpanKind())
		assert.Equal(w, "2", value(send, "messaging.batch.message_count"))
		parents := map[string]trace.SpanID{}
		for _, p := range w.named("process orders") {
			parents[value(p, "messaging.message.id")] = p.Parent().SpanID()
		}
		for i, c := range creates {
			assert.Equal(w, c.SpanContext().SpanID(), send.Links()[i].SpanContext.SpanID())
			assert.Equal(w, c.SpanContext().SpanID(), parents[value(c, "messaging.message.id")])
		}
	})
}

// Another program may write the context.
func TestAForeignTraceIsContinued(t *testing.T) {
	observe(t, memory.Portable, func(w *world) {
		require.NoError(w, w.q.Publish(w.Context(), &queue.Message{Body: []byte("x"), Attributes: map[string]string{
			"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		}}))
		w.consume(ok)
		p := w.named("process orders")[0]
		assert.Equal(w, "0af7651916cd43dd8448eb211c80319c", p.SpanContext().TraceID().String())
		assert.Equal(w, "b7ad6b7169203331", p.Parent().SpanID().String())
	})
}

func TestAForwardedMessageCarriesTheLatestSpan(t *testing.T) {
	observe(t, memory.Portable, func(w *world) {
		next, err := w.broker.Open(w.Context(), "next", nil)
		require.NoError(w, err)
		defer next.Close(context.Background())
		forward := queue.WrapPublisher(next, w.tel.Publisher())
		require.NoError(w, w.pub.Publish(w.Context(), &queue.Message{Body: []byte("x")}))
		w.consume(func(ctx context.Context, d *queue.Delivery) error { return forward.Publish(ctx, &d.Message) })
		sent := w.named("send next")[0]
		assert.Contains(w, w.broker.Messages("next")[0].Attributes["traceparent"], sent.SpanContext().SpanID().String())
		assert.Equal(w, w.named("process orders")[0].SpanContext().SpanID(), sent.Parent().SpanID())
	})
}

// Telemetry mustn't make a publish fail.
func TestAMessageWithoutRoomForTheContextGoesWithout(t *testing.T) {
	observe(t, memory.SQSStandard, func(w *world) {
		attrs := map[string]string{}
		for i := range 10 {
			attrs[fmt.Sprint("a", i)] = "v"
		}
		require.NoError(w, w.pub.Publish(w.Context(), &queue.Message{Body: []byte("x"), Attributes: attrs}))
		assert.NotContains(w, w.broker.Messages("orders")[0].Attributes, "traceparent")
	})
}

func TestFailuresAreErrorsOfTheirSpans(t *testing.T) {
	observe(t, memory.Portable, func(w *world) {
		require.NoError(w, w.pub.Publish(w.Context(), &queue.Message{ID: "m", Body: []byte("x")}))
		n := 0
		w.consume(func(ctx context.Context, _ *queue.Delivery) error {
			switch n++; n {
			case 1:
				return errors.New("no")
			case 2:
				return queue.Snooze(time.Minute)
			case 3:
				panic("oops")
			case 4:
				return fmt.Errorf("crm: %w", context.DeadlineExceeded)
			}
			return nil
		})
		got := make([]string, 0, 5)
		for _, s := range w.named("process orders") {
			got = append(got, fmt.Sprint(s.Status().Code == codes.Error, " ", value(s, "error.type"), " ", value(s, "anyqueue.outcome"), " ", value(s, "anyqueue.message.failures")))
		}
		assert.Equal(w, []string{
			"true *errors.errorString failed ", "false  snoozed 1", "true panic failed 1", "true timeout failed 2", "false   3",
		}, got)
	})
}

func TestAFailedPublishIsAnError(t *testing.T) {
	observe(t, memory.Portable, func(w *world) {
		w.broker.Fail(memory.Fault{Effect: memory.Unanswered, Times: 1})
		require.Error(w, w.pub.Publish(w.Context(), &queue.Message{Body: []byte("x")}))
		assert.Equal(w, "unknown_outcome", value(w.named("send orders")[0], "error.type"))
		require.Error(w, w.pub.Publish(w.Context(), nil, &queue.Message{Body: []byte("x")}), "a nil message is the publisher's to refuse")
		assert.Equal(w, map[string]int64{"": 1, "unknown_outcome": 1, "invalid": 1}, w.sums("messaging.client.sent.messages", "error.type"))
	})
}

// sums returns the values of a counter by one of its attributes.
func (w *world) sums(name string, by attribute.Key) map[string]int64 {
	out := map[string]int64{}
	for _, m := range w.collect() {
		if sum, ok := m.Data.(metricdata.Sum[int64]); ok && m.Name == name {
			for _, p := range sum.DataPoints {
				v, _ := p.Attributes.Value(by)
				out[v.String()] += p.Value
			}
		}
	}
	return out
}

func (w *world) collect() []metricdata.Metrics {
	w.Helper()
	var rm metricdata.ResourceMetrics
	require.NoError(w, w.reader.Collect(context.Background(), &rm))
	var out []metricdata.Metrics
	for _, s := range rm.ScopeMetrics {
		out = append(out, s.Metrics...)
	}
	slices.SortFunc(out, func(a, b metricdata.Metrics) int { return slices.Compare([]byte(a.Name), []byte(b.Name)) })
	return out
}

func TestWhatBecomesOfMessagesIsCounted(t *testing.T) {
	observe(t, memory.Portable, func(w *world) {
		dead, err := w.broker.Open(w.Context(), "dead", nil)
		require.NoError(w, err)
		defer dead.Close(context.Background())
		require.NoError(w, w.pub.Publish(w.Context(), &queue.Message{ID: "good", Body: []byte("x")}, &queue.Message{ID: "bad", Body: []byte("x")}))
		w.consume(func(_ context.Context, d *queue.Delivery) error {
			if d.ID == "bad" {
				return queue.Reject(errors.New("no"))
			}
			return nil
		}, middleware.DeadLetter(dead, middleware.DeadLetterOptions{Name: "dead"}))
		assert.Equal(w, map[string]int64{"success": 1, "dead_lettered": 1}, w.sums("anyqueue.consumer.outcomes", "anyqueue.outcome"))
		assert.Equal(w, map[string]int64{"ack": 2}, w.sums("anyqueue.consumer.settlements", "anyqueue.settlement.kind"))
		assert.Equal(w, map[string]int64{"orders": 2}, w.sums("messaging.client.consumed.messages", "messaging.destination.name"))
	})
}

func TestALostLeaseAndAFailedSettlementAreCounted(t *testing.T) {
	observe(t, memory.Portable, func(w *world) {
		require.NoError(w, w.pub.Publish(w.Context(), &queue.Message{ID: "m", Body: []byte("x")}))
		first := true
		w.consume(func(ctx context.Context, _ *queue.Delivery) error {
			if first {
				first = false
				w.broker.Fail(memory.Fault{Call: memory.OnExtend, Effect: memory.LoseLease, Times: 1})
				<-ctx.Done()
			}
			return nil
		})
		assert.Equal(w, map[string]int64{"orders": 1}, w.sums("anyqueue.consumer.leases_lost", "messaging.destination.name"))
		w.broker.Fail(memory.Fault{Call: memory.OnSettle, Effect: memory.LoseLease, Times: 1})
		require.NoError(w, w.pub.Publish(w.Context(), &queue.Message{ID: "n", Body: []byte("x")}))
		w.consume(ok)
		// The first one's too: it was acknowledged all the same, and too late.
		assert.Equal(w, map[string]int64{"ack": 2}, w.sums("anyqueue.consumer.settlements.failed", "anyqueue.settlement.kind"))
	})
}

func TestTheStateOfAConsumerIsObservedWhileItRuns(t *testing.T) {
	observe(t, memory.Portable, func(w *world) {
		gauges := func() map[string]int64 {
			out := map[string]int64{}
			for _, m := range w.collect() {
				if g, ok := m.Data.(metricdata.Gauge[int64]); ok {
					for _, p := range g.DataPoints {
						out[m.Name] = p.Value
					}
				}
			}
			return out
		}
		require.NoError(w, w.pub.Publish(w.Context(), &queue.Message{Body: []byte("x")}))
		var during map[string]int64
		w.consume(func(context.Context, *queue.Delivery) error {
			during = gauges()
			return nil
		})
		assert.Equal(w, map[string]int64{
			"anyqueue.consumer.concurrency.limit": 16, "anyqueue.consumer.concurrency.in_use": 1, "anyqueue.consumer.held": 0,
		}, during)
		assert.Empty(w, gauges())
	})
}

func TestStatsAreRecordedAsFarAsTheyAreKnown(t *testing.T) {
	observe(t, memory.Portable, func(w *world) {
		ready, age := int64(7), 90*time.Second
		w.tel.RecordStats(w.Context(), queue.Endpoint{System: "aws_sqs", Name: "orders"}, "https://sqs.eu-central-1.amazonaws.com/1/orders", queue.Stats{Ready: &ready, OldestAge: &age})
		got := map[string]string{}
		for _, m := range w.collect() {
			switch g := m.Data.(type) {
			case metricdata.Gauge[int64]:
				for _, p := range g.DataPoints {
					state, _ := p.Attributes.Value("anyqueue.message.state")
					got[m.Name+" "+state.String()] = fmt.Sprint(p.Value)
				}
			case metricdata.Gauge[float64]:
				got[m.Name] = fmt.Sprint(g.DataPoints[0].Value)
			}
		}
		assert.Equal(w, map[string]string{"anyqueue.queue.messages ready": "7", "anyqueue.queue.oldest_message.age": "90"}, got)
	})
}

// In a Chain nobody binds it.
func TestItWorksWithoutAConsumer(t *testing.T) {
	observe(t, memory.Portable, func(w *world) {
		h := queue.Chain(ok, w.tel.Consumer())
		require.NoError(w, h(w.Context(), &queue.Delivery{Message: queue.Message{ID: "m"}, Source: queue.Endpoint{System: "memory", Name: "orders"}}))
		assert.Equal(w, "memory", value(w.named("process orders")[0], "messaging.system"))
	})
}

// The short way to a link reads what the propagator reads.
func TestALinkIsReadAsThePropagatorWould(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
		"00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
		"", "00-zzf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
		"00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
	} {
		ctx := propagation.TraceContext{}.Extract(t.Context(), propagation.MapCarrier{"traceparent": s})
		want := trace.SpanContextFromContext(ctx)
		got := otelqueue.ParseTraceparent(s)
		assert.Equal(t, want.IsValid(), got.IsValid(), s)
		if want.IsValid() {
			assert.True(t, want.Equal(got), s)
		}
	}
}

// Queues of two places may have one name.
func TestConsumersOfOneNameInTwoPlacesAreBothObserved(t *testing.T) {
	observe(t, memory.Portable, func(w *world) {
		b, ok := w.tel.Consumer().(queue.Binder)
		require.True(w, ok)
		for i, place := range []string{"https://sqs.eu/1/orders", "https://sqs.us/1/orders", "https://sqs.us/1/orders"} { // the last is the second, started again
			_, err := b.Bind(queue.ConsumerInfo{
				Name: "orders", Capabilities: queue.Capabilities{Source: queue.Endpoint{System: "aws_sqs", Name: "orders"}, Address: place},
				Stats: func() queue.ConsumerStats { return queue.ConsumerStats{Running: true, Concurrency: i + 1} },
			})
			require.NoError(w, err)
		}
		var all metricdata.ResourceMetrics
		require.NoError(w, w.reader.Collect(w.Context(), &all))
		limits := map[int64]bool{}
		for _, m := range all.ScopeMetrics[0].Metrics {
			if data, ok := m.Data.(metricdata.Gauge[int64]); ok && m.Name == "anyqueue.consumer.concurrency.limit" {
				for _, p := range data.DataPoints {
					limits[p.Value] = true
				}
			}
		}
		assert.Equal(w, map[int64]bool{1: true, 3: true}, limits)
	})
}
