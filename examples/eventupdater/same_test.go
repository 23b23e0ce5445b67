package main

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

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

// And on Pub/Sub, where every wait is a whole number of seconds.
func TestDemonstrationComesToTheSameOnPubSub(t *testing.T) {
	t.Parallel()
	servers := pubsubtest.Servers(t)
	synctest.Test(t, func(t *testing.T) {
		comesToTheSame(t, pubsub.New(pubsubtest.Connect(t, <-servers), nil))
	})
}

func comesToTheSame(t *testing.T, on queue.Backend) {
	t.Helper()
	_, want, _ := play(t.Context(), t, newVirtual(), memory.New(nil), "-submissions", "400")
	ok, got, _ := play(t.Context(), t, newVirtual(), on, "-submissions", "400")
	assert.True(t, ok, "%+v", got)
	for name, f := range map[string]func(result) int{
		"submissions":   func(r result) int { return r.Submissions },
		"invalid":       func(r result) int { return r.Invalid },
		"accepted":      func(r result) int { return r.Accepted },
		"records":       func(r result) int { return r.Records },
		"rejected":      func(r result) int { return r.Rejected },
		"dead_lettered": func(r result) int { return r.DeadLettered },
	} {
		assert.Equal(t, f(want), f(got), name)
	}
}
