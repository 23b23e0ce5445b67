package memory_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
)

// consuming runs a consumer until the function that it returns is called.
func consuming(t *testing.T, q queue.Subscriber, h queue.Handler, o *queue.ConsumerOptions) (stop func()) {
	t.Helper()
	if o == nil {
		o = &queue.ConsumerOptions{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c, err := queue.NewConsumer(q, h, o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	return func() {
		cancel()
		require.NoError(t, <-ran)
	}
}

// openWith opens a queue for the length of a test, with a message in it.
func openWith(t *testing.T, o *memory.Options, ordered bool, m *queue.Message) (*memory.Broker, queue.Queue) {
	t.Helper()
	o.Create = true
	b := memory.New(o)
	q, err := b.Open(t.Context(), "orders", &queue.OpenOptions{Ordered: ordered})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, q.Close(context.Background())) })
	require.NoError(t, q.Publish(t.Context(), m))
	return b, q
}

// While it's held here the broker's copy gets old: after its end there'd be none but ours.
func TestWhatIsHeldForLongerThanTheRetentionOutlivesARestart(t *testing.T) {
	t.Parallel()
	const retention = 10 * time.Minute
	for _, c := range []struct {
		name         string
		delay, retry time.Duration
		restart      time.Duration
	}{
		{"put off for several retentions", 0, 55 * time.Minute, 20 * time.Minute},
		{"put off until just before the end", 0, retention - time.Second, 9*time.Minute + 30*time.Second},
		{"delayed until the end", retention, 0, 9*time.Minute + 30*time.Second},
		{"delayed until just before the end", retention - 10*time.Second, 0, 9 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				_, q := openWith(t, &memory.Options{Like: memory.PubSub, Retention: retention}, false, &queue.Message{Delay: c.delay, Body: []byte("a")})
				calls, done := 0, 0
				h := func(context.Context, *queue.Delivery) error {
					if calls++; calls == 1 && c.retry > 0 {
						return queue.Snooze(c.retry)
					}
					done++
					return nil
				}
				stop := consuming(t, q, h, nil)
				time.Sleep(c.restart)
				stop()
				stop = consuming(t, q, h, nil)
				time.Sleep(2 * time.Hour)
				stop()
				assert.Equal(t, 1, done)
			})
		})
	}
}

func TestWhatIsPutOffForManyRetentionsComesBack(t *testing.T) {
	t.Parallel()
	for _, retention := range []time.Duration{10 * time.Minute, 11 * time.Minute, time.Hour} {
		for _, hold := range []int{1, 1000} {
			t.Run(fmt.Sprintf("%v, of which %d may be held", retention, hold), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					_, q := openWith(t, &memory.Options{Like: memory.PubSub, Retention: retention}, false, &queue.Message{ID: "0"})
					for i := range 2 {
						require.NoError(t, q.Publish(t.Context(), &queue.Message{ID: fmt.Sprint(i + 1)}))
					}
					calls, done := map[string]int{}, map[string]int{}
					stop := consuming(t, q, func(_ context.Context, d *queue.Delivery) error {
						if calls[d.ID]++; calls[d.ID] == 1 {
							return queue.Snooze(2 * time.Hour)
						}
						done[d.ID]++
						return nil
					}, &queue.ConsumerOptions{MaxHold: hold, Concurrency: 1})
					time.Sleep(5 * time.Hour)
					stop()
					assert.Equal(t, map[string]int{"0": 1, "1": 1, "2": 1}, done)
				})
			})
		}
	}
}

