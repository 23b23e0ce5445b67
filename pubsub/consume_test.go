package pubsub_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
)

// alone makes the queue "orders" without a return topic and opens it, so that each
// Receive is one pull.
func (f *fake) alone(t *testing.T, change func(*pubsubpb.Subscription), opts *queue.OpenOptions) queue.Queue {
	t.Helper()
	f.topic(t, topicName("orders"))
	f.subscribe(t, topicName("orders"), subscriptionName("orders"), change)
	q := f.open(t, "orders", opts)
	f.forget()
	return q
}

func TestADeliveryHasWhatPubSubSays(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, &queue.QueueSpec{Ordered: true, DeadLetter: "dead", BrokerMaxAttempts: 5})
		published := time.Now()
		require.NoError(t, q.Publish(t.Context(), &queue.Message{ID: "mine", Body: []byte("hello"), OrderingKey: "k", Attributes: map[string]string{"n": "7"}}))
		time.Sleep(time.Minute)
		d := receive(t, q, 1)[0]
		assert.Equal(t, "mine", d.ID)
		assert.Equal(t, "hello", string(d.Body))
		assert.Equal(t, "k", d.OrderingKey)
		assert.Equal(t, map[string]string{"n": "7"}, d.Attributes)
		assert.Equal(t, queue.Endpoint{System: "gcp_pubsub", Name: "orders"}, d.Source)
		assert.Equal(t, 1, d.Attempt)
		assert.WithinDuration(t, time.Now().Add(10*time.Second), d.Deadline, time.Millisecond)
		assert.WithinDuration(t, published, d.EnqueuedAt, time.Millisecond)

		info, ok := pubsub.InfoOf(d)
		require.True(t, ok)
		meta := info.Attributes[queue.MetaAttribute]
		assert.Contains(t, meta, "mine")
		assert.WithinDuration(t, published, info.PublishTime, time.Millisecond)
		info.PublishTime = time.Time{}
		assert.Equal(t, pubsub.Info{
			MessageID: d.BrokerID, Subscription: subscriptionName("orders"), OrderingKey: "k", DeliveryAttempt: 1,
			Attributes: map[string]string{"n": "7", queue.MetaAttribute: meta},
		}, info)
		info.Attributes["n"] = "8" // is the caller's

		d.Body[0], d.Attributes["n"] = 'J', "9" // whatever a handler does to its own
		body, attributes := d.Native.(queue.Original).Original()
		assert.Equal(t, "hello", string(body))
		assert.Equal(t, map[string]string{"n": "7"}, attributes)
	})
}

func TestWhatDidNotComeFromPubSubHasNoInfo(t *testing.T) {
	for name, d := range map[string]*queue.Delivery{"nil": nil, "of nobody": {}, "of another system": {Native: "receipt"}} {
		_, ok := pubsub.InfoOf(d)
		assert.False(t, ok, name)
	}
}

// Without a dead-letter policy Pub/Sub counts nothing; without order a key is just
// what somebody else has set.
func TestADeliveryHasOnlyWhatTheQueueCanDo(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.alone(t, nil, nil)
		f.PublishOrdered(topicName("orders"), []byte("a"), nil, "k")
		d := receive(t, q, 1)[0]
		assert.Zero(t, d.Attempt)
		assert.Empty(t, d.OrderingKey)
		info, _ := pubsub.InfoOf(d)
		assert.Equal(t, "k", info.OrderingKey)
	})
}

func TestAReceiveAsksForAtMostAThousand(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.alone(t, nil, nil)
		for _, max := range []int{7, 5000} {
			_, err := q.Receive(t.Context(), max)
			require.NoError(t, err)
		}
		assert.EqualValues(t, 7, f.pulls()[0].GetMaxMessages())
		assert.EqualValues(t, 1000, f.pulls()[1].GetMaxMessages())
		for _, max := range []int{0, -1} {
			_, err := q.Receive(t.Context(), max)
			assert.ErrorIs(t, err, queue.ErrInvalid)
		}
	})
}

