package middleware_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
)

func TestRetryDelaysByTheNumberOfFailures(t *testing.T) {
	t.Parallel()
	h := queue.Chain(fails, middleware.Retry(middleware.RetryOptions{
		Backoff: queue.Backoff{Min: 2 * time.Second, Max: 10 * time.Second, Jitter: -1},
	}))
	for failures, want := range []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 10 * time.Second} {
		err := h(t.Context(), delivery("a", failures))
		require.ErrorIs(t, err, errDown)
		assert.Equal(t, queue.Outcome{Kind: queue.Retry, Delay: want}, queue.OutcomeOf(err))
	}
}

func TestRetryCountsTheFailuresThatItWasGiven(t *testing.T) {
	t.Parallel()
	changes := func(_ context.Context, d *queue.Delivery) error {
		d.Failures = 50
		return errDown
	}
	h := bind(t, middleware.Retry(middleware.RetryOptions{}), info()).Wrap(changes)
	assert.Equal(t, time.Second, queue.OutcomeOf(h(t.Context(), delivery("a", 0))).Delay)
}

func TestRetryUsesTheConsumersBackoffByDefault(t *testing.T) {
	t.Parallel()
	h := bind(t, middleware.Retry(middleware.RetryOptions{}), info()).Wrap(fails)
	assert.Equal(t, 4*time.Second, queue.OutcomeOf(h(t.Context(), delivery("a", 2))).Delay)
}

func TestRetryLeavesExplicitOutcomesAlone(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"success":       nil,
		"retry after":   queue.RetryAfter(time.Hour, errDown),
		"reject":        queue.Reject(errDown),
		"drop":          queue.Drop(errDown),
		"snooze":        queue.Snooze(time.Minute),
		"dead-lettered": queue.WithDeadLettered("dlq", errDown),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			calls := 0
			h := queue.Chain(func(context.Context, *queue.Delivery) error {
				calls++
				return err
			}, middleware.Retry(middleware.RetryOptions{InPlace: 3, If: func(error) bool { return false }}))
			assert.Equal(t, err, h(t.Context(), delivery("a", 0)))
			assert.Equal(t, 1, calls)
		})
	}
}

func TestRetryDoesNotCountAnAttemptThatWasCutShort(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{queue.ErrDraining, queue.ErrLeaseLost} {
		ctx := interruptedBy(cause)
		calls := 0
		h := queue.Chain(func(ctx context.Context, _ *queue.Delivery) error {
			calls++
			return ctx.Err()
		}, middleware.Retry(middleware.RetryOptions{InPlace: 5, If: func(error) bool { return false }}))
		err := h(ctx, delivery("a", 0))
		assert.True(t, queue.Interrupted(ctx, err), "%v: %v is no interruption any more", cause, err)
		assert.Equal(t, 1, calls, "%v: tried again in place", cause)
	}
}

func TestRetryRejectsWhatItIsNotToRetry(t *testing.T) {
	t.Parallel()
	errBad := errors.New("400 bad request")
	calls := 0
	h := queue.Chain(func(context.Context, *queue.Delivery) error {
		calls++
		return errBad
	}, middleware.Retry(middleware.RetryOptions{InPlace: 3, If: func(err error) bool { return !errors.Is(err, errBad) }}))
	err := h(t.Context(), delivery("a", 0))
	require.ErrorIs(t, err, errBad)
	assert.Equal(t, queue.Rejected, queue.OutcomeOf(err).Kind)
	assert.Equal(t, 1, calls)
}

func TestRetryTreatsAPanicAsAFailure(t *testing.T) {
	t.Parallel()
	err := queue.Chain(panics, middleware.Retry(middleware.RetryOptions{}))(t.Context(), delivery("a", 0))
	assert.Equal(t, queue.Retry, queue.OutcomeOf(err).Kind)
	var pe *queue.PanicError
	require.ErrorAs(t, err, &pe)
	assert.Contains(t, string(pe.Stack), "panics(")
}

func TestRetryInPlace(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		fails     int // tries that fail
		wantTries int
		wantKind  queue.OutcomeKind
		wantTook  time.Duration
	}{
		"first try succeeds": {0, 1, queue.Success, 0},
		"a later one does":   {2, 3, queue.Success, 300 * time.Millisecond},
		"the last one does":  {3, 4, queue.Success, 700 * time.Millisecond},
		"none does":          {9, 4, queue.Retry, 700 * time.Millisecond},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tries := 0
				h := queue.Chain(func(_ context.Context, d *queue.Delivery) error {
					tries++
					assert.Equal(t, "body of a", string(d.Body), "try %d sees what an earlier one left", tries)
					assert.Equal(t, map[string]string{"tenant": "acme"}, d.Attributes)
					d.Body[0] = 'X'
					d.Attributes["tenant"] = "other"
					if tries <= tc.fails {
						return errDown
					}
					return nil
				}, middleware.Retry(middleware.RetryOptions{
					InPlace: 3, Pause: queue.Backoff{Min: 100 * time.Millisecond, Max: time.Second, Jitter: -1},
				}))
				start := time.Now()
				err := h(t.Context(), delivery("a", 4))
				assert.Equal(t, tc.wantKind, queue.OutcomeOf(err).Kind)
				assert.Equal(t, tc.wantTries, tries)
				assert.Equal(t, tc.wantTook, time.Since(start))
			})
		})
	}
}

func TestRetryInPlaceEndsWithTheContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := queue.Chain(fails, middleware.Retry(middleware.RetryOptions{
			InPlace: 3, Pause: queue.Backoff{Min: time.Hour, Max: time.Hour, Jitter: -1},
		}))
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(queue.ErrDraining) })
		start := time.Now()
		err := h(ctx, delivery("a", 0))
		assert.Equal(t, time.Second, time.Since(start))
		assert.True(t, queue.Interrupted(ctx, err))

		ctx2, cancel2 := context.WithTimeout(t.Context(), time.Second)
		defer cancel2()
		err = h(ctx2, delivery("a", 0))
		require.ErrorIs(t, err, errDown)
		assert.Equal(t, queue.Retry, queue.OutcomeOf(err).Kind, "a timeout is a failure")
	})
}

func TestInvalidOptionsAreRefused(t *testing.T) {
	t.Parallel()
	to := &target{}
	store := middleware.NewMemoryStore(0)
	for name, m := range map[string]queue.Middleware{
		"Retry.InPlace":             middleware.Retry(middleware.RetryOptions{InPlace: -1}),
		"Retry.Backoff":             middleware.Retry(middleware.RetryOptions{Backoff: queue.Backoff{Min: time.Hour, Max: time.Second}}),
		"Retry.Pause":               middleware.Retry(middleware.RetryOptions{Pause: queue.Backoff{Factor: 0.5}}),
		"DeadLetter to nil":         middleware.DeadLetter(nil, middleware.DeadLetterOptions{}),
		"DeadLetter.MaxFailures":    middleware.DeadLetter(to, middleware.DeadLetterOptions{MaxFailures: -1}),
		"DeadLetter.OnExhausted":    middleware.DeadLetter(to, middleware.DeadLetterOptions{OnExhausted: 7}),
		"DeadLetter.PublishTimeout": middleware.DeadLetter(to, middleware.DeadLetterOptions{PublishTimeout: -1}),
		"Limit":                     middleware.Limit(0, middleware.LimitOptions{}),
		"Limit negative":            middleware.Limit(-3, middleware.LimitOptions{}),
		"Limit.KeyMax":              middleware.Limit(3, middleware.LimitOptions{Key: tenant, KeyMax: map[string]int{"a": 0}}),
		"Limit.KeyMax without Key":  middleware.Limit(3, middleware.LimitOptions{KeyMax: map[string]int{"a": 1}}),
		"RateLimit":                 middleware.RateLimit(0, middleware.RateLimitOptions{}),
		"RateLimit too fast":        middleware.RateLimit(1e9, middleware.RateLimitOptions{}),
		"RateLimit too slow":        middleware.RateLimit(1e-12, middleware.RateLimitOptions{}),
		"RateLimit.Burst":           middleware.RateLimit(1, middleware.RateLimitOptions{Burst: -1}),
		"CircuitBreaker.Failures":   middleware.CircuitBreaker(middleware.CircuitBreakerOptions{Failures: -1}),
		"CircuitBreaker.Ratio":      middleware.CircuitBreaker(middleware.CircuitBreakerOptions{Ratio: 1.5}),
		"CircuitBreaker.Window":     middleware.CircuitBreaker(middleware.CircuitBreakerOptions{Window: time.Second}),
		"CircuitBreaker.MinCalls":   middleware.CircuitBreaker(middleware.CircuitBreakerOptions{Ratio: 0.5, MinCalls: -1}),
		"CircuitBreaker.OpenFor":    middleware.CircuitBreaker(middleware.CircuitBreakerOptions{OpenFor: time.Hour, MaxOpenFor: time.Minute}),
		"CircuitBreaker.Probes":     middleware.CircuitBreaker(middleware.CircuitBreakerOptions{Probes: -1}),
		"Timeout zero":              middleware.Timeout(0),
		"Timeout negative":          middleware.Timeout(-time.Second),
		"Idempotent without store":  middleware.Idempotent(nil, middleware.IdempotentOptions{}),
		"Idempotent.Remember":       middleware.Idempotent(store, middleware.IdempotentOptions{Remember: -1}),
		"Idempotent.Hold":           middleware.Idempotent(store, middleware.IdempotentOptions{Hold: -1}),
		"Idempotent.AskAgain":       middleware.Idempotent(store, middleware.IdempotentOptions{AskAgain: -1}),
		"Idempotent.StoreTimeout":   middleware.Idempotent(store, middleware.IdempotentOptions{StoreTimeout: -1}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, ok := m.(queue.Binder)
			require.True(t, ok)
			_, err := b.Bind(info())
			require.ErrorIs(t, err, queue.ErrInvalid)

			called := false
			err = m.Wrap(func(context.Context, *queue.Delivery) error {
				called = true
				return nil
			})(t.Context(), delivery("a", 0))
			require.ErrorIs(t, err, queue.ErrInvalid)
			assert.Equal(t, queue.Failed, queue.OutcomeOf(err).Kind, "a mistake in the options may not lose a message")
			assert.False(t, called)
		})
	}
}

func tenant(d *queue.Delivery) string { return d.Attributes["tenant"] }
