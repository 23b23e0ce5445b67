package queue

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var quiet = slog.New(slog.DiscardHandler)

func consumer(t *testing.T, f *fakeBroker, h Handler, o ConsumerOptions) *Consumer {
	t.Helper()
	if o.Logger == nil {
		o.Logger = quiet
	}
	c, err := NewConsumer(f, h, &o)
	require.NoError(t, err)
	return c
}

func ok(context.Context, *Delivery) error { return nil }

func TestNewConsumerRefusesWhatCannotBeMeant(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]ConsumerOptions{
		"negative concurrency": {Concurrency: -1},
		"negative extension":   {MaxExtension: -1},
		"negative timeout":     {HandlerTimeout: -1},
		"timeout over lease":   {HandlerTimeout: time.Hour + 1},
		"too much concurrency": {Concurrency: MaxConcurrency + 1},
		"negative hold":        {MaxHold: -1},
		"backoff min over max": {Backoff: Backoff{Min: time.Minute, Max: time.Second}},
		"nil middleware":       {Middleware: []Middleware{nil}},
		"jitter over one":      {Backoff: Backoff{Jitter: 2}},
		"negative backoff":     {Backoff: Backoff{Min: -1}},
		"factor that shrinks":  {Backoff: Backoff{Factor: 0.5}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := NewConsumer(newFake(0), ok, &o)
			var inv *InvalidError
			require.ErrorAs(t, err, &inv)
			require.ErrorIs(t, err, ErrInvalid)
		})
	}
	_, err := NewConsumer(nil, ok, nil)
	require.ErrorIs(t, err, ErrInvalid)
	_, err = NewConsumer(newFake(0), nil, nil)
	require.ErrorIs(t, err, ErrInvalid)
}

func TestHandlersNeverExceedConcurrencyAndReachIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(30 * time.Second)
		f.put(msgs(50)...)
		var now, most atomic.Int64
		c := run(consumer(t, f, func(context.Context, *Delivery) error {
			n := now.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(time.Second)
			now.Add(-1)
			return nil
		}, ConsumerOptions{Concurrency: 7}))
		pass(10 * time.Second)
		assert.EqualValues(t, 7, most.Load())
		require.NoError(t, c.stop())
		assert.Equal(t, 50, f.kinds()[Ack])
	})
}

func TestOnlyFreeSlotsAreFetchedWhenHandlersAreSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(30 * time.Second)
		f.put(msgs(100)...)
		c := run(consumer(t, f, func(context.Context, *Delivery) error {
			time.Sleep(time.Second)
			return nil
		}, ConsumerOptions{Concurrency: 4}))
		pass(500 * time.Millisecond)
		f.mu.Lock()
		assert.Len(t, f.queue, 96, "what can't start soon must stay with the broker")
		f.mu.Unlock()
		require.NoError(t, c.stop())
	})
}

func TestAnIdleConsumerKeepsOneReceiveOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(30 * time.Second)
		f.latency = 20 * time.Millisecond
		f.caps.MaxReceive = 10
		f.put(msgs(2000)...)
		c := run(consumer(t, f, ok, ConsumerOptions{Concurrency: 100}))
		synctest.Wait()
		pass(time.Minute)
		f.mu.Lock()
		assert.Equal(t, 1, f.open)
		f.mu.Unlock()
		assert.Equal(t, 2000, f.kinds()[Ack])
		require.NoError(t, c.stop())
	})
}

func TestParallelReceivesHideTheRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(30 * time.Second)
		f.latency = 20 * time.Millisecond
		f.caps.MaxReceive = 10
		f.put(msgs(20000)...)
		c := run(consumer(t, f, func(context.Context, *Delivery) error {
			time.Sleep(10 * time.Millisecond)
			return nil
		}, ConsumerOptions{Concurrency: 100}))
		begun := time.Now()
		for c.Stats().Succeeded < 20000 {
			time.Sleep(10 * time.Millisecond)
		}
		// 100 slots and 10 ms: 10,000/s at best, so 2 s.
		assert.Less(t, time.Since(begun), 2600*time.Millisecond)
		require.NoError(t, c.stop())
	})
}

