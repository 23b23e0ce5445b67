package queue

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAContextThatOutlivesItsRunKeepsItsValues(t *testing.T) {
	f := newFake(time.Minute)
	stop := make(chan struct{})
	started := make(chan struct{}, 1)
	done := make(chan struct{})
	c := consumer(t, f, func(ctx context.Context, _ *Delivery) error {
		started <- struct{}{}
		go func() { // a helper that keeps the context for its values
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
					_ = ctx.Value("trace")
				}
			}
		}()
		return nil
	}, ConsumerOptions{DrainTimeout: -1, ReceiveGrace: -1})
	f.put(msgs(1)...)
	r := run(c)
	<-started
	require.NoError(t, r.stop())
	r = run(c)
	time.Sleep(5 * time.Millisecond)
	require.NoError(t, r.stop())
	close(stop)
	<-done
}

func TestResumingAsAPausesGraceEndsGoesOnReceiving(t *testing.T) {
	for i := range 300 {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(time.Minute)
			var handled atomic.Int64
			c := consumer(t, f, func(context.Context, *Delivery) error { handled.Add(1); return nil }, ConsumerOptions{ReceiveGrace: time.Second})
			r := run(c)
			pass(time.Second)
			c.Pause()
			time.Sleep(time.Second)
			c.Resume()
			time.Sleep(time.Second)
			if c.fetch.ctx.Err() != nil {
				t.Errorf("round %d: the receives' context is over after Resume (calls %d)", i, c.Stats().ReceiveCalls)
				c.Pause()
				c.Resume()
			}
			require.NoError(t, r.stop())
		})
		if t.Failed() {
			return
		}
	}
}

func TestFailuresSurviveALeaseThatEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(time.Minute)
		f.caps.KeyLocked = false
		var mu sync.Mutex
		var got []int
		c := consumer(t, f, func(_ context.Context, d *Delivery) error {
			mu.Lock()
			got = append(got, d.Failures)
			mu.Unlock()
			return errTest
		}, ConsumerOptions{Backoff: Backoff{Min: time.Minute, Max: time.Minute, Jitter: -1}, MaxExtension: 10*time.Minute + time.Second})
		d := msgs(1)[0]
		d.OrderingKey = "k"
		f.put(d)
		r := run(c)
		for range 40 {
			pass(30 * time.Second)
			if f.kinds()[Release] == 1 {
				break
			}
		}
		require.Equal(t, 1, f.kinds()[Release])
		again := msgs(1)[0]
		again.OrderingKey, again.Attempt = "k", 2
		n := len(got)
		f.put(again)
		pass(time.Second)
		mu.Lock()
		t.Log(got)
		assert.Equal(t, n, got[n], "failures are forgotten")
		mu.Unlock()
		require.NoError(t, r.stop())
	})
}

func TestContextOfAnEarlierAttemptStaysEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(time.Minute)
		f.caps.KeyLocked = false
		var first context.Context
		n := 0
		c := consumer(t, f, func(ctx context.Context, d *Delivery) error {
			if n++; n == 1 {
				first = ctx
				_ = ctx.Done()
				return errTest
			}
			assert.Error(t, first.Err(), "the ended context lives again")
			_, err := ExtendLease(first, 2*time.Minute)
			assert.Error(t, err, "the first attempt's context extends the second's lease")
			return nil
		}, ConsumerOptions{})
		d := msgs(1)[0]
		d.OrderingKey = "k"
		f.put(d)
		r := run(c)
		pass(time.Minute)
		require.Equal(t, 2, n)
		require.NoError(t, r.stop())
	})
}

func TestContextEndsWithItsHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(time.Minute)
		returned, ended := make(chan struct{}), make(chan struct{})
		quit := make(chan struct{})
		c := consumer(t, f, func(ctx context.Context, d *Delivery) error {
			go func() {
				<-returned // scheduled late
				select {
				case <-ctx.Done():
					close(ended)
				case <-quit:
				}
			}()
			return nil
		}, ConsumerOptions{})
		f.put(msgs(1)...)
		r := run(c)
		pass(time.Second)
		close(returned)
		pass(time.Minute)
		require.NoError(t, r.stop())
		select {
		case <-ended:
		default:
			t.Error("the context never ends")
		}
		close(quit)
	})
}

