package queue

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A gate under the test's control.
type testGate struct {
	mu    sync.Mutex
	room  Room
	entry func(*Delivery) Entry
	wake  func()
}

func (g *testGate) Wrap(h Handler) Handler { return h }
func (g *testGate) Attach(w func()) func() {
	g.mu.Lock()
	g.wake = w
	g.mu.Unlock()
	return func() {}
}
func (g *testGate) Room() Room {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.room
}
func (g *testGate) Enter(d *Delivery) Entry {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.entry == nil {
		return Entry{OK: true}
	}
	return g.entry(d)
}
func (g *testGate) Leave(any, GateResult) {}
func (g *testGate) set(f func()) {
	g.mu.Lock()
	f()
	w := g.wake
	g.mu.Unlock()
	w()
}

func TestAGatesWakesReachTheNextRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(time.Minute)
		var handled atomic.Int64
		g := &testGate{room: Unlimited}
		g.entry = func(d *Delivery) Entry { return Entry{OK: d.ID != "m0"} }
		c := consumer(t, f, func(context.Context, *Delivery) error {
			handled.Add(1)
			time.Sleep(5 * time.Second)
			return nil
		}, ConsumerOptions{Concurrency: 1, Middleware: []Middleware{g}})
		f.put(msgs(1)...) // held back
		r := run(c)
		pass(time.Second)
		d := msgs(2)[1:]
		f.put(d...) // runs
		pass(time.Second)
		g.set(func() {}) // a wake while the slot is full
		pass(time.Second)
		require.NoError(t, r.stop())
		require.EqualValues(t, 1, handled.Load())

		g.room = Room{N: 0}
		g.entry = nil
		f.put(msgs(1)...)
		r = run(c)
		pass(time.Second)
		require.EqualValues(t, 1, handled.Load())
		g.set(func() { g.room = Unlimited })
		pass(time.Hour)
		assert.EqualValues(t, 2, handled.Load(), "the wake of the gate was lost")
		require.NoError(t, r.stop())
	})
}

// wakingGate has room for all and says so whenever something leaves, as a gate that
// counts may.
type wakingGate struct{ testGate }

func (g *wakingGate) Leave(any, GateResult) { g.set(func() {}) }

// What one gate admits and another refuses leaves the first one again, which makes
// room in it: asked again at once, the two would occupy a processor.
func TestTwoGatesThatDisagreeDoNotKeepEachOtherBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(time.Minute)
		var handled, asked atomic.Int64
		shut := true
		first, second := &wakingGate{testGate{room: Unlimited}}, &testGate{room: Unlimited}
		second.entry = func(*Delivery) Entry {
			if n := asked.Add(1); n > 100_000 { // lest the test has no end
				return Entry{OK: true}
			}
			return Entry{OK: !shut}
		}
		c := consumer(t, f, func(context.Context, *Delivery) error {
			handled.Add(1)
			return nil
		}, ConsumerOptions{Middleware: []Middleware{first, second}})
		f.put(msgs(3)...)
		r := run(c)
		pass(10 * time.Minute)
		assert.Zero(t, handled.Load())
		assert.Less(t, asked.Load(), int64(10_000), "three deliveries, twice a second")
		second.set(func() { shut = false })
		pass(time.Millisecond)
		assert.EqualValues(t, 3, handled.Load(), "a gate that opens is heard at once")
		require.NoError(t, r.stop())
	})
}

func TestRaisingConcurrencyStartsWhatAGateLetsPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(time.Minute)
		open := false
		var handled atomic.Int64
		g := &testGate{room: Unlimited}
		g.entry = func(d *Delivery) Entry { return Entry{OK: d.ID != "m0" || open} }
		c := consumer(t, f, func(_ context.Context, d *Delivery) error {
			if d.ID == "m0" {
				handled.Add(1)
				return nil
			}
			time.Sleep(30 * time.Minute)
			return nil
		}, ConsumerOptions{Concurrency: 1, Middleware: []Middleware{g}, DrainTimeout: time.Hour})
		f.put(msgs(1)...)
		r := run(c)
		pass(time.Second)
		f.put(msgs(2)[1:]...)
		pass(time.Second)
		g.set(func() { open = true }) // slot full
		pass(time.Second)
		require.NoError(t, c.SetConcurrency(2))
		pass(10 * time.Minute)
		assert.EqualValues(t, 1, handled.Load(), "held though its gate is open and a slot is free")
		require.NoError(t, r.stop())
	})
}

// A time that a gate has named, and that's over while the consumer drains, was over
// again at each look: it occupied a processor until the last handler was done.
func TestADrainDoesNotLookAgainAndAgainForATimeThatIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(time.Minute)
		g := &testGate{room: Unlimited}
		g.entry = func(d *Delivery) Entry {
			if d.ID == "m0" {
				return Entry{OK: true}
			}
			return Entry{Until: time.Now().Add(time.Second)}
		}
		c := consumer(t, f, func(context.Context, *Delivery) error {
			time.Sleep(10 * time.Second)
			return nil
		}, ConsumerOptions{Middleware: []Middleware{g}})
		looks := 0
		c.holdTimer.fire = func() {
			if looks++; looks < 1000 { // else the test has no end
				c.holdOver()
			}
		}
		f.put(msgs(2)...)
		r := run(c)
		pass(1500 * time.Millisecond)
		begun := time.Now()
		require.NoError(t, r.stop())
		assert.Equal(t, 8500*time.Millisecond, time.Since(begun), "the handler is done")
		assert.Less(t, looks, 10)
	})
}
