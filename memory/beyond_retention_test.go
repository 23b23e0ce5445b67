package memory_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
)

// A message that's put off for longer than the broker keeps one is published anew in
// time, and so outlives its copies.
func TestAMessageOutlivesTheRetentionWhenItIsPutOffForLonger(t *testing.T) {
	t.Parallel()
	for _, like := range []memory.Like{memory.Portable, memory.SQSStandard, memory.PubSub} {
		for _, hold := range []int{1, 1000} {
			t.Run(fmt.Sprint(like, " MaxHold ", hold), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					b := memory.New(&memory.Options{Like: like, Create: true, Retention: 4 * 24 * time.Hour})
					q, err := b.Open(t.Context(), "orders", nil)
					require.NoError(t, err)
					away := q.Capabilities().Retention + 24*time.Hour
					var handled []time.Duration
					begun := time.Now()
					c, err := queue.NewConsumer(q, func(context.Context, *queue.Delivery) error {
						handled = append(handled, time.Since(begun))
						if len(handled) == 1 {
							return queue.Snooze(away)
						}
						return nil
					}, &queue.ConsumerOptions{MaxHold: hold})
					require.NoError(t, err)
					ctx, stop := context.WithCancel(t.Context())
					ran := make(chan error, 1)
					go func() { ran <- c.Run(ctx) }()
					require.NoError(t, q.Publish(ctx, &queue.Message{Body: []byte("a")}))
					time.Sleep(away + 24*time.Hour)
					stop()
					require.NoError(t, <-ran)
					require.NoError(t, q.Close(context.Background()))
					require.Len(t, handled, 2, "%v", handled)
					assert.GreaterOrEqual(t, handled[1], away, "not early")
				})
			})
		}
	}
}

// The same goes for one that keeps failing, as long as somebody tries.
func TestAMessageThatKeepsFailingIsNotDroppedByTheRetention(t *testing.T) {
	t.Parallel()
	for _, like := range []memory.Like{memory.Portable, memory.SQSStandard, memory.PubSub} {
		t.Run(like.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := memory.New(&memory.Options{Like: like, Create: true, Retention: 24 * time.Hour})
				q, err := b.Open(t.Context(), "orders", nil)
				require.NoError(t, err)
				begun := time.Now()
				const outage = 60 * time.Hour
				var failures, successes int
				c, err := queue.NewConsumer(q, func(_ context.Context, d *queue.Delivery) error {
					if time.Since(begun) < outage {
						failures = d.Failures
						return assert.AnError
					}
					successes++
					return nil
				}, &queue.ConsumerOptions{Logger: slog.New(slog.DiscardHandler)})
				require.NoError(t, err)
				ctx, stop := context.WithCancel(t.Context())
				ran := make(chan error, 1)
				go func() { ran <- c.Run(ctx) }()
				require.NoError(t, q.Publish(ctx, &queue.Message{Body: []byte("a")}))
				time.Sleep(outage + time.Hour)
				stop()
				require.NoError(t, <-ran)
				require.NoError(t, q.Close(context.Background()))
				assert.Equal(t, 1, successes)
				assert.Greater(t, failures, 500, "counted over all copies")
				assert.Empty(t, b.Messages("orders"))
			})
		})
	}
}

// One with an ordering key would lose its place: so it's said.
func TestItIsSaidWhenAMessageThatIsPutOffWillNotComeBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(&memory.Options{Like: memory.SQSFIFO, Create: true})
		q, err := b.Open(t.Context(), "orders", &queue.OpenOptions{Ordered: true})
		require.NoError(t, err)
		var log strings.Builder
		c, err := queue.NewConsumer(q, func(_ context.Context, d *queue.Delivery) error {
			if string(d.Body) == "for-long" {
				return queue.Snooze(q.Capabilities().Retention)
			}
			return queue.Snooze(time.Hour)
		}, &queue.ConsumerOptions{Name: "orders", Logger: slog.New(slog.NewTextHandler(&log, nil))})
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- c.Run(ctx) }()
		for _, body := range []string{"for-long", "shortly"} {
			require.NoError(t, q.Publish(ctx, &queue.Message{ID: body, Body: []byte(body), OrderingKey: body}))
		}
		time.Sleep(time.Minute)
		stop()
		require.NoError(t, <-ran)
		require.NoError(t, q.Close(context.Background()))
		assert.Equal(t, 1, strings.Count(log.String(), "may be lost"))
		assert.Contains(t, log.String(), `id=for-long in=96h0m0s retention=96h0m0s`)
	})
}

// A broker may round a delay up, and takes its time: what comes back just before it would
// be dropped is dropped.
func TestWhatComesBackJustBeforeItWouldBeDroppedIsPublishedAnew(t *testing.T) {
	t.Parallel()
	for _, like := range []memory.Like{memory.Portable, memory.SQSStandard, memory.PubSub} {
		for _, before := range []time.Duration{time.Nanosecond, 500 * time.Millisecond, time.Minute} {
			t.Run(like.String()+"/"+before.String(), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					_, q := openWith(t, &memory.Options{Like: like, Retention: 24 * time.Hour}, false, &queue.Message{Body: []byte("a")})
					end := time.Now().Add(24 * time.Hour)
					successes := 0
					stop := consuming(t, q, func(context.Context, *queue.Delivery) error {
						if left := time.Until(end); left > before {
							// In steps that every broker can hold a message back for.
							return queue.RetryAfter(min(left-before, 9*time.Minute), assert.AnError)
						}
						successes++
						return nil
					}, nil)
					time.Sleep(25 * time.Hour)
					stop()
					assert.Equal(t, 1, successes)
				})
			})
		}
	}
}

func TestADelayAsLongAsTheRetentionIsKept(t *testing.T) {
	t.Parallel()
	for _, like := range []memory.Like{memory.Portable, memory.SQSStandard, memory.PubSub} {
		for _, before := range []time.Duration{0, time.Nanosecond, 500 * time.Millisecond, 13 * time.Hour} {
			for _, field := range []string{"Delay", "DeliverAt"} {
				t.Run(like.String()+"/"+field+"/"+before.String(), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						const retention = 24 * time.Hour
						due := time.Now().Add(retention - before)
						m := &queue.Message{Body: []byte("a")}
						if field == "Delay" {
							m.Delay = retention - before
						} else {
							m.DeliverAt = due
						}
						_, q := openWith(t, &memory.Options{Like: like, Retention: retention}, false, m)
						var came []time.Time
						stop := consuming(t, q, func(context.Context, *queue.Delivery) error {
							came = append(came, time.Now())
							return nil
						}, nil)
						time.Sleep(retention + time.Hour)
						stop()
						require.Len(t, came, 1)
						assert.WithinRange(t, came[0], due, due.Add(2*time.Second))
					})
				})
			}
		}
	}
}
