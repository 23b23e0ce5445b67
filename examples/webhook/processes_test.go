//go:build unix

package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/examples/internal/backends"
	"github.com/anyqueue/anyqueue/examples/internal/testbed"
	"github.com/anyqueue/anyqueue/queue"
)

// The parts as processes on one broker. The web part is killed with SIGKILL while it
// publishes, and a worker when it has called the analytics service and hasn't said
// so. The workers have the bug at first; then it's fixed, and the dead letters are
// moved back.
func TestProcessesThatAreKilledLoseNoEvent(t *testing.T) {
	t.Parallel()
	testbed.OnEach(t, queuesYAML, func(t *testing.T, connect func(*testing.T) *testbed.Broker) {
		t.Helper()
		killed(t, connect(t))
	})
}

// inHands is how many events a worker has at a time: what queues.yaml says.
const inHands = 16 + 8

func killed(t *testing.T, broker *testbed.Broker) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	database := broker.Start(t, broker.URL, "-role", "database", "-database-addr", "127.0.0.1:0")
	databaseURL := database.Await(t, ctx, `listening on (http://\S+)`)[1]
	publishes := testbed.NewGate(t, broker, broker.Publishes, 60)
	web := broker.Start(t, publishes.URL, "-role", "web", "-addr", "127.0.0.1:0")
	webURL := web.Await(t, ctx, `listening on (http://\S+)`)[1]
	parties := broker.Start(t, broker.URL, "-role", "parties", "-parties-addr", "127.0.0.1:0", "-web-url", webURL,
		"-events", "420", "-messages", "100", "-over", "5s")
	analyticsURL := parties.Await(t, ctx, `analytics service listens on (http://[^\s;]+)`)[1]
	work := func(url string, args ...string) *testbed.Process {
		return broker.Start(t, url, append(args, "-role", "worker", "-analytics-url", analyticsURL, "-database-url", databaseURL)...)
	}
	acknowledges := testbed.NewGate(t, broker, broker.Acknowledges, 10)
	workers := []*testbed.Process{work(acknowledges.URL, "-bug"), work(broker.URL, "-bug")}

	parties.AwaitAll(t, ctx, map[<-chan struct{}]func(){
		acknowledges.Reached: func() {
			workers[0].Kill(t)
			workers[0] = work(broker.URL, "-bug")
		},
		publishes.Reached: func() {
			web.Kill(t)
			web = broker.Start(t, broker.URL, "-role", "web", "-addr", strings.TrimPrefix(webURL, "http://"))
		},
	})

	dead, err := broker.Backend.Open(ctx, mailgunEventsDLQ, nil)
	require.NoError(t, err)
	defer func() { assert.NoError(t, dead.Close(context.Background())) }()
	seen, err := backends.Gather(ctx, dead, func(seen map[string]*queue.Delivery) bool { return len(seen) > 0 })
	require.NoError(t, err)
	require.NotEmpty(t, seen, "complaints are where somebody finds them")
	testbed.Drain(t, workers...)
	workers = []*testbed.Process{work(broker.URL), work(broker.URL)}
	for parties.Running() {
		redrive := broker.Start(t, broker.URL, "-role", "redrive")
		require.NoError(t, redrive.Wait(t, ctx), "%s", redrive.Out)
	}
	_ = parties.Wait(t, ctx) // what they make of it is in their result
	t.Log(parties.Out)
	testbed.Drain(t, append(workers, web, database)...)

	var r result
	require.NoError(t, json.Unmarshal([]byte(parties.Out.LastLine()), &r))
	// What the worker that was killed had called for, but not noted yet, is called again.
	assert.LessOrEqual(t, r.Duplicates, inHands)
	r.Duplicates = 0
	assert.True(t, r.ok(), "%+v", r)
	assert.Greater(t, r.Accepted, r.Sent/2, "the web part was away for a moment only")
	assert.GreaterOrEqual(t, r.Recorded, r.Accepted)
}
