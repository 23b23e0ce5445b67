package queue

import (
	"bytes"
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// giver is middleware with a policy that it doesn't carry out.
type giver struct{ MiddlewareFunc }

func (giver) GiveUp() GiveUp { return GiveUp{To: "q-dlq", MaxFailures: 9, MaxAge: 24 * time.Hour} }

func lines(buf *bytes.Buffer) *slog.Logger {
	return slog.New(slog.NewTextHandler(buf, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

func TestOneLineAtTheStartTellsWhereAndUntilWhen(t *testing.T) {
	pass := MiddlewareFunc(func(next Handler) Handler { return next })
	for name, tc := range map[string]struct {
		mw   []Middleware
		line string
	}{
		"no dead letters": {nil, "level=INFO msg=consuming queue=q backend=fake address=fake://q concurrency=16 gives_up=never retention=96h0m0s\n"},
		"dead letters":    {[]Middleware{giver{pass}}, "level=INFO msg=consuming queue=q backend=fake address=fake://q concurrency=16 to=q-dlq gives_up=24h0m0s max_failures=9 retention=96h0m0s\n"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var buf bytes.Buffer
				f := newFake(0)
				f.caps.Address, f.caps.Retention = "fake://q", 96*time.Hour
				c := run(consumer(t, f, ok, ConsumerOptions{Logger: lines(&buf), Middleware: tc.mw}))
				pass := time.Second
				time.Sleep(pass)
				require.NoError(t, c.stop())
				assert.Equal(t, tc.line, buf.String())
			})
		})
	}
}

func TestALineSaysWhyAndUntilWhenAMessageWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var buf bytes.Buffer
		f := newFake(0)
		d := msgs(1)[0]
		d.Attempt, d.EnqueuedAt = 4, time.Now().Add(-9*time.Minute)
		f.put(d)
		c := run(consumer(t, f, func(context.Context, *Delivery) error { return RetryAfter(41*time.Second, errTest) }, ConsumerOptions{
			Logger: lines(&buf), Middleware: []Middleware{giver{func(next Handler) Handler { return next }}},
		}))
		time.Sleep(time.Second)
		require.NoError(t, c.stop())
		assert.Contains(t, buf.String(), `msg=retry queue=q id=m0 failures=4 in=41s err="test failure" gives_up=23h51m0s`)
	})
}
