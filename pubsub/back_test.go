package pubsub_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/anyqueue/anyqueue/queue"
)

const day = 24 * time.Hour

// What a consumer defers must come back to it, also where Ensure has made the return
// topic after it was opened.
func TestAReturnTopicThatIsMadeWhileAQueueIsOpenBringsItsHops(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.alone(t, nil, nil)
		f.ensure(t, "orders", nil)
		require.NoError(t, q.Publish(t.Context(), message("a")))
		require.NoError(t, q.Settle(t.Context(), deferred(receive(t, q, 1)[0], time.Second)))
		assert.Equal(t, []string{"a"}, bodies(receive(t, q, 1)))
		require.NoError(t, q.Close(t.Context()))
	})
}

// A redrive in another process goes there at once.
func TestAReturnTopicThatIsMadeWhileAQueueIsOpenBringsWhatOthersSendThere(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.alone(t, nil, nil)
		f.ensure(t, "orders", nil)
		other := f.open(t, "orders", &queue.OpenOptions{Mode: queue.ForPublish})
		back, ok := queue.As[queue.Redriver](other)
		require.True(t, ok)
		require.NoError(t, back.PublishBack(t.Context(), message("a")))
		begun := time.Now()
		assert.Equal(t, []string{"a"}, bodies(receive(t, q, 1)))
		assert.LessOrEqual(t, time.Since(begun), 2*time.Minute)
		require.NoError(t, q.Close(t.Context()))
		require.NoError(t, other.Close(t.Context()))
	})
}

func TestEnsureMakesTheReturnSubscriptionAsTheMainOneIs(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.ensure(t, "dead", &queue.QueueSpec{IsDeadLetter: true})
		f.topic(t, topicName("orders"))
		f.subscribe(t, topicName("orders"), mainSub, func(s *pubsubpb.Subscription) {
			s.MessageRetentionDuration = durationpb.New(6 * day)
			s.AckDeadlineSeconds = 600
			s.EnableMessageOrdering = true
			s.DeadLetterPolicy = &pubsubpb.DeadLetterPolicy{DeadLetterTopic: topicName("dead"), MaxDeliveryAttempts: 9}
		})
		f.ensure(t, "orders", nil)
		b := f.has(t, backSub)
		assert.True(t, b.GetEnableMessageOrdering())
		assert.EqualValues(t, 600, b.GetAckDeadlineSeconds())
		assert.Equal(t, 6*day, b.GetMessageRetentionDuration().AsDuration())
		assert.EqualValues(t, 9, b.GetDeadLetterPolicy().GetMaxDeliveryAttempts())
		r := f.ensure(t, "orders", nil)
		assert.Equal(t, []string{mainSub + ": message ordering is true, not false"}, r.Differences, "only what the spec says otherwise")
		assert.Empty(t, r.Created)
	})
}

// What waits for long waits there.
func TestTheShorterRetentionOfTheTwoSubscriptionsCounts(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.topic(t, topicName("orders"))
		f.subscribe(t, topicName("orders"), mainSub, func(s *pubsubpb.Subscription) { s.MessageRetentionDuration = durationpb.New(6 * day) })
		f.topic(t, topicName("orders.return"))
		f.subscribe(t, topicName("orders.return"), backSub, func(s *pubsubpb.Subscription) { s.MessageRetentionDuration = durationpb.New(2 * day) })
		q := f.open(t, "orders", nil)
		assert.Equal(t, 2*day, q.Capabilities().Retention)
		var limit *queue.LimitError
		assert.ErrorAs(t, q.Publish(t.Context(), &queue.Message{Body: []byte("x"), Delay: 3 * day}), &limit)
		require.NoError(t, q.Close(t.Context()))
		assert.Contains(t, f.ensure(t, "orders", nil).Differences, backSub+": the retention is 48h0m0s, not 144h0m0s")
	})
}

func TestAReturnSubscriptionThatDiffersIsSaid(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.ensure(t, "dead", &queue.QueueSpec{IsDeadLetter: true})
		f.topic(t, topicName("orders"))
		f.subscribe(t, topicName("orders"), mainSub, func(s *pubsubpb.Subscription) {
			s.EnableMessageOrdering = true
			s.DeadLetterPolicy = &pubsubpb.DeadLetterPolicy{DeadLetterTopic: topicName("dead"), MaxDeliveryAttempts: 9}
		})
		f.topic(t, topicName("orders.return"))
		f.subscribe(t, topicName("orders.return"), backSub, nil)
		log, opts := logged()
		q := f.open(t, "orders", opts)
		assert.Contains(t, log.String(), "the return subscription keeps no order")
		assert.Contains(t, log.String(), "the return subscription has no dead-letter policy")
		require.NoError(t, q.Close(t.Context()))
	})
}

