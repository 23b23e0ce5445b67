package queue_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
)

var errBroken = errors.New("broken")

// moving is a queue with its dead-letter queue.
type moving struct {
	*testing.T
	broker    *memory.Broker
	dead, was queue.Queue
}

// redriving runs a test on virtual time.
func redriving(t *testing.T, opts memory.Options, fn func(m *moving)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		opts.Create = true
		m := &moving{T: t, broker: memory.New(&opts)}
		m.dead, m.was = m.open("orders-dlq"), m.open("orders")
		fn(m)
		require.NoError(t, m.dead.Close(t.Context()))
		require.NoError(t, m.was.Close(t.Context()))
	})
}

func (m *moving) open(name string) queue.Queue {
	q, err := m.broker.Open(m.Context(), name, nil)
	require.NoError(m, err)
	return q
}

// die puts n dead letters of a queue into the dead-letter queue, and lets time
// pass.
func (m *moving) die(source string, n int) {
	msgs := make([]*queue.Message, n)
	for i := range msgs {
		d := &queue.Delivery{
			Message: queue.Message{ID: fmt.Sprintf("%s-%d", source, i), Body: fmt.Append(nil, i), Attributes: map[string]string{"n": fmt.Sprint(i)}},
			Source:  queue.Endpoint{System: memory.System, Name: source}, EnqueuedAt: time.Now().Add(-time.Hour), Failures: 3,
		}
		msgs[i] = queue.NewDeadLetter(d, errBroken, queue.ReasonFailures, time.Now())
	}
	require.NoError(m, m.dead.Publish(m.Context(), msgs...))
	time.Sleep(time.Second)
}

func (m *moving) redrive(opts *queue.RedriveOptions) queue.RedriveResult {
	m.Helper()
	res, err := queue.Redrive(m.Context(), m.dead, m.was, opts)
	require.NoError(m, err)
	return res
}

func (m *moving) ready(q queue.Queue) int {
	in, ok := queue.As[queue.Inspector](q)
	require.True(m, ok)
	s, err := in.Stats(m.Context())
	require.NoError(m, err)
	return int(*s.Ready)
}

func (m *moving) has(want, left int) {
	m.Helper()
	assert.Equal(m, want, m.ready(m.was), "in the queue")
	assert.Equal(m, left, m.ready(m.dead), "in the dead-letter queue")
}

func odd(d *queue.Delivery) bool { return (d.Body[len(d.Body)-1]-'0')%2 == 1 }

func TestRedriveMovesEverythingAsItWas(t *testing.T) {
	redriving(t, memory.Options{}, func(m *moving) {
		m.die("orders", 25)
		assert.Equal(m, queue.RedriveResult{Moved: 25}, m.redrive(nil))
		m.has(25, 0)
		for i, d := range m.broker.Messages("orders") {
			assert.Equal(m, fmt.Sprintf("orders-%d", i), d.ID)
			assert.Equal(m, fmt.Sprint(i), string(d.Body))
			assert.Equal(m, map[string]string{"n": fmt.Sprint(i)}, d.Attributes)
			assert.Zero(m, d.Failures)
			assert.Equal(m, 1, d.DeadLetter.Redriven)
			assert.Equal(m, "broken", d.DeadLetter.Error)
			assert.WithinDuration(m, time.Now(), d.AgeFrom(), time.Minute)
			assert.WithinDuration(m, time.Now().Add(-time.Hour), d.EnqueuedAt, time.Minute)
		}
		assert.Zero(m, m.redrive(nil), "there's nothing left")
	})
}

func TestRedriveShowsWhatStaysAsSoonAsItEnds(t *testing.T) {
	redriving(t, memory.Options{Lease: 5 * time.Second}, func(m *moving) {
		m.die("orders", 40)
		// Slower than the lease is long: what stays must not be met again.
		res := m.redrive(&queue.RedriveOptions{Filter: odd, Rate: 1})
		assert.Equal(m, queue.RedriveResult{Moved: 20, Skipped: 20}, res)
		m.has(20, 20)
		for _, d := range m.broker.Messages("orders-dlq") {
			info, _ := memory.InfoOf(d)
			assert.Equal(m, 1, info.Receives, "met once")
		}
	})
}

func TestRedriveEndsHoweverManyStay(t *testing.T) {
	redriving(t, memory.Options{}, func(m *moving) {
		m.die("other", 2500)
		m.die("orders", 5)
		assert.Equal(m, queue.RedriveResult{Moved: 5, Skipped: 2500}, m.redrive(nil))
		assert.Equal(m, 1000, m.ready(m.dead), "those whose leases were held")
		time.Sleep(time.Minute)
		m.has(5, 2500)
	})
}

