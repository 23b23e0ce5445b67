package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
)

// metrics is a system for monitoring.
type metrics struct {
	values map[string]point // by subscription and metric
	err    error
	of     string // what err is of; "": everything
}

type point struct {
	value float64
	ago   time.Duration
}

func (m *metrics) Latest(_ context.Context, subscription, metric string) (float64, time.Time, bool, error) {
	p, ok := m.values[subscription+" "+metric]
	var err error
	if m.of == "" || m.of == metric {
		err = m.err
	}
	return p.value, time.Now().Add(-p.ago), ok, err
}

func inspector(t *testing.T, q queue.Queue) queue.Inspector {
	t.Helper()
	in, ok := queue.As[queue.Inspector](q)
	require.True(t, ok)
	return in
}

func TestStatsAreWhatMetricsSay(t *testing.T) {
	const depth, age = " num_undelivered_messages", " oldest_unacked_message_age"
	count := func(n int64) *int64 { return &n }
	old := func(d time.Duration) *time.Duration { return &d }
	for _, c := range []struct {
		name   string
		values map[string]point
		opts   queue.OpenOptions
		total  *int64
		oldest *time.Duration
		asOf   time.Duration // ago
	}{
		{"of both subscriptions", map[string]point{
			mainSub + depth: {7, time.Minute}, backSub + depth: {2, 3 * time.Minute}, mainSub + age: {30, 0}, backSub + age: {90.5, 0},
		}, queue.OpenOptions{}, count(9), old(90500 * time.Millisecond), 3 * time.Minute},
		{"of both, opened to publish", map[string]point{
			mainSub + depth: {7, time.Minute}, backSub + depth: {2, 0}, mainSub + age: {30, 0}, backSub + age: {10, 0},
		}, queue.OpenOptions{Mode: queue.ForPublish}, count(9), old(30 * time.Second), time.Minute},
		{"of the main one alone", map[string]point{mainSub + depth: {7, time.Minute}, mainSub + age: {30, 0}}, queue.OpenOptions{}, count(7), old(30 * time.Second), time.Minute},
		{"nothing is left", map[string]point{mainSub + depth: {0, time.Minute}}, queue.OpenOptions{}, count(0), nil, time.Minute},
		{"of the return subscription alone, which would mislead", map[string]point{backSub + depth: {2, 0}, backSub + age: {1, 0}}, queue.OpenOptions{}, nil, nil, 0},
		{"nothing is known", nil, queue.OpenOptions{}, nil, nil, 0},
		{"of a topic", map[string]point{mainSub + depth: {7, 0}}, queue.OpenOptions{Mode: queue.ForPublish, Address: "topics/orders"}, nil, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				f.ensure(t, "orders", nil)
				b := pubsub.New(f.client, &pubsub.Options{Metrics: &metrics{values: c.values}})
				q, err := b.Open(t.Context(), "orders", &c.opts)
				require.NoError(t, err)
				st, err := inspector(t, q).Stats(t.Context())
				require.NoError(t, err)
				assert.Equal(t, c.total, st.Total)
				assert.Equal(t, c.oldest, st.OldestAge)
				assert.Equal(t, time.Now().Add(-c.asOf), st.AsOf)
				assert.Nil(t, st.Ready)
				assert.Nil(t, st.InFlight)
				assert.Nil(t, st.Delayed)
				assert.True(t, st.Approximate)
				assert.NotEmpty(t, st.Source)
				require.NoError(t, q.Close(t.Context()))
			})
		})
	}
}

func TestStatsWithoutMetricsAreUnknown(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		require.NoError(t, q.Publish(t.Context(), message("a")))
		st, err := inspector(t, q).Stats(t.Context())
		require.NoError(t, err)
		assert.Equal(t, queue.Stats{AsOf: time.Now(), Approximate: true, Source: st.Source}, st)
		assert.Contains(t, st.Source, "Pub/Sub doesn't tell")
	})
}

func TestMetricsThatFailAreAnError(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.ensure(t, "orders", nil)
		for _, metric := range []string{"num_undelivered_messages", "oldest_unacked_message_age"} {
			m := &metrics{values: map[string]point{mainSub + " num_undelivered_messages": {}}, err: queue.ErrPermission, of: metric}
			q, err := pubsub.New(f.client, &pubsub.Options{Metrics: m}).Open(t.Context(), "orders", nil)
			require.NoError(t, err)
			_, err = inspector(t, q).Stats(t.Context())
			assert.ErrorIs(t, err, queue.ErrPermission)
			assert.ErrorContains(t, err, "pubsub: stats of orders")
			require.NoError(t, q.Close(t.Context()))
		}
	})
}

