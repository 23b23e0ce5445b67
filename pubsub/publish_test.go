package pubsub_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
)

// many returns n messages with the bodies "0" to "n-1".
func many(n int) []*queue.Message {
	msgs := make([]*queue.Message, n)
	for i := range msgs {
		msgs[i] = message(fmt.Sprint(i))
	}
	return msgs
}

// sizes are how many messages each request to publish had.
func (f *fake) sizes() []int {
	var out []int
	for _, r := range f.publishes() {
		out = append(out, len(r.GetMessages()))
	}
	return out
}

// published are the bodies of all messages that the server has, in their order.
func (f *fake) published() []string {
	var out []string
	for _, m := range f.Messages() {
		out = append(out, string(m.Data))
	}
	return out
}

func TestALonePublishLeavesAtOnce(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		f.on("Publish", late(50*time.Millisecond))
		for range 3 {
			begun := time.Now()
			require.NoError(t, q.Publish(t.Context(), message("a")))
			assert.Equal(t, 50*time.Millisecond, time.Since(begun), "the answer is all that it waits for")
		}
	})
}

func TestTheMessagesOfACallShareRequests(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		require.NoError(t, q.Publish(t.Context(), many(100)...))
		assert.Equal(t, []int{100}, f.sizes())
		assert.Len(t, f.published(), 100)
		assert.EqualValues(t, 1, countsOf(t, q).Publishes)
	})
}

func TestConcurrentCallsShareRequests(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		f.on("Publish", late(30*time.Millisecond))
		var wg sync.WaitGroup
		for _, m := range many(300) {
			wg.Go(func() { assert.NoError(t, q.Publish(t.Context(), m)) })
		}
		begun := time.Now()
		wg.Wait()
		assert.Less(t, time.Since(begun), 100*time.Millisecond)
		assert.LessOrEqual(t, len(f.sizes()), 10)
		assert.Len(t, f.published(), 300)
	})
}

func TestARequestHoldsAThousandMessages(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		f.on("Publish", late(30*time.Millisecond))
		require.NoError(t, q.Publish(t.Context(), many(2500)...))
		assert.ElementsMatch(t, []int{1000, 1000, 500}, f.sizes())
	})
}

// 10 MB are 10,000,000 bytes, of the whole request.
func TestARequestHoldsTenMegabytes(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		half := strings.Repeat("x", 4_995_000)
		attributes := map[string]string{}
		for i := range 8 {
			attributes[fmt.Sprint(i)] = strings.Repeat("y", 1000)
		}
		for _, c := range []struct {
			msgs []*queue.Message
			want []int
		}{
			{[]*queue.Message{message(half), message(half)}, []int{2}},
			{[]*queue.Message{message(half), {Body: []byte(half), Attributes: attributes}, message("z")}, []int{1, 2}},
		} {
			f.forget()
			require.NoError(t, q.Publish(t.Context(), c.msgs...))
			assert.ElementsMatch(t, c.want, f.sizes())
			for _, r := range f.publishes() {
				assert.LessOrEqual(t, proto.Size(r), 10_000_000)
			}
		}
	})
}

func TestALimitIsSaidBeforeAnyRequest(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		for name, m := range map[string]*queue.Message{
			"11 MB":           message(strings.Repeat("x", 11_000_000)),
			"a long value":    {Body: []byte("a"), Attributes: map[string]string{"a": strings.Repeat("v", 1025)}},
			"a reserved name": {Body: []byte("a"), Attributes: map[string]string{"goog-a": "v"}},
			"invalid UTF-8":   {Body: []byte("a"), Attributes: map[string]string{"a": "\xff"}},
			"a key":           keyed("k", "the subscription isn't ordered"),
			"a dedup id":      {Body: []byte("a"), DedupID: "d"},
			"an option":       {Body: []byte("a"), Options: []queue.MessageOption{foreignOption{}}},
			"nil":             nil,
		} {
			failed := failures(q.Publish(t.Context(), message("before"), m, message("after")), 3)
			assert.Len(t, failed, 1, name)
			assert.Error(t, failed[1], name)
		}
		assert.Len(t, f.published(), 16, "the others")
		for _, n := range f.sizes() {
			assert.Equal(t, 2, n)
		}
	})
}

type foreignOption struct{}

func (foreignOption) System() string { return "gcp_pubsub" }

func TestPublishingNothingAsksNothing(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		require.NoError(t, q.Publish(t.Context()))
		require.NoError(t, q.(queue.Redriver).PublishBack(t.Context()))
		assert.Empty(t, f.requests())
	})
}

func TestOnTheWireAreTheUsersBytes(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, &queue.QueueSpec{Ordered: true})
		require.NoError(t, q.Publish(t.Context(), &queue.Message{Body: []byte("\x00\xff"), Attributes: map[string]string{"n": "7"}, OrderingKey: "k"}))
		m := f.publishes()[0].GetMessages()[0]
		assert.Equal(t, "\x00\xff", string(m.GetData()))
		assert.Equal(t, map[string]string{"n": "7"}, m.GetAttributes())
		assert.Equal(t, "k", m.GetOrderingKey())
	})
}