func TestRedriveCountsWhatStaysOnceInALongRun(t *testing.T) {
	redriving(t, memory.Options{}, func(m *moving) {
		m.die("other", 1500)
		m.die("orders", 100)
		res := m.redrive(&queue.RedriveOptions{Rate: 0.5, Aside: time.Second}) // 200 s
		assert.Equal(m, queue.RedriveResult{Moved: 100, Skipped: 1500}, res)
	})
}

func TestRedriveTakesOnlyWhatCameFromTheQueue(t *testing.T) {
	redriving(t, memory.Options{}, func(m *moving) {
		m.die("orders", 3)
		m.die("leads", 4)
		require.NoError(m, m.dead.Publish(m.Context(), &queue.Message{Body: []byte("without a history")}))
		time.Sleep(time.Second)
		assert.Equal(m, queue.RedriveResult{Moved: 4, Skipped: 4}, m.redrive(nil))
		assert.Equal(m, queue.RedriveResult{Moved: 4}, m.redrive(&queue.RedriveOptions{AnySource: true}))
		m.has(8, 0)
	})
}

func TestRedriveIsFrozenAtItsStart(t *testing.T) {
	redriving(t, memory.Options{}, func(m *moving) {
		m.die("orders", 10)
		steps := 0
		res := m.redrive(&queue.RedriveOptions{Rate: 2, Progress: func(queue.RedriveResult) {
			if steps++; steps == 1 {
				time.Sleep(time.Second)
				m.die("orders", 3)
			}
		}})
		assert.Equal(m, queue.RedriveResult{Moved: 10, Newer: 3}, res)
		m.has(10, 3)
	})
}

func TestRedriveEndsBesideAConsumerThatFailsAgain(t *testing.T) {
	redriving(t, memory.Options{}, func(m *moving) {
		m.die("orders", 7)
		ctx, cancel := context.WithCancel(m.Context())
		ended := make(chan error, 1)
		c, err := queue.NewConsumer(m.was, func(ctx context.Context, d *queue.Delivery) error {
			return m.dead.Publish(ctx, queue.NewDeadLetter(d, errBroken, queue.ReasonRejected, time.Now()))
		}, nil)
		require.NoError(m, err)
		go func() { ended <- c.Run(ctx) }()
		assert.Equal(m, queue.RedriveResult{Moved: 7, Newer: 7}, m.redrive(nil))
		cancel()
		require.NoError(m, <-ended)
		m.has(0, 7)
	})
}

// An operation that was interrupted goes on in another process.
func TestRedriveOfAnInterruptedOperationLeavesWhatCameBack(t *testing.T) {
	redriving(t, memory.Options{}, func(m *moving) {
		m.die("orders", 10)
		begun := time.Now()
		opts := &queue.RedriveOptions{ID: "op-7", Before: begun, Max: 4}
		assert.Equal(m, queue.RedriveResult{Moved: 4}, m.redrive(opts))
		time.Sleep(time.Second)
		for range 4 { // the bug isn't fixed
			ds, err := m.was.Receive(m.Context(), 1)
			require.NoError(m, err)
			assert.Equal(m, "op-7", ds[0].DeadLetter.Operation)
			require.NoError(m, m.dead.Publish(m.Context(), queue.NewDeadLetter(ds[0], errBroken, queue.ReasonRejected, time.Now())))
			require.NoError(m, m.was.Settle(m.Context(), queue.Settlement{Delivery: ds[0]}))
		}
		m.die("orders", 3)
		opts.Max = 0
		assert.Equal(m, queue.RedriveResult{Moved: 6, Newer: 7, CameBack: 4}, m.redrive(opts))
		m.has(6, 7)
		// A new operation takes all of them.
		assert.Equal(m, queue.RedriveResult{Moved: 7}, m.redrive(&queue.RedriveOptions{ID: "op-8"}))
		assert.Equal(m, "op-8", m.broker.Messages("orders")[12].DeadLetter.Operation)
	})
}

