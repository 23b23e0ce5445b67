package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
)

// What a queue's consumers get again, by redrive or after a long wait, the other
// subscription of the topic never sees.
func TestServerARedriveWithTwoSubscriptionsOnTheTopic(t *testing.T) {
	r := faulty(t, &queue.QueueSpec{DeadLetter: "dlq"})
	billing := r.name + "-billing"
	_, err := r.direct.SubscriptionAdminClient.CreateSubscription(t.Context(), &pubsubpb.Subscription{Name: subscriptionName(billing), Topic: topicName(r.name)})
	require.NoError(t, err)
	others, err := r.aside.Open(t.Context(), billing, &queue.OpenOptions{Address: subscriptionName(billing)})
	require.NoError(t, err)
	defer func() { assert.NoError(t, others.Close(context.Background())) }()
	dead, err := r.backend.Open(t.Context(), r.spec.DeadLetter, nil)
	require.NoError(t, err)
	defer func() { assert.NoError(t, dead.Close(context.Background())) }()

	var seen atomic.Int64 // by the others
	theirs, err := queue.NewConsumer(others, queue.Handler(func(context.Context, *queue.Delivery) error {
		seen.Add(1)
		return nil
	}), &queue.ConsumerOptions{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- theirs.Run(ctx) }()

	var broken atomic.Bool
	broken.Store(true)
	run := r.consume(r.q, queue.ConsumerOptions{
		Concurrency: 10, Middleware: []queue.Middleware{middleware.DeadLetter(dead, middleware.DeadLetterOptions{})},
	}, func(_ context.Context, d *queue.Delivery) error {
		switch {
		case string(d.Body) == "waits":
			return queue.Snooze(time.Hour)
		case broken.Load():
			return queue.Reject(errWork)
		}
		return nil
	})
	r.put(append(numbered("m", 20), message("waits"))...)
	r.await("all to be dead-lettered", func() bool { return run.Stats().DeadLettered == 20 && run.Stats().Snoozed > 0 })
	broken.Store(false)
	result, err := queue.Redrive(t.Context(), dead, r.q, nil)
	require.NoError(t, err)
	assert.EqualValues(t, 20, result.Moved)
	r.await("all to be handled again", func() bool { return run.Stats().Succeeded == 20 })
	assert.NoError(t, run.end())
	r.await("the others to have theirs", func() bool { return seen.Load() >= 21 })
	nothingIn(t, dead)
	for _, body := range numbered("m", 20) {
		assert.Equal(t, 2, r.handled[string(body.Body)])
	}
	assert.EqualValues(t, 21, seen.Load(), "each message once, as it was published")
	stop()
	assert.NoError(t, <-ended)
	assert.EqualValues(t, 21, seen.Load())
}

// exactly opens a queue of which both subscriptions have exactly-once delivery.
func exactly(t *testing.T) *rig {
	t.Helper()
	r := faulty(t, nil)
	r.name = unique("exactly")
	for _, name := range []string{r.name, r.name + ".return"} {
		_, err := r.direct.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topicName(name)})
		require.NoError(t, err)
		_, err = r.direct.SubscriptionAdminClient.CreateSubscription(t.Context(), &pubsubpb.Subscription{
			Name: subscriptionName(name), Topic: topicName(name), EnableExactlyOnceDelivery: true,
		})
		require.NoError(t, err)
	}
	r.q = r.open(r.backend)
	require.True(t, r.q.Capabilities().SettleConfirmed)
	return r
}

func TestServerAStaleAcknowledgementIsReported(t *testing.T) {
	r := exactly(t)
	r.put(message("a"), message("b"))
	stale := receive(t, r.q, 2)
	fresh := receive(t, r.q, 2) // when the leases have ended
	for _, d := range stale {
		err := r.q.Settle(t.Context(), queue.Settlement{Delivery: d})
		assert.ErrorIs(t, err, queue.ErrLeaseLost)
		_, err = r.q.Extend(t.Context(), time.Minute, d)
		assert.ErrorIs(t, err, queue.ErrLeaseLost)
	}
	// One request, of which a part fails.
	got := refused(t, r.q.Settle(t.Context(), settlements(queue.Ack, stale[0], fresh[0], stale[1], fresh[1])...))
	assert.Len(t, got, 2)
	assert.ErrorIs(t, got[0], queue.ErrLeaseLost)
	assert.ErrorIs(t, got[2], queue.ErrLeaseLost)
	r.empty()
}

