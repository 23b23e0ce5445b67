package queuetest

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/anyqueue/anyqueue/queue"
)

// Start runs c in the background for a test. At the end of the test it ends the
// run as a shutdown does, waits for it, and fails the test when Run returns an
// error, or returns before it was asked to.
//
// The returned function does the same earlier; calling it again is harmless. In
// a bubble of testing/synctest call Start from within the bubble. Give c a
// DrainTimeout that the test may wait for when a handler might hang.
func Start(t testing.TB, c *queue.Consumer) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := c.Run(ctx)
		asked := errors.Is(context.Cause(ctx), errStopped)
		switch {
		case err != nil:
			t.Errorf("queuetest: consumer %s: %v", c.Stats().Name, err)
		case !asked:
			t.Errorf("queuetest: consumer %s ended by itself", c.Stats().Name)
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel(errStopped)
		<-done
	})
	t.Cleanup(stop)
	return stop
}

// errStopped is the cause of the end of a consumer that Start runs.
var errStopped = errors.New("queuetest: stopped")
