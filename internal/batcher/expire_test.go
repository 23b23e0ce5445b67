package batcher

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/queue"
)

func TestAGroupWithoutADeadlineEndsAtTheTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, time.Hour)
		b.Timeout = 30 * time.Second
		var wg sync.WaitGroup
		for i := range 3 { // each by its own time
			wg.Go(func() {
				begun := time.Now()
				errs := b.publish(context.Background(), "x")
				require.ErrorIs(t, errs[0], context.DeadlineExceeded)
				assert.ErrorIs(t, errs[0], queue.ErrUnknownOutcome, "it's under way")
				assert.Equal(t, 30*time.Second, time.Since(begun), i)
			})
			time.Sleep(time.Second)
		}
		wg.Wait()
		held, _ := b.state()
		assert.Zero(t, held)
	})
}

func TestADeadlineOfTheCallerStandsInsteadOfTheTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, time.Minute)
		b.Timeout = 30 * time.Second
		long, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		assert.Equal(t, none(1), b.publish(long, "long"))
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		assert.ErrorIs(t, b.publish(short, "short")[0], context.DeadlineExceeded)
		assert.Equal(t, time.Second, time.Since(begun))
	})
}

func TestAGroupThatEndsInTimeIsForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, 10*time.Second)
		b.Timeout = 30 * time.Second
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { assert.Equal(t, none(2), b.publish(context.Background(), "x", "k/y")) })
			time.Sleep(time.Second)
		}
		wg.Wait()
		b.Batcher.mu.Lock()
		defer b.Batcher.mu.Unlock()
		assert.Nil(t, b.expiry.first)
		assert.Nil(t, b.expiry.last)
	})
}

func TestWaitingForRoomEndsAtTheTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, time.Minute)
		b.Timeout = 30 * time.Second
		b.MaxHeld = 1
		long, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		go b.publish(long, "first")
		synctest.Wait()
		begun := time.Now()
		errs := b.publish(context.Background(), "second", "third")
		assert.Equal(t, 30*time.Second, time.Since(begun))
		for _, err := range errs {
			require.ErrorIs(t, err, context.DeadlineExceeded)
			assert.NotErrorIs(t, err, queue.ErrUnknownOutcome, "it never left")
		}
		synctest.Wait()
		assert.Equal(t, [][]string{{"first"}}, b.sent())
	})
}

// While it waits for a request that it has cut off its end comes a second time. Its
// items mustn't be counted off twice: then a request that others wait for, too, would
// be cut off.
func TestAGroupWhoseTimeoutAndContextEndTogetherLeavesOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, 40*time.Second)
		b.Timeout = 30 * time.Second
		b.MaxItems = 2
		b.Send = func(ctx context.Context, batch []*Item[string]) Report {
			r := b.send(ctx, batch)
			if batch[0].Value == "alone" && ctx.Err() != nil {
				time.Sleep(cutGrace / 2)
			}
			return r
		}
		long, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		ctx, cut := context.WithCancel(t.Context())
		defer cut()
		var wg sync.WaitGroup
		wg.Go(func() { assert.Equal(t, none(1), b.publish(long, "warm")) })
		synctest.Wait() // what doesn't fill a request now waits for company
		wg.Go(func() {
			for _, err := range b.publish(ctx, "alone", "too", "together") {
				assert.ErrorIs(t, err, queue.ErrUnknownOutcome)
			}
		})
		synctest.Wait()
		wg.Go(func() { assert.Equal(t, none(1), b.publish(long, "with")) })
		synctest.Wait()
		require.Equal(t, [][]string{{"warm"}, {"alone", "too"}, {"together", "with"}}, b.sent())
		time.Sleep(30 * time.Second)
		cut()
		wg.Wait()
		assert.Len(t, b.sent(), 3, "nothing was sent again")
	})
}

func TestCloseEndsGroupsWithATimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, time.Hour)
		b.Timeout = 30 * time.Second
		var wg sync.WaitGroup
		wg.Go(func() { assert.Error(t, b.publish(context.Background(), "x")[0]) })
		synctest.Wait()
		b.Close()
		wg.Wait()
	})
}

// A transport that doesn't heed its context mustn't hold those who publish.
func TestAGroupEndsInTimeAfterCloseToo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, 0)
		b.Timeout = 30 * time.Second
		deaf := make(chan struct{})
		b.Send = func(_ context.Context, batch []*Item[string]) Report {
			<-deaf
			return all(len(batch), Result{})
		}
		var wg sync.WaitGroup
		begun := time.Now()
		wg.Go(func() {
			errs := b.publish(context.Background(), "x")
			require.ErrorIs(t, errs[0], context.DeadlineExceeded)
			assert.ErrorIs(t, errs[0], queue.ErrUnknownOutcome)
		})
		synctest.Wait()
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			b.Close()
		}()
		wg.Wait()
		assert.Equal(t, 30*time.Second+cutGrace, time.Since(begun))
		close(deaf)
		<-closed
	})
}
