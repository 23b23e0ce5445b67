package main

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/sqs"
	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// The same demonstration comes to the same on SQS, which delivers some messages
// twice and others out of order.
func TestDemonstrationComesToTheSameOnSQS(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		args := []string{"-events", "420", "-messages", "100"}
		_, want := play(t.Context(), t, newVirtual(), memory.New(nil), args...)

		server := sqstest.New(&sqstest.Options{Latency: 5 * time.Millisecond, Duplicate: 0.02, Reorder: 0.1})
		defer server.Close()
		ok, got := play(t.Context(), t, newVirtual(), sqs.New(server.Client(), nil), args...)
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
		assert.Empty(t, server.Messages(mailgunEventsDLQ), "all were moved back")
		assert.Empty(t, server.Messages(integrationsDLQ))
	})
}