// What the broker has dead-lettered, or people have put there, has no history; it's
// known again all the same.
func TestATrialIsMarkedAndKnownAgain(t *testing.T) {
	redriving(t, memory.Options{}, func(m *moving) {
		m.die("orders", 1)
		require.NoError(m, m.dead.Publish(m.Context(), &queue.Message{Body: []byte("by hand")}))
		time.Sleep(time.Second)
		opts := &queue.RedriveOptions{ID: "op-9", Trial: true}
		assert.Equal(m, queue.RedriveResult{Moved: 2}, m.redrive(opts))
		ds, err := m.was.Receive(m.Context(), 2)
		require.NoError(m, err)
		for _, d := range ds {
			require.NotNil(m, d.DeadLetter)
			assert.True(m, d.DeadLetter.Trial)
			assert.Equal(m, 1, d.DeadLetter.Redriven)
			again := queue.NewDeadLetter(d, errBroken, queue.ReasonTrial, time.Now())
			require.NoError(m, m.dead.Publish(m.Context(), again))
			require.NoError(m, m.was.Settle(m.Context(), queue.Settlement{Delivery: d}))
		}
		opts.Trial = false
		assert.Equal(m, queue.RedriveResult{Newer: 2, CameBack: 2}, m.redrive(opts))
		assert.Equal(m, queue.RedriveResult{Moved: 2}, m.redrive(nil))
		for _, d := range m.broker.Messages("orders") {
			assert.False(m, d.DeadLetter.Trial)
			assert.Equal(m, 2, d.DeadLetter.Redriven)
		}
	})
}

func TestRedriveRemovesLaterWhatItCouldNotRemove(t *testing.T) {
	redriving(t, memory.Options{}, func(m *moving) {
		m.die("orders", 6)
		acks := 0
		heal := m.broker.Fail(memory.Fault{Call: memory.OnSettle, Queue: "orders-dlq", Effect: memory.LoseLease, Times: 2})
		res := m.redrive(&queue.RedriveOptions{Quiet: 40 * time.Second, Progress: func(r queue.RedriveResult) { acks = max(acks, r.Repeated) }})
		heal()
		assert.Equal(m, 2, acks)
		assert.Equal(m, queue.RedriveResult{Moved: 6}, res, "they came again and were removed, not moved again")
		m.has(6, 0)
	})
}

func TestRedriveTellsWhatItCouldNotRemove(t *testing.T) {
	redriving(t, memory.Options{}, func(m *moving) {
		m.die("orders", 6)
		heal := m.broker.Fail(memory.Fault{Call: memory.OnSettle, Queue: "orders-dlq"})
		assert.Equal(m, queue.RedriveResult{Moved: 6, Repeated: 6}, m.redrive(nil))
		heal()
		time.Sleep(time.Minute)
		m.has(6, 6)
	})
}

func TestRedriveLosesNothingWhenAnswersAreLost(t *testing.T) {
	for name, call := range map[string]memory.Call{"publish": memory.OnPublish, "settle": memory.OnSettle, "receive": memory.OnReceive, "extend": memory.OnExtend} {
		t.Run(name, func(t *testing.T) {
			redriving(t, memory.Options{}, func(m *moving) {
				m.die("orders", 60)
				heal := m.broker.Fail(memory.Fault{Call: call, Effect: memory.Unanswered, Skip: 1, Times: 3})
				// Long enough for a lease to end, that an unanswered receive began.
				res := m.redrive(&queue.RedriveOptions{Rate: 10, Quiet: time.Minute})
				heal()
				assert.Equal(m, 60, res.Moved)
				seen := map[string]bool{}
				for _, d := range m.broker.Messages("orders") {
					seen[d.ID] = true
				}
				assert.Len(m, seen, 60)
				assert.Empty(m, m.broker.Messages("orders-dlq"))
			})
		})
	}
}

func TestRedriveTriesAgainWhatMayPass(t *testing.T) {
	redriving(t, memory.Options{}, func(m *moving) {
		m.die("orders", 10)
		m.broker.Fail(memory.Fault{Queue: "orders", Err: queue.ErrThrottled, Times: 3})
		m.broker.Fail(memory.Fault{Call: memory.OnReceive, Queue: "orders-dlq", Times: 3})
		assert.Equal(m, queue.RedriveResult{Moved: 10}, m.redrive(nil))
		m.has(10, 0)
	})
}

func TestRedriveStopsWhenNothingCanBePublished(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		failed int
	}{
		"passing": {queue.ErrThrottled, 15}, "missing": {queue.ErrQueueNotFound, 5}, "not supported": {queue.ErrUnsupported, 5},
	} {
		t.Run(name, func(t *testing.T) {
			redriving(t, memory.Options{}, func(m *moving) {
				m.die("orders", 50)
				heal := m.broker.Fail(memory.Fault{Queue: "orders", Err: c.err})
				res, err := queue.Redrive(m.Context(), m.dead, m.was, &queue.RedriveOptions{Rate: 5})
				heal()
				require.ErrorIs(m, err, c.err)
				assert.Equal(m, queue.RedriveResult{Failed: c.failed}, res)
				m.has(0, 50)
				assert.Equal(m, queue.RedriveResult{Moved: 50}, m.redrive(nil))
			})
		})
	}
}

