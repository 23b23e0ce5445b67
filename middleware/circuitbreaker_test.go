package middleware_test

import (
	"bytes"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
)

// result runs one delivery through a gate.
func (g *gate) result(t *testing.T, err error) {
	t.Helper()
	g.Leave(g.start(t, delivery("a", 0)), failed(err))
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestCircuitBreakerOpensProbesAndCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := middleware.CircuitBreaker(middleware.CircuitBreakerOptions{Failures: 3, OpenFor: 10 * time.Second, MaxOpenFor: 30 * time.Second, Logger: quiet()})
		g := newGate(t, b)
		fail := func(n int) {
			for range n {
				g.result(t, errDown)
			}
		}
		fail(2)
		g.result(t, nil) // a success between starts the count again
		fail(2)
		assert.Equal(t, middleware.BreakerClosed, b.State())
		assert.Equal(t, queue.Unlimited, g.Room())
		fail(1)
		assert.Equal(t, middleware.BreakerOpen, b.State())

		// The time that it stays open doubles with each failed probe.
		for _, openFor := range []time.Duration{10 * time.Second, 20 * time.Second, 30 * time.Second, 30 * time.Second} {
			until := time.Now().Add(openFor)
			require.Equal(t, queue.Room{Until: until}, g.Room())
			require.Equal(t, queue.Entry{Until: until}, g.held(t, delivery("a", 0)))
			time.Sleep(openFor - 1)
			require.Equal(t, queue.Room{Until: until}, g.Room())
			time.Sleep(time.Nanosecond)
			require.Equal(t, queue.Room{N: 1}, g.Room(), "a probe is due")
			probe := g.start(t, delivery("probe", 0))
			require.Equal(t, middleware.BreakerHalfOpen, b.State())
			require.Equal(t, queue.Room{}, g.Room())
			require.Equal(t, queue.Entry{}, g.held(t, delivery("b", 0)))
			g.woken()
			g.Leave(probe, failed(errDown))
			require.NotZero(t, g.woken(), "nobody says until when it's open")
		}

		time.Sleep(30 * time.Second)
		g.result(t, nil)
		assert.Equal(t, middleware.BreakerClosed, b.State())
		fail(3)
		assert.Equal(t, queue.Room{Until: time.Now().Add(10 * time.Second)}, g.Room(), "it has grown for ever")
	})
}

func TestCircuitBreakerProbesAFew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := middleware.CircuitBreaker(middleware.CircuitBreakerOptions{Probes: 3, Logger: quiet()})
		g := newGate(t, b)
		b.Trip()
		g.held(t, delivery("a", 0))
		time.Sleep(10 * time.Second)
		require.Equal(t, queue.Room{N: 3}, g.Room())
		one, two, three := g.start(t, delivery("1", 0)), g.start(t, delivery("2", 0)), g.start(t, delivery("3", 0))
		g.held(t, delivery("4", 0))
		g.Leave(one, started)
		assert.Equal(t, middleware.BreakerHalfOpen, b.State())
		g.Leave(two, queue.GateResult{}) // never started: another one may be tried
		assert.Equal(t, queue.Room{N: 1}, g.Room())
		two = g.start(t, delivery("4", 0))
		g.Leave(two, started)
		g.Leave(three, started)
		assert.Equal(t, middleware.BreakerClosed, b.State())
		assert.NotZero(t, g.woken())
	})
}

func TestCircuitBreakerCountsWhatSaysThatTheDependencyIsDown(t *testing.T) {
	t.Parallel()
	errMine := errors.New("my own mistake")
	opts := middleware.CircuitBreakerOptions{Failures: 1, If: func(err error) bool { return !errors.Is(err, errMine) }, Logger: quiet()}
	for name, tc := range map[string]struct {
		result queue.GateResult
		want   middleware.BreakerState
	}{
		"an error":                   {failed(errDown), middleware.BreakerOpen},
		"a panic":                    {failed(&queue.PanicError{Value: 1}), middleware.BreakerOpen},
		"retry after":                {failed(queue.RetryAfter(1, errDown)), middleware.BreakerOpen},
		"dead-lettered failure":      {failed(queue.WithDeadLettered("dlq", errDown)), middleware.BreakerOpen},
		"dead-lettered retry":        {failed(queue.WithDeadLettered("dlq", queue.RetryAfter(1, errDown))), middleware.BreakerOpen},
		"dead-lettered rejection":    {failed(queue.WithDeadLettered("dlq", queue.Reject(errDown))), middleware.BreakerClosed},
		"dead-lettered other errors": {failed(queue.WithDeadLettered("dlq", errMine)), middleware.BreakerClosed},
		"rejected":                   {failed(queue.Reject(errDown)), middleware.BreakerClosed},
		"dropped":                    {failed(queue.Drop(errDown)), middleware.BreakerClosed},
		"snoozed":                    {failed(queue.Snooze(1)), middleware.BreakerClosed},
		"not what If counts":         {failed(errMine), middleware.BreakerClosed},
		"interrupted":                {queue.GateResult{Started: true, Interrupted: true, Err: errDown}, middleware.BreakerClosed},
		"never started":              {queue.GateResult{}, middleware.BreakerClosed},
		"success":                    {started, middleware.BreakerClosed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := middleware.CircuitBreaker(opts)
			g := newGate(t, b)
			g.Leave(g.start(t, delivery("a", 0)), tc.result)
			assert.Equal(t, tc.want, b.State())
		})
	}
}

