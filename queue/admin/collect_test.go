package admin_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/admin"
)

func TestCollectTellsAgainAndAgain(t *testing.T) {
	inOffice(t, shop, admin.Options{}, func(o *office) {
		ctx, stop := context.WithCancel(o.Context())
		defer stop()
		begun := time.Now()
		var at []time.Duration
		var ready []int64
		require.NoError(o, o.Collect(ctx, time.Minute, func(stats []admin.QueueStats) {
			at = append(at, time.Since(begun))
			require.Len(o, stats, 1)
			assert.Equal(o, queue.Endpoint{System: "memory", Name: "orders"}, stats[0].Endpoint)
			assert.Equal(o, "memory:orders", stats[0].Address)
			ready = append(ready, *stats[0].Ready)
			assert.NoError(o, o.bus.Publisher("orders").Publish(o.Context(), &queue.Message{Body: []byte("x")}))
			if len(at) == 3 {
				stop()
			}
		}, "orders"))
		assert.Equal(o, []time.Duration{0, time.Minute, 2 * time.Minute}, at)
		assert.Equal(o, []int64{0, 1, 2}, ready)
		require.NoError(o, o.Collect(ctx, time.Minute, func([]admin.QueueStats) { o.Error("it's over") }))
	})
}

func TestWrongCollectionsAreRefused(t *testing.T) {
	inOffice(t, shop, admin.Options{}, func(o *office) {
		tell := func([]admin.QueueStats) { o.Error("told") }
		require.ErrorIs(o, o.Collect(o.Context(), 0, tell), queue.ErrInvalid)
		require.ErrorIs(o, o.Collect(o.Context(), time.Minute, nil), queue.ErrInvalid)
		require.ErrorIs(o, o.Collect(o.Context(), time.Minute, tell, "order"), queue.ErrInvalid)
	})
}
