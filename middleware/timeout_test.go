package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
)

func TestTimeout(t *testing.T) {
	t.Parallel()
	until := func(result func(ctx context.Context) error) queue.Handler {
		return func(ctx context.Context, _ *queue.Delivery) error {
			<-ctx.Done()
			return result(ctx)
		}
	}
	for name, tc := range map[string]struct {
		h        queue.Handler
		wantText string
		wantKind queue.OutcomeKind
		wantTook time.Duration
		isLate   bool
	}{
		"in time":               {ok, "", queue.Success, 0, false},
		"fails in time":         {fails, errDown.Error(), queue.Failed, 0, false},
		"returns ctx.Err":       {until(func(ctx context.Context) error { return ctx.Err() }), "timed out after 5s: context deadline exceeded", queue.Failed, 5 * time.Second, true},
		"returns it wrapped":    {until(func(ctx context.Context) error { return fmt.Errorf("post: %w", ctx.Err()) }), "timed out after 5s: post: context", queue.Failed, 5 * time.Second, true},
		"returns the cause":     {until(context.Cause), "middleware: handler timed out after 5s", queue.Failed, 5 * time.Second, true},
		"keeps the outcome":     {until(func(ctx context.Context) error { return queue.RetryAfter(1, ctx.Err()) }), "timed out after 5s", queue.Retry, 5 * time.Second, true},
		"returns another error": {until(func(context.Context) error { return errDown }), errDown.Error(), queue.Failed, 5 * time.Second, false},
		"succeeds late":         {func(context.Context, *queue.Delivery) error { time.Sleep(time.Hour); return nil }, "", queue.Success, time.Hour, false},
		"a deadline of its own": {func(context.Context, *queue.Delivery) error { return context.DeadlineExceeded }, "context deadline exceeded", queue.Failed, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				err := queue.Chain(tc.h, middleware.Timeout(5*time.Second))(t.Context(), delivery("a", 0))
				assert.Equal(t, tc.wantTook, time.Since(start))
				assert.Equal(t, tc.wantKind, queue.OutcomeOf(err).Kind)
				assert.Equal(t, tc.isLate, errors.Is(err, context.DeadlineExceeded))
				if tc.wantText == "" {
					require.NoError(t, err)
					return
				}
				require.ErrorContains(t, err, tc.wantText)
				if tc.wantTook == 0 {
					assert.NotContains(t, err.Error(), "5s")
				}
			})
		})
	}
}

func TestTimeoutIsNotBlamedForAShutdown(t *testing.T) {
	t.Parallel()
	ctx := interruptedBy(queue.ErrDraining)
	err := queue.Chain(func(ctx context.Context, _ *queue.Delivery) error { return ctx.Err() }, middleware.Timeout(time.Hour))(ctx, delivery("a", 0))
	require.ErrorIs(t, err, context.Canceled)
	assert.True(t, queue.Interrupted(ctx, err))
	assert.NotContains(t, err.Error(), "timed out")
}
