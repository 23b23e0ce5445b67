package main

import (
	"testing"

	"github.com/stretchr/testify/assert"

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
	_, want, _ := play(t.Context(), t, newVirtual(), memory.New(nil), "-submissions", "400")
	ok, got, _ := play(t.Context(), t, newVirtual(), on, "-submissions", "400")
	assert.True(t, ok, "%+v", got)
	for name, f := range map[string]func(result) int{
		"submissions":   func(r result) int { return r.Submissions },
		"invalid":       func(r result) int { return r.Invalid },
		"accepted":      func(r result) int { return r.Accepted },
		"records":       func(r result) int { return r.Records },
		"rejected":      func(r result) int { return r.Rejected },
		"dead_lettered": func(r result) int { return r.DeadLettered },
	} {
		assert.Equal(t, f(want), f(got), name)
	}
}