func TestRedriveGoesOnBesideAMessageThatCannotBePublished(t *testing.T) {
	redriving(t, memory.Options{}, func(m *moving) {
		m.die("orders", 20)
		limit := &queue.LimitError{Field: "body", Got: 2, Max: 1, System: "memory"}
		m.broker.Fail(memory.Fault{Queue: "orders", Err: limit, Match: odd2})
		res, err := queue.Redrive(m.Context(), m.dead, oneByOne{m.was}, &queue.RedriveOptions{Rate: 1})
		require.ErrorIs(m, err, limit)
		assert.Equal(m, queue.RedriveResult{Moved: 10, Failed: 10}, res)
		m.has(10, 10)
	})
}

func odd2(m *queue.Message) bool { return (m.Body[len(m.Body)-1]-'0')%2 == 1 }

// oneByOne publishes messages apart from each other. It hides the queue's
// Redriver.
type oneByOne struct{ queue.Queue }

func (q oneByOne) Publish(ctx context.Context, msgs ...*queue.Message) error {
	errs := make([]error, len(msgs))
	for i, m := range msgs {
		errs[i] = queue.PublishErrors(q.Queue.Publish(ctx, m), 1)[0]
	}
	return queue.NewPublishError(errs)
}

func TestRedriveEndsWhenReceivingFailsForGood(t *testing.T) {
	redriving(t, memory.Options{}, func(m *moving) {
		m.die("orders", 5)
		heal := m.broker.Fail(memory.Fault{Call: memory.OnReceive, Err: queue.ErrPermission})
		began := time.Now()
		_, err := queue.Redrive(m.Context(), m.dead, m.was, nil)
		require.ErrorIs(m, err, queue.ErrPermission)
		assert.Zero(m, time.Since(began), "at once")
		heal()
		heal = m.broker.Fail(memory.Fault{Call: memory.OnReceive})
		_, err = queue.Redrive(m.Context(), m.dead, m.was, nil)
		require.ErrorIs(m, err, memory.ErrInjected)
		heal()
		m.has(0, 5)
	})
}

func TestCancelledRedriveFinishesItsBatch(t *testing.T) {
	redriving(t, memory.Options{}, func(m *moving) {
		m.die("orders", 20)
		ctx, cancel := context.WithCancelCause(m.Context())
		stop := errors.New("enough")
		var res queue.RedriveResult
		res, err := queue.Redrive(ctx, cancelling{m.dead, func() { cancel(stop) }}, m.was, &queue.RedriveOptions{Rate: 5, Filter: odd})
		require.ErrorIs(m, err, stop)
		assert.Equal(m, 2, res.Moved)
		assert.Equal(m, 3, res.Skipped)
		m.has(2, 18)
	})
}

// cancelling cancels as soon as something has been received.
type cancelling struct {
	queue.Queue
	cancel func()
}

func (q cancelling) Receive(ctx context.Context, n int) ([]*queue.Delivery, error) {
	ds, err := q.Queue.Receive(ctx, n)
	q.cancel()
	return ds, err
}

func TestRedriveCanBeCancelledWhileItWaits(t *testing.T) {
	redriving(t, memory.Options{}, func(m *moving) {
		m.die("orders", 3)
		ctx, cancel := context.WithTimeout(m.Context(), 90*time.Second)
		defer cancel()
		began := time.Now()
		res, err := queue.Redrive(ctx, m.dead, m.was, &queue.RedriveOptions{Rate: 1.0 / 60})
		require.ErrorIs(m, err, context.DeadlineExceeded)
		assert.Equal(m, 90*time.Second, time.Since(began))
		assert.Equal(m, 2, res.Moved)
		m.has(2, 1)
	})
}

func TestFilterThatPanicsLeavesNothingHidden(t *testing.T) {
	redriving(t, memory.Options{}, func(m *moving) {
		m.die("orders", 5)
		assert.Panics(m, func() { m.redrive(&queue.RedriveOptions{Filter: func(*queue.Delivery) bool { panic("oops") }}) })
		m.has(0, 5)
	})
}

