package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A Consumer takes messages from a queue and gives them to a handler. It's the
// engine that all backends share; see the package's DESIGN.md for its states and
// invariants. Its methods may be called concurrently, from handlers too.
type Consumer struct {
	sub     Subscriber
	caps    Capabilities
	opts    ConsumerOptions
	handler Handler // with its middleware
	gates   []Gate
	hooks   []*Hooks
	giveUp  GiveUp
	logs    bool       // nobody else logs what becomes of deliveries
	filler  lateFiller // nil: deliveries come complete

	// mu guards everything below. It's never held over a call to the broker, the
	// handler or a hook. Gates are asked with it held; they never call back.
	mu    sync.Mutex
	phase phase
	limit int // concurrency
	stats ConsumerStats
	track tracker

	// What was received and hasn't been settled.
	running  int          // handlers, each with a slot
	workers  *worker      // that run them
	starting int          // workers that were started and haven't run yet
	ready    deque[lease] // may start as soon as there is a slot
	gated    []*lease     // held back by a gate, in order of arrival
	keys     map[string]*keyLine
	timed    timedHeap // held until a time: not due, or a key's head backing off
	waiting  int       // followers in keys
	leases   leaseList // all of them that have a lease, by the time of their next event

	fetch  fetcher
	settle settler

	scope *scope // of the latest Run

	// changed is signalled when a wait in Run may be over.
	changed *sync.Cond
	fatal   error

	leaseTimer, holdTimer, sweepTimer lazyTimer

	undue uint64 // deliveries that came before their time

	coming atomic.Int32 // workers that wait for mu to take what's next

	gateDirty   atomic.Bool // a gate has woken us since the last look
	gatePumping atomic.Bool // gates are being asked: whoever does it sees what comes meanwhile
	gateWaiting atomic.Bool // something waits for a gate
	gateUntil   time.Time   // earliest time that a gate has named
	gateStall   time.Duration
}

type phase int

const (
	phaseIdle phase = iota
	phaseRunning
	phaseDraining
)

// NewConsumer returns a consumer that gives what it receives from sub to h. It
// fails when options are invalid or when middleware says that it can't work on
// this queue. Nothing is received before Run.
func NewConsumer(sub Subscriber, h Handler, opts *ConsumerOptions) (*Consumer, error) {
	if sub == nil {
		return nil, &InvalidError{"subscriber", "nil"}
	}
	if h == nil {
		return nil, &InvalidError{"handler", "nil"}
	}
	if opts == nil {
		opts = &ConsumerOptions{}
	}
	o, err := opts.validate()
	if err != nil {
		return nil, err
	}
	c := &Consumer{sub: sub, opts: o, limit: o.Concurrency, logs: true}
	if cp, ok := As[interface{ Capabilities() Capabilities }](sub); ok {
		c.caps = cp.Capabilities()
	}
	if c.opts.Name == "" {
		c.opts.Name = c.caps.Source.Name
	}
	if o.Hooks != nil {
		c.addHooks(o.Hooks)
	}
	if err := c.bind(h); err != nil {
		return nil, err
	}
	c.fillsLate()
	c.changed = sync.NewCond(&c.mu)
	c.leaseTimer.fire, c.holdTimer.fire, c.sweepTimer.fire = c.renew, c.holdOver, c.sweep
	c.fetch.init(c)
	c.settle.init(c)
	return c, nil
}

// bind wraps the handler and finds what the middleware wants from the engine.
func (c *Consumer) bind(h Handler) error {
	info := ConsumerInfo{
		Name: c.opts.Name, Capabilities: c.caps, Concurrency: c.limit, Backoff: c.opts.Backoff, Logger: c.opts.Logger, Stats: c.Stats,
	}
	bound := make([]Middleware, len(c.opts.Middleware))
	for i, m := range c.opts.Middleware {
		if m == nil {
			return &InvalidError{"Middleware", "nil"}
		}
		if b, ok := m.(Binder); ok {
			var err error
			if m, err = b.Bind(info); err != nil {
				return err
			}
		}
		if g, ok := m.(Gate); ok {
			c.gates = append(c.gates, g)
		}
		if g, ok := m.(GiveUpper); ok {
			c.giveUp = g.GiveUp()
		}
		if hk, ok := m.(interface{ Hooks() *Hooks }); ok {
			c.addHooks(hk.Hooks())
		}
		bound[i] = m
	}
	c.handler = Chain(h, bound...)
	return nil
}

func (c *Consumer) addHooks(h *Hooks) {
	if h == nil {
		return
	}
	c.hooks = append(c.hooks, h)
	if h.LogsDeliveries {
		c.logs = false
	}
}