func TestASmallExtensionDoesNotEndTheKeeping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(30 * time.Second)
		down := true
		f.onExtend = func(_ *Delivery, d time.Duration) (time.Time, error) {
			if down {
				return time.Time{}, errTest
			}
			return time.Now().Add(d), nil
		}
		var cause error
		c := consumer(t, f, func(ctx context.Context, d *Delivery) error {
			time.Sleep(22 * time.Second) // renewals fail since 15 s
			f.mu.Lock()
			down = false
			f.mu.Unlock()
			_, err := ExtendLease(ctx, 10*time.Second)
			assert.NoError(t, err)
			time.Sleep(5 * time.Minute)
			cause = context.Cause(ctx)
			return nil
		}, ConsumerOptions{})
		f.put(msgs(1)...)
		r := run(c)
		pass(10 * time.Minute)
		assert.NoError(t, cause)
		require.NoError(t, r.stop())
	})
}

func TestAPanicInExtendParksNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(30 * time.Second)
		f.onExtend = func(*Delivery, time.Duration) (time.Time, error) { panic("extend") }
		c := consumer(t, f, func(ctx context.Context, d *Delivery) error {
			_, err := ExtendLease(ctx, time.Hour)
			return err
		}, ConsumerOptions{})
		f.put(msgs(1)...)
		r := run(c)
		pass(10 * time.Second)
		assert.Equal(t, 1, f.kinds()[Release], "parked for ever")
		begun := time.Now()
		require.NoError(t, r.stop())
		assert.Less(t, time.Since(begun), 5*time.Second)
	})
}

func TestAHungExtendDoesNotHideALostLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(30 * time.Second)
		h := &hangingExtend{fakeBroker: f}
		var cause error
		var after time.Duration
		c, err := NewConsumer(h, func(ctx context.Context, d *Delivery) error {
			begun := time.Now()
			_, err := ExtendLease(ctx, time.Hour)
			after, cause = time.Since(begun), err
			return nil
		}, &ConsumerOptions{Logger: quiet})
		require.NoError(t, err)
		f.put(msgs(1)...)
		r := run(c)
		pass(10 * time.Minute)
		assert.Error(t, cause)
		assert.LessOrEqual(t, after, time.Minute)
		require.NoError(t, r.stop())
	})
}

type hangingExtend struct{ *fakeBroker }

func (h *hangingExtend) Extend(ctx context.Context, _ time.Duration, ds ...*Delivery) ([]time.Time, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestAPauseGivesBackInPlentyOfSettlements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &slowSettle{fakeBroker: newFake(time.Minute), d: 10 * time.Millisecond}
		f.caps.MaxDelay = 0
		c, err := NewConsumer(f, func(ctx context.Context, d *Delivery) error {
			time.Sleep(time.Second)
			return nil
		}, &ConsumerOptions{Logger: quiet, Concurrency: 70})
		require.NoError(t, err)
		ds := msgs(65)
		for i := range 64 {
			ds[i].OrderingKey = ds[i].ID
		}
		ds[64].carried = &metadata{due: time.Now().Add(20 * time.Minute)}
		f.put(ds...)
		r := run(c)
		time.Sleep(time.Second + time.Millisecond)
		c.Pause()
		pass(10 * time.Minute)
		assert.Equal(t, 64, f.kinds()[Ack])
		assert.Equal(t, 1, f.kinds()[Release], "a settlement that never goes: %d pending", len(c.settle.pending))
		require.NoError(t, r.stop())
	})
}

type slowSettle struct {
	*fakeBroker
	d time.Duration
}

func (s *slowSettle) Settle(ctx context.Context, ss ...Settlement) error {
	time.Sleep(s.d)
	return s.fakeBroker.Settle(ctx, ss...)
}

