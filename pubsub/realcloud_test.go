package pubsub_test

import (
	"context"
	"os"
	"path"
	"sync"
	"testing"
	"time"

	gcp "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/anyqueue/anyqueue/internal/cloudtest"
	"github.com/anyqueue/anyqueue/internal/pubsubtest"
	"github.com/anyqueue/anyqueue/internal/remote"
	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/queuetest"
)

// realCloud is the prefix of the names of all topics and subscriptions that a run
// makes on Google Cloud, or on what the environment has in its place. .ci/real-cloud
// sets it.
const realCloud = "ANYQUEUE_TEST_PUBSUB_GCP"

func TestRealCloudConformance(t *testing.T) {
	client, prefix := realCloudClient(t)
	server := "gcp"
	if standIn() {
		server = "pubsub-emulator"
	}
	queuetest.Run(t, queuetest.Harness{
		Name: "pubsub", Server: server,
		Lease: 4 * time.Second,
		New: func(testing.TB) queuetest.Instance {
			return queuetest.Instance{
				Backend: &prefixed{pubsub.New(client, &pubsub.Options{Wait: pullWait}), prefix},
				PublishRaw: func(ctx context.Context, q queue.Queue, body []byte, attributes map[string]string) error {
					return publishRaw(ctx, client, q, body, attributes)
				},
			}
		},
	})
}

// standIn reports whether it's the emulator in Google Cloud's place, to try this out.
func standIn() bool { return os.Getenv("PUBSUB_EMULATOR_HOST") != "" }

// realCloudClient returns a client as the environment says.
func realCloudClient(t *testing.T) (client *gcp.Client, prefix string) {
	t.Helper()
	prefix = cloudtest.Prefix(t, realCloud)
	client, err := gcp.NewClient(t.Context(), gcp.DetectProjectID, counted(t))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	return client, prefix
}

const (
	dollarsPerByte = 40.0 / (1 << 40) // published or pulled; all else is free
	leastBytes     = 1000             // for which a request is billed
)

// counted makes a client count what it asks for, which is told when the test ends.
func counted(t *testing.T) option.ClientOption {
	t.Helper()
	var count cloudtest.Requests
	t.Cleanup(func() { t.Log(count.String()) })
	return option.WithGRPCDialOption(grpc.WithChainUnaryInterceptor(
		func(ctx context.Context, method string, in, out any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			err := invoke(ctx, method, in, out, cc, opts...)
			var billed proto.Message
			switch in := in.(type) {
			case *pubsubpb.PublishRequest:
				billed = in
			case *pubsubpb.PullRequest:
				billed = out.(proto.Message)
			}
			dollars := 0.0
			if billed != nil {
				dollars = dollarsPerByte * float64(max(proto.Size(billed), leastBytes))
			}
			count.Add(path.Base(method), dollars)
			return err
		}))
}

// prefixed keeps the queues of a run apart from all others of the project. The queues
// don't know: they're opened by their addresses.
type prefixed struct {
	*pubsub.Backend

	prefix string
}

func (p *prefixed) Open(ctx context.Context, name string, opts *queue.OpenOptions) (queue.Queue, error) {
	o := queue.OpenOptions{}
	if opts != nil {
		o = *opts
	}
	// The prefix would make a bad name a good one.
	if o.Address == "" && queue.CheckName(name) == nil {
		o.Address = "topics/" + p.prefix + name + ",subscriptions/" + p.prefix + name
	}
	q, err := p.Backend.Open(ctx, name, &o)
	if err != nil || standIn() {
		return q, err
	}
	return cloudtest.SlowPurge(q), nil
}

func (p *prefixed) Ensure(ctx context.Context, name string, spec *queue.QueueSpec) (*queue.EnsureReport, error) {
	s := queue.QueueSpec{}
	if spec != nil {
		s = *spec
	}
	if s.DeadLetter != "" {
		s.DeadLetter = p.prefix + s.DeadLetter
	}
	return p.Backend.Ensure(ctx, p.prefix+name, &s)
}

