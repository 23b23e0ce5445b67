package queue

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestOutcomeOf(t *testing.T) {
	t.Parallel()
	bad := errors.New("bad")
	cases := map[string]struct {
		err  error
		want Outcome
	}{
		"nil":              {nil, Outcome{Kind: Success}},
		"an error":         {bad, Outcome{Kind: Failed}},
		"retry":            {RetryAfter(time.Minute, bad), Outcome{Kind: Retry, Delay: time.Minute}},
		"retry negative":   {RetryAfter(-time.Minute, bad), Outcome{Kind: Retry}},
		"reject":           {Reject(bad), Outcome{Kind: Rejected}},
		"reject nothing":   {Reject(nil), Outcome{Kind: Rejected}},
		"drop":             {Drop(bad), Outcome{Kind: Dropped}},
		"snooze":           {Snooze(time.Hour), Outcome{Kind: Snoozed, Delay: time.Hour}},
		"snooze negative":  {Snooze(-1), Outcome{Kind: Snoozed}},
		"dead-lettered":    {WithDeadLettered("dlq", bad), Outcome{Kind: DeadLettered, To: "dlq"}},
		"wrapped":          {fmt.Errorf("a: %w", fmt.Errorf("b: %w", Reject(bad))), Outcome{Kind: Rejected}},
		"outermost wins":   {Drop(fmt.Errorf("a: %w", Reject(bad))), Outcome{Kind: Dropped}},
		"outermost retry":  {fmt.Errorf("x: %w", RetryAfter(time.Second, Snooze(time.Hour))), Outcome{Kind: Retry, Delay: time.Second}},
		"join: reject":     {errors.Join(Snooze(1), bad, RetryAfter(1, bad), Drop(bad), Reject(bad)), Outcome{Kind: Rejected}},
		"join: drop":       {errors.Join(bad, RetryAfter(1, bad), Drop(bad), Snooze(1)), Outcome{Kind: Dropped}},
		"join: retry":      {errors.Join(Snooze(1), RetryAfter(5, bad), bad), Outcome{Kind: Retry, Delay: 5}},
		"join: snooze":     {errors.Join(bad, Snooze(7)), Outcome{Kind: Snoozed, Delay: 7}},
		"join: first":      {errors.Join(RetryAfter(5, bad), RetryAfter(6, bad)), Outcome{Kind: Retry, Delay: 5}},
		"join: dead":       {errors.Join(Reject(bad), WithDeadLettered("dlq", bad)), Outcome{Kind: DeadLettered, To: "dlq"}},
		"join: none":       {errors.Join(bad, bad), Outcome{Kind: Failed}},
		"join in a join":   {errors.Join(bad, fmt.Errorf("x: %w", errors.Join(Snooze(1), Drop(bad)))), Outcome{Kind: Dropped}},
		"wrap over a join": {RetryAfter(3, errors.Join(Reject(bad))), Outcome{Kind: Retry, Delay: 3}},
		"two in Errorf":    {fmt.Errorf("%w and %w", Snooze(1), Reject(bad)), Outcome{Kind: Rejected}},
		"a panic":          {&PanicError{Value: "x"}, Outcome{Kind: Failed}},
		"panic with drop":  {fmt.Errorf("x: %w", &PanicError{Value: Drop(bad)}), Outcome{Kind: Failed}},
		"reject a panic":   {Reject(&PanicError{Value: bad}), Outcome{Kind: Rejected}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, c.want, OutcomeOf(c.err))
		})
	}
}

func TestOutcomeKeepsTheErrorBeneath(t *testing.T) {
	t.Parallel()
	bad := errors.New("bad")
	for _, err := range []error{RetryAfter(1, bad), Reject(bad), Drop(bad), WithDeadLettered("q", bad)} {
		assert.ErrorIs(t, fmt.Errorf("x: %w", err), bad)
		assert.Equal(t, "bad", err.Error())
	}
	for _, err := range []error{RetryAfter(1, nil), Reject(nil), Drop(nil)} {
		assert.NotEmpty(t, err.Error())
	}
	assert.Equal(t, "snoozed for 1m0s", Snooze(time.Minute).Error())
}

func TestInterrupted(t *testing.T) {
	t.Parallel()
	bad := errors.New("bad")
	over := func(cause error) context.Context {
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(cause)
		return ctx
	}
	cases := map[string]struct {
		ctx  context.Context
		err  error
		want bool
	}{
		"drained":                   {over(ErrDraining), bad, true},
		"lease lost":                {over(fmt.Errorf("x: %w", ErrLeaseLost)), bad, true},
		"still alive":               {context.Background(), bad, false},
		"no error":                  {over(ErrDraining), nil, false},
		"cancelled for another end": {over(context.DeadlineExceeded), bad, false},
		"explicit outcome":          {over(ErrDraining), Reject(bad), false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, c.want, Interrupted(c.ctx, c.err))
		})
	}
}

func TestPanicErrorUnwrapsItsValue(t *testing.T) {
	t.Parallel()
	bad := errors.New("bad")
	assert.ErrorIs(t, &PanicError{Value: bad}, bad)
	assert.NoError(t, errors.Unwrap(&PanicError{Value: "text"}))
	assert.Equal(t, "panic: text", (&PanicError{Value: "text"}).Error())
}

func TestOutcomeKindNames(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "dead_lettered", DeadLettered.String())
	assert.Equal(t, "success", Success.String())
	assert.Equal(t, "OutcomeKind(99)", OutcomeKind(99).String())
	assert.Equal(t, "OutcomeKind(-1)", OutcomeKind(-1).String())
}
