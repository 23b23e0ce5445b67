package middleware_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
)

func of(tenant, id string) *queue.Delivery {
	d := delivery(id, 0)
	d.Attributes["tenant"] = tenant
	return d
}

func TestLimitAdmitsAsManyAsItSays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := middleware.Limit(2, middleware.LimitOptions{})
		g := newGate(t, l)
		assert.Equal(t, queue.Room{N: 2}, g.Room())
		a := g.start(t, of("x", "a"))
		b := g.start(t, of("y", "b"))
		assert.Equal(t, 2, l.InUse())
		assert.Equal(t, queue.Room{}, g.Room(), "a full limit must stop the fetching")
		assert.Equal(t, queue.Entry{}, g.held(t, of("z", "c")))
		assert.Zero(t, g.woken())

		g.Leave(a, started)
		assert.NotZero(t, g.woken(), "nobody told the consumer that there is room")
		c := g.start(t, of("z", "c"))
		g.held(t, of("z", "d"))
		g.Leave(b, queue.GateResult{}) // admitted, but never started
		g.Leave(c, failed(errDown))
		assert.Zero(t, l.InUse())
	})
}

func TestLimitIsSharedByConsumers(t *testing.T) {
	t.Parallel()
	l := middleware.Limit(4, middleware.LimitOptions{})
	a, b := newGate(t, l), newGate(t, l)
	assert.Equal(t, queue.Room{N: 2}, a.Room(), "both would fetch for all of it")
	for i := range 4 {
		a.start(t, delivery(fmt.Sprint(i), 0))
	}
	assert.Equal(t, queue.Room{}, b.Room())
	b.held(t, delivery("b", 0))
}

func TestLimitTakesTurnsBetweenConsumers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := middleware.Limit(1, middleware.LimitOptions{})
		a, b := newGate(t, l), newGate(t, l)
		ticket := a.start(t, delivery("a1", 0))
		b.held(t, delivery("b1", 0))
		a.held(t, delivery("a2", 0))

		a.Leave(ticket, started)
		a.held(t, delivery("a2", 0)) // faster, but it's b's turn
		require.Equal(t, 1, b.woken())
		ticket = b.start(t, delivery("b1", 0))
		b.held(t, delivery("b2", 0))

		b.Leave(ticket, started)
		b.held(t, delivery("b2", 0))
		a.woken()
		ticket = a.start(t, delivery("a2", 0))
		a.Leave(ticket, started)
		b.start(t, delivery("b2", 0))
	})
}

func TestLimitDoesNotWaitForAConsumerThatNoLongerWants(t *testing.T) {
	t.Parallel()
	t.Run("it never comes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := middleware.Limit(1, middleware.LimitOptions{})
			a, b := newGate(t, l), newGate(t, l)
			ticket := a.start(t, delivery("a1", 0))
			b.held(t, delivery("b1", 0)) // b gives it back to the broker meanwhile
			a.held(t, delivery("a2", 0))
			a.Leave(ticket, started)
			a.woken()
			a.held(t, delivery("a2", 0))
			time.Sleep(time.Second)
			synctest.Wait()
			assert.NotZero(t, a.woken(), "the slot is free, and nobody knows")
			a.start(t, delivery("a2", 0))
		})
	})
	t.Run("it detaches", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := middleware.Limit(1, middleware.LimitOptions{})
			a, b := newGate(t, l), newGate(t, l)
			ticket := a.start(t, delivery("a1", 0))
			b.held(t, delivery("b1", 0))
			a.held(t, delivery("a2", 0))
			a.Leave(ticket, started)
			a.woken()
			b.detach()
			b.detach() // harmless
			assert.NotZero(t, a.woken())
			a.start(t, delivery("a2", 0))
			assert.Equal(t, queue.Room{}, a.Room())
		})
	})
}

func TestLimitLetsAStarvedConsumerFetchOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := middleware.Limit(1, middleware.LimitOptions{})
		a, b := newGate(t, l), newGate(t, l)
		ticket := a.start(t, delivery("a1", 0))
		require.Equal(t, queue.Room{}, b.Room())
		a.Leave(ticket, started)
		require.Equal(t, 1, b.woken())
		a.start(t, delivery("a2", 0)) // a was faster
		assert.Equal(t, queue.Room{N: 1}, b.Room(), "b would never get a turn: it has nothing to wait with")
		assert.Equal(t, queue.Room{N: 1}, b.Room(), "asking has changed something")
		b.held(t, delivery("b1", 0))
		assert.Equal(t, queue.Room{}, b.Room(), "one is enough")
	})
}

func TestLimitGivenBackUnusedIsOfferedLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := middleware.Limit(1, middleware.LimitOptions{})
		a, b, c := newGate(t, l), newGate(t, l), newGate(t, l)
		ticket := a.start(t, delivery("a1", 0))
		b.Room()
		c.held(t, delivery("c1", 0))
		a.Leave(ticket, queue.GateResult{}) // another gate of a has refused
		assert.Zero(t, b.woken()+c.woken(), "consumers whose gates disagree would wake each other, for ever")
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		assert.Equal(t, 1, b.woken(), "b was told that there is no room")
		assert.NotZero(t, c.woken(), "c was refused")
		c.start(t, delivery("c1", 0))
	})
}

func TestLimitGivenBackUnusedIsFreeAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := middleware.Limit(1, middleware.LimitOptions{})
		a, b := newGate(t, l), newGate(t, l)
		ticket := a.start(t, delivery("a1", 0))
		b.held(t, delivery("b1", 0))
		a.Leave(ticket, queue.GateResult{})
		ticket = b.start(t, delivery("b1", 0))
		b.Leave(ticket, started)
		assert.Zero(t, b.woken(), "it's in no line any more")
		a.start(t, delivery("a1", 0))
	})
}

func TestLimitByKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := middleware.Limit(1, middleware.LimitOptions{Key: tenant, KeyMax: map[string]int{"big": 2}})
		g := newGate(t, l)
		assert.Equal(t, queue.Unlimited, g.Room())
		d := of("small", "a")
		small := g.start(t, d)
		g.held(t, of("small", "b"))
		g.start(t, of("big", "c"))
		g.start(t, of("big", "d"))
		g.held(t, of("big", "e"))
		g.start(t, of("", "f"))
		g.held(t, of("", "g"))

		d.Attributes["tenant"] = "big" // the handler may change what it was given
		g.Leave(small, started)
		require.Equal(t, 1, g.woken())
		g.held(t, of("big", "e"))
		g.start(t, of("small", "b"))
	})
}

func TestLimitIsChangedLive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := middleware.Limit(1, middleware.LimitOptions{})
		g := newGate(t, l)
		a := g.start(t, delivery("a", 0))
		g.held(t, delivery("b", 0))
		require.NoError(t, l.SetMax(3))
		assert.NotZero(t, g.woken())
		b := g.start(t, delivery("b", 0))
		g.start(t, delivery("c", 0))
		require.NoError(t, l.SetMax(1))
		g.Leave(a, started)
		g.held(t, delivery("d", 0))
		g.Leave(b, started)
		g.held(t, delivery("d", 0))
		require.ErrorIs(t, l.SetMax(0), queue.ErrInvalid)
		require.ErrorIs(t, l.SetKeyMax("x", 1), queue.ErrInvalid)
	})
}

func TestLimitOfOneKeyIsChangedLive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := middleware.Limit(1, middleware.LimitOptions{Key: tenant})
		g := newGate(t, l)
		g.start(t, of("x", "a"))
		g.start(t, of("y", "b"))
		g.held(t, of("x", "c"))
		g.held(t, of("y", "d"))
		require.NoError(t, l.SetKeyMax("x", 2))
		assert.Equal(t, 1, g.woken())
		g.start(t, of("x", "c"))
		g.held(t, of("y", "d"))
		require.NoError(t, l.SetKeyMax("x", 0))
		require.NoError(t, l.SetMax(2))
		g.start(t, of("y", "d"))
		g.held(t, of("x", "e"))
		require.ErrorIs(t, l.SetKeyMax("x", -1), queue.ErrInvalid)
	})
}

func TestLimitForgetsKeysThatAreNotInUse(t *testing.T) {
	t.Parallel()
	l := middleware.Limit(1, middleware.LimitOptions{Key: tenant})
	g := newGate(t, l)
	for i := range 1000 {
		g.Leave(g.start(t, of(fmt.Sprint(i), "a")), started)
	}
	assert.Zero(t, middleware.LimitKeys(l))
}

func TestLimitHoldsWhateverManyConsumersDo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const most, consumers, each = 3, 5, 40
		l := middleware.Limit(most, middleware.LimitOptions{})
		var running, highest atomic.Int64
		done := make([]atomic.Int64, consumers)
		var wg sync.WaitGroup
		for c := range consumers {
			woken := make(chan struct{}, 1)
			g, _ := bind(t, l, info()).(queue.Gate)
			detach := g.Attach(func() {
				select {
				case woken <- struct{}{}:
				default:
				}
			})
			wg.Go(func() {
				defer detach()
				var handlers sync.WaitGroup
				for i := 0; i < each; {
					e := g.Enter(delivery("a", 0))
					if !e.OK {
						<-woken
						continue
					}
					i++
					highest.Store(max(highest.Load(), running.Add(1)))
					handlers.Go(func() {
						time.Sleep(10 * time.Millisecond)
						running.Add(-1)
						done[c].Add(1)
						g.Leave(e.Ticket, started)
					})
				}
				handlers.Wait()
			})
		}
		time.Sleep(300 * time.Millisecond)
		synctest.Wait()
		for c := range done { // 30 turns of 3 slots over 5 consumers
			assert.InDelta(t, 18, done[c].Load(), 9, "consumer %d", c)
		}
		wg.Wait()
		assert.Equal(t, int64(most), highest.Load())
		assert.Zero(t, l.InUse())
	})
}

func TestLimitWorksInAChain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var running, highest atomic.Int64
		h := queue.Chain(func(context.Context, *queue.Delivery) error {
			highest.Store(max(highest.Load(), running.Add(1)))
			time.Sleep(time.Second)
			running.Add(-1)
			return nil
		}, middleware.Limit(2, middleware.LimitOptions{}))
		start := time.Now()
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() { assert.NoError(t, h(t.Context(), delivery("a", 0))) })
		}
		wg.Wait()
		assert.Equal(t, int64(2), highest.Load())
		assert.Equal(t, 3*time.Second, time.Since(start))
	})
}

func TestLimitInAChainEndsItsWaitWithTheContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := middleware.Limit(1, middleware.LimitOptions{})
		newGate(t, l).start(t, delivery("a", 0))
		h := queue.Chain(ok, l)

		ctx := interruptedBy(queue.ErrDraining)
		assert.True(t, queue.Interrupted(ctx, h(ctx, delivery("b", 0))))

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := h(ctx, delivery("b", 0))
		assert.Equal(t, queue.Snoozed, queue.OutcomeOf(err).Kind, "what never started hasn't failed: %v", err)
	})
}
