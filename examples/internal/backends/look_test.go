package backends_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/examples/internal/backends"
	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
)

// open returns a queue with messages of these ids.
func open(t *testing.T, ids ...string) queue.Queue {
	t.Helper()
	q, err := memory.New(&memory.Options{Create: true}).Open(t.Context(), "mails", nil)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, q.Close(context.Background())) })
	publish(t, q, ids...)
	return q
}

func publish(t *testing.T, q queue.Queue, ids ...string) {
	t.Helper()
	for _, id := range ids {
		require.NoError(t, q.Publish(t.Context(), &queue.Message{ID: id}))
	}
}

// silent is a queue whose broker doesn't count, like Pub/Sub.
type silent struct{ queue.Queue }

func (s silent) Stats(context.Context) (queue.Stats, error) { return queue.Stats{}, nil }

func (s silent) Peek(ctx context.Context, max int) ([]*queue.Delivery, error) {
	return backends.Look(ctx, s.Queue, max)
}

// blind is a queue that can't be looked into.
type blind struct{ queue.Queue }

func TestWaitingCountsWhatTheBrokerSays(t *testing.T) {
	t.Parallel()
	q := open(t, "1", "2", "3")
	_, err := q.Receive(t.Context(), 1)
	require.NoError(t, err)
	require.NoError(t, q.Publish(t.Context(), &queue.Message{ID: "4", Delay: time.Hour}))
	n, err := backends.Waiting(t.Context(), q)
	require.NoError(t, err)
	assert.EqualValues(t, 4, n, "leased and delayed ones too")
}

func TestWhereTheBrokerDoesNotCountALookTellsWhetherSomethingWaits(t *testing.T) {
	t.Parallel()
	q := silent{open(t, "1", "2", "3")}
	n, err := backends.Waiting(t.Context(), q)
	require.NoError(t, err)
	assert.Positive(t, n)
	_, err = q.Receive(t.Context(), 3)
	require.NoError(t, err)
	n, err = backends.Waiting(t.Context(), q)
	require.NoError(t, err)
	assert.Zero(t, n)
}

func TestGatherLooksUntilItHasSeenEnough(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := open(t, "1")
		time.AfterFunc(time.Minute, func() { publish(t, q, "2") })
		begin := time.Now()
		seen, err := backends.Gather(t.Context(), q, func(seen map[string]*queue.Delivery) bool { return seen["1"] != nil && seen["2"] != nil })
		require.NoError(t, err)
		assert.Len(t, seen, 2)
		assert.GreaterOrEqual(t, time.Since(begin), time.Minute)
	})
}

func TestGatherReturnsWhatItHasSeenWhenItsTimeIsUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := open(t, "1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		seen, err := backends.Gather(ctx, q, func(map[string]*queue.Delivery) bool { return false })
		require.NoError(t, err)
		assert.Contains(t, seen, "1")
	})
}

func TestWhatCannotBeLookedIntoSaysSo(t *testing.T) {
	t.Parallel()
	q := blind{open(t)}
	_, err := backends.Waiting(t.Context(), q)
	require.ErrorIs(t, err, queue.ErrUnsupported)
	_, err = backends.Gather(t.Context(), q, func(map[string]*queue.Delivery) bool { return false })
	require.ErrorIs(t, err, queue.ErrUnsupported)
}
