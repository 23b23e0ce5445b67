package pubsub_test

import (
	"context"
	"log/slog"
	"maps"
	"path"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/iam/apiv1/iampb"
	gcp "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
)

// otherProject is one that isn't the client's.
const otherProject = "anyqueue-other"

// fake is Google's in-process server, reached by the real client on virtual time.
// It keeps what it was asked, and answers what a test wants.
type fake struct {
	*pstest.Server
	network *network
	client  *gcp.Client
	backend *pubsub.Backend
	iam     iam

	mu      sync.Mutex
	calls   []call
	answers map[string]answer // by method
}

type call struct {
	method string
	in     proto.Message
	at     time.Time
}

// An answer is what the server says instead; forward asks it.
type answer func(ctx context.Context, in any, forward func() (any, error)) (any, error)

// onFake runs a test on a server of its own.
func onFake(t *testing.T, test func(t *testing.T, f *fake)) {
	t.Helper()
	t.Parallel()
	onFakeAlone(t, test)
}

// onFakeAlone is onFake for a test that changes the environment.
func onFakeAlone(t *testing.T, test func(t *testing.T, f *fake)) {
	t.Helper()
	server := pstest.NewServer()
	t.Cleanup(func() { assert.NoError(t, server.Close()) })
	synctest.Test(t, func(t *testing.T) {
		f := &fake{Server: server, answers: map[string]answer{}}
		f.network = serveInside(t, server, func(s *grpc.Server) { iampb.RegisterIAMPolicyServer(s, &f.iam) }, grpc.UnaryInterceptor(f.intercept))
		f.client = f.network.client(t)
		f.backend = pubsub.New(f.client, nil)
		t.Cleanup(f.heal)
		test(t, f)
	})
}

func (f *fake) intercept(ctx context.Context, in any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	name := path.Base(info.FullMethod)
	f.mu.Lock()
	f.calls = append(f.calls, call{name, proto.Clone(in.(proto.Message)), time.Now()})
	change := f.answers[name]
	f.mu.Unlock()
	forward := func() (any, error) { return handler(ctx, in) }
	if change != nil {
		return change(ctx, in, forward)
	}
	return forward()
}

// on lets a test change the answers of a method; nil: no more.
func (f *fake) on(method string, a answer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[method] = a
}

// heal ends all changes.
func (f *fake) heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers = map[string]answer{}
}

// refuse answers with an error and does nothing.
func refuse(c codes.Code) answer { return failing(status.New(c, "the fake says no")) }

func failing(s *status.Status) answer {
	return func(context.Context, any, func() (any, error)) (any, error) { return nil, s.Err() }
}

// lose does what it's asked, and answers with an error as a broken connection would.
func lose(c codes.Code) answer {
	return func(_ context.Context, _ any, forward func() (any, error)) (any, error) {
		if _, err := forward(); err != nil {
			return nil, err
		}
		return nil, status.Error(c, "the fake has lost the answer")
	}
}

// late does what it's asked after a while, unless the client has gone.
func late(d time.Duration) answer {
	return func(ctx context.Context, _ any, forward func() (any, error)) (any, error) {
		select {
		case <-time.After(d):
			return forward()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// times is a for the first n requests.
func times(n int, a answer) answer {
	var mu sync.Mutex
	return func(ctx context.Context, in any, forward func() (any, error)) (any, error) {
		mu.Lock()
		n--
		over := n < 0
		mu.Unlock()
		if over {
			return forward()
		}
		return a(ctx, in, forward)
	}
}

// of is a for requests about one topic or subscription.
func of(name string, a answer) answer {
	return func(ctx context.Context, in any, forward func() (any, error)) (any, error) {
		topic, isTopic := in.(interface{ GetTopic() string })
		sub, isSub := in.(interface{ GetSubscription() string })
		if isSub && sub.GetSubscription() == name || isTopic && topic.GetTopic() == name {
			return a(ctx, in, forward)
		}
		return forward()
	}
}

// made returns the requests of one method.
func made[T proto.Message](f *fake, method string) []T {
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

func (f *fake) publishes() []*pubsubpb.PublishRequest {
	return made[*pubsubpb.PublishRequest](f, "Publish")
}

func (f *fake) pulls() []*pubsubpb.PullRequest { return made[*pubsubpb.PullRequest](f, "Pull") }

func (f *fake) acks() []*pubsubpb.AcknowledgeRequest {
	return made[*pubsubpb.AcknowledgeRequest](f, "Acknowledge")
}

func (f *fake) modacks() []*pubsubpb.ModifyAckDeadlineRequest {
	return made[*pubsubpb.ModifyAckDeadlineRequest](f, "ModifyAckDeadline")
}

// when returns when the requests of one method came.
func (f *fake) when(method string) []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []time.Time
	for _, c := range f.calls {
		if c.method == method {
			out = append(out, c.at)
		}
	}
	return out
}

// requests counts what was asked, by method.
func (f *fake) requests() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := map[string]int{}
	for _, c := range f.calls {
		n[c.method]++
	}
	return n
}

// forget forgets what was asked.
func (f *fake) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = nil
}

// ensure makes a queue exist.
func (f *fake) ensure(t *testing.T, name string, spec *queue.QueueSpec) *queue.EnsureReport {
	t.Helper()
	r, err := f.backend.Ensure(t.Context(), name, spec)
	require.NoError(t, err)
	return r
}

// open opens a queue for the length of the test.
func (f *fake) open(t *testing.T, name string, opts *queue.OpenOptions) queue.Queue {
	t.Helper()
	if opts == nil {
		opts = &queue.OpenOptions{}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	q, err := f.backend.Open(t.Context(), name, opts)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, q.Close(context.Background())) })
	return q
}

