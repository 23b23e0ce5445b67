package queue

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestALeaseIsKeptUnderASlowHandlerAndReleasedByItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(10 * time.Second)
		f.put(msgs(3)...)
		c := run(consumer(t, f, func(ctx context.Context, _ *Delivery) error {
			time.Sleep(51 * time.Second)
			return ctx.Err()
		}, ConsumerOptions{DrainTimeout: time.Hour}))
		pass(60 * time.Second)
		assert.Equal(t, 3, f.kinds()[Ack])
		f.mu.Lock()
		n := len(f.extends)
		for _, e := range f.extends {
			assert.Len(t, e.ids, 3, "leases that are due together go in one call")
		}
		f.mu.Unlock()
		assert.Equal(t, 10, n)
		pass(time.Minute)
		f.mu.Lock()
		assert.Len(t, f.extends, n, "a settled delivery's lease mustn't be extended")
		f.mu.Unlock()
		require.NoError(t, c.stop())
	})
}

func TestMaxExtensionCutsAHandlerOffInTimeToSettleItsFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(10 * time.Second)
		f.put(msgs(1)...)
		begun := time.Now()
		var took time.Duration
		var cause error
		c := run(consumer(t, f, func(ctx context.Context, _ *Delivery) error {
			<-ctx.Done()
			took, cause = time.Since(begun), context.Cause(ctx)
			return ctx.Err()
		}, ConsumerOptions{MaxExtension: 25 * time.Second}))
		pass(time.Minute)
		assert.ErrorIs(t, cause, context.DeadlineExceeded)
		assert.Equal(t, 22500*time.Millisecond, took)
		assert.Equal(t, 1, f.kinds()[Release])
		st := c.Stats()
		assert.EqualValues(t, 1, st.Failed)
		assert.Zero(t, st.LeasesLost+st.Interrupted)
		require.NoError(t, c.stop())
	})
}

func TestALongLeaseIsCutOffFiveSecondsBeforeItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(10 * time.Minute)
		f.put(msgs(1)...)
		begun := time.Now()
		var took time.Duration
		c := run(consumer(t, f, func(ctx context.Context, _ *Delivery) error {
			<-ctx.Done()
			took = time.Since(begun)
			return ctx.Err()
		}, ConsumerOptions{MaxExtension: time.Minute})) // less than a lease
		pass(time.Hour)
		assert.Equal(t, 10*time.Minute-5*time.Second, took)
		require.NoError(t, c.stop())
	})
}

func TestAHandlerThatDoesNotEndWhenItIsCutOffLosesItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(10 * time.Second)
		f.put(msgs(1)...)
		begun := time.Now()
		var took time.Duration
		var cause error
		c := run(consumer(t, f, func(ctx context.Context, _ *Delivery) error {
			<-ctx.Done()
			time.Sleep(5 * time.Second)
			took, cause = time.Since(begun), context.Cause(ctx)
			return cause
		}, ConsumerOptions{MaxExtension: 25 * time.Second}))
		pass(time.Minute)
		assert.ErrorIs(t, cause, context.DeadlineExceeded)
		assert.ErrorIs(t, cause, ErrLeaseLost, "by then")
		assert.Equal(t, 27500*time.Millisecond, took)
		assert.EqualValues(t, 1, c.Stats().Interrupted, "somebody else may have it: it's no failure")
		assert.Zero(t, c.Stats().Failed)
		assert.Empty(t, f.settlements(), "a failure after a lost lease isn't settled")
		assert.EqualValues(t, 1, c.Stats().LeasesLost)
		require.NoError(t, c.stop())
	})
}

func TestALostLeaseCancelsAndItsSuccessIsAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(10 * time.Second)
		f.onExtend = func(*Delivery, time.Duration) (time.Time, error) { return time.Time{}, ErrLeaseLost }
		f.put(msgs(1)...)
		var cause error
		c := run(consumer(t, f, func(ctx context.Context, _ *Delivery) error {
			<-ctx.Done()
			cause = context.Cause(ctx)
			return nil
		}, ConsumerOptions{}))
		pass(20 * time.Second)
		assert.ErrorIs(t, cause, ErrLeaseLost)
		assert.Equal(t, 1, f.kinds()[Ack])
		require.NoError(t, c.stop())
	})
}

func TestExtendFailuresHealBeforeTheLeaseEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(10 * time.Second)
		tries := 0
		f.onExtend = func(_ *Delivery, d time.Duration) (time.Time, error) {
			if tries++; tries <= 4 {
				return time.Time{}, errTest
			}
			return time.Now().Add(d), nil
		}
		f.put(msgs(1)...)
		c := run(consumer(t, f, func(ctx context.Context, _ *Delivery) error {
			time.Sleep(15 * time.Second)
			return ctx.Err()
		}, ConsumerOptions{}))
		pass(20 * time.Second)
		assert.Equal(t, 1, f.kinds()[Ack])
		require.NoError(t, c.stop())
	})
}

func TestExtendLeaseGoesBeyondMaxExtension(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(10 * time.Second)
		f.put(msgs(1)...)
		var until time.Time
		var err error
		begun := time.Now()
		c := run(consumer(t, f, func(ctx context.Context, _ *Delivery) error {
			until, err = ExtendLease(ctx, time.Hour)
			at, has := LeaseDeadline(ctx)
			assert.True(t, has)
			assert.Equal(t, until, at)
			time.Sleep(50 * time.Minute)
			return ctx.Err()
		}, ConsumerOptions{MaxExtension: 20 * time.Second}))
		pass(time.Hour)
		require.NoError(t, err)
		assert.Equal(t, begun.Add(time.Hour), until)
		assert.Equal(t, 1, f.kinds()[Ack])
		require.NoError(t, c.stop())
	})
	_, err := ExtendLease(context.Background(), time.Second)
	require.ErrorIs(t, err, ErrUnsupported)
	_, has := LeaseDeadline(context.Background())
	require.False(t, has)
}

func TestASettlementWaitsForAnExtensionUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(10 * time.Second)
		gate := make(chan struct{})
		f.put(msgs(1)...)
		slow := &slowExtend{f, gate}
		c, err := NewConsumer(slow, func(context.Context, *Delivery) error {
			time.Sleep(6 * time.Second) // the extension begins at 5 s
			return errTest
		}, &ConsumerOptions{Logger: quiet})
		require.NoError(t, err)
		r := run(c)
		pass(7 * time.Second)
		assert.Empty(t, f.settlements(), "a late extension would overwrite the backoff")
		close(gate)
		pass(100 * time.Millisecond)
		assert.Equal(t, 1, f.kinds()[Release])
		require.NoError(t, r.stop())
	})
}

type slowExtend struct {
	*fakeBroker
	gate chan struct{}
}

func (s *slowExtend) Extend(ctx context.Context, d time.Duration, ds ...*Delivery) ([]time.Time, error) {
	<-s.gate
	return s.fakeBroker.Extend(ctx, d, ds...)
}

func TestADrainWaitsForASettlementThatWaitsForAnExtension(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(10 * time.Second)
		gate := make(chan struct{})
		f.put(msgs(1)...)
		c, err := NewConsumer(&slowExtend{f, gate}, func(context.Context, *Delivery) error {
			time.Sleep(6 * time.Second) // the extension begins at 5 s
			return nil
		}, &ConsumerOptions{Logger: quiet})
		require.NoError(t, err)
		r := run(c)
		pass(7 * time.Second)
		r.cancel()
		pass(2 * time.Second)
		assert.Empty(t, f.settlements())
		close(gate)
		require.NoError(t, <-r.done)
		assert.Equal(t, 1, f.kinds()[Ack])
	})
}