func TestTheLargestConcurrencyKeepsReceiving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(time.Minute)
		var handled atomic.Int64
		c := consumer(t, f, func(ctx context.Context, d *Delivery) error {
			handled.Add(1)
			return nil
		}, ConsumerOptions{Concurrency: MaxConcurrency})
		r := run(c)
		for range 100 {
			f.put(msgs(100)...)
			pass(20 * time.Millisecond)
		}
		pass(time.Minute)
		assert.EqualValues(t, 10000, handled.Load(), "asleep %d want %d", c.fetch.asleep, c.fetch.rate)
		require.NoError(t, r.stop())
	})
}

func TestAHeadIsReleasedBeforeItsFollowers(t *testing.T) {
	for _, locked := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(time.Minute)
			f.caps.KeyLocked = locked
			c := consumer(t, f, func(ctx context.Context, d *Delivery) error {
				time.Sleep(10 * time.Second)
				return nil
			}, ConsumerOptions{Concurrency: 4, Middleware: []Middleware{&testGate{room: Unlimited, entry: func(*Delivery) Entry { return Entry{} }}}})
			ds := msgs(3)
			for _, d := range ds {
				d.OrderingKey = "k"
			}
			f.put(ds...)
			r := run(c)
			pass(time.Second)
			c.Pause()
			pass(time.Second)
			var ids []string
			for _, s := range f.settlements() {
				ids = append(ids, s.Delivery.ID)
			}
			assert.Equal(t, []string{"m0", "m1", "m2"}, ids)
			require.NoError(t, r.stop())
		})
	}
}

func TestALostAndAbandonedDeliveryCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(10 * time.Second)
		f.onExtend = func(*Delivery, time.Duration) (time.Time, error) { return time.Time{}, ErrLeaseLost }
		hang := make(chan struct{})
		c := consumer(t, f, func(ctx context.Context, d *Delivery) error { <-hang; return nil }, ConsumerOptions{})
		f.put(msgs(1)...)
		r := run(c)
		pass(20 * time.Second)
		var ab *AbandonedError
		require.ErrorAs(t, r.stop(), &ab)
		assert.Equal(t, 1, c.track.get("m0").others)
		close(hang)
		synctest.Wait()
	})
}

func TestAnEndlessReceiveGraceIsNoneTooShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(time.Minute)
		c := consumer(t, f, ok, ConsumerOptions{ReceiveGrace: math.MaxInt64})
		r := run(c)
		pass(time.Second)
		begun := time.Now()
		require.NoError(t, r.stop())
		assert.Greater(t, time.Since(begun), 10*time.Second, "the open poll isn't waited for")
		assert.Zero(t, c.Stats().CutReceives)
	})
}

func TestAnAckThatFailsForgetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(10 * time.Second)
		f.onSettle = func(s Settlement) error {
			if s.Kind == Ack {
				return errTest
			}
			return nil
		}
		n := 0
		var last int
		c := consumer(t, f, func(ctx context.Context, d *Delivery) error {
			n++
			last = d.Failures
			if n <= 5 {
				return Snooze(0)
			}
			return nil
		}, ConsumerOptions{})
		r := run(c)
		for i := range 7 {
			d := msgs(1)[0]
			d.Attempt = i + 1
			f.put(d)
			pass(30 * time.Second)
		}
		assert.LessOrEqual(t, last, 1, "five snoozes and a success whose ack failed aren't six failures")
		require.NoError(t, r.stop())
	})
}

var _ = errors.New

type typedNilError struct{ err error }

func (e *typedNilError) Error() string { return "ptr" }
func (e *typedNilError) Unwrap() error { return e.err }

func TestATypedNilErrorIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(time.Minute)
		c := consumer(t, f, func(context.Context, *Delivery) error {
			var e *typedNilError
			return e // the classic mistake
		}, ConsumerOptions{})
		f.put(msgs(1)...)
		r := run(c)
		pass(time.Second)
		assert.Equal(t, 1, f.kinds()[Release])
		require.NoError(t, r.stop())
	})
}
