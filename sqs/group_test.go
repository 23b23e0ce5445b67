package sqs_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/queue"
)

// SQS returns no message of a group as long as one of it is in flight. LocalStack
// unlocks the group whenever one of it that was received before becomes visible: so two
// of one key may be with two receivers, in either order. The suite's
// AHeadThatComesBackAtOnceHoldsBackItsFollowers is therefore not for LocalStack. If this
// fails because LocalStack has learnt better, that skip can go.
func TestServerAGroupIsLockedWhileOneOfItIsInFlight(t *testing.T) {
	onServers(t, func(t *testing.T, s *server) {
		q := s.fresh(t, "group", &queue.QueueSpec{Ordered: true, Lease: 5 * time.Minute})
		require.NoError(t, q.Publish(t.Context(), keyed("a", "first"), keyed("a", "second")))
		ds := receive(t, q, 2)
		give := func(d *queue.Delivery) {
			require.NoError(t, q.Settle(t.Context(), queue.Settlement{Delivery: d, Kind: queue.Release}))
		}
		give(ds[0])
		again := receive(t, q, 1)
		assert.Equal(t, "first", string(again[0].Body))
		give(ds[1])
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		others, err := q.Receive(ctx, 1) // one poll, of a second
		require.NoError(t, err)
		assert.Equal(t, s.name == "LocalStack", len(others) == 1, "%s gives out a key's second message while the first is in flight", s.name)
	})
}
