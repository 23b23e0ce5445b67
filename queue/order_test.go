package queue

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// keyed returns n deliveries of a key, named key0, key1, ...
func keyed(key string, n int) []*Delivery {
	ds := make([]*Delivery, n)
	for i := range ds {
		id := fmt.Sprintf("%s%d", key, i)
		ds[i] = &Delivery{Message: Message{ID: id, OrderingKey: key, Body: []byte(id), Attributes: map[string]string{"i": id}}, BrokerID: id, Attempt: 1}
	}
	return ds
}

type recorder struct {
	mu  sync.Mutex
	ids []string
}

func (r *recorder) add(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ids = append(r.ids, id)
}

func (r *recorder) get() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.ids...)
}

func TestOneKeyIsSerialAndOthersFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(30 * time.Second)
		f.put(keyed("a", 4)...)
		f.put(keyed("b", 2)...)
		var r recorder
		begun := time.Now()
		c := run(consumer(t, f, func(_ context.Context, d *Delivery) error {
			if d.OrderingKey == "a" {
				time.Sleep(time.Second)
			}
			r.add(fmt.Sprintf("%s@%v", d.ID, time.Since(begun)))
			return nil
		}, ConsumerOptions{}))
		pass(10 * time.Second)
		assert.Equal(t, []string{"b0@0s", "b1@0s", "a0@1s", "a1@2s", "a2@3s", "a3@4s"}, r.get())
		require.NoError(t, c.stop())
	})
}

func TestAFailingKeyReleasesItsFollowersWhereTheBrokerLocksKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(30 * time.Second)
		f.put(keyed("a", 3)...)
		f.put(keyed("b", 2)...)
		var r recorder
		c := run(consumer(t, f, func(_ context.Context, d *Delivery) error {
			r.add(d.ID)
			if d.ID == "a0" {
				return RetryAfter(7*time.Second, errTest)
			}
			return nil
		}, ConsumerOptions{}))
		pass(time.Second)
		assert.ElementsMatch(t, []string{"a0", "b0", "b1"}, r.get())
		var released []string
		for _, s := range f.settlements() {
			if s.Kind == Release {
				released = append(released, fmt.Sprintf("%s %v", s.Delivery.ID, s.Delay))
			}
		}
		assert.ElementsMatch(t, []string{"a0 7s", "a1 7s", "a2 7s"}, released)
		require.NoError(t, c.stop())
	})
}

func TestAFailingKeyIsHeldInOrderWhereTheBrokerDoesNotLockKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(10 * time.Second)
		f.caps.KeyLocked = false
		f.put(keyed("a", 3)...)
		var r recorder
		tries := 0
		c := run(consumer(t, f, func(_ context.Context, d *Delivery) error {
			r.add(fmt.Sprintf("%s %d %s %s", d.ID, d.Failures, d.Body, d.Attributes["i"]))
			if d.ID == "a0" {
				if tries++; tries <= 2 {
					d.Body[0], d.Attributes["i"], d.Native = 'X', "changed", 7
					// Not at a time when the lease is being extended, every 5 s: then
					// the head can't be held, and goes back.
					return RetryAfter(32*time.Second, errTest)
				}
			}
			return nil
		}, ConsumerOptions{}))
		pass(time.Second)
		assert.Equal(t, 3, c.Stats().Held)
		pass(2 * time.Minute)
		assert.Equal(t, []string{"a0 0 a0 a0", "a0 1 a0 a0", "a0 2 a0 a0", "a1 0 a1 a1", "a2 0 a2 a2"}, r.get(),
			"the key's head is tried again before its followers, and brings the original")
		assert.Equal(t, map[SettleKind]int{Ack: 3}, f.kinds())
		require.NoError(t, c.stop())
	})
}

func TestAHeldKeyGoesBackWithTheHeadFirstOnDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(10 * time.Second)
		f.caps.KeyLocked = false
		f.put(keyed("a", 3)...)
		c := run(consumer(t, f, func(context.Context, *Delivery) error {
			return RetryAfter(30*time.Second, errTest)
		}, ConsumerOptions{}))
		pass(10 * time.Second)
		require.NoError(t, c.stop())
		assert.Equal(t, map[SettleKind]int{Release: 3}, f.kinds())
		for _, s := range f.settlements() {
			assert.Equal(t, 20*time.Second, s.Delay, s.Delivery.ID)
		}
		assert.Zero(t, c.Stats().Held)
	})
}

