package pubsub_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	gcp "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/anyqueue/anyqueue/internal/pubsubtest"
	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/queuetest"
)

// emulator names the environment variable with the address of Google's emulator,
// which isn't Google Cloud.
const emulator = "ANYQUEUE_TEST_PUBSUB_EMULATOR"

func TestConformanceEmulator(t *testing.T) {
	client := clientFor(t)
	queuetest.Run(t, queuetest.Harness{
		Name: "pubsub", Server: "pubsub-emulator",
		New: func(testing.TB) queuetest.Instance {
			return queuetest.Instance{
				// Close waits for the last pull.
				Backend: pubsub.New(client, &pubsub.Options{Wait: 2 * time.Second}),
				PublishRaw: func(ctx context.Context, q queue.Queue, body []byte, attributes map[string]string) error {
					return publishRaw(ctx, client, q, body, attributes)
				},
			}
		},
	})
}

func clientFor(t *testing.T) *gcp.Client {
	t.Helper()
	return pubsubtest.Dial(t, emulatorAddress(t))
}

// emulatorAddress is where the emulator is; without one the test is skipped.
func emulatorAddress(t *testing.T) string {
	t.Helper()
	address := os.Getenv(emulator)
	if address == "" {
		t.Skipf("%s isn't set: start the servers with .ci/servers.sh", emulator)
	}
	return address
}

func publishRaw(ctx context.Context, client *gcp.Client, q queue.Queue, body []byte, attributes map[string]string) error {
	_, err := client.TopicAdminClient.Publish(ctx, &pubsubpb.PublishRequest{
		Topic:    topicOf(q),
		Messages: []*pubsubpb.PubsubMessage{{Data: body, Attributes: attributes}},
	})
	return err
}

// topicOf is the full name of the topic of a queue that was opened by its name.
func topicOf(q queue.Queue) string {
	return strings.Replace(q.Capabilities().Address, "/subscriptions/", "/topics/", 1)
}