// TestRealCloudCleanUp deletes the topics and subscriptions of this run, and those that
// crashed runs have left. .ci/real-cloud calls it before and after the others.
func TestRealCloudCleanUp(t *testing.T) {
	client, prefix := realCloudClient(t)
	n, err := cleanUp(t.Context(), client, prefix, time.Now())
	require.NoError(t, err)
	t.Logf("%d topics and subscriptions deleted", n)
}

func cleanUp(ctx context.Context, client *gcp.Client, prefix string, now time.Time) (deleted int, err error) {
	topics, subs, err := list(ctx, client)
	if err != nil {
		return 0, err
	}
	var mu sync.Mutex
	deleteAll := func(names []string, del func(name string) error) {
		remote.Parallel(len(names), func(i int) {
			if !cloudtest.Deletable(path.Base(names[i]), prefix, now) {
				return
			}
			failed := del(names[i])
			mu.Lock()
			defer mu.Unlock()
			switch {
			case failed == nil:
				deleted++
			case status.Code(failed) != codes.NotFound: // by another run's clean-up
				err = failed
			}
		})
	}
	deleteAll(subs, func(name string) error {
		return client.SubscriptionAdminClient.DeleteSubscription(ctx, &pubsubpb.DeleteSubscriptionRequest{Subscription: name})
	})
	deleteAll(topics, func(name string) error {
		return client.TopicAdminClient.DeleteTopic(ctx, &pubsubpb.DeleteTopicRequest{Topic: name})
	})
	return deleted, err
}

// list returns the full names of all topics and subscriptions of a project.
func list(ctx context.Context, client *gcp.Client) (topics, subs []string, err error) {
	in := "projects/" + client.Project()
	for t, err := range client.TopicAdminClient.ListTopics(ctx, &pubsubpb.ListTopicsRequest{Project: in}).All() {
		if err != nil {
			return nil, nil, err
		}
		topics = append(topics, t.GetName())
	}
	for s, err := range client.SubscriptionAdminClient.ListSubscriptions(ctx, &pubsubpb.ListSubscriptionsRequest{Project: in}).All() {
		if err != nil {
			return nil, nil, err
		}
		subs = append(subs, s.GetName())
	}
	return topics, subs, nil
}

func TestCleanUpDeletesThisRunsAndCrashedRunsResourcesOnly(t *testing.T) {
	t.Parallel()
	server := pstest.NewServer()
	t.Cleanup(func() { assert.NoError(t, server.Close()) })
	client := pubsubtest.Dial(t, server.Addr)
	const mine = "anyqueue-ci-20261122T100000Z-1a2b-"
	stay := []string{"anyqueue-ci-20261122T100000Z-9z9z-other-run", "orders"}
	gone := []string{mine + "a", mine + "a.return", "anyqueue-ci-20250101T000000Z-bbbb-old"}
	subscribe := func(topic, name string) {
		_, err := client.SubscriptionAdminClient.CreateSubscription(t.Context(), &pubsubpb.Subscription{Name: subscriptionName(name), Topic: topicName(topic)})
		require.NoError(t, err)
	}
	for _, name := range append(gone, stay...) {
		_, err := client.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topicName(name)})
		require.NoError(t, err)
		subscribe(name, name)
	}
	subscribe("orders", mine+"of-a-topic-that-stays")
	n, err := cleanUp(t.Context(), client, mine, time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC))
	require.NoError(t, err)
	assert.Equal(t, 2*len(gone)+1, n)
	topics, subs, err := list(t.Context(), client)
	require.NoError(t, err)
	assert.ElementsMatch(t, []string{topicName("orders"), topicName(stay[0])}, topics)
	assert.ElementsMatch(t, []string{subscriptionName("orders"), subscriptionName(stay[0])}, subs)
}