// However much callers want to send, only so much is taken from them.
func TestWhatIsHeldIsBounded(t *testing.T) {
	for _, c := range []struct {
		name       string
		concurrent bool
	}{
		{"of one call", false},
		{"of many calls", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				q := f.fresh(t, nil)
				going := make(chan struct{})
				f.on("Publish", func(_ context.Context, in any, _ func() (any, error)) (any, error) {
					<-going
					// The server itself would keep them all.
					return &pubsubpb.PublishResponse{MessageIds: make([]string, len(in.(*pubsubpb.PublishRequest).GetMessages()))}, nil
				})
				msgs := many(12_000)
				var wg sync.WaitGroup
				if c.concurrent {
					for _, m := range msgs {
						wg.Go(func() { assert.NoError(t, q.Publish(t.Context(), m)) })
					}
				} else {
					wg.Go(func() { assert.NoError(t, q.Publish(t.Context(), msgs...)) })
				}
				time.Sleep(time.Second)
				synctest.Wait()
				sent := 0
				for _, n := range f.sizes() {
					sent += n
				}
				assert.LessOrEqual(t, sent, 10_000)
				assert.Greater(t, sent, 5_000)
				close(going)
				wg.Wait()
			})
		})
	}
}

// underWay is how many small requests go at a time; what comes then waits for company.
const underWay = 2

// The request may be on its way for others when one of its callers has gone.
func TestWhoLeavesMayUseItsMessageAgain(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		f.network.stall(3 * time.Second) // requests wait for a connection
		var wg sync.WaitGroup
		publish := func(m *queue.Message, patience time.Duration) (err error) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			return q.Publish(ctx, m)
		}
		for range underWay { // those that come after them go together
			wg.Go(func() { assert.NoError(t, publish(message("first"), time.Minute)) })
			synctest.Wait()
		}
		mine := &queue.Message{Body: []byte("mine"), Attributes: map[string]string{"n": "1"}}
		wg.Go(func() {
			assert.ErrorIs(t, publish(mine, time.Second), queue.ErrUnknownOutcome)
			copy(mine.Body, "next")
			mine.Attributes["n"] = "2"
		})
		wg.Go(func() { assert.NoError(t, publish(message("other"), time.Minute)) })
		wg.Wait()
		require.Len(t, f.sizes(), underWay+1)
		for _, m := range f.Messages() {
			if m.Attributes["n"] != "" {
				assert.Equal(t, "mine 1", string(m.Data)+" "+m.Attributes["n"])
			}
		}
		assert.ElementsMatch(t, []string{"first", "first", "mine", "other"}, f.published())
	})
}

func TestCountsAreThoseOfTheQueueBeneathWrappersAndAfterClose(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		require.NoError(t, q.Publish(t.Context(), message("a"), message("b")))
		ds := receive(t, q, 2)
		_, err := q.Extend(t.Context(), time.Minute, ds...)
		require.NoError(t, err)
		require.NoError(t, q.Settle(t.Context(), queue.Settlement{Delivery: ds[0]}, queue.Settlement{Delivery: ds[1]}))
		require.NoError(t, q.Close(t.Context()))
		c, ok := pubsub.CountsOf(struct{ wrapper }{wrapper{q}})
		require.True(t, ok)
		asked := f.requests()
		assert.Equal(t, pubsub.Counts{Publishes: 1, Pulls: uint64(asked["Pull"]), Acks: 1, Modacks: 1}, c)
		_, ok = pubsub.CountsOf(nil)
		assert.False(t, ok)
	})
}

type wrapper struct{ queue.Queue }

func (w wrapper) Unwrap() queue.Queue { return w.Queue }

func TestThrottlingIsCounted(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		f.on("Publish", times(2, refuse(codes.ResourceExhausted)))
		f.on("Pull", of(subscriptionName("orders"), times(1, refuse(codes.ResourceExhausted))))
		f.on("Acknowledge", times(1, refuse(codes.ResourceExhausted)))
		require.NoError(t, q.Publish(t.Context(), message("a")))
		_, err := q.Receive(t.Context(), 1)
		require.ErrorIs(t, err, queue.ErrThrottled)
		s := queue.Settlement{Delivery: receive(t, q, 1)[0]}
		require.ErrorIs(t, q.Settle(t.Context(), s), queue.ErrThrottled)
		require.NoError(t, q.Settle(t.Context(), s))
		c := countsOf(t, q)
		assert.EqualValues(t, 4, c.Throttled)
		assert.EqualValues(t, 2, c.Retried)
	})
}

// Each caller's message is as large as may be: more than 64 MiB of them aren't taken at a
// time, neither on their way nor waiting to be sent; the others wait, and go then.
func TestWhatIsGatheredIsBoundedInBytes(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		const bound, size, callers = 64 << 20, 9_000_000, 12
		q := f.fresh(t, nil)
		answer := make(chan struct{})
		var mu sync.Mutex
		now, most, done := 0, 0, 0
		f.on("Publish", func(ctx context.Context, in any, _ func() (any, error)) (any, error) {
			msgs := in.(*pubsubpb.PublishRequest).GetMessages()
			n := 0
			for _, m := range msgs {
				n += len(m.GetData())
			}
			mu.Lock()
			now += n
			most = max(most, now)
			mu.Unlock()
			<-answer
			mu.Lock()
			now -= n
			done += len(msgs)
			mu.Unlock()
			return &pubsubpb.PublishResponse{MessageIds: make([]string, len(msgs))}, nil
		})
		body := make([]byte, size) // it's only read
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() { assert.NoError(t, q.Publish(t.Context(), &queue.Message{Body: body})) })
		}
		synctest.Wait()
		mu.Lock()
		assert.LessOrEqual(t, now, bound)
		assert.GreaterOrEqual(t, now, bound/size*size-size, "as many as fit are under way, or one of them waits for company")
		mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.ErrorIs(t, q.Publish(ctx, &queue.Message{Body: body}), context.DeadlineExceeded, "there's no room, for as long as the caller wants to wait")
		close(answer)
		wg.Wait()
		assert.LessOrEqual(t, most, bound)
		assert.Equal(t, callers, done, "nothing of the caller who has gone")
	})
}
