package middleware_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
)

func TestRecoverMakesAPanicAnErrorWithItsStack(t *testing.T) {
	t.Parallel()
	err := queue.Chain(panics, middleware.Recover())(t.Context(), delivery("a", 0))
	var pe *queue.PanicError
	require.ErrorAs(t, err, &pe)
	assert.Equal(t, "index out of range", pe.Value)
	assert.Contains(t, string(pe.Stack), "panics(")
	assert.Equal(t, queue.Failed, queue.OutcomeOf(err).Kind)
}

func TestRecoverKeepsThePanicsError(t *testing.T) {
	t.Parallel()
	h := queue.Chain(func(context.Context, *queue.Delivery) error { panic(errDown) }, middleware.Recover())
	require.ErrorIs(t, h(t.Context(), delivery("a", 0)), errDown)
}

func TestRecoverLetsResultsThrough(t *testing.T) {
	t.Parallel()
	for _, want := range []error{nil, errDown, queue.Snooze(1)} {
		assert.Equal(t, want, queue.Chain(returns(want), middleware.Recover())(t.Context(), delivery("a", 0)))
	}
}
