package otelqueue_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/trace"

	"github.com/anyqueue/anyqueue/internal/pubsubtest"
	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs"
	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// ensurer is a backend of a cloud.
type ensurer interface {
	queue.Backend
	queue.Ensurer
}

// consumeN handles n deliveries.
func (w *world) consumeN(n int, h queue.Handler) {
	w.Helper()
	ctx, stop := context.WithTimeout(context.Background(), time.Hour)
	defer stop()
	var mu sync.Mutex
	c, err := queue.NewConsumer(w.q, func(ctx context.Context, d *queue.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		if n--; n == 0 {
			stop()
		}
		return h(ctx, d)
	}, &queue.ConsumerOptions{Middleware: []queue.Middleware{w.tel.Consumer()}, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(w, err)
	require.NoError(w, c.Run(ctx))
	require.LessOrEqual(w, n, 0)
}

// What the conventions say of SQS and Pub/Sub is told through the real clients, and
// the context of a message survives the way. In the files stand the values, too.
func TestSpansAndMetricsOfTheClouds(t *testing.T) {
	t.Parallel()
	servers := pubsubtest.Servers(t)
	for name, tt := range map[string]struct {
		backend func(t *testing.T) ensurer
		ordered bool
	}{
		"sqs":    {func(t *testing.T) ensurer { return onSQS(t) }, false},
		"pubsub": {func(t *testing.T) ensurer { return pubsub.New(pubsubtest.Connect(t, <-servers), nil) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				backend := tt.backend(t)
				_, err := backend.Ensure(t.Context(), "orders", &queue.QueueSpec{Ordered: tt.ordered, DeadLetter: "dead", BrokerMaxAttempts: 50})
				require.NoError(t, err)
				w.q, err = backend.Open(t.Context(), "orders", &queue.OpenOptions{Ordered: tt.ordered})
				require.NoError(t, err)
				w.pub = queue.WrapPublisher(w.q, w.tel.Publisher())

				key := map[bool]string{true: "customer-7"}[tt.ordered]
				require.NoError(t, w.pub.Publish(t.Context(), &queue.Message{ID: "one", Body: []byte("x"), OrderingKey: key}))
				require.NoError(t, w.pub.Publish(t.Context(), &queue.Message{ID: "a", Body: []byte("x")}, &queue.Message{ID: "b", Body: []byte("x"), OrderingKey: key}))
				failed := false
				var metrics []metricdata.Metrics
				w.consumeN(4, func(ctx context.Context, d *queue.Delivery) error {
					metrics = w.collect()
					if d.ID == "a" && !failed {
						failed = true
						return errors.New("no")
					}
					return nil
				})
				stats, ok := queue.As[queue.Inspector](w.q)
				require.True(t, ok)
				caps := w.q.Capabilities()
				told, err := stats.Stats(t.Context())
				require.NoError(t, err)
				w.tel.RecordStats(t.Context(), caps.Source, caps.Address, told)
				require.NoError(t, w.q.Close(context.Background()))

				parents := map[string]trace.SpanContext{"one": w.named("send orders")[0].SpanContext()}
				for _, s := range w.named("create orders") {
					parents[value(s, "messaging.message.id")] = s.SpanContext()
				}
				assert.Len(t, parents, 3)
				handled := w.named("process orders")
				assert.Len(t, handled, 4)
				for _, s := range handled {
					from := parents[value(s, "messaging.message.id")]
					assert.Equal(t, from.TraceID(), s.SpanContext().TraceID())
					assert.Equal(t, from.SpanID(), s.Parent().SpanID())
				}
				links := map[trace.SpanID]int{}
				for _, s := range w.named("receive orders") {
					for _, l := range s.Links() {
						links[l.SpanContext.SpanID()]++
					}
				}
				for id, from := range parents {
					assert.Equal(t, map[bool]int{true: 2, false: 1}[id == "a"], links[from.SpanID()], id)
				}

				lines := map[string]bool{}
				for _, s := range w.spans.Ended() {
					lines[fmt.Sprintf("span   %s, %s: %s", s.Name(), s.SpanKind(), pairs(s.Attributes()))] = true
				}
				for _, m := range append(metrics, w.collect()...) {
					for _, set := range setsOf(m.Data) {
						lines[fmt.Sprintf("metric %s: %s", m.Name, pairs(set.ToSlice()))] = true
					}
				}
				w.golden("testdata/"+name+".txt", lines)
			})
		})
	}
}

