package sqs_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs"
	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// What SQS is asked to delay until it drops the message never comes.
func TestADelayAsLongAsTheRetentionIsKept(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		retention, delay time.Duration
		retry            bool
	}{
		{time.Minute, time.Minute, false},
		{time.Minute, 59 * time.Second, false},
		{10 * time.Minute, 10 * time.Minute, false},
		{15 * time.Minute, 15 * time.Minute, false},
		{time.Hour, time.Hour, false},
		{time.Minute, 5 * time.Minute, true},
		{10 * time.Minute, 12 * time.Minute, true},
	} {
		t.Run(fmt.Sprintf("%v of %v, retried: %t", c.delay, c.retention, c.retry), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := sqstest.New(nil)
				defer s.Close()
				b := sqs.New(s.Client(), nil)
				_, err := b.Ensure(t.Context(), "orders", &queue.QueueSpec{Retention: c.retention})
				require.NoError(t, err)
				q, err := b.Open(t.Context(), "orders", nil)
				require.NoError(t, err)
				var due, came time.Time
				calls := 0
				consumer, err := queue.NewConsumer(q, func(context.Context, *queue.Delivery) error {
					if calls++; calls == 1 && c.retry {
						due = time.Now().Add(c.delay)
						return queue.RetryAfter(c.delay, assert.AnError)
					}
					came = time.Now()
					return nil
				}, &queue.ConsumerOptions{Logger: slog.New(slog.DiscardHandler)})
				require.NoError(t, err)
				ctx, stop := context.WithCancel(t.Context())
				ran := make(chan error, 1)
				go func() { ran <- consumer.Run(ctx) }()
				m := &queue.Message{Body: []byte("a")}
				if !c.retry {
					m.Delay, due = c.delay, time.Now().Add(c.delay)
				}
				require.NoError(t, q.Publish(ctx, m))
				time.Sleep(3 * time.Hour)
				stop()
				require.NoError(t, <-ran)
				require.NoError(t, q.Close(context.Background()))
				assert.WithinRange(t, came, due, due.Add(3*time.Second))
			})
		})
	}
}
