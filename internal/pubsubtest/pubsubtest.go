// Package pubsubtest connects tests to servers of Pub/Sub: to Google's in-process
// one, also on virtual time, and to its emulator.
package pubsubtest

import (
	"context"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gcp "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
)

// Project is where the tests' queues are; no server in the process or on the
// machine minds.
const Project = "anyqueue-test"

// Dial returns a client of the server at address.
func Dial(t testing.TB, address string, interceptors ...grpc.UnaryClientInterceptor) *gcp.Client {
	t.Helper()
	client, err := gcp.NewClient(context.Background(), Project, option.WithEndpoint(address), option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
		option.WithGRPCDialOption(grpc.WithChainUnaryInterceptor(interceptors...)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, client.Close()) })
	return client
}

// Servers makes servers outside of any bubble, as each listens on a port, which in
// a bubble would stop the time.
func Servers(t testing.TB) <-chan *pstest.Server {
	t.Helper()
	servers, ready, end := make(chan *pstest.Server), make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		close(ready) // the suite counts goroutines from now on
		for {
			s := pstest.NewServer()
			defer func() { check(t, s.Close()) }() // at the end of the test
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

// LargestMessage is what servers and clients in a bubble take.
const LargestMessage = 20 << 20

// Serve makes a server reachable within the bubble it's called in, by connections in
// memory, until the test ends. register, if there is one, adds further services.
func Serve(t testing.TB, s *pstest.Server, register func(*grpc.Server), opts ...grpc.ServerOption) *bufconn.Listener {
	t.Helper()
	// Order is kept by the time of publishing, which stands still in a bubble.
	var ticks atomic.Int64
	s.SetTimeNowFunc(func() time.Time { return time.Now().Add(time.Duration(ticks.Add(1))) })
	server := grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(LargestMessage))...)
	pubsubpb.RegisterPublisherServer(server, &s.GServer)
	pubsubpb.RegisterSubscriberServer(server, &s.GServer)
	if register != nil {
		register(server)
	}
	listener := bufconn.Listen(1 << 20)
	var serving sync.WaitGroup
	serving.Go(func() { check(t, server.Serve(listener)) })
	t.Cleanup(func() {
		server.Stop()
		serving.Wait()
	})
	return listener
}

// Connect returns a client that reaches a server within the bubble it's called in.
func Connect(t testing.TB, s *pstest.Server) *gcp.Client {
	t.Helper()
	listener := Serve(t, s, nil)
	client, err := gcp.NewClient(context.Background(), Project, Options(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) })...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Each subscription has a goroutine in pstest.
		DeleteQueues(t, client, Project, "")
		check(t, client.Close())
	})
	return client
}

// Options are those of a client in a bubble, which dials like this, once.
func Options(dial func(context.Context, string) (net.Conn, error)) []option.ClientOption {
	return []option.ClientOption{
		option.WithEndpoint("passthrough:///pstest"), option.WithoutAuthentication(), option.WithGRPCConnectionPool(1),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
		option.WithGRPCDialOption(grpc.WithContextDialer(dial)),
		option.WithGRPCDialOption(grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(LargestMessage))),
	}
}

// DeleteQueues removes the topics and subscriptions of a project whose names begin
// with prefix.
func DeleteQueues(t testing.TB, client *gcp.Client, project, prefix string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	in := "projects/" + project
	subscriptions, topics := client.SubscriptionAdminClient, client.TopicAdminClient
	for s, err := range subscriptions.ListSubscriptions(ctx, &pubsubpb.ListSubscriptionsRequest{Project: in}).All() {
		if err != nil {
			t.Error(err)
			return
		}
		if strings.HasPrefix(s.GetName(), in+"/subscriptions/"+prefix) {
			check(t, subscriptions.DeleteSubscription(ctx, &pubsubpb.DeleteSubscriptionRequest{Subscription: s.GetName()}))
		}
	}
	for topic, err := range topics.ListTopics(ctx, &pubsubpb.ListTopicsRequest{Project: in}).All() {
		if err != nil {
			t.Error(err)
			return
		}
		if strings.HasPrefix(topic.GetName(), in+"/topics/"+prefix) {
			check(t, topics.DeleteTopic(ctx, &pubsubpb.DeleteTopicRequest{Topic: topic.GetName()}))
		}
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}
