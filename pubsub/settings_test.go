package pubsub_test

import (
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/anyqueue/anyqueue/queue"
)

// confirming is a subscription with exactly-once delivery.
func confirming(s *pubsubpb.Subscription) { s.EnableExactlyOnceDelivery = true }

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
				assert.Equal(t, opts.Address != "topics/orders", strings.Contains(log.String(), "has a filter"), "of the queue's own subscription")
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

// Settling is confirmed only if it is on both subscriptions.
func TestEnsureMakesTheReturnSubscriptionExactlyOnceAsTheMainOneIs(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.topic(t, topicName("orders"))
		f.subscribe(t, topicName("orders"), mainSub, confirming)
		spec := &queue.QueueSpec{}
		assert.Contains(t, f.ensure(t, "orders", spec).Created, backSub)
		assert.True(t, f.has(t, backSub).GetEnableExactlyOnceDelivery())
		assert.True(t, f.open(t, "orders", nil).Capabilities().SettleConfirmed)
		assert.Empty(t, inWords(f.ensure(t, "orders", spec).Differences, backSub))
	})
	t.Run("one that differs", func(t *testing.T) {
		onFake(t, func(t *testing.T, f *fake) {
			for name, change := range map[string]func(*pubsubpb.Subscription){"orders": confirming, "orders.return": nil} {
				f.topic(t, topicName(name))
				f.subscribe(t, topicName(name), subscriptionName(name), change)
			}
			spec := &queue.QueueSpec{}
			assert.Contains(t, f.ensure(t, "orders", spec).Differences, backSub+": exactly-once delivery is false, not true")
			spec.Update = true
			assert.Contains(t, f.ensure(t, "orders", spec).Changed, backSub+": exactly-once delivery from false to true")
			assert.True(t, f.has(t, backSub).GetEnableExactlyOnceDelivery())
		})
	})
}

func TestEnsureSaysThatASubscriptionHasAFilterOrARetryPolicy(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.topic(t, topicName("orders"))
		f.subscribe(t, topicName("orders"), mainSub, func(s *pubsubpb.Subscription) {
			s.Filter = filter
			s.ExpirationPolicy = &pubsubpb.ExpirationPolicy{}
			s.RetryPolicy = &pubsubpb.RetryPolicy{MinimumBackoff: durationpb.New(15 * time.Second), MaximumBackoff: durationpb.New(time.Minute)}
		})
		hasFilter := "the filter is " + filter + ", not none"
		assert.Equal(t, []string{hasFilter, "the retry policy is 15s to 1m0s, not none"}, inWords(f.ensure(t, "orders", nil).Differences, mainSub))
		r := f.ensure(t, "orders", &queue.QueueSpec{Update: true})
		assert.Equal(t, []string{"the retry policy from 15s to 1m0s to none"}, inWords(r.Changed, mainSub))
		assert.Nil(t, f.has(t, mainSub).GetRetryPolicy())
		assert.Equal(t, []string{hasFilter}, inWords(r.Differences, mainSub), "nobody can change a filter")
	})
}

// A topic's second subscription needs a way back of its own, and no topic of its name.
func TestEnsureOfATopicsSecondSubscriptionMakesItsReturnTopicAlone(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		first := f.fresh(t, nil)
		billing := subscriptionName("billing")
		f.subscribe(t, topicName("orders"), billing, func(s *pubsubpb.Subscription) { s.ExpirationPolicy = &pubsubpb.ExpirationPolicy{} })
		address := &queue.OpenOptions{Address: "subscriptions/billing"}
		second := f.open(t, "billing", address)
		err := back(t, second)(t.Context(), message("a"))
		require.ErrorIs(t, err, queue.ErrUnsupported)
		assert.ErrorContains(t, err, "Ensure makes when it's called with the name of the subscription")

		for _, dry := range []bool{true, false} {
			r := f.ensure(t, "billing", &queue.QueueSpec{DryRun: dry})
			assert.Equal(t, []string{topicName("billing.return"), subscriptionName("billing.return")}, r.Created)
			assert.Equal(t, []string{billing + ": the topic is " + topicName("orders") + ", not " + topicName("billing") + ", so that it's opened by its address: " + billing}, r.Differences)
		}
		_, err = f.client.TopicAdminClient.GetTopic(t.Context(), &pubsubpb.GetTopicRequest{Topic: topicName("billing")})
		assert.Equal(t, codes.NotFound, status.Code(err), "nobody would publish to it")

		f.ensure(t, "dead", &queue.QueueSpec{IsDeadLetter: true})
		dead := f.open(t, "dead", nil)
		second = f.open(t, "billing", address)
		require.NoError(t, second.Publish(t.Context(), message("failed")))
		require.NoError(t, first.Settle(t.Context(), settlements(queue.Ack, receive(t, first, 1)...)...))
		d := receive(t, second, 1)[0]
		require.NoError(t, dead.Publish(t.Context(), queue.NewDeadLetter(d, errWork, queue.ReasonRejected, time.Now())))
		require.NoError(t, second.Settle(t.Context(), queue.Settlement{Delivery: d}))
		time.Sleep(time.Second)
		res, err := queue.Redrive(t.Context(), dead, second, nil)
		require.NoError(t, err)
		assert.Equal(t, 1, res.Moved)
		again := receive(t, second, 1)
		assert.Equal(t, []string{"failed"}, bodies(again))
		assert.Equal(t, 1, again[0].DeadLetter.Redriven)
		nothingIn(t, first)
	})
}