// SQS counts its 12 hours from the receive, not from when the handler has returned.
func TestALongWaitAfterALongHandlerIsNotEarly(t *testing.T) {
	t.Parallel()
	for _, like := range []memory.Like{memory.SQSStandard, memory.SQSFIFO} {
		for _, c := range []struct{ work, wait time.Duration }{
			{2 * time.Second, 12 * time.Hour}, {30 * time.Minute, 12 * time.Hour}, {50 * time.Minute, 11*time.Hour + 30*time.Minute},
		} {
			t.Run(fmt.Sprintf("%v/%v after %v", like, c.wait, c.work), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					_, q := openWith(t, &memory.Options{Like: like}, like == memory.SQSFIFO, &queue.Message{Body: []byte("a")})
					var due, came time.Time
					stop := consuming(t, q, func(context.Context, *queue.Delivery) error {
						if due.IsZero() {
							time.Sleep(c.work)
							due = time.Now().Add(c.wait)
							return queue.RetryAfter(c.wait, assert.AnError)
						}
						came = time.Now()
						return nil
					}, nil)
					time.Sleep(30 * time.Hour)
					stop()
					assert.WithinRange(t, came, due, due.Add(2*time.Second))
				})
			})
		}
	}
}

// shut is a gate that lets nothing through until a time, but has room: like that of a
// tenant whose limit is 0.
type shut struct{ until time.Time }

func (shut) Wrap(next queue.Handler) queue.Handler { return next }
func (shut) Attach(func()) func()                  { return func() {} }
func (shut) Room() queue.Room                      { return queue.Unlimited }
func (shut) Leave(any, queue.GateResult)           {}

func (s shut) Enter(*queue.Delivery) queue.Entry {
	if time.Now().Before(s.until) {
		return queue.Entry{Until: s.until}
	}
	return queue.Entry{OK: true}
}

func TestWhatAGateHoldsBackOutlivesTheRetention(t *testing.T) {
	t.Parallel()
	for _, like := range []memory.Like{memory.Portable, memory.SQSStandard, memory.PubSub} {
		// What may be held is looked at again much less often.
		for hold, retention := range map[int]time.Duration{1: time.Hour, 1000: 24 * time.Hour} {
			t.Run(fmt.Sprintf("%v, of which %d may be held", like, hold), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					_, q := openWith(t, &memory.Options{Like: like, Retention: retention}, false, &queue.Message{Body: []byte("a")})
					for range 2 {
						require.NoError(t, q.Publish(t.Context(), &queue.Message{Body: []byte("a")}))
					}
					var done atomic.Int32
					stop := consuming(t, q, func(context.Context, *queue.Delivery) error { done.Add(1); return nil },
						&queue.ConsumerOptions{Middleware: []queue.Middleware{shut{time.Now().Add(retention * 7 / 6)}}, MaxHold: hold, Concurrency: 10})
					time.Sleep(2 * retention)
					stop()
					assert.EqualValues(t, 3, done.Load())
				})
			})
		}
	}
}

// noDefers is a queue that can't be published to by its consumer.
type noDefers struct {
	queue.Queue
	err   error
	tried *int
}

func (n noDefers) Settle(ctx context.Context, s ...queue.Settlement) error {
	errs := make([]error, len(s))
	for i := range s {
		if s[i].Kind == queue.Defer {
			*n.tried++
			errs[i] = n.err
			continue
		}
		errs[i] = n.Queue.Settle(ctx, s[i])
	}
	return queue.NewSettleError(errs)
}

func TestARetryIsNotEarlyWhereNothingCanBePublishedAnew(t *testing.T) {
	t.Parallel()
	for _, like := range []memory.Like{memory.Portable, memory.SQSStandard, memory.PubSub} {
		t.Run(like.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				_, q := openWith(t, &memory.Options{Like: like, Retention: 24 * time.Hour}, false, &queue.Message{Body: []byte("a")})
				time.Sleep(13 * time.Hour)
				var due time.Time
				calls, tried := 0, 0
				stop := consuming(t, noDefers{q, assert.AnError, &tried}, func(context.Context, *queue.Delivery) error {
					calls++
					assert.False(t, time.Now().Before(due), "early by %v", time.Until(due))
					due = time.Now().Add(9 * time.Minute)
					return queue.RetryAfter(9*time.Minute, assert.AnError)
				}, nil)
				time.Sleep(time.Hour)
				stop()
				assert.InDelta(t, 7, calls, 1)
				assert.Positive(t, tried)
			})
		})
	}
}