// Whatever the network does: what was confirmed never comes again, and everything is
// confirmed, or its answer was lost.
func TestServerExactlyOnceSettledMeansConfirmed(t *testing.T) {
	r := exactly(t)
	const n = 600
	r.put(numbered("m", n)...)
	var mu sync.Mutex
	confirmed, doubtful := map[string]bool{}, map[string]bool{}
	over := func() bool {
		mu.Lock()
		defer mu.Unlock()
		for b := range doubtful {
			if confirmed[b] {
				delete(doubtful, b)
			}
		}
		return len(confirmed)+len(doubtful) >= n
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				ds, err := r.q.Receive(ctx, 5)
				if err != nil {
					continue // it was cut
				}
				mu.Lock()
				for _, d := range ds {
					assert.False(t, confirmed[string(d.Body)], "%s came again", d.Body)
				}
				mu.Unlock()
				errs := refused(t, r.q.Settle(context.WithoutCancel(ctx), settlements(queue.Ack, ds...)...))
				mu.Lock()
				for i, d := range ds {
					switch err := errs[i]; {
					case err == nil:
						confirmed[string(d.Body)] = true
					case errors.Is(err, queue.ErrUnknownOutcome), errors.Is(err, queue.ErrLeaseLost):
						doubtful[string(d.Body)] = true
					}
				}
				mu.Unlock()
			}
		})
	}
	for at := 100; at < n; at += 100 {
		r.await(fmt.Sprint(at, " to be settled"), func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(confirmed) >= at || len(confirmed)+len(doubtful) >= n
		})
		r.net.cut()
	}
	r.await("all to be settled", over)
	until := time.Now().Add(12 * time.Second) // what isn't settled comes again after 10
	r.await("nothing that's confirmed to come again", func() bool { return time.Now().After(until) })
	cancel()
	wg.Wait()
	t.Logf("%d confirmed, %d in doubt, %d pulls unread", len(confirmed), len(doubtful), countsOf(t, r.q).Unread)
	assert.GreaterOrEqual(t, len(confirmed), n-5*4*5, "each cut concerns what's under way")
}

// Messages that aren't due yet fill what a consumer holds; what's due passes them by.
func TestServerDelayedMessagesDoNotStopTheOthers(t *testing.T) {
	r := faulty(t, nil)
	const n = 100_000 // the consumer looks at more than ten thousand a second here
	delayed := numbered("later", n)
	for _, m := range delayed {
		m.Delay = time.Hour
	}
	require.NoError(t, r.q.Publish(t.Context(), delayed...))
	begun := time.Now()
	run := r.consume(r.q, queue.ConsumerOptions{Concurrency: 16}, nil)
	r.put(numbered("now", 100)...)
	r.awaitAll()
	took := time.Since(begun)
	t.Logf("100 messages behind %d delayed ones in %v; %d are held", n, took, run.Stats().Held)
	assert.Less(t, took, time.Minute, "one small pull after the other would take longer")
	r.await("all that's delayed to be out of the way", func() bool { s := run.Stats(); return int(s.Deferred)+s.Held >= n })
	begun = time.Now()
	r.put(numbered("then", 100)...)
	r.awaitAll()
	assert.Less(t, time.Since(begun), 5*time.Second, "now nothing is in the way")
	assert.NoError(t, run.end())
	assert.Len(t, r.handled, 200, "nothing early")
	assert.Zero(t, r.judge())
	require.NoError(t, r.q.(queue.Purger).Purge(t.Context()))
}

// The same with a hundred thousand, on the broker that is like Pub/Sub, and over the
// time after which each of them comes back: ten minutes.
func TestAHundredThousandDelayedMessagesDoNotStopTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n = 100_000
		b := memory.New(&memory.Options{Like: memory.PubSub})
		_, err := b.Ensure(t.Context(), "orders", nil)
		require.NoError(t, err)
		q, err := b.Open(t.Context(), "orders", nil)
		require.NoError(t, err)
		var early, handled atomic.Int64
		due := time.Now().Add(15 * time.Minute)
		c, err := queue.NewConsumer(q, queue.Handler(func(_ context.Context, d *queue.Delivery) error {
			if d.Body[0] == 'd' && time.Now().Before(due) {
				early.Add(1)
			}
			handled.Add(1)
			return nil
		}), &queue.ConsumerOptions{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		msgs := make([]*queue.Message, n)
		for i := range msgs {
			msgs[i] = &queue.Message{Body: []byte("delayed"), DeliverAt: due}
		}
		require.NoError(t, q.Publish(t.Context(), msgs...))
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		for range 2 { // as time goes on
			before, begun := handled.Load(), time.Now()
			require.NoError(t, q.Publish(t.Context(), numbered("now", 100)...))
			for handled.Load() < before+100 {
				require.Less(t, time.Since(begun), time.Minute)
				time.Sleep(100 * time.Millisecond)
			}
			time.Sleep(6 * time.Minute)
		}
		time.Sleep(time.Until(due.Add(20 * time.Minute)))
		synctest.Wait()
		assert.EqualValues(t, n+200, handled.Load())
		assert.Zero(t, early.Load())
		stop()
		assert.NoError(t, <-ended)
		require.NoError(t, q.Close(context.Background()))
	})
}
