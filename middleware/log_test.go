package middleware_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
)

// lines is a logger that writes what can be compared.
func lines(out *bytes.Buffer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

func TestLogSaysWhatBecameOfADelivery(t *testing.T) {
	t.Parallel()
	d := delivery("a", 3)
	for name, tc := range map[string]struct {
		s    queue.Settled
		want string
	}{
		"success": {
			queue.Settled{Delivery: d, Took: 1234567, Failures: 3},
			`level=DEBUG msg=success id=a queue=orders attempt=4 failures=3 took=1.235ms`,
		},
		"retry": {
			queue.Settled{
				Delivery: d, Outcome: queue.Outcome{Kind: queue.Failed}, Err: errors.New("503"), Failures: 4,
				Delay: 41 * time.Second, GivesUpIn: 23*time.Hour + 51*time.Minute,
			},
			`level=WARN msg=retry id=a queue=orders attempt=4 failures=4 took=0s in=41s err=503 gives_up=23h51m0s`,
		},
		"retry after": {
			queue.Settled{Delivery: d, Outcome: queue.Outcome{Kind: queue.Retry}, Err: errDown, Failures: 4, Delay: time.Hour},
			`level=WARN msg=retry id=a queue=orders attempt=4 failures=4 took=0s in=1h0m0s err="503 service unavailable"`,
		},
		"dead letter": {
			queue.Settled{
				Delivery: d, Outcome: queue.Outcome{Kind: queue.DeadLettered, To: "orders-dlq"}, Err: errDown, Failures: 4, GivesUpIn: time.Hour,
			},
			`level=ERROR msg=dead_letter id=a queue=orders attempt=4 failures=4 took=0s to=orders-dlq err="503 service unavailable"`,
		},
		"unroutable": {
			queue.Settled{Delivery: d, Outcome: queue.Outcome{Kind: queue.Rejected}, Err: errDown, Unroutable: true, Failures: 4, Delay: time.Minute},
			`level=ERROR msg=unroutable id=a queue=orders attempt=4 failures=4 took=0s in=1m0s err="503 service unavailable"`,
		},
		"drop": {
			queue.Settled{Delivery: d, Outcome: queue.Outcome{Kind: queue.Dropped}, Err: errDown, Failures: 3},
			`level=WARN msg=drop id=a queue=orders attempt=4 failures=3 took=0s err="503 service unavailable"`,
		},
		"snooze": {
			queue.Settled{Delivery: d, Outcome: queue.Outcome{Kind: queue.Snoozed}, Err: queue.Snooze(1), Failures: 3, Delay: time.Minute},
			`level=DEBUG msg=snooze id=a queue=orders attempt=4 failures=3 took=0s in=1m0s`,
		},
		"interrupted": {
			queue.Settled{Delivery: d, Outcome: queue.Outcome{Kind: queue.Failed}, Interrupted: true, Err: context.Canceled, Failures: 3},
			`level=INFO msg=interrupted id=a queue=orders attempt=4 failures=3 took=0s err="context canceled"`,
		},
		"attempts unknown": {
			queue.Settled{Delivery: &queue.Delivery{Message: queue.Message{ID: "b"}}},
			`level=DEBUG msg=success id=b queue=orders failures=0 took=0s`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			in := info()
			in.Logger = lines(&out, slog.LevelDebug)
			h, isHooked := bind(t, middleware.Log(middleware.LogOptions{}), in).(interface{ Hooks() *queue.Hooks })
			require.True(t, isHooked)
			require.True(t, h.Hooks().LogsDeliveries, "there would be two lines")
			h.Hooks().Settled(tc.s)
			assert.Equal(t, tc.want, strings.TrimSpace(out.String()))
		})
	}
}

func TestLogOfASuccessAtALevelOfOnesOwn(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	m := middleware.Log(middleware.LogOptions{Logger: lines(&out, slog.LevelInfo), Success: slog.LevelInfo})
	h, _ := bind(t, m, info()).(interface{ Hooks() *queue.Hooks })
	h.Hooks().Settled(queue.Settled{Delivery: delivery("a", 0)})
	assert.Contains(t, out.String(), "level=INFO msg=success id=a")
	out.Reset()
	m = middleware.Log(middleware.LogOptions{Logger: lines(&out, slog.LevelInfo)})
	h, _ = bind(t, m, info()).(interface{ Hooks() *queue.Hooks })
	h.Hooks().Settled(queue.Settled{Delivery: delivery("a", 0)})
	assert.Empty(t, out.String())
}

func TestLogInAChainSaysWhatTheHandlerReturned(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		h    queue.Handler
		want string
	}{
		"success":     {ok, `level=DEBUG msg=success id=a queue=orders attempt=3 failures=2 took=0s`},
		"failure":     {fails, `level=WARN msg=retry id=a queue=orders attempt=3 failures=3 took=0s err="503 service unavailable"`},
		"retry after": {returns(queue.RetryAfter(time.Hour, errDown)), `level=WARN msg=retry id=a queue=orders attempt=3 failures=3 took=0s in=1h0m0s err="503 service unavailable"`},
		"reject":      {returns(queue.Reject(errDown)), `level=WARN msg=reject id=a queue=orders attempt=3 failures=3 took=0s err="503 service unavailable"`},
		"snooze":      {returns(queue.Snooze(time.Hour)), `level=DEBUG msg=snooze id=a queue=orders attempt=3 failures=2 took=0s in=1h0m0s`},
		"interrupted": {fails, `level=INFO msg=interrupted id=a queue=orders attempt=3 failures=2 took=0s err="503 service unavailable"`},
		"panic":       {panics, `level=WARN msg=retry id=a queue=orders attempt=3 failures=3 took=0s err="the handler panicked"`},
		"changed": {func(_ context.Context, d *queue.Delivery) error {
			*d = queue.Delivery{}
			return nil
		}, `level=DEBUG msg=success id=a queue=orders attempt=3 failures=2 took=0s`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				h := queue.Chain(tc.h, middleware.Log(middleware.LogOptions{Logger: lines(&out, slog.LevelDebug)}))
				ctx := t.Context()
				if name == "interrupted" {
					ctx = interruptedBy(queue.ErrDraining)
				}
				if name == "panic" {
					assert.Panics(t, func() { _ = h(ctx, delivery("a", 2)) }, "the log has changed what others see")
				} else {
					assert.Equal(t, tc.h(ctx, delivery("a", 2)), h(ctx, delivery("a", 2)), "the log has changed what others see")
				}
				assert.Equal(t, tc.want, strings.TrimSpace(out.String()))
			})
		})
	}
}

func TestLogNeverWritesTheBody(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	d := delivery("a", 0)
	d.Body = []byte("secret")
	d.Attributes = map[string]string{"token": "secret"}
	h := queue.Chain(fails, middleware.Log(middleware.LogOptions{Logger: lines(&out, slog.LevelDebug)}))
	require.Error(t, h(t.Context(), d))
	assert.NotContains(t, out.String(), "secret")
}