func TestRedriveStopsAtMax(t *testing.T) {
	redriving(t, memory.Options{}, func(m *moving) {
		m.die("orders", 12)
		assert.Equal(m, 4, m.redrive(&queue.RedriveOptions{Max: 4, Filter: odd}).Moved)
		m.has(4, 8)
		assert.Equal(m, 2, m.redrive(&queue.RedriveOptions{Max: 4, Filter: odd}).Moved)
		m.has(6, 6)
	})
}

func TestRedriveDoesNotMoveWhatItHasLost(t *testing.T) {
	redriving(t, memory.Options{Lease: 3 * time.Second}, func(m *moving) {
		m.die("orders", 4)
		heal := m.broker.Fail(memory.Fault{Call: memory.OnExtend, Effect: memory.LoseLease})
		filtered := 0
		res := m.redrive(&queue.RedriveOptions{Quiet: 10 * time.Second, Filter: func(*queue.Delivery) bool {
			if filtered++; filtered == 1 {
				time.Sleep(10 * time.Second) // longer than the lease, which can't be extended
				heal()
			}
			return true
		}})
		assert.Equal(m, queue.RedriveResult{Moved: 4}, res)
		m.has(4, 0)
	})
}

func TestRedriveKeepsToItsRate(t *testing.T) {
	redriving(t, memory.Options{}, func(m *moving) {
		m.die("orders", 30)
		began := time.Now()
		moved := 0
		m.redrive(&queue.RedriveOptions{Rate: 3, Progress: func(r queue.RedriveResult) {
			most := int(3*time.Since(began).Seconds()) + 3
			assert.LessOrEqual(m, r.Moved, most)
			assert.LessOrEqual(m, r.Moved-moved, 3)
			moved = r.Moved
		}})
		assert.Equal(m, 30, moved)
	})
}

func TestRedriveOptionsThatCannotBeMeantAreRefused(t *testing.T) {
	redriving(t, memory.Options{}, func(m *moving) {
		for _, o := range []queue.RedriveOptions{
			{Max: -1}, {Rate: -1}, {Rate: math.NaN()}, {Rate: math.Inf(1)}, {Quiet: -1}, {Aside: -1},
		} {
			_, err := queue.Redrive(m.Context(), m.dead, m.was, &o)
			assert.ErrorIs(m, err, queue.ErrInvalid, "%+v", o)
		}
		_, err := queue.Redrive(m.Context(), nil, m.was, nil)
		require.ErrorIs(m, err, queue.ErrInvalid)
		_, err = queue.Redrive(m.Context(), m.dead, nil, nil)
		require.ErrorIs(m, err, queue.ErrInvalid)
	})
}

type countingRedriver struct {
	queue.Queue
	back, out *atomic.Int64
}

func (q countingRedriver) Publish(ctx context.Context, msgs ...*queue.Message) error {
	q.out.Add(1)
	return q.Queue.Publish(ctx, msgs...)
}

func (q countingRedriver) PublishBack(ctx context.Context, msgs ...*queue.Message) error {
	q.back.Add(int64(len(msgs)))
	return q.Queue.Publish(ctx, msgs...)
}

type wrapped struct{ queue.Queue }

func (q wrapped) Unwrap() queue.Queue { return q.Queue }

func TestRedriveReachesNoOtherSubscriber(t *testing.T) {
	redriving(t, memory.Options{}, func(m *moving) {
		m.die("orders", 5)
		to := countingRedriver{m.was, new(atomic.Int64), new(atomic.Int64)}
		_, err := queue.Redrive(m.Context(), m.dead, wrapped{to}, nil)
		require.NoError(m, err)
		assert.EqualValues(m, 5, to.back.Load())
		assert.Zero(m, to.out.Load())
	})
}

func BenchmarkRedrive(b *testing.B) {
	broker := memory.New(&memory.Options{Create: true})
	from, err := broker.Open(b.Context(), "orders-dlq", nil)
	require.NoError(b, err)
	to, err := broker.Open(b.Context(), "orders", nil)
	require.NoError(b, err)
	d := &queue.Delivery{Message: queue.Message{ID: "0190b4b8-0b5c-7cc0-8d2a-6a1a0a9f4b33", Body: make([]byte, 100)}, Source: to.Capabilities().Source}
	const n = 10_000
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		msgs := make([]*queue.Message, n)
		for i := range msgs {
			msgs[i] = queue.NewDeadLetter(d, errBroken, queue.ReasonAge, time.Now().Add(-time.Second))
		}
		require.NoError(b, from.Publish(b.Context(), msgs...))
		b.StartTimer()
		res, err := queue.Redrive(b.Context(), from, to, &queue.RedriveOptions{Max: n})
		if err != nil || res.Moved != n {
			b.Fatal(res, err)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}
