// Package testbed runs the examples on brokers, for tests: in the test's own process
// and on virtual time, and as processes on a server, where they can be killed.
package testbed

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/anyqueue/anyqueue/internal/pubsubtest"
	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs"
	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// InBubbles calls f, in a synctest bubble, for each cloud's backend with a server in
// this process: SQS, which delivers some messages twice and others out of order, and
// Pub/Sub, which waits for whole seconds and doesn't say what a queue holds.
func InBubbles(t *testing.T, f func(t *testing.T, on queue.Backend)) {
	t.Helper()
	t.Run("SQS", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			server := sqstest.New(&sqstest.Options{Latency: 5 * time.Millisecond, Duplicate: 0.02, Reorder: 0.1})
			defer server.Close()
			f(t, sqs.New(server.Client(), nil))
		})
	})
	t.Run("PubSub", func(t *testing.T) {
		t.Parallel()
		servers := pubsubtest.Servers(t)
		synctest.Test(t, func(t *testing.T) { f(t, pubsub.New(pubsubtest.Connect(t, <-servers), nil)) })
	})
}
