package queue

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A copy that's sent when the lease is over is one too many: the message comes
// again, and is deferred once more.
func TestADeferIsTriedOnlyWhileTheLeaseLasts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &slowSettler{fakeBroker: newFake(5 * time.Second)}
		f.caps.MaxRedeliveryDelay = time.Minute
		f.put(msgs(1)...)
		c, err := NewConsumer(f, Handler(func(context.Context, *Delivery) error { return Snooze(13 * time.Hour) }), &ConsumerOptions{Logger: quiet})
		require.NoError(t, err)
		r := run(c)
		pass(time.Minute)
		require.NoError(t, r.stop())
		require.NotEmpty(t, f.limits)
		var all time.Duration
		for _, d := range f.limits {
			all += d
		}
		assert.Less(t, all, 5*time.Second, "of %v", f.limits)
		assert.NotZero(t, f.released)
		assert.Less(t, f.released, 5*time.Second, "what's left is for a release")
	})
}

// slowSettler never answers.
type slowSettler struct {
	*fakeBroker
	limits   []time.Duration // of the contexts of Settle with a Defer
	released time.Duration   // since the first of them
	first    time.Time
}

func (f *slowSettler) Settle(ctx context.Context, ss ...Settlement) error {
	begun := time.Now()
	f.mu.Lock()
	if f.first.IsZero() {
		f.first = begun
	}
	if ss[0].Kind != Defer && f.released == 0 {
		f.released = begun.Sub(f.first)
	}
	f.mu.Unlock()
	<-ctx.Done()
	f.mu.Lock()
	defer f.mu.Unlock()
	if ss[0].Kind == Defer {
		f.limits = append(f.limits, time.Since(begun))
	}
	return ctx.Err()
}

// What can't be published again is given back for as long as the broker can.
func TestADeferThatCannotBeSentBecomesARelease(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		err  error
		want map[SettleKind]int
	}{
		{"no permission to publish", fmt.Errorf("denied: %w", ErrPermission), map[SettleKind]int{Release: 1}},
		{"too large with its due time", &LimitError{Field: "body"}, map[SettleKind]int{Release: 1}},
		{"not supported", &UnsupportedError{Feature: "it"}, map[SettleKind]int{Release: 1}},
		{"throttled, which passes", ErrThrottled, map[SettleKind]int{Defer: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFake(time.Minute)
				f.caps.MaxRedeliveryDelay = 10 * time.Minute
				failed := false
				f.onSettle = func(s Settlement) error {
					if s.Kind == Defer && !failed {
						failed = true
						return c.err
					}
					return nil
				}
				f.put(msgs(1)...)
				r := run(consumer(t, f, func(context.Context, *Delivery) error { return Snooze(13 * time.Hour) }, ConsumerOptions{}))
				pass(10 * time.Second)
				require.NoError(t, r.stop())
				assert.Equal(t, c.want, f.kinds())
				for _, s := range f.settlements() {
					if s.Kind == Release {
						assert.InDelta(t, 10*time.Minute, s.Delay, float64(time.Second))
					}
				}
			})
		})
	}
}
