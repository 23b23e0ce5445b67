package config_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
)

func TestStateTellsWhyAQueueFailsAndWhenItLastDidNot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, "ensure: true\nqueues: {orders: {}}")
		var failing atomic.Bool
		b.Handle("orders", func(context.Context, *queue.Delivery) error {
			if failing.Load() {
				return assert.AnError
			}
			return nil
		})
		b.run()
		b.publish("orders", "well")
		time.Sleep(time.Second)
		s, err := b.State("orders")
		require.NoError(t, err)
		success := s.Stats.LastSuccessAt
		assert.WithinDuration(t, time.Now(), success, time.Second)

		failing.Store(true)
		b.publish("orders", "not well")
		time.Sleep(time.Second)
		s, err = b.State("orders")
		require.NoError(t, err)
		require.ErrorIs(t, s.Stats.LastFailure, assert.AnError)
		failure := s.Stats.LastFailureAt

		// Now the queue itself is gone, and comes back.
		heal := b.broker.Fail(memory.Fault{Call: memory.OnReceive, Err: queue.ErrPermission})
		b.publish("orders", "wakes the receive that waits")
		time.Sleep(10 * time.Minute)
		s, err = b.State("orders")
		require.NoError(t, err)
		require.ErrorIs(t, s.Err, queue.ErrPermission)
		assert.Greater(t, s.Failures, 3)
		assert.Equal(t, success, s.Stats.LastSuccessAt, "it's kept")
		assert.False(t, s.Stats.LastFailureAt.Before(failure))
		assert.False(t, s.Stats.Running)
		heal()
		time.Sleep(50 * time.Second)
		failing.Store(false)
		s, err = b.State("orders")
		require.NoError(t, err)
		require.NoError(t, s.Err)
		assert.Equal(t, success, s.Stats.LastSuccessAt, "over a restart, too")
		require.ErrorIs(t, s.Stats.LastFailure, assert.AnError)
		time.Sleep(2 * time.Minute)
		s, err = b.State("orders")
		require.NoError(t, err)
		assert.Zero(t, s.Failures, "it has been steady since")
		require.NoError(t, b.finish())
	})
}
