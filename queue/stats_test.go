package queue

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestStatsTellWhatWasLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(time.Minute)
		results := map[string]error{"m1": errTest, "m2": Reject(errTest), "m3": WithDeadLettered("dlq", errTest), "m4": Snooze(time.Hour), "m5": Drop(errTest)}
		c := consumer(t, f, func(_ context.Context, d *Delivery) error { return results[d.ID] }, ConsumerOptions{})
		r := run(c)
		put := func(n int) ConsumerStats {
			time.Sleep(time.Second)
			f.put(msgs(n + 1)[n])
			synctest.Wait()
			return c.Stats()
		}
		at := put(0).LastSuccessAt
		assert.Equal(t, time.Now(), at)
		for i := 1; i <= 3; i++ { // failed, rejected, dead-lettered
			s := put(i)
			assert.ErrorIs(t, s.LastFailure, errTest)
			assert.Equal(t, time.Now(), s.LastFailureAt, i)
			assert.Equal(t, at, s.LastSuccessAt)
		}
		before := c.Stats().LastFailureAt
		put(4)
		assert.Equal(t, before, put(5).LastFailureAt, "neither a snooze nor a drop is a failure")
		assert.NoError(t, c.Stats().LastSettleError)
		require.NoError(t, r.stop())
	})
}

func TestStatsTellTheLastErrorsOfTheBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(time.Minute)
		down, refused := errors.New("it's down"), errors.New("it isn't settled")
		var failing, refusing atomic.Bool
		failing.Store(true)
		f.onRecv = func(int) error {
			if failing.Load() {
				return down
			}
			return nil
		}
		f.onSettle = func(Settlement) error {
			if refusing.Load() {
				return refused
			}
			return nil
		}
		c := consumer(t, f, ok, ConsumerOptions{})
		r := run(c)
		pass(time.Minute)
		s := c.Stats()
		require.ErrorIs(t, s.LastError, down)
		assert.False(t, s.LastErrorAt.IsZero())
		assert.Zero(t, s.LastSettleErrorAt)

		failing.Store(false)
		pass(time.Hour)
		s = c.Stats()
		require.NoError(t, s.LastError, "a success clears it")
		assert.False(t, s.LastErrorAt.IsZero())

		refusing.Store(true)
		f.put(msgs(1)...)
		pass(time.Second)
		s = c.Stats()
		require.ErrorIs(t, s.LastSettleError, refused)
		assert.WithinDuration(t, time.Now(), s.LastSettleErrorAt, time.Second)
		refusing.Store(false)
		require.NoError(t, r.stop())
	})
}
