package pubsub_test

import (
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/anyqueue/anyqueue/queue"
)

const filter = `attributes.kind = "order"`

// filtering makes the queue "orders", whose subscription has a filter.
func (f *fake) filtering(t *testing.T) {
	t.Helper()
	f.topic(t, topicName("orders"))
	f.subscribe(t, topicName("orders"), mainSub, func(s *pubsubpb.Subscription) { s.Filter = filter })
}

// What a filter leaves out would be lost, as without any subscription: nobody can
// publish to such a topic.
func TestATopicWithNothingButAFilteredSubscriptionIsNotPublishedTo(t *testing.T) {
	for name, opts := range map[string]queue.OpenOptions{
		"both": {}, "to publish": {Mode: queue.ForPublish},
		"the topic": {Mode: queue.ForPublish, Address: "topics/orders"}, "the subscription": {Address: "subscriptions/orders"},
	} {
		t.Run(name, func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				f.filtering(t)
				log, logging := logged()
				opts.Logger = logging.Logger
				_, err := f.backend.Open(t.Context(), "orders", &opts)
				require.ErrorIs(t, err, queue.ErrQueueNotFound)
				assert.ErrorContains(t, err, filter)
				assert.ErrorContains(t, err, "would be lost")
				assert.Contains(t, log.String(), "has a filter")
			})
		})
	}
}

func TestAFilteredSubscriptionCanBeConsumed(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.filtering(t)
		log, opts := logged()
		opts.Mode = queue.ForConsume
		q := f.open(t, "orders", opts)
		assert.Equal(t, filter, q.Capabilities().Filter)
		assert.Equal(t, 1, countLines(log.String(), "has a filter"))
		assert.Contains(t, log.String(), "order")
		f.Publish(topicName("orders"), []byte("left out"), nil)
		f.Publish(topicName("orders"), []byte("matches"), map[string]string{"kind": "order"})
		ds := receive(t, q, 1)
		assert.Equal(t, []string{"matches"}, bodies(ds))
		got, err := q.Receive(t.Context(), 10)
		require.NoError(t, err)
		assert.Empty(t, got)

		f.forget()
		failed := failures(q.Publish(t.Context(), message("a"), message("b")), 2)
		assert.Len(t, failed, 2)
		assert.ErrorIs(t, failed[0], queue.ErrUnsupported)
		assert.ErrorContains(t, failed[0], filter)
		assert.ErrorIs(t, failures(back(t, q)(t.Context(), message("c")), 1)[0], queue.ErrUnsupported, "a filter might leave it out")
		assert.Zero(t, f.requests()["Publish"])
	})
}

// Others get what the filter leaves out: it's said, and publishing goes on.
func TestAFilteredSubscriptionBesideOthersIsSaid(t *testing.T) {
	for name, mode := range map[string]queue.OpenMode{"both": queue.ForBoth, "to publish": queue.ForPublish} {
		t.Run(name, func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				f.filtering(t)
				f.subscribe(t, topicName("orders"), subscriptionName("audit"), nil)
				log, opts := logged()
				opts.Mode = mode
				q := f.open(t, "orders", opts)
				assert.Equal(t, filter, q.Capabilities().Filter)
				assert.Equal(t, 1, countLines(log.String(), "has a filter"))
				require.NoError(t, q.Publish(t.Context(), message("left out")))
				audit := f.open(t, "audit", &queue.OpenOptions{Mode: queue.ForConsume, Address: "subscriptions/audit"})
				assert.Equal(t, []string{"left out"}, bodies(receive(t, audit, 1)))
			})
		})
	}
}

func TestWhoElseSubscribesBesideAFilterMayNotBeKnown(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.filtering(t)
		f.on("ListTopicSubscriptions", refuse(codes.PermissionDenied))
		caps := f.open(t, "orders", nil).Capabilities()
		assert.Equal(t, filter, caps.Filter)
		assert.Equal(t, []string{"that another subscription gets what the filter leaves out"}, caps.Assumed)
	})
}

func TestARetryPolicyIsSaid(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.topic(t, topicName("orders"))
		f.subscribe(t, topicName("orders"), mainSub, func(s *pubsubpb.Subscription) {
			s.RetryPolicy = &pubsubpb.RetryPolicy{MinimumBackoff: durationpb.New(15 * time.Second)}
		})
		log, opts := logged()
		f.open(t, "orders", opts)
		assert.Contains(t, log.String(), "has a retry policy")
		assert.Contains(t, log.String(), "15s to 10m0s")
	})
}

func TestAReturnSubscriptionThatPushesIsNotReceivedFrom(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.ensure(t, "orders", nil)
		f.on("GetSubscription", says(backSub, func(s *pubsubpb.Subscription) {
			s.PushConfig = &pubsubpb.PushConfig{PushEndpoint: "https://example.com"}
		}))
		log, opts := logged()
		q := f.open(t, "orders", opts)
		assert.Contains(t, log.String(), "not received from, as it pushes")
		f.forget()
		_, err := q.Receive(t.Context(), 1)
		require.NoError(t, err)
		assert.Equal(t, 1, f.requests()["Pull"])
	})
}
