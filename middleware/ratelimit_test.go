package middleware_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
)

func TestRateLimitStartsSoManyInASecond(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		rate  float64
		burst int
		in    time.Duration
		want  int
	}{
		"10 a second, a second's worth at once": {10, 0, 5 * time.Second, 60},
		"10 a second, one at once":              {10, 1, 5 * time.Second, 51},
		"one in four seconds":                   {0.25, 0, 21 * time.Second, 6},
		"3 a second":                            {3, 1, 10 * time.Second, 30}, // the 31st is a few ns late
		"a million a second":                    {1e6, 1, time.Millisecond, 1001},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, middleware.RateLimit(tc.rate, middleware.RateLimitOptions{Burst: tc.burst}))
				start, n := time.Now(), 0
				for time.Since(start) <= tc.in {
					room := g.Room()
					e := g.Enter(delivery("a", 0))
					require.Equal(t, room.N > 0, e.OK, "Room and Enter don't agree")
					if e.OK {
						n++
						g.Leave(e.Ticket, failed(errDown))
						continue
					}
					require.Equal(t, room.Until, e.Until)
					require.True(t, e.Until.After(time.Now()), "it would be asked again at once, for ever")
					time.Sleep(time.Until(e.Until))
				}
				assert.Equal(t, tc.want, n)
			})
		})
	}
}

func TestRateLimitFillsUpToTheBurst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, middleware.RateLimit(2, middleware.RateLimitOptions{Burst: 5}))
		for want := 5; want > 0; want-- {
			require.Equal(t, queue.Room{N: want}, g.Room())
			g.start(t, delivery("a", 0))
		}
		assert.Equal(t, queue.Room{Until: time.Now().Add(500 * time.Millisecond)}, g.Room())
		time.Sleep(time.Second)
		assert.Equal(t, 2, g.Room().N)
		time.Sleep(time.Hour)
		assert.Equal(t, 5, g.Room().N)
	})
}

func TestRateLimitTakesBackWhatWasNotStarted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := middleware.RateLimit(1, middleware.RateLimitOptions{})
		a, b := newGate(t, r), newGate(t, r)
		ticket := a.start(t, delivery("a", 0))
		a.held(t, delivery("b", 0))
		b.held(t, delivery("c", 0))
		a.Leave(ticket, queue.GateResult{})
		assert.Zero(t, a.woken()+b.woken(), "consumers whose gates disagree would wake each other, for ever")
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		assert.Equal(t, 1, b.woken())
		b.start(t, delivery("c", 0))
		b.held(t, delivery("d", 0))
	})
}

func TestRateLimitByKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, middleware.RateLimit(1, middleware.RateLimitOptions{Key: tenant}))
		assert.Equal(t, queue.Unlimited, g.Room())
		g.start(t, of("x", "a"))
		e := g.held(t, of("x", "b"))
		assert.Equal(t, time.Now().Add(time.Second), e.Until)
		g.start(t, of("y", "c"))
		time.Sleep(time.Second)
		g.start(t, of("x", "b"))
	})
}

func TestRateLimitForgetsKeysThatAreNotInUse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := middleware.RateLimit(1, middleware.RateLimitOptions{Key: tenant})
		g := newGate(t, r)
		for i := range 10_000 {
			g.start(t, of(fmt.Sprint(i), "a"))
			time.Sleep(10 * time.Millisecond)
		}
		assert.Less(t, middleware.RateKeys(r), 300)
	})
}

func TestRateLimitIsChangedLive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := middleware.RateLimit(1, middleware.RateLimitOptions{})
		g := newGate(t, r)
		g.start(t, delivery("a", 0))
		g.held(t, delivery("b", 0))
		require.NoError(t, r.SetRate(100, 1))
		assert.Equal(t, 1, g.woken())
		e := g.held(t, delivery("b", 0))
		assert.Equal(t, 10*time.Millisecond, time.Until(e.Until))

		require.NoError(t, r.SetRate(0.1, 1))
		e = g.held(t, delivery("b", 0))
		assert.Equal(t, 10*time.Second, time.Until(e.Until))

		require.ErrorIs(t, r.SetRate(-1, 0), queue.ErrInvalid)
		e = g.held(t, delivery("b", 0))
		assert.Equal(t, 10*time.Second, time.Until(e.Until), "a refused change has changed something")
	})
}

func TestRateLimitIsSharedByConsumers(t *testing.T) {
	t.Parallel()
	r := middleware.RateLimit(0.001, middleware.RateLimitOptions{Burst: 4})
	a, b := newGate(t, r), newGate(t, r)
	assert.Equal(t, 2, a.Room().N, "both would fetch for all of it")
	for range 4 {
		a.start(t, delivery("a", 0))
	}
	b.held(t, delivery("b", 0))
	b.detach()
	assert.Zero(t, b.woken())
}

func TestRateLimitTakesTurnsBetweenConsumers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := middleware.RateLimit(1, middleware.RateLimitOptions{})
		a, b := newGate(t, r), newGate(t, r)
		a.start(t, delivery("a1", 0))
		b.held(t, delivery("b1", 0))
		a.held(t, delivery("a2", 0))
		time.Sleep(time.Second)
		e := a.held(t, delivery("a2", 0)) // faster, but it's b's turn
		assert.Equal(t, time.Now().Add(time.Millisecond), e.Until)
		assert.Equal(t, 1, b.woken())
		b.start(t, delivery("b1", 0))

		time.Sleep(time.Second)
		a.start(t, delivery("a2", 0))
		b.held(t, delivery("b2", 0))
		time.Sleep(time.Second)
		a.held(t, delivery("a3", 0))
		time.Sleep(time.Millisecond)
		a.start(t, delivery("a3", 0)) // b didn't come
	})
}

func TestRateLimitWorksInAChain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := queue.Chain(ok, middleware.RateLimit(2, middleware.RateLimitOptions{Burst: 1}))
		start := time.Now()
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() { assert.NoError(t, h(t.Context(), delivery("a", 0))) })
		}
		wg.Wait()
		assert.Equal(t, 2*time.Second, time.Since(start))

		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		assert.Equal(t, queue.Snoozed, queue.OutcomeOf(h(ctx, delivery("a", 0))).Kind)
	})
}
