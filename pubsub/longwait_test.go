package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/anyqueue/anyqueue/queue"
)

// patient is Pub/Sub as far as long waits need it: pstest forgets what waits for more
// than ten minutes, and a real server would take them.
type patient struct {
	mu   sync.Mutex
	all  []*waiting
	n    int
	pubs map[string]int // by topic
}

type waiting struct {
	subscription string
	m            *pubsubpb.PubsubMessage
	ready        time.Time
	attempts     int32
	gone         bool
}

func (f *fake) patient() *patient {
	p := &patient{pubs: map[string]int{}}
	f.on("Publish", func(_ context.Context, in any, _ func() (any, error)) (any, error) {
		return p.publish(in.(*pubsubpb.PublishRequest)), nil
	})
	f.on("Pull", func(ctx context.Context, in any, _ func() (any, error)) (any, error) {
		return p.pull(ctx, in.(*pubsubpb.PullRequest))
	})
	f.on("ModifyAckDeadline", func(_ context.Context, in any, _ func() (any, error)) (any, error) {
		m := in.(*pubsubpb.ModifyAckDeadlineRequest)
		p.each(m.GetAckIds(), func(w *waiting) { w.ready = time.Now().Add(time.Duration(m.GetAckDeadlineSeconds()) * time.Second) })
		return nothing, nil
	})
	f.on("Acknowledge", func(_ context.Context, in any, _ func() (any, error)) (any, error) {
		p.each(in.(*pubsubpb.AcknowledgeRequest).GetAckIds(), func(w *waiting) { w.gone = true })
		return nothing, nil
	})
	return p
}

func (p *patient) publish(in *pubsubpb.PublishRequest) *pubsubpb.PublishResponse {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := &pubsubpb.PublishResponse{}
	for _, m := range in.GetMessages() {
		p.n++
		m.MessageId, m.PublishTime = fmt.Sprint(p.n), timestamppb.Now()
		p.all = append(p.all, &waiting{subscription: strings.Replace(in.GetTopic(), "/topics/", "/subscriptions/", 1), m: m, ready: time.Now()})
		p.pubs[in.GetTopic()]++
		out.MessageIds = append(out.MessageIds, m.MessageId)
	}
	return out
}

func (p *patient) pull(ctx context.Context, in *pubsubpb.PullRequest) (*pubsubpb.PullResponse, error) {
	for {
		p.mu.Lock()
		out := &pubsubpb.PullResponse{}
		for i, w := range p.all {
			if w.subscription != in.GetSubscription() || w.gone || w.ready.After(time.Now()) || len(out.ReceivedMessages) == int(in.GetMaxMessages()) {
				continue
			}
			w.attempts++
			w.ready = time.Now().Add(10 * time.Second)
			out.ReceivedMessages = append(out.ReceivedMessages, &pubsubpb.ReceivedMessage{AckId: fmt.Sprint(i), Message: w.m, DeliveryAttempt: w.attempts})
		}
		p.mu.Unlock()
		if len(out.GetReceivedMessages()) > 0 {
			return out, nil
		}
		select {
		case <-time.After(5 * time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (p *patient) each(ids []string, f func(*waiting)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range ids {
		var i int
		if _, err := fmt.Sscan(id, &i); err == nil && !p.all[i].gone {
			f(p.all[i])
		}
	}
}

func (p *patient) left() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.all {
		if !w.gone {
			n++
		}
	}
	return n
}

// attempt is one call of a handler.
type attempt struct {
	at       time.Duration
	body     string
	failures int
}

// attempts runs a consumer for so long and returns the calls of its handler.
func attempts(t *testing.T, q queue.Queue, opts queue.ConsumerOptions, long time.Duration, h func(*queue.Delivery) error) []attempt {
	t.Helper()
	var mu sync.Mutex
	var got []attempt
	begun := time.Now()
	opts.Logger = slog.New(slog.DiscardHandler)
	c, err := queue.NewConsumer(q, func(_ context.Context, d *queue.Delivery) error {
		mu.Lock()
		got = append(got, attempt{time.Since(begun), string(d.Body), d.Failures})
		mu.Unlock()
		return h(d)
	}, &opts)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	require.NoError(t, c.Run(ctx))
	return got
}

func TestAFailureWaitsForLongerThanPubSubAllows(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		p := f.patient()
		require.NoError(t, q.Publish(t.Context(), message("a")))
		got := attempts(t, q, queue.ConsumerOptions{}, 2*time.Hour, func(d *queue.Delivery) error {
			if d.Failures < 2 {
				return queue.RetryAfter(25*time.Minute, errors.New("not yet"))
			}
			return nil
		})
		require.Len(t, got, 3, "%v", got)
		for i, a := range got {
			due := time.Duration(i) * 25 * time.Minute
			assert.GreaterOrEqual(t, a.at, due, "never early")
			assert.Less(t, a.at, due+30*time.Second)
			assert.Equal(t, i, a.failures, "the failures go along")
		}
		assert.Zero(t, p.left())
		assert.Equal(t, 2, p.pubs[topicName("orders.return")], "by way of the return topic")
		assert.Equal(t, 1, p.pubs[topicName("orders")])
		require.NoError(t, q.Close(t.Context()))
	})
}

func TestLongDelaysBeyondWhatIsHeldAreNoFailuresWhereTheBrokerCounts(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, &queue.QueueSpec{DeadLetter: "dead", BrokerMaxAttempts: 5})
		p := f.patient()
		const n = 20
		for i := range n {
			require.NoError(t, q.Publish(t.Context(), &queue.Message{Body: fmt.Append(nil, i), Delay: 40 * time.Minute}))
		}
		got := attempts(t, q, queue.ConsumerOptions{MaxHold: 3}, 2*time.Hour, func(*queue.Delivery) error { return nil })
		require.Len(t, got, n, "each once")
		for _, a := range got {
			assert.GreaterOrEqual(t, a.at, 40*time.Minute, "never early")
			assert.Less(t, a.at, 51*time.Minute)
			assert.Zero(t, a.failures, "waiting isn't failing")
		}
		assert.Zero(t, p.left())
		require.NoError(t, q.Close(t.Context()))
	})
}