// fresh makes the queue "orders" and opens it; what that takes is forgotten.
func (f *fake) fresh(t *testing.T, spec *queue.QueueSpec) queue.Queue {
	t.Helper()
	f.ensure(t, "orders", spec)
	q := f.open(t, "orders", nil)
	f.forget()
	return q
}

func topicName(name string) string        { return "projects/" + project + "/topics/" + name }
func subscriptionName(name string) string { return "projects/" + project + "/subscriptions/" + name }

// Those of the queue "orders".
var (
	mainSub = subscriptionName("orders")
	backSub = subscriptionName("orders.return")
)

// topic makes a topic by its full name.
func (f *fake) topic(t *testing.T, name string) {
	t.Helper()
	_, err := f.client.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: name})
	require.NoError(t, err)
}

// subscribe adds a subscription to a topic, both by their full names.
func (f *fake) subscribe(t *testing.T, topic, name string, change func(*pubsubpb.Subscription)) {
	t.Helper()
	s := &pubsubpb.Subscription{Name: name, Topic: topic}
	if change != nil {
		change(s)
	}
	_, err := f.client.SubscriptionAdminClient.CreateSubscription(t.Context(), s)
	require.NoError(t, err)
}

// says answers a GetSubscription as if the subscription was another one.
func says(name string, change func(*pubsubpb.Subscription)) answer {
	return func(_ context.Context, in any, forward func() (any, error)) (any, error) {
		out, err := forward()
		if err != nil || in.(*pubsubpb.GetSubscriptionRequest).GetSubscription() != name {
			return out, err
		}
		s := proto.CloneOf(out.(*pubsubpb.Subscription))
		change(s)
		return s, nil
	}
}

// iam is Google's service for permissions; without policies it's not there.
type iam struct {
	iampb.UnimplementedIAMPolicyServer

	mu       sync.Mutex
	policies map[string]*iampb.Policy // by resource
}

func (s *iam) set(policies map[string]*iampb.Policy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.policies = maps.Clone(policies)
}

func (s *iam) GetIamPolicy(ctx context.Context, in *iampb.GetIamPolicyRequest) (*iampb.Policy, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.policies == nil {
		return s.UnimplementedIAMPolicyServer.GetIamPolicy(ctx, in)
	}
	if p := s.policies[in.GetResource()]; p != nil {
		return p, nil
	}
	return &iampb.Policy{}, nil
}

func message(body string) *queue.Message { return &queue.Message{Body: []byte(body)} }

func keyed(key, body string) *queue.Message {
	return &queue.Message{Body: []byte(body), OrderingKey: key}
}

// receive takes n deliveries.
func receive(t *testing.T, q queue.Queue, n int) []*queue.Delivery {
	t.Helper()
	var ds []*queue.Delivery
	for until := time.Now().Add(5 * time.Minute); len(ds) < n; {
		require.True(t, time.Now().Before(until), "got %d of %d deliveries", len(ds), n)
		got, err := q.Receive(t.Context(), n-len(ds))
		require.NoError(t, err)
		ds = append(ds, got...)
	}
	return ds
}

// bodies are those of deliveries, in their order.
func bodies(ds []*queue.Delivery) []string {
	out := make([]string, len(ds))
	for i, d := range ds {
		out[i] = string(d.Body)
	}
	return out
}

// failures spreads the error of a Publish over its messages: those that failed, by
// index.
func failures(err error, n int) map[int]error {
	out := map[int]error{}
	for i, e := range queue.PublishErrors(err, n) {
		if e != nil {
			out[i] = e
		}
	}
	return out
}

// countsOf returns the counts of a queue.
func countsOf(t *testing.T, q queue.Queue) pubsub.Counts {
	t.Helper()
	c, ok := pubsub.CountsOf(q)
	require.True(t, ok)
	return c
}

// nothing is the answer of methods that have none.
var nothing = &emptypb.Empty{}

func countLines(text, with string) int {
	n := 0
	for line := range strings.Lines(text) {
		if strings.Contains(line, with) {
			n++
		}
	}
	return n
}