func TestCircuitBreakerOpensByRatio(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := middleware.CircuitBreaker(middleware.CircuitBreakerOptions{Ratio: 0.5, MinCalls: 10, Window: 10 * time.Second, Logger: quiet()})
		g := newGate(t, b)
		for range 9 {
			g.result(t, errDown)
		}
		assert.Equal(t, middleware.BreakerClosed, b.State(), "9 calls say nothing")
		time.Sleep(11 * time.Second)
		for range 6 {
			g.result(t, nil)
			time.Sleep(500 * time.Millisecond)
		}
		for range 5 {
			g.result(t, errDown)
		}
		assert.Equal(t, middleware.BreakerClosed, b.State(), "5 of 11 is less than half; those before the window are forgotten")
		g.result(t, errDown)
		assert.Equal(t, middleware.BreakerOpen, b.State())
	})
}

func TestCircuitBreakerForgetsSliceBySlice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := middleware.CircuitBreaker(middleware.CircuitBreakerOptions{Ratio: 0.5, MinCalls: 4, Window: 10 * time.Second, Logger: quiet()})
		g := newGate(t, b)
		g.result(t, nil)
		g.result(t, nil)
		g.result(t, nil)
		time.Sleep(5 * time.Second)
		g.result(t, errDown)
		g.result(t, errDown)
		assert.Equal(t, middleware.BreakerClosed, b.State(), "2 of 5")
		time.Sleep(5 * time.Second) // the successes are out of the window, the failures aren't
		g.result(t, nil)
		g.result(t, errDown)
		assert.Equal(t, middleware.BreakerOpen, b.State(), "3 of 4")
	})
}

func TestCircuitBreakerIgnoresResultsOfAnEarlierState(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := middleware.CircuitBreaker(middleware.CircuitBreakerOptions{Failures: 1, OpenFor: time.Second, Logger: quiet()})
		g := newGate(t, b)
		early, late := g.start(t, delivery("a", 0)), g.start(t, delivery("b", 0))
		g.Leave(early, failed(errDown))
		time.Sleep(time.Second)
		probe := g.start(t, delivery("c", 0))
		g.Leave(late, failed(errDown))
		assert.Equal(t, middleware.BreakerHalfOpen, b.State(), "what began before the outage says nothing about its end")
		g.Leave(probe, started)
		assert.Equal(t, middleware.BreakerClosed, b.State())
	})
}

func TestCircuitBreakerByHand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var changes []middleware.BreakerChange
		var log bytes.Buffer
		b := middleware.CircuitBreaker(middleware.CircuitBreakerOptions{
			Name: "crm", Failures: 2,
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
			OnChange: func(c middleware.BreakerChange) {
				mu.Lock()
				defer mu.Unlock()
				changes = append(changes, c)
			},
		})
		g := newGate(t, b)
		b.Reset() // closed already
		b.Trip()
		b.Trip() // open already
		until := time.Now().Add(10 * time.Second)
		g.held(t, delivery("a", 0))
		b.Reset()
		assert.Equal(t, 1, g.woken())
		g.result(t, errDown)
		b.Reset() // forgets that one
		g.result(t, errDown)
		assert.Equal(t, middleware.BreakerClosed, b.State())
		g.result(t, errDown)
		time.Sleep(10 * time.Second)
		assert.Equal(t, middleware.BreakerHalfOpen, b.State())
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		assert.Equal(t, []middleware.BreakerChange{
			{From: middleware.BreakerClosed, To: middleware.BreakerOpen, Until: until},
			{From: middleware.BreakerOpen, To: middleware.BreakerClosed},
			{From: middleware.BreakerClosed, To: middleware.BreakerOpen, Until: until, Err: errDown},
			{From: middleware.BreakerOpen, To: middleware.BreakerHalfOpen},
		}, changes)
		assert.Contains(t, log.String(), `level=WARN msg=circuit_breaker state=open was=closed name=crm in=10s err="503 service unavailable"`)
		assert.Contains(t, log.String(), `level=INFO msg=circuit_breaker state=half_open was=open name=crm`)
	})
}

func TestCircuitBreakerTellsOthersOfAProbeThatWasNotUsed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := middleware.CircuitBreaker(middleware.CircuitBreakerOptions{Logger: quiet()})
		a, c := newGate(t, b), newGate(t, b)
		b.Trip()
		time.Sleep(10 * time.Second)
		probe := a.start(t, delivery("a", 0))
		a.held(t, delivery("b", 0))
		c.held(t, delivery("c", 0))
		a.Leave(probe, queue.GateResult{})
		assert.Zero(t, a.woken()+c.woken(), "consumers whose gates disagree would wake each other, for ever")
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		assert.Equal(t, 1, c.woken())
		c.detach()
		c.start(t, delivery("c", 0))
	})
}

func TestCircuitBreakerInAChainSnoozes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := middleware.CircuitBreaker(middleware.CircuitBreakerOptions{Failures: 2, Logger: quiet()})
		h := queue.Chain(panics, b)
		for range 2 {
			assert.Equal(t, queue.Failed, queue.OutcomeOf(h(t.Context(), delivery("a", 0))).Kind)
		}
		assert.Equal(t, queue.Outcome{Kind: queue.Snoozed, Delay: 10 * time.Second}, queue.OutcomeOf(h(t.Context(), delivery("a", 0))))
	})
}

func TestBreakerStateHasAName(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "closed open half_open BreakerState(9)",
		middleware.BreakerClosed.String()+" "+middleware.BreakerOpen.String()+" "+middleware.BreakerHalfOpen.String()+" "+middleware.BreakerState(9).String())
}
