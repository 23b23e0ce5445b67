package main

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/examples/internal/backends"
	"github.com/anyqueue/anyqueue/internal/pubsubtest"
	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs"
	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// The same demonstration comes to the same on SQS, which delivers some messages
// twice and others out of order.
func TestDemonstrationComesToTheSameOnSQS(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := sqstest.New(&sqstest.Options{Latency: 5 * time.Millisecond, Duplicate: 0.02, Reorder: 0.1})
		defer server.Close()
		comesToTheSame(t, sqs.New(server.Client(), nil))
	})
}

// And on Pub/Sub, which doesn't say how many messages a queue has.
func TestDemonstrationComesToTheSameOnPubSub(t *testing.T) {
	t.Parallel()
	servers := pubsubtest.Servers(t)
	synctest.Test(t, func(t *testing.T) {
		comesToTheSame(t, pubsub.New(pubsubtest.Connect(t, <-servers), nil))
	})
}

func comesToTheSame(t *testing.T, on queue.Backend) {
	t.Helper()
	args := []string{"-events", "420", "-messages", "100"}
	_, want := play(t.Context(), t, newVirtual(), memory.New(nil), args...)
	ok, got := play(t.Context(), t, newVirtual(), on, args...)
	assert.True(t, ok, "%+v", got)
	for name, f := range map[string]func(result) int{
		"sent":          func(r result) int { return r.Sent },
		"refused":       func(r result) int { return r.Refused },
		"dead_lettered": func(r result) int { return r.DeadLettered },
		"unaccepted":    func(r result) int { return r.Unaccepted },
	} {
		assert.Equal(t, f(want), f(got), name)
	}
	assert.Equal(t, got.Sent, got.Accepted+got.Unknown)
	assert.GreaterOrEqual(t, got.Recorded, got.Accepted)
	for _, name := range []string{mailgunEventsDLQ, integrationsDLQ} {
		q, err := on.Open(t.Context(), name, nil)
		require.NoError(t, err)
		left, err := backends.Waiting(t.Context(), q)
		require.NoError(t, err)
		assert.Zero(t, left, "all were moved back from %s", name)
		require.NoError(t, q.Close(t.Context()))
	}
}
