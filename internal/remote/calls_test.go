package remote_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/anyqueue/anyqueue/internal/remote"
	"github.com/anyqueue/anyqueue/queue"
)

func TestCloseWaitsForCallsInFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var c remote.Calls
		ctx, end, err := c.Begin(t.Context())
		assert.NoError(t, err)
		time.AfterFunc(3*time.Second, end)
		begun := time.Now()
		assert.NoError(t, c.Close(t.Context()))
		assert.Equal(t, 3*time.Second, time.Since(begun))
		assert.ErrorIs(t, ctx.Err(), context.Canceled, "its context ends with it")
		_, _, err = c.Begin(t.Context())
		assert.ErrorIs(t, err, queue.ErrClosed)
		assert.NoError(t, c.Close(t.Context()))
	})
}

func TestCloseCutsCallsOffWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var c remote.Calls
		ctx, end, err := c.Begin(t.Context())
		assert.NoError(t, err)
		closing, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.ErrorIs(t, c.Close(closing), context.DeadlineExceeded)
		assert.ErrorIs(t, ctx.Err(), context.Canceled)
		end()
		assert.NoError(t, c.Close(t.Context()))
	})
}

func TestCloseOfWhatIsIdleSucceedsWithAnEndedContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 {
		var c remote.Calls
		assert.NoError(t, c.Close(ctx))
	}
}

func TestParallelCallsEachOnceAndBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var running, most, sum atomic.Int64
		remote.Parallel(100, func(i int) {
			if n := running.Add(1); n > most.Load() {
				most.Store(n)
			}
			time.Sleep(time.Second)
			sum.Add(int64(i))
			running.Add(-1)
		})
		assert.EqualValues(t, 4950, sum.Load())
		assert.EqualValues(t, 8, most.Load())
		remote.Parallel(0, func(int) { t.Error("called for none") })
	})
}