func TestADeliveryThatIsNotDueWaitsWithoutAHandler(t *testing.T) {
	for name, tc := range map[string]struct {
		native time.Duration
		want   map[SettleKind]int
	}{
		"deferred where the broker delays": {time.Hour, map[SettleKind]int{Defer: 1}},
		"held where it doesn't":            {0, map[SettleKind]int{Ack: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(10 * time.Second)
				f.caps.MaxDelay = tc.native
				due := time.Now().Add(5 * time.Minute)
				d := msgs(1)[0]
				d.carried = &metadata{due: due, failures: 2}
				d.Failures = 2
				f.put(d)
				var at time.Time
				var failures int
				c := run(consumer(t, f, func(_ context.Context, d *Delivery) error {
					at, failures = time.Now(), d.Failures
					return nil
				}, ConsumerOptions{}))
				pass(10 * time.Minute)
				assert.Equal(t, tc.want, f.kinds())
				if tc.native == 0 {
					assert.Equal(t, due, at)
					assert.Equal(t, 2, failures)
				} else {
					s := f.settlements()[0]
					assert.Equal(t, due, s.Until)
					hop := s.Hop()
					assert.Equal(t, 2, hop.meta.failures, "waiting isn't failing")
					assert.True(t, at.IsZero())
				}
				require.NoError(t, c.stop())
			})
		})
	}
}

func TestMoreThanMaxHoldGoesBackAndTheRestFlows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(10 * time.Second)
		f.caps.MaxDelay = 0
		due := time.Now().Add(time.Minute)
		for _, d := range msgs(8) {
			d.carried = &metadata{due: due}
			f.put(d)
		}
		f.put(&Delivery{Message: Message{ID: "now"}, BrokerID: "now", Attempt: 1})
		var r recorder
		c := run(consumer(t, f, func(_ context.Context, d *Delivery) error {
			r.add(d.ID)
			return nil
		}, ConsumerOptions{MaxHold: 5}))
		pass(time.Second)
		assert.Equal(t, []string{"now"}, r.get())
		assert.Equal(t, 5, c.Stats().Held)
		assert.Equal(t, 3, f.kinds()[Release], "without a native delay, publishing again would only bring it at once")
		pass(2 * time.Minute)
		assert.Len(t, r.get(), 6)
		require.NoError(t, c.stop())
	})
}

// A broker counts each wait, and another process can't tell it from a failure.
func TestWhatHasWaitedAtTheBrokerIsSentAgainSoThatWaitingIsNotCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(10 * time.Second)
		f.caps.MaxDelay = 0
		due := time.Now().Add(time.Hour / 2)
		for i, d := range msgs(3) {
			d.carried, d.Attempt = &metadata{due: due}, i+1
			f.put(d)
		}
		held := &Delivery{Message: Message{ID: "held"}, BrokerID: "held", Attempt: 1}
		held.carried = &metadata{due: due}
		f.mu.Lock()
		f.queue = append([]*Delivery{held}, f.queue...)
		f.mu.Unlock()
		c := run(consumer(t, f, func(context.Context, *Delivery) error { return nil }, ConsumerOptions{MaxHold: 1}))
		pass(time.Second)
		got := map[string]SettleKind{}
		for _, s := range f.settlements() {
			got[s.Delivery.ID] = s.Kind
			if s.Kind == Defer {
				assert.Equal(t, due, s.Until)
				assert.Zero(t, s.Hop().meta.failures)
			}
		}
		assert.Equal(t, map[string]SettleKind{"m0": Release, "m1": Defer, "m2": Defer}, got)
		require.NoError(t, c.stop())
	})
}

func TestADelayBeyondTheBrokersGoesByAHopWithItsFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(10 * time.Second)
		f.caps.MaxRedeliveryDelay = 10 * time.Minute
		f.put(msgs(2)...)
		c := run(consumer(t, f, func(_ context.Context, d *Delivery) error {
			if d.ID == "m0" {
				return RetryAfter(time.Hour, errTest)
			}
			return Snooze(time.Hour)
		}, ConsumerOptions{}))
		pass(time.Second)
		got := map[string]int{}
		for _, s := range f.settlements() {
			require.Equal(t, Defer, s.Kind)
			got[s.Delivery.ID] = s.Hop().meta.failures
		}
		assert.Equal(t, map[string]int{"m0": 1, "m1": 0}, got)
		require.NoError(t, c.stop())
	})
}

// tenantGate admits one delivery of a tenant at a time.
type tenantGate struct {
	mu   sync.Mutex
	busy map[string]bool
	wake func()
	left []GateResult
}

func (g *tenantGate) Wrap(next Handler) Handler { return next }
func (g *tenantGate) Attach(wake func()) func() { g.wake = wake; return func() { g.wake = nil } }
func (g *tenantGate) Room() Room                { return Unlimited }

func (g *tenantGate) Enter(d *Delivery) Entry {
	g.mu.Lock()
	defer g.mu.Unlock()
	tenant := d.Attributes["tenant"]
	if g.busy[tenant] {
		return Entry{}
	}
	g.busy[tenant] = true
	return Entry{OK: true, Ticket: tenant}
}

