package pubsub_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/anyqueue/anyqueue/queue"
)

// has reads a subscription.
func (f *fake) has(t *testing.T, name string) *pubsubpb.Subscription {
	t.Helper()
	s, err := f.client.SubscriptionAdminClient.GetSubscription(t.Context(), &pubsubpb.GetSubscriptionRequest{Subscription: name})
	require.NoError(t, err)
	return s
}

// longRetention is a service that keeps messages for 31 days, as Google's does; its
// emulators refuse that.
func longRetention(ctx context.Context, in any, forward func() (any, error)) (any, error) {
	s := in.(*pubsubpb.Subscription)
	asked := s.GetMessageRetentionDuration()
	if asked.AsDuration() > 7*24*time.Hour {
		s.MessageRetentionDuration = nil
	}
	out, err := forward()
	if err == nil && asked != nil {
		out.(*pubsubpb.Subscription).MessageRetentionDuration = asked
	}
	return out, err
}

func TestEnsureCreatesWhatIsMissing(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.on("CreateSubscription", longRetention)
		spec := &queue.QueueSpec{
			Ordered: true, Lease: 90500 * time.Millisecond, Retention: 24 * time.Hour,
			DeadLetter: "dead", BrokerMaxAttempts: 30, Tags: map[string]string{"team": "crm"}, DryRun: true,
		}
		want := &queue.EnsureReport{Created: []string{
			topicName("dead"), subscriptionName("dead"),
			topicName("orders"), mainSub, topicName("orders.return"), backSub,
		}}
		r := f.ensure(t, "orders", spec)
		assert.Equal(t, want, r)
		_, err := f.backend.Open(t.Context(), "orders", nil)
		assert.ErrorIs(t, err, queue.ErrQueueNotFound, "it was a dry run")

		spec.DryRun = false
		assert.Equal(t, want, f.ensure(t, "orders", spec))
		for name, topic := range map[string]string{mainSub: topicName("orders"), backSub: topicName("orders.return")} {
			s := f.has(t, name)
			assert.Equal(t, topic, s.GetTopic())
			assert.True(t, s.GetEnableMessageOrdering())
			assert.EqualValues(t, 91, s.GetAckDeadlineSeconds(), "rounded up")
			assert.Equal(t, 24*time.Hour, s.GetMessageRetentionDuration().AsDuration())
			assert.NotNil(t, s.GetExpirationPolicy())
			assert.Nil(t, s.GetExpirationPolicy().GetTtl(), "it never expires")
			assert.Equal(t, topicName("dead"), s.GetDeadLetterPolicy().GetDeadLetterTopic())
			assert.EqualValues(t, 30, s.GetDeadLetterPolicy().GetMaxDeliveryAttempts())
			assert.Equal(t, spec.Tags, s.GetLabels())
			have, err := f.client.TopicAdminClient.GetTopic(t.Context(), &pubsubpb.GetTopicRequest{Topic: topic})
			require.NoError(t, err)
			assert.Equal(t, spec.Tags, have.GetLabels())
		}
		dead := f.has(t, subscriptionName("dead"))
		assert.True(t, dead.GetEnableMessageOrdering(), "in order as the queue is")
		assert.Equal(t, 31*24*time.Hour, dead.GetMessageRetentionDuration().AsDuration())
		assert.Nil(t, dead.GetDeadLetterPolicy())
		assert.Equal(t, spec.Tags, dead.GetLabels())

		f.forget()
		assert.Equal(t, &queue.EnsureReport{}, f.ensure(t, "orders", spec), "at every start there's nothing to do or to say")
		for method := range f.requests() {
			assert.Contains(t, []string{"GetTopic", "GetSubscription", "GetIamPolicy"}, method)
		}
	})
}

func TestEnsureWithoutASpecMakesAPlainQueue(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.ensure(t, "orders", nil)
		s := f.has(t, mainSub)
		assert.False(t, s.GetEnableMessageOrdering())
		assert.Nil(t, s.GetDeadLetterPolicy())
		assert.Zero(t, s.GetAckDeadlineSeconds(), "the service's")
		r := f.ensure(t, "orders", &queue.QueueSpec{Lease: 5 * time.Second, Update: true})
		assert.Len(t, r.Changed, 2, "a subscription has 10 s at least, which is what it means")
		assert.EqualValues(t, 10, f.has(t, mainSub).GetAckDeadlineSeconds())
	})
}

func TestASpecThatCannotBeMadeIsRefused(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		for name, c := range map[string]struct {
			queue string
			spec  queue.QueueSpec
		}{
			"a name":                     {"a.b", queue.QueueSpec{}},
			"a dead-letter queue's name": {"orders", queue.QueueSpec{DeadLetter: "a.b"}},
			"its own dead-letter queue":  {"orders", queue.QueueSpec{DeadLetter: "orders"}},
			"attempts without one":       {"orders", queue.QueueSpec{BrokerMaxAttempts: 5}},
			"negative attempts":          {"orders", queue.QueueSpec{DeadLetter: "dead", BrokerMaxAttempts: -1}},
			"a lease beyond 10 minutes":  {"orders", queue.QueueSpec{Lease: 10*time.Minute + 1}},
			"a negative lease":           {"orders", queue.QueueSpec{Lease: -1}},
			"a retention below":          {"orders", queue.QueueSpec{Retention: 10*time.Minute - 1}},
			"a retention beyond":         {"orders", queue.QueueSpec{Retention: 31*24*time.Hour + 1}},
		} {
			r, err := f.backend.Ensure(t.Context(), c.queue, &c.spec)
			assert.ErrorIs(t, err, queue.ErrInvalid, name)
			assert.ErrorContains(t, err, "pubsub: ensure "+c.queue, name)
			assert.Nil(t, r, name)
		}
		for method := range f.requests() {
			assert.NotContains(t, method, "Create")
		}
	})
}

