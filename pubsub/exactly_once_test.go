package pubsub_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
)

const (
	ackIDFailure = "EXACTLY_ONCE_ACKID_FAILURE"
	stale        = "PERMANENT_FAILURE_INVALID_ACK_ID"
	passing      = "TRANSIENT_FAILURE_UNORDERED_ACK_ID"
)

// named is what Pub/Sub says of single ack ids, beside the error of the request.
func named(t *testing.T, why map[string]string) *status.Status {
	t.Helper()
	s, err := status.New(codes.FailedPrecondition, "some acknowledgement ids failed").
		WithDetails(&errdetails.ErrorInfo{Reason: ackIDFailure, Domain: "pubsub.googleapis.com", Metadata: why})
	require.NoError(t, err)
	return s
}

// once is a subscription with exactly-once delivery: what's in the sequence of fates
// becomes of the ack ids of each request, by message; "" is done.
type once struct {
	fates []map[string]string // by body, of each request
	ids   map[string]string   // bodies, by ack id
}

func (o *once) answer(t *testing.T) answer {
	return func(_ context.Context, in any, forward func() (any, error)) (any, error) {
		ids := in.(interface{ GetAckIds() []string }).GetAckIds()
		if len(o.fates) == 0 {
			return forward()
		}
		why := map[string]string{}
		for _, id := range ids {
			if fate := o.fates[0][o.ids[id]]; fate != "" {
				why[id] = fate
			}
		}
		o.fates = o.fates[1:]
		if len(why) == 0 {
			return forward()
		}
		return nil, named(t, why).Err()
	}
}

func ackIDOf(t *testing.T, f *fake, q queue.Queue, d *queue.Delivery) string {
	t.Helper()
	f.forget()
	_, err := q.Extend(t.Context(), 10*time.Minute, d)
	require.NoError(t, err)
	id := f.modacks()[0].GetAckIds()[0]
	f.forget()
	return id
}

// exactlyOnce opens a queue with exactly-once delivery with three deliveries, "a",
// "b" and "c".
func exactlyOnce(t *testing.T, f *fake) (queue.Queue, []*queue.Delivery, *once) {
	t.Helper()
	q := f.alone(t, func(s *pubsubpb.Subscription) { s.EnableExactlyOnceDelivery = true }, nil)
	require.True(t, q.Capabilities().SettleConfirmed)
	require.NoError(t, q.Publish(t.Context(), message("a"), message("b"), message("c")))
	ds := receive(t, q, 3)
	slices.SortFunc(ds, func(a, b *queue.Delivery) int { return int(a.Body[0]) - int(b.Body[0]) })
	o := &once{ids: map[string]string{}}
	for _, d := range ds {
		o.ids[ackIDOf(t, f, q, d)] = string(d.Body)
	}
	return q, ds, o
}

// What isn't named may have been done or not: it's asked for once more.
func TestAckIdsThatFailAreTold(t *testing.T) {
	for _, c := range []struct {
		name  string
		fates []map[string]string // of each request
		lost  string              // bodies whose lease is lost
		again string              // bodies that failed and may be tried again
		asked int
	}{
		{"none", []map[string]string{{}}, "", "", 1},
		{"one is stale", []map[string]string{{"b": stale}, {}}, "b", "", 2},
		{"one passes", []map[string]string{{"b": passing}, {}}, "", "b", 2},
		{"all are stale", []map[string]string{{"a": stale, "b": stale, "c": stale}}, "abc", "", 1},
		{"one of each", []map[string]string{{"a": stale, "b": passing}, {}}, "a", "b", 2},
		{"another permanent failure", []map[string]string{{"b": "PERMANENT_FAILURE_SOMETHING_NEW"}, {}}, "b", "", 2},
		{"what wasn't named had been done", []map[string]string{{"b": stale}, {"a": stale, "c": stale}}, "b", "", 2},
		{"what wasn't named fails for a moment", []map[string]string{{"b": stale}, {"a": passing}}, "b", "a", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				q, ds, o := exactlyOnce(t, f)
				o.fates = c.fates
				f.on("Acknowledge", o.answer(t))
				got := refused(t, q.Settle(t.Context(), settlements(queue.Ack, ds...)...))
				assert.Len(t, got, len(c.lost)+len(c.again))
				for i, err := range got {
					body := string(ds[i].Body)
					if assert.Contains(t, c.lost+c.again, body); slices.Contains([]byte(c.lost), ds[i].Body[0]) {
						assert.ErrorIs(t, err, queue.ErrLeaseLost)
					} else {
						assert.NotErrorIs(t, err, queue.ErrLeaseLost, "%s: trying again can help", body)
					}
					assert.ErrorContains(t, err, "FAILURE")
				}
				assert.Len(t, f.acks(), c.asked)
			})
		})
	}
}

