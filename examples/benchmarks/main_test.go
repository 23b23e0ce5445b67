package main

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"
)

// brief is every measurement, too short to mean anything.
func brief() options {
	return options{
		rounds: 1, window: 256,
		throughput: 50 * time.Millisecond, latency: 100 * time.Millisecond, queued: 2000,
		idleQueues: 20, idle: 50 * time.Millisecond, deliveries: 5000,

		server: &sqsServer{}, sqsRounds: 1,
		sqsRound: 100 * time.Millisecond, sqsMessages: 500, sqsLone: 5, sqsTrickle: 200 * time.Millisecond, sqsIdle: 100 * time.Millisecond,

		hundredIdle: 200 * time.Millisecond, hundredBusy: 200 * time.Millisecond, redriven: 500, redrivenSQS: 200,

		emulator: &emulator{}, pubsubRounds: 1, pubsubWarm: 50 * time.Millisecond,
		pubsubRound: 100 * time.Millisecond, pubsubMessages: 500, pubsubConsume: 10 * time.Second, pubsubLone: 3, pubsubMany: 1,
		pubsubTrickle: 200 * time.Millisecond, pubsubPulls: 4, pubsubStreams: 4,
	}
}

func TestEveryMeasurementOfEverySystemGivesFigures(t *testing.T) {
	// Not parallel to others: it looks at the memory and goroutines of the process.
	want := map[string][]string{
		"throughput": {"messages/s", "allocs/message", "bytes/message", "CPU ns/message"},
		"latency":    {"p50 µs", "p99 µs"},
		"queued":     {"messages"}, // so few that the heap itself may have shrunk meanwhile
		"idle":       {"goroutines/queue"},
	}
	o := brief()
	o.only = "throughput,latency,queued,idle,middleware,telemetry"
	r, err := measure(o, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for m, fs := range want {
		for _, c := range contenders {
			for _, f := range fs {
				if v := r.Figures[m][c.name][f]; v <= 0 {
					t.Errorf("%s of %s: %s is %v", m, c.name, f, v)
				}
			}
		}
	}
	for table, rows := range map[string]int{"engine, per delivery": 5, "telemetry, per delivery": 3} {
		if got := len(r.Figures[table]); got != rows {
			t.Errorf("%s has %d rows, not %d", table, got, rows)
		}
		for row, f := range r.Figures[table] {
			if f[cpuFigure] <= 0 {
				t.Errorf("%s: no time measured", row)
			}
		}
	}
	var out strings.Builder
	r.print(&out)
	line, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Targets) != 11 {
		t.Errorf("%d targets are reported, not 11", len(r.Targets))
	}
	for _, tg := range r.Targets {
		if !strings.Contains(out.String(), tg.Name) || !strings.Contains(string(line), tg.Name) {
			t.Errorf("the report says nothing about %q", tg.Name)
		}
	}
}

// A comparison of throughput is only fair when all do the same work: neither side
// may see what the other does to its message afterwards.
func TestSystemsAreIsolatedOnBothSides(t *testing.T) {
	t.Parallel()
	for _, c := range contenders {
		if c.name == floorName {
			continue // it isn't, and says so
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			testIsolation(t, c.open())
		})
	}
}

func testIsolation(t *testing.T, s system) {
	type seen struct {
		body  string
		attrs map[string]string
	}
	var (
		mu  sync.Mutex
		got []seen
	)
	first, changed, second := make(chan struct{}), make(chan struct{}), make(chan struct{})
	ses, err := s.start("isolation", 1, func(body []byte, attrs map[string]string) error {
		mu.Lock()
		got = append(got, seen{string(body), maps.Clone(attrs)})
		n := len(got)
		mu.Unlock()
		if n > 1 {
			close(second)
			return nil
		}
		clear(body)
		clear(attrs)
		close(first)
		<-changed
		return errors.New("once more")
	})
	if err != nil {
		t.Fatal(err)
	}
	body, attrs := newBody(), newAttributes()
	if err := ses.publisher(attrs)(body); err != nil {
		t.Fatal(err)
	}
	clear(body) // perhaps before it's handled, and in any case before it's handled again
	clear(attrs)
	<-first
	close(changed)
	<-second
	if err := ses.stop(); err != nil {
		t.Fatal(err)
	}
	for i, g := range got {
		if g.body != string(newBody()) || !maps.Equal(g.attrs, newAttributes()) {
			t.Errorf("delivery %d isn't what was published: %q %v", i+1, g.body, g.attrs)
		}
	}
}

func TestTheFloorGivesBackWhatFailed(t *testing.T) {
	t.Parallel()
	var calls int
	done := make(chan struct{})
	ses, err := newFloor().start("", 1, func([]byte, map[string]string) error {
		if calls++; calls < 3 {
			return errors.New("once more")
		}
		close(done)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := ses.publisher(newAttributes())(newBody()); err != nil {
		t.Fatal(err)
	}
	<-done
	if err := ses.stop(); err != nil {
		t.Fatal(err)
	}
	if r := ses.(*ring); r.oldest != 1 || r.next != 1 || len(r.again) != 0 {
		t.Errorf("the ring isn't empty: %+v", r)
	}
}

func TestInvalidFlagsAreRefused(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"unknown system":       {"-systems", "floor,nobody"},
		"unknown measurement":  {"-only", "throughput,beauty", "-systems", "floor", "-rounds", "1", "-throughput", "10ms"},
		"no rounds":            {"-rounds", "0"},
		"no rounds on SQS":     {"-sqs-rounds", "0"},
		"no rounds on Pub/Sub": {"-pubsub-rounds", "0"},
		"no window":            {"-window", "1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := run(args, io.Discard); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		v    []float64
		q    float64
		want float64
	}{
		"none":               {nil, 0.5, 0},
		"odd":                {[]float64{3, 1, 2}, 0.5, 2},
		"even":               {[]float64{4, 1, 2, 3}, 0.5, 2.5},
		"the last":           {[]float64{1, 2}, 1, 2},
		"between the others": {[]float64{0, 10}, 0.25, 2.5},
	} {
		if got := quantile(c.v, c.q); got != c.want {
			t.Errorf("%s: %v, not %v", name, got, c.want)
		}
	}
}
