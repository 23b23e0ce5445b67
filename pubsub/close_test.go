package pubsub_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
)

// calls are all methods of a queue that ask Pub/Sub for something.
func calls(q queue.Queue, d *queue.Delivery) map[string]func(ctx context.Context) error {
	return map[string]func(ctx context.Context) error{
		"Publish":     func(ctx context.Context) error { return q.Publish(ctx, message("late")) },
		"PublishBack": func(ctx context.Context) error { return q.(queue.Redriver).PublishBack(ctx, message("late")) },
		"Receive": func(ctx context.Context) error {
			_, err := q.Receive(ctx, 1)
			return err
		},
		"Settle": func(ctx context.Context) error { return q.Settle(ctx, queue.Settlement{Delivery: d}) },
		"Extend": func(ctx context.Context) error {
			_, err := q.Extend(ctx, time.Minute, d)
			return err
		},
		"Stats": func(ctx context.Context) error {
			_, err := q.(queue.Inspector).Stats(ctx)
			return err
		},
		"Peek": func(ctx context.Context) error {
			_, err := q.(queue.Inspector).Peek(ctx, 1)
			return err
		},
		"PeekConfirmed": func(ctx context.Context) error {
			_, err := q.(queue.PeekConfirmer).PeekConfirmed(ctx, 1)
			return err
		},
		"Purge": func(ctx context.Context) error { return q.(queue.Purger).Purge(ctx) },
	}
}

func TestNothingIsAskedAfterClose(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		require.NoError(t, q.Publish(t.Context(), message("a")))
		d := receive(t, q, 1)[0]
		require.NoError(t, q.Close(t.Context()))
		f.forget()
		for name, call := range calls(q, d) {
			assert.ErrorIs(t, call(t.Context()), queue.ErrClosed, name)
		}
		assert.Empty(t, f.requests())
		assert.NotEmpty(t, q.Capabilities().Address, "which makes no request")
		assert.NoError(t, q.Close(t.Context()), "closing twice is harmless")
	})
}

func TestCloseWaitsForCalls(t *testing.T) {
	for name, method := range map[string]string{
		"Publish": "Publish", "PublishBack": "Publish", "Settle": "Acknowledge", "Extend": "ModifyAckDeadline", "Purge": "Seek", "PeekConfirmed": "Pull", "Receive": "Pull",
	} {
		for _, c := range []struct {
			name  string
			grace time.Duration
		}{{"that have the time", time.Minute}, {"or cuts them off", 500 * time.Millisecond}} {
			t.Run(name+" "+c.name, func(t *testing.T) {
				onFake(t, func(t *testing.T, f *fake) {
					q := f.fresh(t, nil)
					require.NoError(t, q.Publish(t.Context(), message("a"), message("b")))
					d := receive(t, q, 1)[0]
					time.Sleep(time.Second) // whatever goes on after Receive has ended
					f.on(method, late(900*time.Millisecond))
					ended := make(chan error, 1)
					go func() { ended <- calls(q, d)[name](t.Context()) }()
					synctest.Wait()
					ctx, cancel := context.WithTimeout(t.Context(), c.grace)
					defer cancel()
					begun := time.Now()
					err := q.Close(ctx)
					if c.grace == time.Minute {
						assert.NoError(t, err)
						assert.NoError(t, <-ended)
						assert.GreaterOrEqual(t, time.Since(begun), 900*time.Millisecond)
						return
					}
					assert.ErrorIs(t, err, context.DeadlineExceeded)
					assert.ErrorContains(t, err, "pubsub: close orders")
					assert.Error(t, <-ended)
					assert.Equal(t, c.grace, time.Since(begun))
				})
			})
		}
	}
}

func TestAPublishThatIsCutOffByCloseIsUnknown(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		f.on("Publish", hang)
		published := make(chan error, 1)
		go func() { published <- q.Publish(t.Context(), message("a")) }()
		synctest.Wait()
		over, cancel := context.WithCancel(t.Context())
		cancel()
		assert.ErrorIs(t, q.Close(over), context.Canceled)
		assert.ErrorIs(t, <-published, queue.ErrUnknownOutcome)
	})
}

// A pull that goes on after its Receive may be handed messages: Close waits for it and
// gives them back, for at most Options.Wait.
func TestCloseWaitsForThePullsThatGoOn(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.alone(t, nil, nil)
		q, err := pubsub.New(f.client, &pubsub.Options{Wait: 5 * time.Second}).Open(t.Context(), "orders", nil)
		require.NoError(t, err)
		s := f.stage()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		time.AfterFunc(500*time.Millisecond, cancel)
		_, err = q.Receive(ctx, 1)
		require.ErrorIs(t, err, context.Canceled)
		time.AfterFunc(100*time.Millisecond, func() { s.add(mainSub, "a") })
		begun := time.Now()
		require.NoError(t, q.Close(t.Context()))
		assert.Equal(t, []string{"a"}, s.givenBack())
		assert.Equal(t, 100*time.Millisecond, time.Since(begun))
	})
}

func TestAPullThatCloseCutsOffIsNoErrorButCounted(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.alone(t, nil, nil)
		f.on("Pull", hang)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := q.Receive(ctx, 1)
		require.ErrorIs(t, err, context.Canceled)
		soon, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		assert.NoError(t, q.Close(soon))
		assert.Equal(t, time.Second, time.Since(begun))
		assert.EqualValues(t, 1, countsOf(t, q).Unread)
	})
}

// Whoever publishes while the queue is closed hears the truth.
func TestPublishersAndClose(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		f.on("Publish", late(20*time.Millisecond))
		var wg sync.WaitGroup
		var mu sync.Mutex
		confirmed, unknown := 0, 0
		for i := range 200 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				err := q.Publish(t.Context(), message("a"))
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					confirmed++
				case errors.Is(err, queue.ErrUnknownOutcome):
					unknown++
				default:
					assert.ErrorIs(t, err, queue.ErrClosed)
				}
			})
		}
		time.Sleep(100 * time.Millisecond)
		require.NoError(t, q.Close(t.Context()))
		wg.Wait()
		assert.Len(t, f.published(), confirmed)
		assert.Positive(t, confirmed)
		assert.Less(t, confirmed, 200)
		assert.Zero(t, unknown, "Close has waited")
	})
}

// It's asked rarely then, but nobody waits for the next time.
func TestCloseDoesNotWaitForABrokenReturnSubscription(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.ensure(t, "orders", nil)
		q, err := f.backend.Open(t.Context(), "orders", &queue.OpenOptions{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		f.on("Pull", of(backSub, refuse(codes.Unavailable)))
		for begun := time.Now(); time.Since(begun) < 2*time.Minute+20*time.Second; {
			_, err := q.Receive(t.Context(), 1)
			require.NoError(t, err)
		}
		begun := time.Now()
		require.NoError(t, q.Close(context.Background()))
		assert.LessOrEqual(t, time.Since(begun), 20*time.Second, "Options.Wait")
	})
}

func TestCloseWaitsForAPublishBackThatLooksForItsWay(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.alone(t, nil, nil)
		f.on("ListTopicSubscriptions", late(time.Second))
		ended := make(chan error, 1)
		go func() { ended <- back(t, q)(t.Context(), message("a")) }()
		synctest.Wait()
		require.NoError(t, q.Close(t.Context()))
		assert.NoError(t, <-ended)
		assert.Len(t, f.publishes(), 1)
	})
}
