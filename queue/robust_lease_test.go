package queue

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestExtensionsNearTheCapGoTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(30 * time.Second)
		calls := 0
		slow := &lateExtend{fakeBroker: f, d: 100 * time.Millisecond, calls: &calls}
		lost := atomic.Int64{}
		c, err := NewConsumer(slow, func(ctx context.Context, d *Delivery) error {
			select {
			case <-ctx.Done():
				lost.Add(1)
			case <-time.After(31 * time.Second): // within MaxExtension
			}
			return nil
		}, &ConsumerOptions{Logger: quiet, Concurrency: 600, MaxExtension: 40 * time.Second})
		require.NoError(t, err)
		r := run(c)
		for i := range 600 {
			d := msgs(1)
			d[0].ID = fmt.Sprint("x", i)
			d[0].BrokerID = d[0].ID
			slow.born.Store(d[0].BrokerID, time.Now())
			f.put(d...)
			time.Sleep(4 * time.Millisecond)
		}
		pass(5 * time.Minute)
		assert.Less(t, calls, 50)
		assert.Zero(t, lost.Load(), "leases lost in the queue of single extensions")
		require.NoError(t, r.stop())
	})
}

type lateExtend struct {
	*fakeBroker
	d     time.Duration
	mu    sync.Mutex
	calls *int
	born  sync.Map
}

func (s *lateExtend) Extend(ctx context.Context, d time.Duration, ds ...*Delivery) ([]time.Time, error) {
	s.mu.Lock()
	*s.calls++
	s.mu.Unlock()
	time.Sleep(s.d)
	for _, x := range ds {
		at, _ := s.born.Load(x.BrokerID)
		if time.Since(at.(time.Time)) > 30*time.Second {
			return make([]time.Time, len(ds)), ErrLeaseLost // it was delivered again
		}
	}
	return s.fakeBroker.Extend(ctx, d, ds...)
}

func TestAStuckReceiveOfAnEarlierRunStopsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(time.Minute)
		release := make(chan struct{})
		s := &stuckOnce{fakeBroker: f, release: release}
		var handled atomic.Int64
		c, err := NewConsumer(s, func(context.Context, *Delivery) error { handled.Add(1); return nil }, &ConsumerOptions{Logger: quiet})
		require.NoError(t, err)
		r := run(c)
		pass(time.Second)
		require.NoError(t, r.stop())
		r = run(c)
		pass(time.Hour) // empty polls
		f.put(msgs(3)...)
		pass(time.Hour)
		assert.EqualValues(t, 3, handled.Load())
		close(release)
		require.NoError(t, r.stop())
	})
}

type stuckOnce struct {
	*fakeBroker
	n       atomic.Int64
	release chan struct{}
}

func (s *stuckOnce) Receive(ctx context.Context, n int) ([]*Delivery, error) {
	if s.n.Add(1) == 1 {
		<-s.release
		return nil, nil
	}
	return s.fakeBroker.Receive(ctx, n)
}

func TestFollowersArentSweptBecauseTheirKeyWasBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(time.Minute)
		f.caps.KeyLocked = false
		var keyed atomic.Int64
		c := consumer(t, f, func(_ context.Context, d *Delivery) error {
			if d.OrderingKey != "" {
				keyed.Add(1)
			}
			time.Sleep(300 * time.Millisecond)
			return nil
		}, ConsumerOptions{Concurrency: 4})
		ds := msgs(10)
		for _, d := range ds {
			d.OrderingKey = "k"
		}
		f.put(ds...)
		r := run(c)
		pass(time.Millisecond)
		for i := range 200 {
			d := msgs(1)[0]
			d.ID = fmt.Sprint("x", i)
			d.BrokerID = d.ID
			f.put(d)
		}
		pass(5 * time.Minute)
		swept := 0
		for _, s := range f.settlements() {
			if s.Kind == Release && s.Delivery.OrderingKey != "" {
				swept++
			}
		}
		assert.Zero(t, swept, "keyed handled %d, all released %d", keyed.Load(), f.kinds()[Release])
		require.NoError(t, r.stop())
	})
}

func TestAHookThatEndsItsGoroutineHoldsUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(time.Minute)
		c := consumer(t, f, ok, ConsumerOptions{Hooks: &Hooks{Settled: func(Settled) { runtime.Goexit() }}})
		f.put(msgs(1)...)
		r := run(c)
		pass(time.Second)
		assert.Zero(t, c.Stats().InUse, "the slot is gone")
		assert.Equal(t, 1, f.kinds()[Ack])
		assert.NoError(t, r.stop())
	})
}

func TestRoomLeftByALeaseThatEndsIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(10 * time.Second)
		var handled atomic.Int64
		g := &testGate{room: Room{N: 2}}
		g.entry = func(d *Delivery) Entry { return Entry{OK: d.OrderingKey != "closed"} }
		c := consumer(t, f, func(context.Context, *Delivery) error { handled.Add(1); return nil },
			ConsumerOptions{Middleware: []Middleware{g}, MaxExtension: 20 * time.Second})
		ds := msgs(2)
		for i, d := range ds {
			d.OrderingKey = "closed"
			_ = i
		}
		ds[1].OrderingKey = "closed"
		ds[0].ID = "a"
		ds2 := []*Delivery{ds[0], {Message: Message{ID: "b", OrderingKey: "closed"}, BrokerID: "b", Attempt: 1}}
		g.entry = func(d *Delivery) Entry { return Entry{OK: d.Attributes["open"] != ""} }
		ds2[0].OrderingKey, ds2[1].OrderingKey = "", ""
		f.put(ds2...)
		r := run(c)
		pass(time.Second)
		require.Equal(t, 2, c.Stats().Held)
		f.put(&Delivery{Message: Message{ID: "c", Attributes: map[string]string{"open": "1"}}, BrokerID: "c", Attempt: 1})
		pass(time.Hour)
		require.Equal(t, 0, c.Stats().Held)
		assert.EqualValues(t, 1, handled.Load(), "the fetcher sleeps though the gate has room for two")
		require.NoError(t, r.stop())
	})
}
