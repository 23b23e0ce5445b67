package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
)

// hold is a handler's work that takes until it's let go, whatever its context says.
type hold struct {
	entered chan context.Context
	leave   chan struct{}
}

func newHold() *hold {
	return &hold{entered: make(chan context.Context, 100), leave: make(chan struct{})}
}

func (h *hold) work(ctx context.Context, _ *queue.Delivery) error {
	h.entered <- ctx
	<-h.leave
	return nil
}

// The ack deadline is 10 s, the handler takes 25: its lease is kept, beside a rival.
func TestServerAHandlerMuchLongerThanTheLease(t *testing.T) {
	r := faulty(t, nil)
	require.Equal(t, 10*time.Second, r.q.Capabilities().Lease)
	r.put(numbered("m", 10)...)
	work := func(ctx context.Context, _ *queue.Delivery) error {
		select {
		case <-time.After(25 * time.Second): // of real work
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	rival := r.open(r.aside)
	one, two := r.consume(r.q, queue.ConsumerOptions{Concurrency: 10}, work), r.consume(rival, queue.ConsumerOptions{Concurrency: 10}, work)
	r.awaitAll()
	r.await("all handlers to have returned", func() bool { return one.Stats().Succeeded+two.Stats().Succeeded == 10 })
	assert.NoError(t, one.end())
	assert.NoError(t, two.end())
	assert.Zero(t, r.judge())
	assert.Zero(t, one.Stats().LeasesLost+two.Stats().LeasesLost)
	r.empty()
}

// A drain ends all the same, and says which delivery it was; another process gets it
// when its lease has ended.
func TestServerAHandlerThatNeverReturns(t *testing.T) {
	r := faulty(t, nil)
	h := newHold()
	defer close(h.leave)
	stuck := message("stuck")
	stuck.ID = "the-one"
	r.put(stuck)
	run := r.consume(r.q, queue.ConsumerOptions{Concurrency: 1, DrainTimeout: time.Second}, h.work)
	ctx := <-h.entered
	begun := time.Now()
	err := run.end()
	assert.Less(t, time.Since(begun), 6*time.Second, "1 s of drain, 1 s of grace, 1 s for the open receive")
	abandoned, ok := errors.AsType[*queue.AbandonedError](err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, []string{"the-one"}, abandoned.IDs)
	assert.ErrorIs(t, context.Cause(ctx), queue.ErrDraining)

	other := r.open(r.aside)
	next := r.consume(other, queue.ConsumerOptions{Concurrency: 1}, nil)
	r.await("its redelivery", func() bool { return r.handled["stuck"] == 2 })
	assert.GreaterOrEqual(t, time.Since(begun), 3*time.Second, "not beside the first, as far as can be known")
	assert.NoError(t, next.end())
	r.empty()
}

// A machine that can't be reached loses its leases: others get its messages while its
// handlers still run. These are told, and what they return does no harm.
func TestServerARedeliveryWhileTheFirstIsBeingHandled(t *testing.T) {
	r := faulty(t, nil)
	first, second := newHold(), newHold()
	r.put(message("m"))
	one := r.consume(r.q, queue.ConsumerOptions{Concurrency: 1}, first.work)
	ctx := <-first.entered
	r.net.freeze() // no extension gets through
	other := r.open(r.aside)
	two := r.consume(other, queue.ConsumerOptions{Concurrency: 1}, second.work)
	<-second.entered
	<-ctx.Done()
	assert.ErrorIs(t, context.Cause(ctx), queue.ErrLeaseLost)
	r.net.cut()
	r.net.thaw()
	close(first.leave) // it succeeds all the same
	r.await("the first to be counted", func() bool { return one.Stats().Succeeded == 1 })
	close(second.leave)
	r.put(message("after"))
	r.awaitAll()
	assert.NoError(t, one.end())
	assert.NoError(t, two.end())
	assert.EqualValues(t, 1, one.Stats().LeasesLost)
	assert.Equal(t, 1, r.judge(), "that lease explains it")
	r.empty()
}

// Handlers go on undisturbed until the drain's timeout; what they do is settled.
func TestServerAShutdownWithHandlersRunning(t *testing.T) {
	for _, c := range []struct {
		name  string
		late  bool // the handlers wait for the end of their contexts
		drain time.Duration
	}{{"that have the time", false, 30 * time.Second}, {"whose time is over", true, 2 * time.Second}} {
		t.Run(c.name, func(t *testing.T) {
			r := faulty(t, nil)
			r.put(numbered("m", 20)...)
			entered, leave := make(chan context.Context, 20), make(chan struct{})
			var stopped atomic.Bool
			run := r.consume(r.q, queue.ConsumerOptions{Concurrency: 5, DrainTimeout: c.drain}, func(ctx context.Context, _ *queue.Delivery) error {
				if stopped.Load() {
					t.Error("a handler was started after the shutdown had begun")
				}
				entered <- ctx
				select {
				case <-ctx.Done():
					return context.Cause(ctx)
				case <-leave:
					return nil
				}
			})
			var contexts []context.Context
			for range 5 {
				contexts = append(contexts, <-entered)
			}
			ended := make(chan error, 1)
			begun := time.Now()
			go func() { ended <- run.end() }()
			r.await("the drain to have begun", func() bool { return run.Stats().Draining })
			stopped.Store(true)
			if !c.late {
				for _, ctx := range contexts {
					assert.NoError(t, ctx.Err(), "undisturbed")
				}
				close(leave)
			}
			assert.NoError(t, <-ended)
			s := run.Stats()
			if c.late {
				assert.GreaterOrEqual(t, time.Since(begun), c.drain)
				for _, ctx := range contexts {
					assert.ErrorIs(t, context.Cause(ctx), queue.ErrDraining)
				}
				assert.EqualValues(t, 5, s.Interrupted)
				assert.Zero(t, s.Failed, "it's no failure")
			} else {
				assert.EqualValues(t, 5, s.Succeeded)
			}
			stopped.Store(false)
			other := r.open(r.aside)
			rest := r.consume(other, queue.ConsumerOptions{Concurrency: 20}, nil)
			r.awaitAll()
			r.await("all to be handled well", func() bool { return s.Succeeded+rest.Stats().Succeeded == 20 })
			assert.NoError(t, rest.end())
			assert.EqualValues(t, int(s.Interrupted), r.judge(), "those that were interrupted came again")
			r.empty()
		})
	}
}

// A message that always fails goes to the dead-letter queue; those of its key that
// follow it are handled then, in their order, and other keys never wait.
func TestServerAPoisonMessageOfAKey(t *testing.T) {
	r := faulty(t, &queue.QueueSpec{Ordered: true, DeadLetter: "dlq", BrokerMaxAttempts: 100})
	dead, err := r.backend.Open(t.Context(), r.spec.DeadLetter, nil)
	require.NoError(t, err)
	defer func() { assert.NoError(t, dead.Close(context.Background())) }()
	const poison = "k2"
	failing := func(_ context.Context, d *queue.Delivery) error {
		if string(d.Body) == poison {
			return errWork
		}
		return nil
	}
	run := r.consume(r.q, queue.ConsumerOptions{
		Concurrency: 10, Backoff: queue.Backoff{Min: 500 * time.Millisecond, Max: time.Second},
		Middleware: []queue.Middleware{middleware.DeadLetter(dead, middleware.DeadLetterOptions{MaxFailures: 3})},
	}, failing)
	for _, key := range []string{"k", "other"} {
		var msgs []*queue.Message
		for i := range 8 {
			msgs = append(msgs, keyed(key, fmt.Sprint(key, i)))
		}
		r.put(msgs...)
	}
	r.awaitAll()
	r.await("the poison to be given up", func() bool { return run.Stats().DeadLettered == 1 })
	assert.NoError(t, run.end())
	assert.Equal(t, []string{"k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7"}, r.first("k"))
	assert.Equal(t, []string{"other0", "other1", "other2", "other3", "other4", "other5", "other6", "other7"}, r.first("other"))
	assert.Equal(t, 3, r.handled[poison])
	last := len(r.order) - 1 - slices.Index(reversed(r.order), poison)
	assert.Less(t, last, slices.Index(r.order, "k3"), "no follower overtakes it")
	d := receive(t, dead, 1)[0]
	assert.Equal(t, poison, string(d.Body))
	require.NotNil(t, d.DeadLetter)
	assert.Equal(t, 3, d.DeadLetter.Failures)
	assert.Contains(t, d.DeadLetter.Error, errWork.Error())
	require.NoError(t, dead.Settle(t.Context(), queue.Settlement{Delivery: d}))
	r.judge()
	r.empty()
}

func reversed(s []string) []string {
	out := slices.Clone(s)
	slices.Reverse(out)
	return out
}
