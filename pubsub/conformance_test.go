package pubsub_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	gcp "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/stretchr/testify/require"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/queuetest"
)

// emulator names the environment variable with the address of Google's emulator,
// which isn't Google Cloud.
const emulator = "ANYQUEUE_TEST_PUBSUB_EMULATOR"

// project is where the tests' queues are; no server in the process or on the
// machine minds.
const project = "anyqueue-test"

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
	return newClient(t, emulatorAddress(t))
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

func newClient(t *testing.T, address string, interceptors ...grpc.UnaryClientInterceptor) *gcp.Client {
	t.Helper()
	client, err := gcp.NewClient(context.Background(), project, option.WithEndpoint(address), option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
		option.WithGRPCDialOption(grpc.WithChainUnaryInterceptor(interceptors...)))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return client
}

func publishRaw(ctx context.Context, client *gcp.Client, q queue.Queue, body []byte, attributes map[string]string) error {
	_, err := client.TopicAdminClient.Publish(ctx, &pubsubpb.PublishRequest{
		Topic:    strings.Replace(q.Capabilities().Address, "/subscriptions/", "/topics/", 1),
		Messages: []*pubsubpb.PubsubMessage{{Data: body, Attributes: attributes}},
	})
	return err
}