// The server is told how long somebody waits, so that it hands nothing to one who
// has gone.
func TestAPullEndsBeforeItsCaller(t *testing.T) {
	for _, c := range []struct {
		name       string
		wait       time.Duration // of the options
		patience   time.Duration // of the caller; 0: without end
		told, took time.Duration
	}{
		{"after 20 s", 0, 0, 20 * time.Second, 20 * time.Second},
		{"after what the options say", 5 * time.Second, 0, 5 * time.Second, 5 * time.Second},
		{"before the caller's deadline", 0, 3 * time.Second, 2750 * time.Millisecond, 2750 * time.Millisecond},
		{"or isn't made when there's no time", 0, 200 * time.Millisecond, 0, 100 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				f.alone(t, nil, nil)
				q, err := pubsub.New(f.client, &pubsub.Options{Wait: c.wait}).Open(t.Context(), "orders", nil)
				require.NoError(t, err)
				var told atomic.Int64
				f.on("Pull", func(ctx context.Context, in any, forward func() (any, error)) (any, error) {
					until, _ := ctx.Deadline()
					told.Store(int64(time.Until(until)))
					return hang(ctx, in, forward)
				})
				ctx := t.Context()
				if c.patience > 0 {
					limited, cancel := context.WithTimeout(ctx, c.patience)
					defer cancel()
					ctx = limited
				}
				begun := time.Now()
				ds, err := q.Receive(ctx, 1)
				assert.NoError(t, err, "nothing came, and that's all")
				assert.Empty(t, ds)
				assert.Equal(t, c.took, time.Since(begun))
				assert.InDelta(t, int64(c.told), told.Load(), float64(10*time.Millisecond))
				assert.Zero(t, countsOf(t, q).Unread)
				require.NoError(t, q.Close(t.Context()))
			})
		})
	}
}

func TestErrorsOfAPullHaveTheirMeaning(t *testing.T) {
	for _, c := range []struct {
		code   codes.Code
		want   error // nil: it's passing
		unread uint64
	}{
		{codes.NotFound, queue.ErrQueueNotFound, 0},
		{codes.PermissionDenied, queue.ErrPermission, 0},
		{codes.ResourceExhausted, queue.ErrThrottled, 0},
		{codes.Unauthenticated, nil, 0}, // a token that couldn't be refreshed ends no consumer
		{codes.Unavailable, nil, 1},
		{codes.Internal, nil, 1},
		{codes.FailedPrecondition, nil, 0},
	} {
		t.Run(c.code.String(), func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				q := f.alone(t, nil, nil)
				f.on("Pull", refuse(c.code))
				_, err := q.Receive(t.Context(), 1)
				require.ErrorContains(t, err, "pubsub: receive from orders")
				for _, sentinel := range []error{queue.ErrQueueNotFound, queue.ErrPermission, queue.ErrThrottled, queue.ErrUnsupported, queue.ErrInvalid, queue.ErrClosed} {
					if sentinel == c.want {
						assert.ErrorIs(t, err, sentinel)
					} else {
						assert.NotErrorIs(t, err, sentinel)
					}
				}
				assert.Equal(t, c.unread, countsOf(t, q).Unread)
			})
		})
	}
}

// What an unread answer held is hidden until its lease ends, and counted.
func TestAPullWhoseConnectionBreaks(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.alone(t, nil, nil)
		require.NoError(t, q.Publish(t.Context(), message("a")))
		f.on("Pull", times(1, func(ctx context.Context, _ any, forward func() (any, error)) (any, error) {
			out, err := forward()
			f.network.cut()
			return out, err
		}))
		begun := time.Now()
		_, err := q.Receive(t.Context(), 1)
		require.Error(t, err)
		assert.EqualValues(t, 1, countsOf(t, q).Unread)
		assert.Equal(t, []string{"a"}, bodies(receive(t, q, 1)))
		assert.GreaterOrEqual(t, time.Since(begun), 10*time.Second)
	})
}

// A pull whose caller has gone isn't cut off: the server might hand it the next
// message. The next receive gets what it brings.
func TestAReceiveTakesOverThePullOfTheLast(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.alone(t, nil, nil)
		f.on("Pull", late(5*time.Second))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := q.Receive(ctx, 1)
		require.ErrorIs(t, err, context.Canceled)
		require.NoError(t, q.Publish(t.Context(), message("a")))
		assert.Equal(t, []string{"a"}, bodies(receive(t, q, 1)))
		assert.Len(t, f.pulls(), 1)
		assert.Empty(t, f.modacks(), "nothing was given back")
	})
}