func TestPeekTakesNothing(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		require.NoError(t, q.Publish(t.Context(), many(5)...))
		in := inspector(t, q)
		seen, err := in.Peek(t.Context(), 3)
		require.NoError(t, err)
		require.Len(t, seen, 3)
		begun := time.Now()
		all, err := in.Peek(t.Context(), 100)
		require.NoError(t, err)
		assert.Equal(t, time.Second, time.Since(begun), "it looks for more that long")
		assert.ElementsMatch(t, bodiesOf(many(5)), bodies(all))
		for _, d := range append(seen, all...) {
			assert.True(t, d.Deadline.IsZero())
			info, ok := pubsub.InfoOf(d)
			assert.True(t, ok)
			assert.Equal(t, info.MessageID, d.BrokerID)
			assert.ErrorIs(t, q.Settle(t.Context(), queue.Settlement{Delivery: d}), queue.ErrInvalid, "it isn't ours")
			_, err := q.Extend(t.Context(), time.Minute, d)
			assert.ErrorIs(t, err, queue.ErrInvalid)
		}
		assert.ElementsMatch(t, bodiesOf(many(5)), bodies(receive(t, q, 5)))
		begun = time.Now()
		none, err := in.Peek(t.Context(), 1)
		require.NoError(t, err)
		assert.Empty(t, none, "all are leased")
		assert.Equal(t, time.Second, time.Since(begun))
		_, err = in.Peek(t.Context(), 0)
		assert.ErrorIs(t, err, queue.ErrInvalid)
	})
}

// If this process dies in the middle of it, they're hidden for ten seconds, not for a
// long lease.
func TestPeekHidesForTenSecondsAtMost(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, &queue.QueueSpec{Lease: 10 * time.Minute})
		require.NoError(t, q.Publish(t.Context(), many(2)...))
		seen, err := inspector(t, q).Peek(t.Context(), 2)
		require.NoError(t, err)
		require.Len(t, seen, 2)
		var deadlines []int32
		for _, m := range f.modacks() {
			deadlines = append(deadlines, m.GetAckDeadlineSeconds())
			assert.Len(t, m.GetAckIds(), 2)
		}
		assert.Equal(t, []int32{10, 0}, deadlines, "hidden for that long, then given back")
	})
}

func TestPeekIsRefusedWhereItHasConsequences(t *testing.T) {
	policy := func(s *pubsubpb.Subscription) {
		s.DeadLetterPolicy = &pubsubpb.DeadLetterPolicy{DeadLetterTopic: topicName("dead"), MaxDeliveryAttempts: 5}
	}
	for _, c := range []struct {
		name   string
		answer answer // to Peek's look at the subscription
		want   error
		says   string
	}{
		{"a dead-letter policy, which was set meanwhile", says(mainSub, policy), queue.ErrUnsupported, "dead-letters after 5"},
		{"message ordering", says(mainSub, func(s *pubsubpb.Subscription) { s.EnableMessageOrdering = true }), queue.ErrUnsupported, "ordering"},
		{"settings that may not be read", refuse(codes.PermissionDenied), queue.ErrUnsupported, "may not be read"},
		{"credentials that aren't accepted", refuse(codes.Unauthenticated), queue.ErrPermission, "Unauthenticated"},
		{"a queue that's gone", refuse(codes.NotFound), queue.ErrQueueNotFound, "NotFound"},
	} {
		t.Run(c.name, func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				q := f.fresh(t, nil)
				require.NoError(t, q.Publish(t.Context(), message("a")))
				f.on("GetSubscription", c.answer)
				_, err := inspector(t, q).Peek(t.Context(), 1)
				assert.ErrorIs(t, err, c.want)
				assert.Equal(t, c.want == queue.ErrUnsupported, errors.Is(err, queue.ErrUnsupported))
				assert.ErrorContains(t, err, c.says)
				assert.Empty(t, f.pulls())
				confirm, ok := queue.As[queue.PeekConfirmer](q)
				require.True(t, ok)
				seen, err := confirm.PeekConfirmed(t.Context(), 1)
				require.NoError(t, err)
				assert.Equal(t, []string{"a"}, bodies(seen))
			})
		})
	}
}

// What it has looked at counts at Pub/Sub, but isn't an attempt of anybody.
func TestALookIsNoAttempt(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, &queue.QueueSpec{DeadLetter: "dead", BrokerMaxAttempts: 10})
		require.NoError(t, q.Publish(t.Context(), message("a")))
		for range 2 {
			_, err := q.(queue.PeekConfirmer).PeekConfirmed(t.Context(), 1)
			require.NoError(t, err)
		}
		d := receive(t, q, 1)[0]
		assert.Equal(t, 1, d.Attempt)
		info, _ := pubsub.InfoOf(d)
		assert.Equal(t, 3, info.DeliveryAttempt)
	})
}