func TestWithoutTheRightToPublishFailuresCountAndTheEndIsSaid(t *testing.T) {
	t.Parallel()
	for _, like := range []memory.Like{memory.SQSStandard, memory.PubSub} {
		t.Run(like.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, q := openWith(t, &memory.Options{Like: like, Retention: 24 * time.Hour}, false, &queue.Message{Body: []byte("a")})
				var log strings.Builder
				calls, failures, tried := 0, 0, 0
				stop := consuming(t, noDefers{q, queue.ErrPermission, &tried}, func(_ context.Context, d *queue.Delivery) error {
					calls, failures = calls+1, d.Failures
					return assert.AnError
				}, &queue.ConsumerOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
				time.Sleep(30 * time.Hour)
				stop()
				assert.Empty(t, b.Messages("orders"))
				assert.Greater(t, calls, 100)
				assert.Equal(t, calls-1, failures)
				assert.Contains(t, log.String(), "it may be lost then")
			})
		})
	}
}

func TestRedriveKeepsTheTimeOfWhatIsNotDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(&memory.Options{Like: memory.PubSub})
		_, err := b.Ensure(t.Context(), "orders", &queue.QueueSpec{DeadLetter: "dead", BrokerMaxAttempts: 5})
		require.NoError(t, err)
		q, err := b.Open(t.Context(), "orders", nil)
		require.NoError(t, err)
		dead, err := b.Open(t.Context(), "dead", nil)
		require.NoError(t, err)
		due := time.Now().Add(6 * time.Hour)
		require.NoError(t, q.Publish(t.Context(), &queue.Message{Body: []byte("a"), Delay: 6 * time.Hour}))
		for range 2 { // the second time it was moved before, and is still not due
			for range 5 { // as when its consumers crash
				ds, err := q.Receive(t.Context(), 1)
				require.NoError(t, err)
				require.Len(t, ds, 1)
				time.Sleep(time.Minute)
			}
			poll, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err = q.Receive(poll, 1)
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Len(t, b.Messages("dead"), 1)
			report, err := queue.Redrive(t.Context(), dead, q, nil)
			require.NoError(t, err)
			require.Equal(t, 1, report.Moved)
		}
		var came time.Time
		stop := consuming(t, q, func(context.Context, *queue.Delivery) error { came = time.Now(); return nil }, nil)
		time.Sleep(24 * time.Hour)
		stop()
		require.NoError(t, q.Close(context.Background()))
		require.NoError(t, dead.Close(context.Background()))
		assert.WithinRange(t, came, due, due.Add(time.Second))
	})
}

// skewed is a broker whose clock isn't ours.
type skewed struct {
	queue.Queue
	by     time.Duration
	defers *int
}

func (s skewed) Receive(ctx context.Context, n int) ([]*queue.Delivery, error) {
	ds, err := s.Queue.Receive(ctx, n)
	time.Sleep(5 * time.Millisecond)
	for _, d := range ds {
		d.FillFromBroker(d.BrokerID, time.Now().Add(-s.by))
	}
	return ds, err
}

func (s skewed) Settle(ctx context.Context, ss ...queue.Settlement) error {
	for i := range ss {
		if ss[i].Kind == queue.Defer {
			*s.defers++
		}
	}
	return s.Queue.Settle(ctx, ss...)
}

func TestClocksThatDifferMakeNoStorm(t *testing.T) {
	t.Parallel()
	for _, like := range []memory.Like{memory.SQSStandard, memory.PubSub} {
		for _, by := range []time.Duration{-6 * time.Minute, 4 * time.Minute, 6 * time.Minute, time.Hour} {
			t.Run(fmt.Sprintf("%v/%v", like, by), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					_, q := openWith(t, &memory.Options{Like: like, Retention: 10 * time.Minute}, false, &queue.Message{Body: []byte("a")})
					calls, defers := 0, 0
					stop := consuming(t, skewed{q, by, &defers}, func(context.Context, *queue.Delivery) error {
						if calls++; calls == 1 {
							return queue.Snooze(8 * time.Minute)
						}
						return nil
					}, nil)
					time.Sleep(time.Hour)
					stop()
					assert.Equal(t, 2, calls)
					assert.Less(t, defers, 20)
				})
			})
		}
	}
}