// Run receives and handles messages until ctx ends, then drains: no new
// receive; handlers go on undisturbed for DrainTimeout, then their contexts are
// cancelled with ErrDraining; what wasn't started is given back; settlements are
// flushed. It returns nil, or an *AbandonedError when handlers were still
// running a second after that.
//
// Passing errors of the broker are retried without limit. A final one (the
// queue is missing, no permission) drains too and is returned.
//
// Handlers see the values of ctx, but not its end. Run may be called again after
// it has returned, but not twice at a time.
func (c *Consumer) Run(ctx context.Context) error {
	c.mu.Lock()
	if c.phase != phaseIdle {
		c.mu.Unlock()
		return &InvalidError{"Run", "the consumer is already running"}
	}
	c.phase = phaseRunning
	c.fatal = nil
	c.scope = newScope(ctx)
	c.gateDirty.Store(false)
	c.gateWaiting.Store(false)
	c.gateUntil, c.fetch.gateShut = time.Time{}, false
	c.mu.Unlock()

	detach := c.attachGates()
	c.logStart()

	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		c.changed.Broadcast()
		c.mu.Unlock()
	})
	c.mu.Lock()
	c.settle.start()
	c.fetch.start()
	for ctx.Err() == nil && c.fatal == nil {
		c.changed.Wait()
	}
	c.mu.Unlock()
	stop()

	err := c.drain()
	for _, d := range detach {
		d()
	}
	c.mu.Lock()
	c.phase = phaseIdle
	if c.fatal != nil {
		err = errors.Join(c.fatal, err)
	}
	c.mu.Unlock()
	return err
}

// Pause stops receiving until Resume. What was received and hasn't started is
// given back; running handlers go on. Pausing twice is harmless. It also works
// before Run.
func (c *Consumer) Pause() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stats.Paused {
		return
	}
	c.stats.Paused = true
	c.fetch.pause()
	c.releaseWaitingLocked()
}

// Resume ends a Pause.
func (c *Consumer) Resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.stats.Paused {
		return
	}
	c.stats.Paused = false
	c.fetch.resume()
}

// SetConcurrency changes how many handlers may run at once; n must be at least
// 1. It returns at once: when there are more, they finish.
func (c *Consumer) SetConcurrency(n int) error {
	if n < 1 || n > MaxConcurrency {
		return &InvalidError{"Concurrency", fmt.Sprintf("%d isn't from 1 to %d; use Pause to stop", n, MaxConcurrency)}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit = n
	if len(c.gates) > 0 {
		c.pumpLocked(time.Now()) // what a gate has let go since waits for a slot
		return nil
	}
	c.dispatchLocked(time.Now())
	c.fetch.wakeLocked()
	return nil
}

// Stats returns the consumer's state and counts.
func (c *Consumer) Stats() ConsumerStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Name = c.opts.Name
	s.Running = c.phase != phaseIdle
	s.Draining = c.phase == phaseDraining
	s.Concurrency = c.limit
	s.InUse = c.running
	s.Buffered = c.ready.len()
	s.Held, s.HeldByGate, s.HeldByKey, s.HeldForTime = c.heldLocked(), len(c.gated), c.waiting, len(c.timed)
	return s
}

func (c *Consumer) heldLocked() int { return len(c.gated) + len(c.timed) + c.waiting }

func (c *Consumer) attachGates() []func() {
	detach := make([]func(), len(c.gates))
	for i, g := range c.gates {
		detach[i] = g.Attach(c.gateWake)
	}
	return detach
}

// gateWake is called by gates from any goroutine, perhaps one that holds the
// lock of another consumer: so it takes none here.
func (c *Consumer) gateWake() {
	if c.gateWaiting.Load() && c.gateDirty.CompareAndSwap(false, true) && !c.gatePumping.Load() {
		go c.pump()
	}
}

const minStall, maxStall = 5 * time.Millisecond, 500 * time.Millisecond

// pump looks again at what waits for a gate.
func (c *Consumer) pump() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pumpLocked(time.Now())
}

func (c *Consumer) pumpLocked(now time.Time) {
	c.gateDirty.Store(false)
	if c.phase != phaseRunning {
		return
	}
	c.gateUntil = time.Time{}
	before := c.running
	c.gatePumping.Store(true)
	c.dispatchGatedLocked(now)
	c.dispatchLocked(now)
	c.gatePumping.Store(false)
	switch {
	case c.running >= c.limit: // the next slot asks
		c.gateStall = 0
	case !c.gateDirty.CompareAndSwap(true, false):
		c.gateStall = 0
	case c.running > before:
		c.gateStall = 0
		go c.pump()
	default:
		// A gate has room again, but it may be just the room that it has got back for
		// what another one refuses. Asked again at once, that would have no end.
		c.gateStall = min(max(2*c.gateStall, minStall), maxStall)
		c.askAgainLocked(now.Add(c.gateStall))
	}
	c.fetch.wakeLocked()
	c.armHoldLocked()
}

// lazyTimer is a timer that fires at the earliest time asked for. It's not
// stopped when that's no longer needed: whoever it wakes looks for himself.
type lazyTimer struct {
	t    *time.Timer
	fire func()    // it calls fired first
	at   time.Time // when it's set to fire; zero: not set
}

// arm makes fire be called at the given time, or earlier. The mutex that fire
// takes must be held.
func (t *lazyTimer) arm(now, at time.Time) {
	if at.IsZero() || !t.at.IsZero() && !at.Before(t.at) {
		return
	}
	t.at = at
	d := max(at.Sub(now), 0)
	if t.t == nil {
		t.t = time.AfterFunc(d, t.fire)
		return
	}
	t.t.Reset(d)
}

// fired notes that the timer has fired.
func (t *lazyTimer) fired() { t.at = time.Time{} }

func (t *lazyTimer) stop() {
	if t.t != nil {
		t.t.Stop()
	}
	t.at = time.Time{}
}