// Servers often bring less than they're asked for, although they have more.
func TestReceivesThatBringLessThanAskedForAreMadeInParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(30 * time.Second)
		f.latency, f.brings = 20*time.Millisecond, 6
		f.caps.MaxReceive = 10
		f.put(msgs(12000)...)
		c := run(consumer(t, f, func(context.Context, *Delivery) error {
			time.Sleep(10 * time.Millisecond)
			return nil
		}, ConsumerOptions{Concurrency: 100}))
		begun := time.Now()
		for c.Stats().Succeeded < 12000 {
			time.Sleep(10 * time.Millisecond)
		}
		// One receive after the other would take 40 s, 64 at a time 0.6 s, and the
		// 100 handlers 1.2 s.
		assert.Less(t, time.Since(begun), 2500*time.Millisecond)
		require.NoError(t, c.stop())
	})
}

func TestATrickleIsReceivedByOneCallAMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(30 * time.Second)
		f.latency = 5 * time.Millisecond
		f.caps.MaxReceive = 10
		c := run(consumer(t, f, ok, ConsumerOptions{Concurrency: 100}))
		for _, m := range msgs(1000) {
			f.put(m)
			time.Sleep(10 * time.Millisecond)
		}
		assert.EqualValues(t, 1000, c.Stats().Succeeded)
		assert.LessOrEqual(t, c.Stats().ReceiveCalls, uint64(1010))
		require.NoError(t, c.stop())
	})
}

func TestWhatWaitsTooLongForASlotIsReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(30 * time.Second)
		f.latency = 20 * time.Millisecond
		f.caps.MaxReceive = 10
		var slow atomic.Bool
		var late atomic.Int64
		f.put(msgs(6000)...)
		c := run(consumer(t, f, func(_ context.Context, d *Delivery) error {
			if !time.Now().Before(d.Deadline) {
				late.Add(1)
			}
			if slow.Load() {
				time.Sleep(20 * time.Second)
			} else {
				time.Sleep(time.Millisecond)
			}
			return nil
		}, ConsumerOptions{Concurrency: 20, DrainTimeout: time.Minute}))
		for c.Stats().Succeeded < 3000 {
			time.Sleep(time.Millisecond)
		}
		slow.Store(true)
		pass(3 * time.Second)
		assert.Zero(t, c.Stats().Buffered, "what was fetched ahead must go back when handlers slow down")
		assert.NotZero(t, c.Stats().Released)
		require.NoError(t, c.stop())
		assert.Zero(t, late.Load(), "no handler may start on an expired lease")
	})
}

func TestSettlementsThatFailAreTriedAgainUntilTheLeaseEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		err   error
		heals int
		acked int
	}{
		"heals":         {errTest, 3, 1},
		"never heals":   {errTest, 1 << 30, 0},
		"lease is lost": {ErrLeaseLost, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(10 * time.Second)
				n := 0
				f.onSettle = func(Settlement) error {
					if n++; n <= tc.heals {
						return tc.err
					}
					return nil
				}
				f.put(msgs(1)...)
				c := run(consumer(t, f, ok, ConsumerOptions{}))
				pass(time.Minute)
				assert.Equal(t, tc.acked, f.kinds()[Ack])
				assert.EqualValues(t, 1-tc.acked, c.Stats().SettleLost)
				f.put(msgs(1)...)
				f.mu.Lock()
				f.onSettle = nil
				f.mu.Unlock()
				pass(time.Second)
				assert.Equal(t, tc.acked+1, f.kinds()[Ack], "a failed settlement must not stop the consumer")
				require.NoError(t, c.stop())
			})
		})
	}
}

func TestAShortLeaseIsUsedForTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(2 * time.Second)
		until := time.Now().Add(1900 * time.Millisecond)
		f.onSettle = func(Settlement) error {
			if time.Now().Before(until) {
				return errTest
			}
			return nil
		}
		f.put(msgs(1)...)
		c := run(consumer(t, f, ok, ConsumerOptions{}))
		pass(time.Minute)
		assert.Equal(t, 1, f.kinds()[Ack], "doubling pauses must not pass the lease's end")
		require.NoError(t, c.stop())
	})
}

func TestDrainWaitsForHandlersAndFlushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(30 * time.Second)
		f.put(msgs(3)...)
		c := run(consumer(t, f, func(ctx context.Context, _ *Delivery) error {
			time.Sleep(10 * time.Second)
			return ctx.Err()
		}, ConsumerOptions{}))
		pass(time.Second)
		begun := time.Now()
		require.NoError(t, c.stop())
		assert.Equal(t, 9*time.Second, time.Since(begun))
		assert.Equal(t, 3, f.kinds()[Ack])
	})
}

func TestDrainCancelsThenNamesWhatIgnoresIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(30 * time.Second)
		f.put(msgs(2)...)
		release := make(chan struct{})
		var cause atomic.Value
		c := run(consumer(t, f, func(ctx context.Context, d *Delivery) error {
			if d.ID == "m0" {
				<-release
				return nil
			}
			<-ctx.Done()
			cause.Store(context.Cause(ctx))
			return ctx.Err()
		}, ConsumerOptions{DrainTimeout: 5 * time.Second}))
		pass(time.Second)
		begun := time.Now()
		err := c.stop()
		var ab *AbandonedError
		require.ErrorAs(t, err, &ab)
		assert.Equal(t, []string{"m0"}, ab.IDs)
		assert.Equal(t, 6*time.Second, time.Since(begun))
		assert.ErrorIs(t, cause.Load().(error), ErrDraining)
		s := f.settlements()
		require.Len(t, s, 1)
		assert.Equal(t, Release, s[0].Kind)
		assert.Zero(t, s[0].Delay, "an interrupted attempt is no failure")
		assert.EqualValues(t, 1, c.Stats().Interrupted)
		assert.EqualValues(t, 0, c.Stats().Failed)
		close(release)
		synctest.Wait()
		assert.Len(t, f.settlements(), 1, "an abandoned delivery isn't settled after Run has returned")
	})
}

func TestAFinalReceiveErrorEndsRunAndAPassingOneDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(0)
		n := 0
		f.onRecv = func(int) error {
			if n++; n <= 5 {
				return errTest
			}
			return nil
		}
		f.put(msgs(1)...)
		c := run(consumer(t, f, ok, ConsumerOptions{}))
		pass(time.Minute)
		assert.Equal(t, 1, f.kinds()[Ack])
		assert.EqualValues(t, 5, c.Stats().ReceiveErrors)
		assert.NoError(t, c.Stats().LastError)
		f.mu.Lock()
		f.onRecv = func(int) error { return ErrQueueNotFound }
		f.mu.Unlock()
		f.wake()
		assert.ErrorIs(t, <-c.done, ErrQueueNotFound)
		c.cancel()
	})
}

func TestPanicsAndGoexitAreFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(0)
		f.put(msgs(4)...)
		c := run(consumer(t, f, func(_ context.Context, d *Delivery) error {
			switch d.ID {
			case "m0":
				panic("boom")
			case "m1":
				runtime.Goexit()
			}
			return nil
		}, ConsumerOptions{Concurrency: 1}))
		pass(time.Second)
		assert.Equal(t, map[SettleKind]int{Ack: 2, Release: 2}, f.kinds())
		assert.EqualValues(t, 2, c.Stats().Panics)
		require.NoError(t, c.stop())
	})
}

func TestPauseGivesBackWhatWaitsAndResumeGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(30 * time.Second)
		c := run(consumer(t, f, ok, ConsumerOptions{}))
		synctest.Wait()
		c.Pause()
		pass(2 * time.Second)
		f.put(msgs(5)...)
		pass(time.Minute)
		assert.Equal(t, map[SettleKind]int{Release: 5}, f.kinds(), "what an open receive brings during a pause goes back")
		assert.True(t, c.Stats().Paused)
		f.mu.Lock()
		assert.Zero(t, f.open, "no receive begins during a pause")
		f.mu.Unlock()
		c.Resume()
		f.put(msgs(5)...)
		pass(time.Second)
		assert.Equal(t, 5, f.kinds()[Ack])
		require.NoError(t, c.stop())
	})
}

func TestConcurrencyChangesLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(time.Minute)
		f.put(msgs(1000)...)
		c := run(consumer(t, f, func(context.Context, *Delivery) error {
			time.Sleep(time.Second)
			return nil
		}, ConsumerOptions{Concurrency: 2}))
		pass(2500 * time.Millisecond)
		assert.Equal(t, 2, c.Stats().InUse)
		require.NoError(t, c.SetConcurrency(10))
		pass(time.Second)
		assert.Equal(t, 10, c.Stats().InUse)
		require.NoError(t, c.SetConcurrency(3))
		pass(2 * time.Second)
		assert.Equal(t, 3, c.Stats().InUse)
		require.ErrorIs(t, c.SetConcurrency(0), ErrInvalid)
		require.NoError(t, c.stop())
	})
}

func TestRunTwiceAtATimeIsRefusedAndAgainLaterWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(0)
		c := consumer(t, f, ok, ConsumerOptions{})
		for range 3 {
			f.put(msgs(2)...)
			r := run(c)
			synctest.Wait()
			require.ErrorIs(t, c.Run(context.Background()), ErrInvalid)
			require.NoError(t, r.stop())
		}
		assert.Equal(t, 6, f.kinds()[Ack])
	})
}

func TestAHandlersContextIsAnOrdinaryOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		f := newFake(0)
		f.put(msgs(1)...)
		var leaked context.Context
		c := consumer(t, f, func(ctx context.Context, _ *Delivery) error {
			assert.Equal(t, "v", ctx.Value(key{}))
			assert.NoError(t, ctx.Err())
			assert.NoError(t, context.Cause(ctx))
			child, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			<-child.Done()
			assert.ErrorIs(t, child.Err(), context.DeadlineExceeded)
			assert.NoError(t, ctx.Err())
			leaked = ctx
			return nil
		}, ConsumerOptions{})
		ctx, cancel := context.WithCancel(context.WithValue(context.Background(), key{}, "v"))
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		pass(2 * time.Second)
		assert.ErrorIs(t, leaked.Err(), context.Canceled, "what hangs on the context must be let go")
		cancel()
		require.NoError(t, <-done)
	})
}

func TestHandlerTimeoutIsAFailureWithItsCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(0)
		f.put(msgs(1)...)
		var cause error
		c := run(consumer(t, f, func(ctx context.Context, _ *Delivery) error {
			<-ctx.Done()
			cause = context.Cause(ctx)
			return cause
		}, ConsumerOptions{HandlerTimeout: 3 * time.Second}))
		pass(4 * time.Second)
		assert.ErrorIs(t, cause, context.DeadlineExceeded)
		assert.EqualValues(t, 1, c.Stats().Failed)
		require.NoError(t, c.stop())
	})
}

func TestFailuresDoNotCountWhatWasNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(0)
		var seen []int
		outcomes := []error{Snooze(time.Second), errTest, Snooze(0), RetryAfter(0, errTest), errors.New("x"), nil}
		i := 0
		deliver := func() {
			d := msgs(1)[0]
			d.Attempt = i + 1
			f.put(d)
		}
		f.onSettle = func(s Settlement) error {
			if s.Kind == Release {
				go deliver()
			}
			return nil
		}
		deliver()
		c := run(consumer(t, f, func(_ context.Context, d *Delivery) error {
			seen = append(seen, d.Failures)
			i++
			return outcomes[i-1]
		}, ConsumerOptions{}))
		pass(time.Minute)
		assert.Equal(t, []int{0, 0, 1, 1, 2, 3}, seen)
		require.NoError(t, c.stop())
	})
}
