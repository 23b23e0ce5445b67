package middleware_test

import (
	"bytes"
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
)

func TestADeadLetterQueueThatForgetsTooSoonIsWarnedOf(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		retention time.Duration // of the dead-letter queue
		warned    bool
	}{
		"shorter": {24 * time.Hour, true},
		"as long": {96 * time.Hour, true},
		"longer":  {14 * 24 * time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			broker := memory.New(nil)
			for q, keep := range map[string]time.Duration{"work": 96 * time.Hour, "work-dlq": tc.retention} {
				_, err := broker.Ensure(ctx, q, &queue.QueueSpec{Retention: keep})
				require.NoError(t, err)
			}
			work, err := broker.Open(ctx, "work", nil)
			require.NoError(t, err)
			dead, err := broker.Open(ctx, "work-dlq", nil)
			require.NoError(t, err)
			var log bytes.Buffer
			_, err = queue.NewConsumer(work, func(context.Context, *queue.Delivery) error { return nil }, &queue.ConsumerOptions{
				Logger:     slog.New(slog.NewTextHandler(&log, nil)),
				Middleware: []queue.Middleware{middleware.DeadLetter(dead, middleware.DeadLetterOptions{})},
			})
			require.NoError(t, err)
			if tc.warned {
				assert.Contains(t, log.String(), "dead letters may expire before somebody has looked")
			} else {
				assert.Empty(t, log.String())
			}
		})
	}
}