// A message that can't be published anew says nothing of others.
func TestAnotherMessageThatIsTooLargeMakesNoWaitEarly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, q := openWith(t, &memory.Options{Like: memory.SQSStandard}, false, &queue.Message{ID: "small", Body: []byte("a")})
		most := q.Capabilities().Wire.MaxBytes
		require.NoError(t, q.Publish(t.Context(), &queue.Message{Body: bytes.Repeat([]byte("a"), most-60)}))
		var kinds kindList
		var calls atomic.Int32
		stop := consuming(t, counting{q, &kinds}, func(_ context.Context, d *queue.Delivery) error {
			if calls.Add(1) > 2 {
				return nil
			}
			if d.ID == "small" { // when the other one's has failed
				time.Sleep(10 * time.Second)
			}
			return queue.RetryAfter(24*time.Hour, assert.AnError)
		}, nil)
		time.Sleep(time.Minute)
		stop()
		assert.Equal(t, []queue.SettleKind{queue.Defer, queue.Release, queue.Defer}, kinds.all)
	})
}

// counting notes what was settled, and how.
type counting struct {
	queue.Queue
	kinds *kindList
}

type kindList struct {
	mu  sync.Mutex
	all []queue.SettleKind
}

func (c counting) Settle(ctx context.Context, ss ...queue.Settlement) error {
	c.kinds.mu.Lock()
	for i := range ss {
		c.kinds.all = append(c.kinds.all, ss[i].Kind)
	}
	c.kinds.mu.Unlock()
	return c.Queue.Settle(ctx, ss...)
}

// The broker's own limit of attempts is a net that must stay: published anew, a message
// would be counted anew.
func TestWhatFailsIsStillDeadLetteredByTheBroker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(&memory.Options{Like: memory.SQSStandard})
		_, err := b.Ensure(t.Context(), "orders", &queue.QueueSpec{DeadLetter: "dead", BrokerMaxAttempts: 5})
		require.NoError(t, err)
		q, err := b.Open(t.Context(), "orders", nil)
		require.NoError(t, err)
		require.NoError(t, q.Publish(t.Context(), &queue.Message{Body: []byte("a")}))
		stop := consuming(t, q, func(context.Context, *queue.Delivery) error {
			return queue.RetryAfter(11*time.Hour, assert.AnError)
		}, nil)
		time.Sleep(80 * time.Hour)
		stop()
		assert.Len(t, b.Messages("dead"), 1)
		require.NoError(t, q.Close(context.Background()))
	})
}

// Its lease can't be kept for as long as it's held: then it goes back, and is published
// anew for its age.
func TestWhatIsNotDueKeepsItsTimeWhenItsLeaseCannotBeKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(&memory.Options{Like: memory.PubSub, Retention: 7 * 24 * time.Hour})
		_, err := b.Ensure(t.Context(), "orders", &queue.QueueSpec{Lease: time.Minute})
		require.NoError(t, err)
		q, err := b.Open(t.Context(), "orders", nil)
		require.NoError(t, err)
		due := time.Now().Add(6 * 24 * time.Hour)
		require.NoError(t, q.Publish(t.Context(), &queue.Message{Body: []byte("a"), DeliverAt: due}))
		time.Sleep(4 * 24 * time.Hour)
		var came time.Time
		stop := consuming(t, q, func(context.Context, *queue.Delivery) error { came = time.Now(); return nil },
			&queue.ConsumerOptions{MaxExtension: 65 * time.Second})
		time.Sleep(3 * 24 * time.Hour)
		stop()
		require.NoError(t, q.Close(context.Background()))
		assert.WithinRange(t, came, due, due.Add(time.Minute))
	})
}
