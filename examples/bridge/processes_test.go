//go:build unix

package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/examples/internal/testbed"
	"github.com/anyqueue/anyqueue/queue"
)

//go:embed queues.yaml
var queuesYAML []byte

// From SQS to Pub/Sub, and back. Each way the bridge is killed with SIGKILL while it
// publishes, is started again and killed while it acknowledges, and goes on to its end,
// while a producer publishes to the old side.
func TestProcessesThatAreKilledMoveEveryMessage(t *testing.T) {
	t.Parallel()
	testbed.OnBoth(t, queuesYAML, func(t *testing.T, sqs, pubsub *testbed.Broker) {
		t.Helper()
		for _, queues := range []string{"orders", "payments"} { // without and with an order
			t.Run(queues, func(t *testing.T) {
				t.Parallel()
				j := &journey{T: t, sqs: sqs, pubsub: pubsub, ordered: queues == "payments"}
				old, there := j.open(sqs, queues), j.open(pubsub, queues+"-there")
				j.leg(leg{from: sqs, to: pubsub, queue: old, args: []string{queues, queues + "-there"}})
				j.leg(leg{from: pubsub, to: sqs, queue: there, args: []string{queues + "-there", queues}})
				j.judge(old)
			})
		}
	})
}

const (
	atFirst   = 300 // messages that wait when a bridge starts
	meanwhile = 100 // messages that a producer publishes after that
	keys      = 7
	parallel  = 2
	late      = 5 // messages that aren't due for long
	lateFrom  = 1_000_000

	twoKills = 2
)

// journey is a queue that goes to another cloud and back.
type journey struct {
	*testing.T
	sqs, pubsub *testbed.Broker
	ordered     bool
	published   int // numbered from 0
	late        int // numbered from lateFrom
	repeats     int // that there may be
}

func (j *journey) open(on *testbed.Broker, name string) queue.Queue {
	j.Helper()
	q, err := on.Backend.Open(j.Context(), name, &queue.OpenOptions{Ordered: j.ordered})
	require.NoError(j, err)
	j.Cleanup(func() { assert.NoError(j, q.Close(context.Background())) })
	return q
}

// message is the i-th. A third has a body that SQS can't carry as it is, and of those that
// begin on Pub/Sub some have more attributes than SQS takes.
func (j *journey) message(i int) *queue.Message {
	m := &queue.Message{ID: fmt.Sprintf("m-%d", i), Body: fmt.Appendf(nil, "message %d", i), Attributes: map[string]string{"number": fmt.Sprint(i)}}
	if i%3 == 0 {
		m.Body = append(m.Body, 0, 0xff)
	}
	if i%5 == 0 && i >= atFirst+meanwhile {
		for n := range 12 {
			m.Attributes[fmt.Sprint("more-", n)] = "ä"
		}
	}
	if j.ordered {
		m.OrderingKey = fmt.Sprint("key-", i%keys)
	}
	return m
}

func (j *journey) publish(ctx context.Context, to queue.Queue, n int) error {
	msgs := make([]*queue.Message, n)
	for i := range msgs {
		msgs[i] = j.message(j.published)
		j.published++
	}
	return to.Publish(ctx, msgs...)
}

// leg is one way.
type leg struct {
	from, to *testbed.Broker
	queue    queue.Queue // of from
	args     []string
}

