package pubsub_test

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gcp "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/queuetest"
)

// The whole suite on Google's in-process server, by the real client and on virtual
// time: nothing but Go is needed. It's brief, as that server drops messages after ten
// minutes, and looks at its subscriptions every ten milliseconds.
func TestConformancePstest(t *testing.T) {
	servers := serversOutside(t)
	queuetest.Run(t, queuetest.Harness{
		Name: "pubsub", Server: "pstest",
		Virtual: true, Brief: true,
		New: func(t testing.TB) queuetest.Instance {
			client := connectInside(t, <-servers)
			return queuetest.Instance{
				Backend: pubsub.New(client, nil),
				PublishRaw: func(ctx context.Context, q queue.Queue, body []byte, attributes map[string]string) error {
					return publishRaw(ctx, client, q, body, attributes)
				},
			}
		},
	})
}

// serversOutside makes servers outside of any bubble, as each listens on a port,
// which in a bubble would stop the time.
func serversOutside(t *testing.T) <-chan *pstest.Server {
	t.Helper()
	servers, ready, end := make(chan *pstest.Server), make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		close(ready) // the suite counts goroutines from now on
		for {
			s := pstest.NewServer()
			defer s.Close() // at the end of the test
			select {
			case servers <- s:
			case <-end:
				return
			}
		}
	})
	t.Cleanup(func() {
		close(end)
		wg.Wait()
	})
	<-ready
	return servers
}

// connectInside returns a client that reaches a server within the bubble it's
// called in, by a connection in memory.
func connectInside(t testing.TB, s *pstest.Server) *gcp.Client {
	t.Helper()
	// Order is kept by the time of publishing, which stands still in a bubble.
	var ticks atomic.Int64
	s.SetTimeNowFunc(func() time.Time { return time.Now().Add(time.Duration(ticks.Add(1))) })
	const largest = 20 << 20
	server := grpc.NewServer(grpc.MaxRecvMsgSize(largest))
	pubsubpb.RegisterPublisherServer(server, &s.GServer)
	pubsubpb.RegisterSubscriberServer(server, &s.GServer)
	listener := bufconn.Listen(1 << 20)
	var serving sync.WaitGroup
	serving.Go(func() { assert.NoError(t, server.Serve(listener)) })
	conn, err := grpc.NewClient("passthrough:///pstest", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(largest)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	require.NoError(t, err)
	client, err := gcp.NewClient(context.Background(), project, option.WithGRPCConn(conn))
	require.NoError(t, err)
	t.Cleanup(func() {
		deleteSubscriptions(t, client)
		assert.NoError(t, client.Close())
		server.Stop()
		serving.Wait()
	})
	return client
}

// deleteSubscriptions ends the goroutine that pstest has for each.
func deleteSubscriptions(t testing.TB, client *gcp.Client) {
	t.Helper()
	ctx := context.Background()
	for s, err := range client.SubscriptionAdminClient.ListSubscriptions(ctx, &pubsubpb.ListSubscriptionsRequest{Project: "projects/" + project}).All() {
		if !assert.NoError(t, err) {
			return
		}
		assert.NoError(t, client.SubscriptionAdminClient.DeleteSubscription(ctx, &pubsubpb.DeleteSubscriptionRequest{Subscription: s.GetName()}))
	}
}
