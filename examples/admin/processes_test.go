//go:build unix

package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/examples/internal/testbed"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/admin"
)

//go:embed queues.yaml
var queuesYAML []byte

// A redrive that's killed with SIGKILL while it publishes, goes on and is killed again
// while it acknowledges, and goes on to its end.
func TestProcessesThatAreKilledLoseNoDeadLetter(t *testing.T) {
	t.Parallel()
	testbed.OnEach(t, queuesYAML, func(t *testing.T, connect func(*testing.T) *testbed.Broker) {
		t.Helper()
		broker := connect(t)
		t.Parallel() // it mostly waits, for leases to end
		killed(t, broker)
	})
}

const (
	deadAtFirst = 400
	newcomers   = 25
	onItsWay    = 100 // at most, of a redrive that's killed
)

func killed(t *testing.T, broker *testbed.Broker) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	open := func(name string) queue.Queue {
		q, err := broker.Backend.Open(ctx, name, nil)
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, q.Close(context.Background())) })
		return q
	}
	orders, dead := open("orders"), open("orders-dlq")
	source := orders.Capabilities().Source
	require.NoError(t, dead.Publish(ctx, deadLetters(source, 0, deadAtFirst)...))
	state := t.TempDir()
	redrive := func(url string, args ...string) *testbed.Process {
		return broker.Start(t, url, append([]string{"redrive", "-json", "-state", state}, args...)...)
	}
	requests := max(deadAtFirst/max(broker.PerPublish, 10)/3, 1) // that are let through

	publishing := testbed.NewGate(t, broker, broker.Publishes, requests)
	p := redrive(publishing.URL, "-id", "op-1", "-reason", "a test", "orders-dlq")
	p.AwaitAll(t, ctx, map[<-chan struct{}]func(){publishing.Reached: func() { p.Kill(t) }})
	require.NoError(t, dead.Publish(ctx, deadLetters(source, deadAtFirst, newcomers)...))

	acknowledging := testbed.NewGate(t, broker, broker.Acknowledges, requests)
	p = redrive(acknowledging.URL, "-resume", "op-1")
	p.AwaitAll(t, ctx, map[<-chan struct{}]func(){acknowledging.Reached: func() { p.Kill(t) }})

	p = redrive(broker.URL, "-resume", "op-1")
	require.NoError(t, p.Wait(t, ctx), "%s", p.Out)
	var op admin.Operation
	require.NoError(t, json.Unmarshal([]byte(p.Out.LastLine()), &op))
	assert.Equal(t, admin.Done, op.Status)
	assert.Equal(t, newcomers, op.Newer)

	moved := drained(t, ctx, orders)
	copies := 0
	for i := range deadAtFirst {
		n := moved[fmt.Sprintf("order-%d", i)]
		assert.Positive(t, n, "order-%d is lost", i)
		copies += n
	}
	t.Logf("%d dead letters, two kills: lost 0, %d repeated", deadAtFirst, copies-deadAtFirst)
	assert.LessOrEqual(t, copies-deadAtFirst, 2*onItsWay, "repeats are what was on its way")
	left := drained(t, ctx, dead)
	assert.Len(t, left, newcomers)
	for id := range left {
		var n int
		_, err := fmt.Sscanf(strings.TrimPrefix(id, "order-"), "%d", &n)
		require.NoError(t, err)
		assert.GreaterOrEqual(t, n, deadAtFirst, "only newcomers are left")
	}
}

// What runs in one terminal is seen, paused and canceled in another; one that was killed
// has nothing any more.
func TestProcessesOfTwoTerminals(t *testing.T) {
	t.Parallel()
	testbed.OnEach(t, queuesYAML, func(t *testing.T, connect func(*testing.T) *testbed.Broker) {
		t.Helper()
		broker := connect(t)
		t.Parallel()
		terminals(t, broker)
	})
}

func terminals(t *testing.T, broker *testbed.Broker) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	orders, err := broker.Backend.Open(ctx, "orders", nil)
	require.NoError(t, err)
	defer func() { assert.NoError(t, orders.Close(context.Background())) }()
	dead, err := broker.Backend.Open(ctx, "orders-dlq", nil)
	require.NoError(t, err)
	defer func() { assert.NoError(t, dead.Close(context.Background())) }()
	require.NoError(t, dead.Publish(ctx, deadLetters(orders.Capabilities().Source, 0, deadAtFirst)...))
	state := t.TempDir()
	redrive := func(args ...string) *testbed.Process {
		return broker.Start(t, broker.URL, append([]string{"redrive", "-state", state}, args...)...)
	}

	first := redrive("-id", "op-1", "-rate", "10", "orders-dlq")
	first.Await(t, ctx, `running: [1-9]\d* moved`)
	redrive("-list").Await(t, ctx, `op-1 .*running in another process: [1-9]\d* moved`)
	p := redrive("-resume", "op-1")
	require.Error(t, p.Wait(t, ctx))
	p.Await(t, ctx, "op-1 is under way in another process")
	redrive("-pause", "op-1").Await(t, ctx, "op-1 .*paused: [1-9]")
	require.Error(t, first.Wait(t, ctx))
	first.Await(t, ctx, "go on with: admin redrive -resume op-1")

	second := redrive("-resume", "op-1")
	second.Await(t, ctx, `running: [1-9]\d* moved`)
	second.Kill(t)
	redrive("-list").Await(t, ctx, "op-1 .*interrupted: [1-9]")
	redrive("-cancel", "op-1").Await(t, ctx, "op-1 .*canceled: [1-9]")
	require.NoError(t, redrive("-forget", "op-1").Wait(t, ctx))
	p = redrive("-list")
	require.NoError(t, p.Wait(t, ctx))
	assert.NotContains(t, p.Out.String(), "op-1")
}

// drained takes all messages of a queue that nobody has, and counts them by id.
func drained(t *testing.T, ctx context.Context, q queue.Queue) map[string]int { //nolint:revive // t is first in tests
	t.Helper()
	const quiet = 3 * time.Second // without a message: it's empty
	ids := map[string]int{}
	for last := time.Now(); time.Since(last) < quiet; {
		polling, cancel := context.WithTimeout(ctx, quiet)
		ds, err := q.Receive(polling, 10)
		ended := polling.Err() != nil
		cancel()
		require.NoError(t, ctx.Err())
		if !ended {
			require.NoError(t, err)
		}
		for _, d := range ds {
			last = time.Now()
			ids[d.ID]++
			require.NoError(t, q.Settle(ctx, queue.Settlement{Delivery: d}))
		}
	}
	return ids
}
