package pubsub_test

import (
	"context"
	"sync"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/stretchr/testify/assert"
)

// Google's emulator would let each creation succeed and replace the one before it,
// with what that holds: a message that somebody has published in between is lost.
func TestEnsuresAtTheSameTimeCreateASubscriptionOnce(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		const callers = 4
		var missing sync.WaitGroup // as all of them see it
		missing.Add(callers)
		var mu sync.Mutex
		looks := 0
		f.on("GetSubscription", func(_ context.Context, _ any, forward func() (any, error)) (any, error) {
			mu.Lock()
			looks++
			first := looks <= callers
			mu.Unlock()
			out, err := forward()
			if first {
				missing.Done()
				missing.Wait()
			}
			return out, err
		})
		var all sync.WaitGroup
		for range callers {
			all.Go(func() {
				_, err := f.backend.Ensure(t.Context(), "orders", nil)
				assert.NoError(t, err)
			})
		}
		all.Wait()
		var names []string
		for _, s := range made[*pubsubpb.Subscription](f, "CreateSubscription") {
			names = append(names, s.GetName())
		}
		assert.ElementsMatch(t, []string{subscriptionName("orders"), subscriptionName("orders.return")}, names)
	})
}
