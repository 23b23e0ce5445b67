package queue_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
)

// Without the permission to remove, each message that's moved is there twice.
func TestRedriveEndsWhenItMayNotRemove(t *testing.T) {
	redriving(t, memory.Options{}, func(m *moving) {
		m.die("orders", 500)
		m.broker.Fail(memory.Fault{Call: memory.OnSettle, Queue: "orders-dlq", Err: queue.ErrPermission})
		res, err := queue.Redrive(m.Context(), m.dead, m.was, nil)
		require.ErrorIs(m, err, queue.ErrPermission)
		assert.Equal(m, queue.RedriveResult{Moved: 100, Repeated: 100}, res, "it doesn't copy a queue that it can't empty")
	})
}

// The same goes for failures that may pass, but don't.
func TestRedriveEndsWhenNothingIsRemovedForLong(t *testing.T) {
	redriving(t, memory.Options{}, func(m *moving) {
		m.die("orders", 5000)
		heal := m.broker.Fail(memory.Fault{Call: memory.OnSettle, Queue: "orders-dlq"})
		res, err := queue.Redrive(m.Context(), m.dead, m.was, nil)
		require.ErrorIs(m, err, memory.ErrInjected)
		assert.Equal(m, queue.RedriveResult{Moved: 300, Repeated: 300}, res)
		heal()
		time.Sleep(time.Minute)
		assert.Equal(m, queue.RedriveResult{Moved: 5000}, m.redrive(nil))
	})
}

// What's dead-lettered meanwhile stays, so that it's no reason to go on.
func TestRedriveEndsHoweverFastNewOnesCome(t *testing.T) {
	redriving(t, memory.Options{}, func(m *moving) {
		m.die("orders", 300)
		ctx, cancel := context.WithCancel(m.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for ctx.Err() == nil {
				m.die("orders", 1)
			}
		}()
		ends, stop := context.WithTimeout(ctx, time.Hour)
		defer stop()
		res, err := queue.Redrive(ends, m.dead, m.was, nil)
		cancel()
		<-ended
		require.NoError(m, err)
		assert.InDelta(m, 300, res.Moved, 1, "one may have come at the very start")
	})
}

// patchy is a queue of a broker whose polls come back at once, at times with nothing
// although there's something.
type patchy struct {
	queue.Queue
	polls *int
}

func (q patchy) Receive(ctx context.Context, n int) ([]*queue.Delivery, error) {
	if *q.polls++; *q.polls%2 == 0 {
		return nil, nil
	}
	return q.Queue.Receive(ctx, n)
}

func TestTheWaitForTheRateIsNotQuiet(t *testing.T) {
	redriving(t, memory.Options{}, func(m *moving) {
		m.die("orders", 10)
		res, err := queue.Redrive(m.Context(), patchy{m.dead, new(int)}, m.was, &queue.RedriveOptions{Rate: 0.1})
		require.NoError(m, err)
		assert.Equal(m, queue.RedriveResult{Moved: 10}, res)
	})
}

// stuck is a queue whose broker doesn't answer when leases are extended.
type stuck struct{ queue.Queue }

func (stuck) Extend(ctx context.Context, _ time.Duration, _ ...*queue.Delivery) ([]time.Time, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func TestRedriveIsNotHeldUpByAnExtensionWithoutAnAnswer(t *testing.T) {
	redriving(t, memory.Options{Lease: 6 * time.Hour}, func(m *moving) {
		m.die("other", 1)
		m.die("orders", 3)
		ctx, cancel := context.WithCancel(m.Context())
		begun := time.Now()
		// The first extension is at a third of the lease.
		time.AfterFunc(2*time.Hour+15*time.Second, cancel)
		_, err := queue.Redrive(ctx, stuck{m.dead}, m.was, &queue.RedriveOptions{Quiet: 3 * time.Hour})
		require.ErrorIs(m, err, context.Canceled)
		assert.Less(m, time.Since(begun), 2*time.Hour+time.Minute)
	})
}
