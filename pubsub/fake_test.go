package pubsub_test

import (
	"context"
	"path"
	"sync"
	"testing"

	gcp "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/anyqueue/anyqueue/internal/pubsubtest"
	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
)

// fake is Google's in-process server, with an interceptor that keeps what was
// asked and lets a test change the answers.
type fake struct {
	*pstest.Server
	client  *gcp.Client
	backend *pubsub.Backend

	mu     sync.Mutex
	calls  []call
	change map[string]func(forward func() error) error // by method
}

type call struct {
	method string
	in     any
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{Server: pstest.NewServer(), change: map[string]func(func() error) error{}}
	t.Cleanup(func() { assert.NoError(t, f.Server.Close()) })
	f.client = pubsubtest.Dial(t, f.Addr, f.intercept)
	f.backend = pubsub.New(f.client, nil)
	return f
}

func (f *fake) intercept(ctx context.Context, method string, in, out any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	name := path.Base(method)
	f.mu.Lock()
	f.calls = append(f.calls, call{name, in})
	change := f.change[name]
	f.mu.Unlock()
	forward := func() error { return invoke(ctx, method, in, out, cc, opts...) }
	if change != nil {
		return change(forward)
	}
	return forward()
}

// on lets a test change the answers of a method.
func (f *fake) on(method string, change func(forward func() error) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.change[method] = change
}

// made returns the requests of one method.
func made[T any](f *fake, method string) []T {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []T
	for _, c := range f.calls {
		if c.method == method {
			out = append(out, c.in.(T))
		}
	}
	return out
}

// open makes a queue exist and opens it.
func (f *fake) open(t *testing.T, name string, spec *queue.QueueSpec, opts *queue.OpenOptions) queue.Queue {
	t.Helper()
	_, err := f.backend.Ensure(t.Context(), name, spec)
	require.NoError(t, err)
	q, err := f.backend.Open(t.Context(), name, opts)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, q.Close(context.Background())) })
	return q
}

// subscribe adds a subscription to a topic.
func (f *fake) subscribe(t *testing.T, topic, name string, change func(*pubsubpb.Subscription)) {
	t.Helper()
	s := &pubsubpb.Subscription{Name: "projects/anyqueue-test/subscriptions/" + name, Topic: "projects/anyqueue-test/topics/" + topic}
	if change != nil {
		change(s)
	}
	_, err := f.client.SubscriptionAdminClient.CreateSubscription(t.Context(), s)
	require.NoError(t, err)
}

func (f *fake) topic(t *testing.T, name string) {
	t.Helper()
	_, err := f.client.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: "projects/anyqueue-test/topics/" + name})
	require.NoError(t, err)
}
