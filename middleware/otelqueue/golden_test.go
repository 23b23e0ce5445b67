package otelqueue_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
)

var update = flag.Bool("update", false, "write the golden file")

// What's sent to a telemetry system is an interface: dashboards and alerts stand on it.
func TestNamesStayAsTheyAre(t *testing.T) {
	observe(t, memory.Portable, func(w *world) {
		require.NoError(w, w.pub.Publish(w.Context(), &queue.Message{ID: "one", Body: []byte("x")}))
		require.NoError(w, w.pub.Publish(w.Context(), &queue.Message{ID: "a", Body: []byte("x")}, &queue.Message{ID: "b", Body: []byte("x")}))
		w.broker.Fail(memory.Fault{Times: 1})
		require.Error(w, w.pub.Publish(w.Context(), &queue.Message{Body: []byte("x")}))
		tries := map[string]int{}
		var metrics []metricdata.Metrics
		var mu sync.Mutex
		w.consume(func(ctx context.Context, d *queue.Delivery) error {
			mu.Lock()
			metrics = w.collect()
			tries[d.ID]++
			n := tries[d.ID]
			mu.Unlock()
			switch {
			case n > 1:
			case d.ID == "a":
				return errors.New("no")
			case d.ID == "one":
				w.broker.Fail(memory.Fault{Call: memory.OnExtend, Effect: memory.LoseLease, Times: 1})
				<-ctx.Done()
				return errors.New("no")
			}
			return nil
		})
		w.broker.Fail(memory.Fault{Call: memory.OnReceive, Times: 1})
		w.broker.Fail(memory.Fault{Call: memory.OnSettle, Effect: memory.LoseLease, Times: 1})
		require.NoError(w, w.pub.Publish(w.Context(), &queue.Message{ID: "one", Body: []byte("x")}))
		w.consume(ok)
		n, age := int64(1), time.Second
		w.tel.RecordStats(w.Context(), w.q.Capabilities().Source, w.q.Capabilities().Address, queue.Stats{Ready: &n, InFlight: &n, Delayed: &n, Total: &n, OldestAge: &age})

		lines := map[string]bool{}
		for _, s := range w.spans.Ended() {
			var keys []string
			for _, kv := range s.Attributes() {
				keys = append(keys, string(kv.Key))
			}
			slices.Sort(keys)
			lines[fmt.Sprintf("span   %s, %s: %s", s.Name(), s.SpanKind(), strings.Join(slices.Compact(keys), " "))] = true
		}
		for _, m := range append(metrics, w.collect()...) {
			lines[fmt.Sprintf("metric %s {%s} %T: %s", m.Name, m.Unit, m.Data, strings.Join(keysOf(m.Data), " "))] = true
		}
		w.golden("testdata/names.txt", lines)
	})
}

// golden compares lines with those in a file.
func (w *world) golden(file string, lines map[string]bool) {
	w.Helper()
	text := strings.Join(slices.Sorted(maps.Keys(lines)), "\n") + "\n"
	if *update {
		require.NoError(w, os.WriteFile(file, []byte(text), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(w, err)
	assert.Equal(w, string(want), text, "if this is meant, run go test -update")
}

func keysOf(data metricdata.Aggregation) []string {
	keys := map[string]bool{}
	add := func(s attribute.Set) {
		for _, kv := range s.ToSlice() {
			keys[string(kv.Key)] = true
		}
	}
	switch d := data.(type) {
	case metricdata.Sum[int64]:
		for _, p := range d.DataPoints {
			add(p.Attributes)
		}
	case metricdata.Gauge[int64]:
		for _, p := range d.DataPoints {
			add(p.Attributes)
		}
	case metricdata.Gauge[float64]:
		for _, p := range d.DataPoints {
			add(p.Attributes)
		}
	case metricdata.Histogram[float64]:
		for _, p := range d.DataPoints {
			add(p.Attributes)
		}
	}
	var out []string
	for k := range keys {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