func (g *tenantGate) Leave(ticket any, r GateResult) {
	g.mu.Lock()
	delete(g.busy, ticket.(string))
	g.left = append(g.left, r)
	g.mu.Unlock()
	g.wake()
}

func TestAGateHoldsOneTenantBackWhileOthersFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(10 * time.Second)
		for i, d := range msgs(40) {
			d.Attributes = map[string]string{"tenant": "noisy"}
			if i%10 == 9 {
				d.Attributes["tenant"] = fmt.Sprint(i)
			}
			f.put(d)
		}
		g := &tenantGate{busy: map[string]bool{}}
		begun := time.Now()
		var r recorder
		c := run(consumer(t, f, func(_ context.Context, d *Delivery) error {
			time.Sleep(time.Second)
			if d.Attributes["tenant"] != "noisy" {
				r.add(fmt.Sprint(time.Since(begun)))
			}
			return nil
		}, ConsumerOptions{Concurrency: 4, Middleware: []Middleware{g}}))
		pass(time.Minute)
		assert.Equal(t, 40, f.kinds()[Ack])
		for _, at := range r.get() {
			assert.Contains(t, []string{"1s", "2s"}, at, "other tenants mustn't wait for the noisy one")
		}
		assert.Len(t, g.left, 40)
		require.NoError(t, c.stop())
	})
}

// shutGate has no room until a time.
type shutGate struct {
	until time.Time
	asked atomic.Int64
}

func (g *shutGate) Wrap(next Handler) Handler { return next }
func (g *shutGate) Attach(func()) func()      { return func() {} }
func (g *shutGate) Room() Room {
	g.asked.Add(1)
	if time.Now().Before(g.until) {
		return Room{Until: g.until}
	}
	return Unlimited
}
func (g *shutGate) Enter(*Delivery) Entry { return Entry{OK: true} }
func (g *shutGate) Leave(any, GateResult) {}

func TestAShutGateStopsFetchingUntilItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(10 * time.Second)
		f.put(msgs(5)...)
		g := &shutGate{until: time.Now().Add(time.Minute)}
		c := run(consumer(t, f, ok, ConsumerOptions{Middleware: []Middleware{g}}))
		pass(59 * time.Second)
		assert.Zero(t, c.Stats().ReceiveCalls, "a shut gate must not burn attempts")
		assert.Less(t, g.asked.Load(), int64(5), "nor be asked without end")
		pass(2 * time.Second)
		assert.Equal(t, 5, f.kinds()[Ack])
		require.NoError(t, c.stop())
	})
}

func TestHandlersCanSpoilTheirDeliveryAndItIsSettledAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(10 * time.Second)
		d := msgs(1)[0]
		d.Native = "handle"
		f.put(d)
		c := run(consumer(t, f, func(_ context.Context, d *Delivery) error {
			*d = Delivery{}
			return nil
		}, ConsumerOptions{}))
		pass(time.Second)
		s := f.settlements()
		require.Len(t, s, 1)
		assert.Equal(t, "handle", s[0].Delivery.Native)
		assert.Equal(t, "m0", s[0].Delivery.BrokerID)
		require.NoError(t, c.stop())
	})
}

// unevenBroker answers some receives later than others.
type unevenBroker struct {
	*fakeBroker
	receives atomic.Int64
}

func (b *unevenBroker) Receive(ctx context.Context, n int) ([]*Delivery, error) {
	late := time.Duration(5-2*(b.receives.Add(1)%3)) * 10 * time.Millisecond
	ds, err := b.fakeBroker.Receive(ctx, n)
	time.Sleep(late)
	return ds, err
}

// Two answers on their way at once could arrive in the wrong order.
func TestAKeyKeepsItsOrderOverManyReceivesWhereTheBrokerDoesNotLockKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(10 * time.Second)
		f.caps.KeyLocked = false
		f.caps.MaxReceive = 4 // so that there is room for several receives at a time
		const n = 60
		keys := []string{"a", "b", "c"}
		for i := range n {
			for _, k := range keys {
				id := fmt.Sprintf("%s%03d", k, i)
				f.put(&Delivery{Message: Message{ID: id, OrderingKey: k}, BrokerID: id, Attempt: 1})
			}
		}
		var r recorder
		consumer, err := NewConsumer(&unevenBroker{fakeBroker: f}, func(_ context.Context, d *Delivery) error {
			r.add(d.ID)
			time.Sleep(time.Millisecond)
			return nil
		}, &ConsumerOptions{Concurrency: 10, Logger: quiet})
		require.NoError(t, err)
		c := run(consumer)
		pass(time.Minute)
		require.NoError(t, c.stop())
		for _, k := range keys {
			var got []string
			for _, id := range r.get() {
				if id[:1] == k {
					got = append(got, id)
				}
			}
			assert.Len(t, got, n)
			assert.True(t, slices.IsSorted(got), "%v", got)
		}
	})
}
