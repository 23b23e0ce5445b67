package pubsub_test

import (
	"context"
	"testing"

	"github.com/anyqueue/anyqueue/internal/pubsubtest"
	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/queuetest"
)

// The whole suite on Google's in-process server, by the real client and on virtual
// time: nothing but Go is needed. It's brief, as that server drops messages after ten
// minutes, and looks at its subscriptions every ten milliseconds.
func TestConformancePstest(t *testing.T) {
	servers := pubsubtest.Servers(t)
	queuetest.Run(t, queuetest.Harness{
		Name: "pubsub", Server: "pstest",
		Virtual: true, Brief: true,
		New: func(t testing.TB) queuetest.Instance {
			client := pubsubtest.Connect(t, <-servers)
			return queuetest.Instance{
				Backend: pubsub.New(client, nil),
				PublishRaw: func(ctx context.Context, q queue.Queue, body []byte, attributes map[string]string) error {
					return publishRaw(ctx, client, q, body, attributes)
				},
			}
		},
	})
}
