package queue

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAllSlotsFillWhenHandlersBlockAfterQuickOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(time.Minute)
		hang := make(chan struct{})
		var blocked atomic.Int32
		c := consumer(t, f, func(_ context.Context, d *Delivery) error {
			if len(d.ID) == 2 { // m0 to m9 are quick
				return nil
			}
			blocked.Add(1)
			<-hang
			return nil
		}, ConsumerOptions{Concurrency: 40})
		r := run(c)
		f.put(msgs(100)...)
		synctest.Wait()
		assert.EqualValues(t, 40, blocked.Load(), "without any time passing")
		require.NoError(t, c.SetConcurrency(60))
		synctest.Wait()
		assert.EqualValues(t, 60, blocked.Load())
		close(hang)
		require.NoError(t, r.stop())
	})
}

// In virtual time a slot that's left empty while something could start is seen in
// how long it all takes.
func TestSlotsAreUsedWhateverHandlersTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slots, n = 8, 4000
		f := newFake(time.Hour)
		var all time.Duration
		takes := map[string]time.Duration{}
		rnd := rand.New(rand.NewPCG(1, 2))
		for _, d := range msgs(n) {
			if rnd.IntN(2) == 0 {
				takes[d.ID] = time.Duration(rnd.IntN(1000)) * time.Millisecond
				all += takes[d.ID]
			}
		}
		var done atomic.Int32
		var last atomic.Int64
		begun := time.Now()
		c := consumer(t, f, func(_ context.Context, d *Delivery) error {
			time.Sleep(takes[d.ID])
			done.Add(1)
			last.Store(int64(time.Since(begun)))
			return nil
		}, ConsumerOptions{Concurrency: slots})
		r := run(c)
		f.put(msgs(n)...)
		pass(time.Hour)
		require.EqualValues(t, n, done.Load())
		assert.Less(t, time.Duration(last.Load()), all/slots+2*time.Second)
		require.NoError(t, r.stop())
	})
}

// whileWaiting lets a handler return, and calls f with the lock held, for which its
// worker waits.
func whileWaiting(c *Consumer, returns func(), f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	returns()
	for c.coming.Load() == 0 {
		runtime.Gosched()
	}
	f()
}

func (c *Consumer) acceptIDsLocked(ids ...string) {
	ds := make([]*Delivery, len(ids))
	for i, id := range ids {
		ds[i] = &Delivery{Message: Message{ID: id}, BrokerID: id, Attempt: 1}
	}
	now := time.Now()
	c.acceptLocked(c.newLeases(ds, now), len(ds), now)
}

func inUse(t *testing.T, c *Consumer, n int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); c.Stats().InUse != n; runtime.Gosched() {
		require.True(t, time.Now().Before(end), "%d slots are in use instead of %d", c.Stats().InUse, n)
	}
}

func TestAWorkerThatIsCountedOnStartsTheOthers(t *testing.T) {
	t.Parallel()
	f := newFake(0)
	first, others := make(chan struct{}), make(chan struct{})
	c := consumer(t, f, func(_ context.Context, d *Delivery) error {
		if d.ID == "m0" {
			<-first
		} else {
			<-others
		}
		return nil
	}, ConsumerOptions{ReceiveGrace: -1, Concurrency: 5})
	r := run(c)
	f.put(msgs(1)...)
	inUse(t, c, 1)
	whileWaiting(c, func() { close(first) }, func() { c.acceptIDsLocked("a", "b", "c", "d") })
	inUse(t, c, 4)
	close(others)
	require.NoError(t, r.stop())
}

// A handler of an earlier Run that returns at last mustn't be counted on to start
// anything.
func TestAnAbandonedHandlerThatReturnsStopsNothing(t *testing.T) {
	t.Parallel()
	f := newFake(0)
	hang, handled := make(chan struct{}), make(chan string, 10)
	c := consumer(t, f, func(_ context.Context, d *Delivery) error {
		if d.ID == "m0" {
			<-hang
		}
		handled <- d.ID
		return nil
	}, ConsumerOptions{DrainTimeout: time.Millisecond, ReceiveGrace: -1, Concurrency: 2})
	r := run(c)
	f.put(msgs(1)...)
	inUse(t, c, 1)
	var ab *AbandonedError
	require.ErrorAs(t, r.stop(), &ab)

	r = run(c)
	for !c.Stats().Running {
		runtime.Gosched()
	}
	// It waits for the lock while a receive brings something.
	whileWaiting(c, func() { close(hang); <-handled }, func() { c.acceptIDsLocked("next") })
	select {
	case id := <-handled:
		assert.Equal(t, "next", id)
	case <-time.After(10 * time.Second):
		t.Error("nobody has started it")
	}
	require.NoError(t, r.stop())
}

// Panics and Goexit end a worker's goroutine on ways of their own.
func TestSlotsFillBesidePanicsAndGoexit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(time.Minute)
		rnd := rand.New(rand.NewPCG(3, 4))
		kind := map[string]int{}
		for _, d := range msgs(500) {
			kind[d.ID] = rnd.IntN(4)
		}
		hang := make(chan struct{})
		var blocked, gone atomic.Int32
		c := consumer(t, f, func(_ context.Context, d *Delivery) error {
			if d.Attempt > 1 {
				return nil
			}
			switch kind[d.ID] {
			case 0:
				gone.Add(1)
				panic("as it happens")
			case 1:
				gone.Add(1)
				runtime.Goexit()
			case 2:
				return errors.New("failed")
			}
			if blocked.Add(1) <= 10 {
				<-hang
			}
			return nil
		}, ConsumerOptions{Concurrency: 11})
		r := run(c)
		f.put(msgs(500)...)
		synctest.Wait()
		assert.Greater(t, blocked.Load(), int32(50), "one slot does all the rest")
		assert.Greater(t, gone.Load(), int32(100))
		close(hang)
		pass(time.Second)
		require.NoError(t, r.stop())
	})
}
