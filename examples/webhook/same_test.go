package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/examples/internal/backends"
	"github.com/anyqueue/anyqueue/examples/internal/testbed"
	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
)

// The same demonstration comes to the same on the clouds as in memory.
func TestDemonstrationComesToTheSameOnTheClouds(t *testing.T) {
	t.Parallel()
	testbed.InBubbles(t, comesToTheSame)
}

func comesToTheSame(t *testing.T, on queue.Backend) {
	t.Helper()
	args := []string{"-events", "420", "-messages", "100"}
	_, want := play(t.Context(), t, newVirtual(), memory.New(nil), args...)
	ok, got := play(t.Context(), t, newVirtual(), on, args...)
	assert.True(t, ok, "%+v", got)
	for name, f := range map[string]func(result) int{
		"sent":          func(r result) int { return r.Sent },
		"refused":       func(r result) int { return r.Refused },
		"dead_lettered": func(r result) int { return r.DeadLettered },
		"unaccepted":    func(r result) int { return r.Unaccepted },
	} {
		assert.Equal(t, f(want), f(got), name)
	}
	assert.Equal(t, got.Sent, got.Accepted+got.Unknown)
	assert.GreaterOrEqual(t, got.Recorded, got.Accepted)
	for _, name := range []string{mailgunEventsDLQ, integrationsDLQ} {
		q, err := on.Open(t.Context(), name, nil)
		require.NoError(t, err)
		left, err := backends.Waiting(t.Context(), q)
		require.NoError(t, err)
		assert.Zero(t, left, "all were moved back from %s", name)
		require.NoError(t, q.Close(t.Context()))
	}
}