// Of a topic that's published to by its address every subscription counts.
func TestPublishingToATopicIsJudgedByAllItsSubscriptions(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		topic := topicName("events")
		f.topic(t, topic)
		f.subscribe(t, topic, subscriptionName("a"), func(s *pubsubpb.Subscription) { s.Filter = `attributes.kind = "a"` })
		f.subscribe(t, topic, subscriptionName("b"), func(s *pubsubpb.Subscription) { s.Filter = `attributes.kind = "b"` })
		to := &queue.OpenOptions{Mode: queue.ForPublish, Address: topic}
		_, err := f.backend.Open(t.Context(), "events", to)
		require.ErrorIs(t, err, queue.ErrQueueNotFound, "a message may match neither")
		require.ErrorContains(t, err, subscriptionName("a")+", "+subscriptionName("b")+", has a filter")
		f.subscribe(t, topic, subscriptionName("c"), func(s *pubsubpb.Subscription) { s.MessageRetentionDuration = durationpb.New(time.Hour) })
		q := f.open(t, "events", to)
		assert.Equal(t, time.Hour, q.Capabilities().Retention, "whoever forgets first")
		assert.Empty(t, q.Capabilities().Assumed)
		require.NoError(t, q.Publish(t.Context(), message("x")))
		require.NoError(t, q.Close(t.Context()))

		f.on("GetSubscription", func(ctx context.Context, in any, forward func() (any, error)) (any, error) {
			if in.(*pubsubpb.GetSubscriptionRequest).GetSubscription() == subscriptionName("a") {
				return refuse(codes.PermissionDenied)(ctx, in, forward)
			}
			return forward()
		})
		q = f.open(t, "events", to)
		assert.Equal(t, time.Hour, q.Capabilities().Retention, "of those that may be read")
		assert.Equal(t, []string{"message_retention_duration", "filter"}, q.Capabilities().Assumed)
		require.NoError(t, q.Close(t.Context()))

		f.on("GetSubscription", says(subscriptionName("c"), func(s *pubsubpb.Subscription) { s.Detached = true }))
		_, err = f.backend.Open(t.Context(), "events", to)
		require.ErrorIs(t, err, queue.ErrQueueNotFound, "it gets nothing, and the others not everything")
	})
}

// What comes that way is rare: it isn't worth more than one open pull.
func TestTheReturnSubscriptionIsPulledOnceAtATime(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.ensure(t, "orders", nil)
		q := f.open(t, "orders", nil)
		var mu sync.Mutex
		open, most := map[string]int{}, map[string]int{}
		f.on("Pull", func(ctx context.Context, in any, _ func() (any, error)) (any, error) {
			name := in.(*pubsubpb.PullRequest).GetSubscription()
			mu.Lock()
			open[name]++
			most[name] = max(most[name], open[name])
			mu.Unlock()
			<-ctx.Done()
			mu.Lock()
			open[name]--
			mu.Unlock()
			return nil, status.FromContextError(ctx.Err()).Err()
		})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				_, _ = q.Receive(ctx, 10)
			})
		}
		wg.Wait()
		require.NoError(t, q.Close(t.Context())) // what polls go on, too
		mu.Lock()
		defer mu.Unlock()
		assert.Equal(t, map[string]int{mainSub: 4, backSub: 1}, most)
	})
}

// A pull that's sent while something of a key goes back could bring what came after it.
func TestAnOrderedQueueIsNotPulledWhileSomethingGoesBack(t *testing.T) {
	for _, ordered := range []bool{true, false} {
		t.Run(fmt.Sprint("ordered ", ordered), func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				f.topic(t, topicName("orders"))
				f.subscribe(t, topicName("orders"), mainSub, func(s *pubsubpb.Subscription) { s.EnableMessageOrdering = ordered })
				q := f.open(t, "orders", nil)
				var mu sync.Mutex
				var events []string
				note := func(what string) {
					mu.Lock()
					defer mu.Unlock()
					events = append(events, what)
				}
				f.on("Pull", func(ctx context.Context, _ any, forward func() (any, error)) (any, error) {
					note("pull")
					for { // pstest doesn't wait
						out, err := forward()
						if err != nil || ctx.Err() != nil || len(out.(*pubsubpb.PullResponse).GetReceivedMessages()) > 0 {
							return out, err
						}
						pauseFor(ctx, 100*time.Millisecond)
					}
				})
				f.on("ModifyAckDeadline", func(_ context.Context, _ any, forward func() (any, error)) (any, error) {
					time.Sleep(2 * time.Second)
					defer note("gone back")
					return forward()
				})
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				_, err := q.Receive(ctx, 1)
				require.ErrorIs(t, err, context.Canceled)
				require.NoError(t, q.Publish(t.Context(), message("x"))) // for the pull that goes on
				time.Sleep(2 * time.Second)                              // nobody comes for it: it's on its way back
				synctest.Wait()
				assert.Equal(t, []string{"x"}, bodies(receive(t, q, 1)))
				mu.Lock()
				defer mu.Unlock()
				if ordered {
					assert.Equal(t, []string{"pull", "gone back", "pull"}, events)
				} else {
					assert.Equal(t, []string{"pull", "pull", "gone back"}, events[:3])
				}
			})
		})
	}
}

func pauseFor(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