func onSQS(t *testing.T) *sqs.Backend {
	server := sqstest.New(nil)
	t.Cleanup(server.Close)
	return sqs.New(server.Client(), nil)
}

// pairs are attributes with their values, but for a number that depends on what came
// together.
func pairs(attrs []attribute.KeyValue) string {
	var out []string
	for _, kv := range attrs {
		v := kv.Value.String()
		if kv.Key == "messaging.batch.message_count" {
			v = "N"
		}
		out = append(out, string(kv.Key)+"="+v)
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), " ")
}

func setsOf(data metricdata.Aggregation) []attribute.Set {
	var out []attribute.Set
	switch d := data.(type) {
	case metricdata.Sum[int64]:
		for _, p := range d.DataPoints {
			out = append(out, p.Attributes)
		}
	case metricdata.Gauge[int64]:
		for _, p := range d.DataPoints {
			out = append(out, p.Attributes)
		}
	case metricdata.Gauge[float64]:
		for _, p := range d.DataPoints {
			out = append(out, p.Attributes)
		}
	case metricdata.Histogram[float64]:
		for _, p := range d.DataPoints {
			out = append(out, p.Attributes)
		}
	}
	return out
}

// Queues of one name, on two servers.
func TestTheStatesOfQueuesOfOneNameAreToldApart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		limits := func() map[string]int64 {
			out := map[string]int64{}
			for _, m := range w.collect() {
				if g, ok := m.Data.(metricdata.Gauge[int64]); ok && m.Name == "anyqueue.consumer.concurrency.limit" {
					for _, p := range g.DataPoints {
						address, _ := p.Attributes.Value("aws.sqs.queue.url")
						out[address.String()] += p.Value
					}
				}
			}
			return out
		}
		ctx, stop := context.WithCancel(context.Background())
		var running sync.WaitGroup
		for i, settings := range []sqstest.Options{{Account: "000000000001"}, {Account: "000000000002"}} {
			server := sqstest.New(&settings)
			defer server.Close()
			backend := sqs.New(server.Client(), nil)
			_, err := backend.Ensure(ctx, "orders", nil)
			require.NoError(t, err)
			q, err := backend.Open(ctx, "orders", nil)
			require.NoError(t, err)
			defer func() { assert.NoError(t, q.Close(context.Background())) }()
			c, err := queue.NewConsumer(q, ok, &queue.ConsumerOptions{
				Concurrency: i + 1, Middleware: []queue.Middleware{w.tel.Consumer()}, Logger: slog.New(slog.DiscardHandler),
			})
			require.NoError(t, err)
			running.Go(func() { assert.NoError(t, c.Run(ctx)) })
		}
		synctest.Wait()
		got := limits()
		stop()
		running.Wait()
		assert.Len(t, got, 2)
		assert.Equal(t, []int64{1, 2}, slices.Sorted(maps.Values(got)))
	})
}

// Nothing that's told of a subscription names its project.
func TestTheStatesOfQueuesThatNothingTellsApartCountTogether(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	binder, ok := w.tel.Consumer().(queue.Binder)
	require.True(t, ok)
	for i, project := range []string{"one", "another", "another"} { // the last one is started again
		_, err := binder.Bind(queue.ConsumerInfo{
			Name:         "orders",
			Capabilities: queue.Capabilities{Source: queue.Endpoint{System: "gcp_pubsub", Name: "orders"}, Address: "projects/" + project + "/subscriptions/orders"},
			Stats:        func() queue.ConsumerStats { return queue.ConsumerStats{Running: true, Concurrency: 1 << i} },
		})
		require.NoError(t, err)
	}
	for _, m := range w.collect() {
		g, ok := m.Data.(metricdata.Gauge[int64])
		require.True(t, ok)
		require.Len(t, g.DataPoints, 1)
		if m.Name == "anyqueue.consumer.concurrency.limit" {
			assert.EqualValues(t, 1+4, g.DataPoints[0].Value)
		}
	}
}