func TestWhatNobodyWaitsForIsGivenBack(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.topic(t, topicName("dead"))
		q := f.alone(t, func(s *pubsubpb.Subscription) {
			s.DeadLetterPolicy = &pubsubpb.DeadLetterPolicy{DeadLetterTopic: topicName("dead"), MaxDeliveryAttempts: 100}
		}, nil)
		require.NoError(t, q.Publish(t.Context(), message("a")))
		for range 3 {
			f.on("Pull", late(5*time.Second))
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			_, err := q.Receive(ctx, 1)
			require.ErrorIs(t, err, context.Canceled)
			time.Sleep(10 * time.Second) // nobody comes for it
			f.on("Pull", nil)
		}
		require.Len(t, f.modacks(), 3)
		assert.Zero(t, f.modacks()[0].GetAckDeadlineSeconds())
		d := receive(t, q, 1)[0]
		info, _ := pubsub.InfoOf(d)
		assert.Equal(t, 4, info.DeliveryAttempt, "as Pub/Sub counts")
		assert.Equal(t, 1, d.Attempt, "nobody has attempted anything before")
	})
}

// A pull can't ask for a lease of its own length: it's given at once.
func TestALeaseThatWasAskedForIsGivenWithThePull(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.alone(t, nil, &queue.OpenOptions{Lease: 89500 * time.Millisecond})
		require.NoError(t, q.Publish(t.Context(), many(3)...))
		ds := receive(t, q, 3)
		sum := 0
		for _, m := range f.modacks() {
			assert.EqualValues(t, 90, m.GetAckDeadlineSeconds())
			sum += len(m.GetAckIds())
		}
		assert.Equal(t, 3, sum)
		for _, d := range ds {
			assert.WithinDuration(t, time.Now().Add(90*time.Second), d.Deadline, 10*time.Second)
			assert.Greater(t, time.Until(d.Deadline), 80*time.Second)
		}

		f.on("ModifyAckDeadline", refuse(codes.Internal))
		require.NoError(t, q.Publish(t.Context(), message("a")))
		d := receive(t, q, 1)[0]
		assert.LessOrEqual(t, time.Until(d.Deadline), 10*time.Second, "where that fails, it's what the subscription says")
	})
}

// More than one Receive at a time share nothing.
func TestReceivesSideBySide(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.alone(t, nil, nil)
		f.on("Pull", late(time.Second))
		require.NoError(t, q.Publish(t.Context(), many(8)...))
		got := make(chan []*queue.Delivery, 4)
		begun := time.Now()
		for range 4 {
			go func() {
				ds, err := q.Receive(t.Context(), 2)
				assert.NoError(t, err)
				got <- ds
			}()
		}
		synctest.Wait()
		var all []*queue.Delivery
		for range 4 {
			all = append(all, <-got...)
		}
		assert.Equal(t, time.Second, time.Since(begun))
		assert.ElementsMatch(t, bodiesOf(many(8)), bodies(all))
	})
}

// A service that can't be reached isn't a queue without messages.
func TestAReceiveThatFindsNoConnectionSaysSo(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.alone(t, nil, nil)
		f.network.stall(30 * time.Second)
		_, err := q.Receive(t.Context(), 1)
		require.Error(t, err)
		for _, final := range []error{queue.ErrQueueNotFound, queue.ErrPermission, queue.ErrInvalid, context.DeadlineExceeded} {
			assert.NotErrorIs(t, err, final, "it may pass")
		}
		assert.Zero(t, countsOf(t, q).Unread, "it was never sent")
		f.network.stall(0)
		time.Sleep(time.Minute)
		require.NoError(t, q.Publish(t.Context(), message("a")))
		assert.Equal(t, []string{"a"}, bodies(receive(t, q, 1)))
	})
}

// Where it isn't known how long a lease is, it's taken for the shorter one.
func TestALeaseWhoseLengthIsInDoubt(t *testing.T) {
	for _, lease := range []time.Duration{5 * time.Second, time.Minute} {
		t.Run(lease.String(), func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				q := f.alone(t, nil, &queue.OpenOptions{Lease: lease})
				require.NoError(t, q.Publish(t.Context(), message("a")))
				f.on("ModifyAckDeadline", lose(codes.Unavailable))
				begun := time.Now()
				d := receive(t, q, 1)[0]
				assert.LessOrEqual(t, d.Deadline.Sub(begun), min(lease, 10*time.Second))
			})
		})
	}
}