// Pub/Sub may deliver a message again meanwhile: then its newest ack id is the one
// that counts.
func TestPeekShowsAMessageOnce(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		n := 0
		f.on("Pull", func(ctx context.Context, in any, forward func() (any, error)) (any, error) {
			if n++; n > 3 {
				return hang(ctx, in, forward)
			}
			return &pubsubpb.PullResponse{ReceivedMessages: []*pubsubpb.ReceivedMessage{
				{AckId: fmt.Sprint("same:", n), Message: &pubsubpb.PubsubMessage{MessageId: "same", Data: []byte("a")}},
				{AckId: fmt.Sprint("new:", n), Message: &pubsubpb.PubsubMessage{MessageId: fmt.Sprint(n), Data: []byte("b")}},
			}}, nil
		})
		seen, err := inspector(t, q).Peek(t.Context(), 10)
		require.NoError(t, err)
		assert.Equal(t, []string{"a", "b", "b", "b"}, bodies(seen))
		last := f.modacks()[len(f.modacks())-1]
		assert.ElementsMatch(t, []string{"same:3", "new:1", "new:2", "new:3"}, last.GetAckIds())
		assert.Zero(t, last.GetAckDeadlineSeconds())
	})
}

func TestAPeekThatFailsGivesBackWhatItHas(t *testing.T) {
	for _, c := range []struct {
		name string
		then answer
	}{
		{"the server fails", refuse(codes.Internal)},
		{"the caller goes", hang},
	} {
		t.Run(c.name, func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				q := f.fresh(t, nil)
				require.NoError(t, q.Publish(t.Context(), message("a")))
				first := true
				f.on("Pull", func(ctx context.Context, in any, forward func() (any, error)) (any, error) {
					if first {
						first = false
						return forward()
					}
					return c.then(ctx, in, forward)
				})
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				defer cancel()
				seen, err := inspector(t, q).Peek(ctx, 2)
				require.NoError(t, err, "something was seen")
				assert.Equal(t, []string{"a"}, bodies(seen))
				assert.Zero(t, f.modacks()[0].GetAckDeadlineSeconds())
				first = false
				_, err = inspector(t, q).Peek(ctx, 2)
				assert.Error(t, err)
			})
		})
	}
}

func TestPurgeRemovesWhatWasPublishedBefore(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		require.NoError(t, q.Publish(t.Context(), message("ready"), message("leased")))
		receive(t, q, 1)
		require.NoError(t, back(t, q)(t.Context(), message("back")))
		later := message("later")
		later.Delay = time.Minute
		require.NoError(t, q.Publish(t.Context(), later))
		time.Sleep(time.Second)
		require.NoError(t, q.(queue.Purger).Purge(t.Context()))
		var sought []string
		for _, r := range made[*pubsubpb.SeekRequest](f, "Seek") {
			sought = append(sought, r.GetSubscription())
			assert.Equal(t, time.Now().UTC(), r.GetTime().AsTime())
		}
		assert.Equal(t, []string{mainSub, backSub}, sought)
		time.Sleep(time.Minute)
		require.NoError(t, q.Publish(t.Context(), message("new")))
		assert.Equal(t, []string{"new"}, bodies(receive(t, q, 1)))
		nothingIn(t, q)
	})
}

func TestPurgeWithoutAReturnSubscription(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.alone(t, nil, nil)
		require.NoError(t, q.(queue.Purger).Purge(t.Context()))
		assert.Equal(t, map[string]int{"Seek": 1}, f.requests())
	})
}

func TestOutcomesOfPurge(t *testing.T) {
	for _, c := range []struct {
		name string
		at   answer
		want error
	}{
		{"no permission", of(mainSub, refuse(codes.PermissionDenied)), queue.ErrPermission},
		{"the queue is gone", of(mainSub, refuse(codes.NotFound)), queue.ErrQueueNotFound},
		{"an answer that's lost", of(mainSub, lose(codes.Unavailable)), queue.ErrUnknownOutcome},
		{"the same of the return subscription", of(backSub, lose(codes.Unavailable)), queue.ErrUnknownOutcome},
		{"the return subscription is gone", of(backSub, refuse(codes.NotFound)), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				q := f.fresh(t, nil)
				f.on("Seek", c.at)
				err := q.(queue.Purger).Purge(t.Context())
				if c.want == nil {
					assert.NoError(t, err)
				} else {
					assert.ErrorIs(t, err, c.want)
				}
				assert.Equal(t, c.want == queue.ErrUnknownOutcome, errors.Is(err, queue.ErrUnknownOutcome))
			})
		})
	}
}