// The second request may fail as a whole: nothing is known of what it was for.
func TestAQuestionThatIsNotAnsweredIsNoConfirmation(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q, ds, o := exactlyOnce(t, f)
		o.fates = []map[string]string{{"b": stale}}
		first := o.answer(t)
		f.on("Acknowledge", func(ctx context.Context, in any, forward func() (any, error)) (any, error) {
			defer f.on("Acknowledge", refuse(codes.Unavailable))
			return first(ctx, in, forward)
		})
		got := refused(t, q.Settle(t.Context(), settlements(queue.Ack, ds...)...))
		assert.Len(t, got, 3)
		assert.ErrorIs(t, got[1], queue.ErrLeaseLost)
		for _, i := range []int{0, 2} {
			assert.ErrorIs(t, got[i], queue.ErrUnknownOutcome)
			assert.NotErrorIs(t, got[i], queue.ErrLeaseLost)
		}
	})
}

func TestALostLeaseIsToldByExtendAndRelease(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q, ds, o := exactlyOnce(t, f)
		o.fates = []map[string]string{{"b": stale}, {}, {"c": stale}}
		f.on("ModifyAckDeadline", o.answer(t))
		granted, err := q.Extend(t.Context(), time.Minute, ds...)
		got := refused(t, err)
		assert.Len(t, got, 1)
		assert.ErrorIs(t, got[1], queue.ErrLeaseLost)
		assert.True(t, granted[1].IsZero())
		assert.False(t, granted[0].IsZero() || granted[2].IsZero())
		got = refused(t, q.Settle(t.Context(), settlements(queue.Release, ds[2])...))
		assert.ErrorIs(t, got[0], queue.ErrLeaseLost)
	})
}

// Any other error is about the whole request.
func TestAnErrorThatNamesNobodyIsForAll(t *testing.T) {
	info := func(reason string, metadata map[string]string) answer {
		s, err := status.New(codes.FailedPrecondition, "no").WithDetails(&errdetails.ErrorInfo{Reason: reason, Metadata: metadata})
		require.NoError(t, err)
		return failing(s)
	}
	for name, a := range map[string]answer{
		"without details": refuse(codes.FailedPrecondition),
		"about else":      info("SOMETHING_ELSE", map[string]string{"a": "b"}),
		"about nobody":    info(ackIDFailure, nil),
	} {
		t.Run(name, func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				q, ds, _ := exactlyOnce(t, f)
				f.on("Acknowledge", a)
				got := refused(t, q.Settle(t.Context(), settlements(queue.Ack, ds...)...))
				assert.Len(t, got, 3)
				for _, err := range got {
					assert.NotErrorIs(t, err, queue.ErrLeaseLost)
				}
				assert.Len(t, f.acks(), 1)
			})
		})
	}
}

// A message whose lease was lost between the pull and the request that would give it
// the lease that was asked for is somebody else's already.
func TestALeaseThatIsLostAtOnceIsNotHandedOut(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.topic(t, topicName("orders"))
		f.subscribe(t, topicName("orders"), subscriptionName("orders"), func(s *pubsubpb.Subscription) { s.EnableExactlyOnceDelivery = true })
		q := f.open(t, "orders", &queue.OpenOptions{Lease: time.Minute})
		require.NoError(t, q.Publish(t.Context(), many(3)...))
		lose := func(_ context.Context, in any, _ func() (any, error)) (any, error) {
			return nil, named(t, map[string]string{in.(*pubsubpb.ModifyAckDeadlineRequest).GetAckIds()[1]: stale}).Err()
		}
		f.on("ModifyAckDeadline", times(1, lose))
		ds, err := q.Receive(t.Context(), 3)
		require.NoError(t, err)
		require.Len(t, ds, 2)
		lost := f.modacks()[0].GetAckIds()[1]
		for _, d := range ds {
			info, _ := pubsub.InfoOf(d)
			assert.NotContains(t, lost, info.MessageID+":")
			assert.Greater(t, time.Until(d.Deadline), 50*time.Second)
		}
	})
}