func (j *journey) leg(l leg) {
	j.Helper()
	ctx, cancel := context.WithTimeout(j.Context(), 3*time.Minute)
	defer cancel()
	require.NoError(j, j.publish(ctx, l.queue, atFirst))
	produced := make(chan error, 1)
	go func() {
		for range meanwhile {
			if err := j.publish(ctx, l.queue, 1); err != nil {
				produced <- err
				return
			}
			<-time.After(50 * time.Millisecond)
		}
		produced <- nil
	}()
	bridge := func(from, to string, args ...string) *testbed.Process {
		args = append([]string{"-parallel", fmt.Sprint(j.parallel(l))}, args...)
		return testbed.StartOn(j.T, []testbed.End{{Broker: l.from, URL: from}, {Broker: l.to, URL: to}}, append(args, l.args...)...)
	}
	kill := func(g *testbed.Gate, p *testbed.Process) {
		p.AwaitAll(j.T, ctx, map[<-chan struct{}]func(){g.Reached: func() { p.Kill(j.T) }})
	}
	publishing := testbed.NewGate(j.T, l.to, l.to.Publishes, 2)
	kill(publishing, bridge(l.from.URL, publishing.URL))
	acknowledging := testbed.NewGate(j.T, l.from, l.from.Acknowledges, 1)
	kill(acknowledging, bridge(acknowledging.URL, l.to.URL))
	if !j.ordered && l.from == j.pubsub { // what isn't due goes with its due time
		for range late {
			m := j.message(lateFrom + j.late)
			m.DeliverAt = time.Now().Add(time.Hour)
			require.NoError(j, l.queue.Publish(ctx, m))
			j.late++
		}
	}
	args := []string{"-until-empty"}
	if l.from == j.sqs { // which counts what the dead ones had in hand
		args = append(args, "-quiet", "2s")
	}
	last := bridge(l.from.URL, l.to.URL, args...)
	require.NoError(j, last.Wait(j.T, ctx), "%s", last.Out)
	require.NoError(j, <-produced)
	var r result
	require.NoError(j, json.Unmarshal([]byte(last.Out.LastLine()), &r), "%s", last.Out)
	j.Logf("%s -> %s: %s", l.args[0], l.args[1], last.Out.LastLine())
	assert.Zero(j, r.Left+r.DeadLettered)
	j.repeats += twoKills*j.parallel(l)*batch(l.queue) + r.Repeated
}

// parallel is how many batches a bridge has on their way.
func (j *journey) parallel(l leg) int {
	if j.ordered && l.from == j.pubsub {
		return 1
	}
	return parallel
}

// batch is the most that a bridge receives at a time.
func batch(q queue.Queue) int {
	if n := q.Capabilities().MaxReceive; n > 0 {
		return min(n, 100)
	}
	return 100
}

// judge takes everything from the queue in which the journey has ended.
func (j *journey) judge(q queue.Queue) {
	j.Helper()
	ctx, cancel := context.WithTimeout(j.Context(), time.Minute)
	defer cancel()
	if j.late > 0 {
		in, ok := queue.As[queue.Inspector](q)
		require.True(j, ok)
		s, err := in.Stats(ctx)
		require.NoError(j, err)
		require.NotNil(j, s.Delayed)
		assert.EqualValues(j, j.late, *s.Delayed, "what isn't due waits on the other side")
	}
	var ids []string
	last := map[string]int{}
	for _, d := range j.drained(ctx, q) {
		last[d.ID] = len(ids)
		ids = append(ids, d.ID)
		var i int
		_, err := fmt.Sscanf(d.ID, "m-%d", &i)
		require.NoError(j, err)
		want := j.message(i)
		assert.Equal(j, want.Body, d.Body)
		assert.Equal(j, want.Attributes, d.Attributes)
		assert.Equal(j, want.OrderingKey, d.OrderingKey)
	}
	lost, swapped := 0, 0
	for i := range j.published {
		at, ok := last[fmt.Sprint("m-", i)]
		if !ok {
			lost++
		} else if next, ok := last[fmt.Sprint("m-", i+keys)]; j.ordered && ok && next < at {
			swapped++
		}
	}
	repeated := len(ids) - (j.published - lost)
	j.Logf("there and back: %d published, %d lost, %d repeated (%d allowed), %d out of order", j.published+j.late, lost, repeated, j.repeats, swapped)
	assert.Zero(j, lost)
	assert.LessOrEqual(j, repeated, j.repeats, "repeats are what was on its way")
	assert.Zero(j, swapped, "of a key")
}

// drained takes all messages that nobody has.
func (j *journey) drained(ctx context.Context, q queue.Queue) []*queue.Delivery {
	j.Helper()
	var all []*queue.Delivery
	for empty := 0; empty < 2; {
		polling, cancel := context.WithTimeout(ctx, 2*time.Second)
		ds, err := q.Receive(polling, 10)
		if polling.Err() == nil {
			require.NoError(j, err)
		}
		cancel()
		empty++
		if len(ds) == 0 {
			continue
		}
		empty = 0
		done := make([]queue.Settlement, len(ds))
		for i, d := range ds {
			done[i].Delivery = d
		}
		require.NoError(j, q.Settle(ctx, done...))
		all = append(all, ds...)
	}
	return all
}