func TestAttemptsAreWhatPubSubAllows(t *testing.T) {
	for asked, want := range map[int]int32{1: 5, 5: 5, 100: 100, 1000: 100} {
		t.Run(fmt.Sprint(asked), func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				f.ensure(t, "dead", &queue.QueueSpec{IsDeadLetter: true}) // it has a difference of its own
				r := f.ensure(t, "orders", &queue.QueueSpec{DeadLetter: "dead", BrokerMaxAttempts: asked})
				assert.Equal(t, want, f.has(t, mainSub).GetDeadLetterPolicy().GetMaxDeliveryAttempts())
				if int32(asked) == want {
					assert.Empty(t, r.Differences)
				} else {
					assert.Equal(t, []string{fmt.Sprintf("queue orders: the broker dead-letters after %d attempts, not %d: Pub/Sub allows 5 to 100", want, asked)}, r.Differences)
				}
			})
		})
	}
}

// A service whose longest retention is 7 days is found out once, and said then.
func TestADeadLetterQueueIsKeptAsLongAsTheServiceAllows(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		spec := &queue.QueueSpec{DeadLetter: "dead"}
		r := f.ensure(t, "orders", spec)
		assert.Equal(t, []string{subscriptionName("dead") + ": the retention is 168h0m0s, as 744h0m0s was refused"}, r.Differences)
		assert.Equal(t, 7*24*time.Hour, f.has(t, subscriptionName("dead")).GetMessageRetentionDuration().AsDuration())
		assert.Empty(t, f.ensure(t, "orders", spec).Differences)
		f.forget()
		assert.Empty(t, f.ensure(t, "others", &queue.QueueSpec{DeadLetter: "dead2"}).Differences)
		assert.Equal(t, 3, f.requests()["CreateSubscription"], "it isn't asked for again")

		_, err := f.backend.Ensure(t.Context(), "long", &queue.QueueSpec{Retention: 8 * 24 * time.Hour})
		assert.ErrorContains(t, err, "InvalidArgument", "what was asked for by name isn't shortened")
	})
}

func TestProgramsThatStartTogetherEnsureTheSame(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.ensure(t, "dead", &queue.QueueSpec{IsDeadLetter: true})
		f.forget()
		for _, m := range []string{"CreateTopic", "CreateSubscription"} {
			f.on(m, late(time.Second)) // so that all have found nothing before the first has made it
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		created, differ := map[string]int{}, 0
		for i := range 5 {
			wg.Go(func() {
				r, err := f.backend.Ensure(t.Context(), "orders", &queue.QueueSpec{DeadLetter: "dead", Lease: time.Duration(20+i%2) * time.Second})
				if !assert.NoError(t, err) {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				for _, name := range r.Created {
					created[name]++
				}
				differ += len(r.Differences)
			})
		}
		wg.Wait()
		assert.Equal(t, map[string]int{topicName("orders"): 1, mainSub: 1, topicName("orders.return"): 1, backSub: 1}, created)
		assert.Contains(t, []int{2 + 2, 2 + 3, 3 + 3}, differ, "those who wanted another lease say so, of each subscription")
		assert.Greater(t, f.requests()["CreateTopic"], 2)
	})
}

func TestErrorsOfEnsureHaveTheirMeaning(t *testing.T) {
	for _, method := range []string{"GetTopic", "CreateTopic", "GetSubscription", "CreateSubscription"} {
		for code, want := range map[codes.Code]error{
			codes.PermissionDenied: queue.ErrPermission, codes.Unauthenticated: queue.ErrPermission, codes.ResourceExhausted: queue.ErrThrottled,
		} {
			t.Run(method+" "+code.String(), func(t *testing.T) {
				onFake(t, func(t *testing.T, f *fake) {
					f.on(method, refuse(code))
					ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
					defer cancel()
					r, err := f.backend.Ensure(ctx, "orders", &queue.QueueSpec{DeadLetter: "dead"})
					assert.Nil(t, r)
					assert.ErrorIs(t, err, want)
					assert.ErrorContains(t, err, "its dead-letter queue dead")
				})
			})
		}
	}
}

// Who was faster may have vanished again, or may not be looked at.
func TestACreationThatSomebodyElseHasMade(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.ensure(t, "orders", nil)
		f.on("GetTopic", refuse(codes.NotFound))
		f.on("GetSubscription", of(backSub, times(1, refuse(codes.NotFound))))
		r := f.ensure(t, "orders", &queue.QueueSpec{Ordered: true})
		assert.Empty(t, r.Created)
		assert.Equal(t, []string{mainSub + ": message ordering is false, not true", backSub + ": message ordering is false, not true"}, r.Differences)

		f.on("GetSubscription", func(_ context.Context, in any, forward func() (any, error)) (any, error) {
			defer f.on("GetSubscription", refuse(codes.PermissionDenied))
			return refuse(codes.NotFound)(nil, in, forward)
		})
		_, err := f.backend.Ensure(t.Context(), "orders", nil)
		assert.ErrorIs(t, err, queue.ErrPermission)
	})
}
