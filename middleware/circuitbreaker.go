package middleware

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// CircuitBreakerOptions are the settings of CircuitBreaker. The zero value is
// usable.
type CircuitBreakerOptions struct {
	// Name stands in log lines: that of the dependency. Default: none.
	Name string

	// Failures in a row open the breaker. Default 5, or none when Ratio is set.
	Failures int

	// Ratio of failures within Window opens the breaker, once there were
	// MinCalls: from above 0 to 1. Default 0: no such limit.
	Ratio    float64
	Window   time.Duration // default 1 min
	MinCalls int           // default 20

	// OpenFor is how long the breaker stays open before it probes. It doubles
	// each time that the probes fail, up to MaxOpenFor.
	OpenFor    time.Duration // default 10 s
	MaxOpenFor time.Duration // default 5 min, or OpenFor when that's longer

	// Probes is how many deliveries are let through after that. When as many
	// have succeeded the breaker closes; at the first failure it opens again.
	// Default 1.
	Probes int

	// If tells which failures count: those that say that the dependency is
	// down. It's called concurrently; it must neither block nor panic nor call
	// the consumer. Default: all failures.
	If func(error) bool

	// OnChange is called after each change of state, in order, one at a time.
	// Default: none.
	OnChange func(BreakerChange)

	// Logger gets a line at each change of state. Default: slog.Default().
	Logger *slog.Logger
}

// BreakerState is the state of a Breaker.
type BreakerState int

// What a Breaker does with deliveries.
const (
	BreakerClosed   BreakerState = iota // deliveries flow
	BreakerOpen                         // none starts, and none is fetched
	BreakerHalfOpen                     // a few are tried
)

func (s BreakerState) String() string {
	switch s {
	case BreakerClosed:
		return "closed"
	case BreakerOpen:
		return "open"
	case BreakerHalfOpen:
		return "half_open"
	}
	return fmt.Sprintf("BreakerState(%d)", int(s))
}

// BreakerChange tells how a Breaker's state has changed.
type BreakerChange struct {
	From, To BreakerState
	Until    time.Time // of BreakerOpen
	Err      error     // the failure that opened it, if one did
}

// A Breaker stops deliveries while what they need is down. Its methods may be
// called concurrently.
type Breaker struct {
	opts CircuitBreakerOptions
	err  error

	mu     sync.Mutex
	seats  seats
	phase  *breakerPhase
	streak int // openings since it was last closed
	inARow int // failures, while closed
	window breakerWindow

	changes []BreakerChange // not yet told
	telling bool            // a goroutine is at it
}

// breakerPhase is one stay in a state. A delivery's ticket is the phase that it
// was admitted in: what ends in a later phase says nothing about that one.
type breakerPhase struct {
	state   BreakerState
	until   time.Time // of open
	probing int       // running probes
	passed  int       // probes that succeeded
}

// CircuitBreaker is a gate that stops starting and fetching deliveries after too
// many failures, as a sign that what they need is down, and tries a few from time
// to time to see whether it's back. No attempt is burnt meanwhile. It may be
// shared by several consumers that need the same thing. Handlers that are
// running when it opens go on.
//
// What counts as a failure: plain errors, panics and queue.RetryAfter, also those
// that DeadLetter gave up on, unless If says otherwise. What says nothing about the
// dependency counts neither way: Reject and Drop (the message was bad), Snooze,
// and what a shutdown or a lost lease cut short.
//
// In a queue.Chain it can't hold anything back, so what comes while it isn't
// closed is snoozed.
func CircuitBreaker(o CircuitBreakerOptions) *Breaker {
	b := &Breaker{phase: &breakerPhase{state: BreakerClosed}}
	b.opts, b.err = o.validate()
	b.window.width = b.opts.Window / breakerSlices
	return b
}

func (o CircuitBreakerOptions) validate() (CircuitBreakerOptions, error) {
	switch {
	case o.Failures < 0:
		return o, invalid("CircuitBreaker.Failures", fmt.Sprintf("%d is negative", o.Failures))
	case !(o.Ratio >= 0 && o.Ratio <= 1):
		return o, invalid("CircuitBreaker.Ratio", fmt.Sprintf("%v isn't between 0 and 1", o.Ratio))
	case o.MinCalls < 0:
		return o, invalid("CircuitBreaker.MinCalls", fmt.Sprintf("%d is negative", o.MinCalls))
	case o.Window < 0 || o.Window > 0 && o.Window < breakerSlices:
		return o, invalid("CircuitBreaker.Window", fmt.Sprintf("%v is too short", o.Window))
	case o.Ratio == 0 && (o.Window != 0 || o.MinCalls != 0):
		return o, invalid("CircuitBreaker.Ratio", "Window and MinCalls mean nothing without it")
	case o.OpenFor < 0 || o.MaxOpenFor < 0:
		return o, invalid("CircuitBreaker.OpenFor", "negative")
	case o.Probes < 0:
		return o, invalid("CircuitBreaker.Probes", fmt.Sprintf("%d is negative", o.Probes))
	}
	if o.Failures == 0 && o.Ratio == 0 {
		o.Failures = 5
	}
	if o.Window == 0 {
		o.Window = time.Minute
	}
	if o.MinCalls == 0 {
		o.MinCalls = 20
	}
	if o.OpenFor == 0 {
		o.OpenFor = 10 * time.Second
		if o.MaxOpenFor > 0 {
			o.OpenFor = min(o.OpenFor, o.MaxOpenFor)
		}
	}
	if o.MaxOpenFor == 0 {
		o.MaxOpenFor = max(5*time.Minute, o.OpenFor)
	}
	if o.OpenFor > o.MaxOpenFor {
		return o, invalid("CircuitBreaker.OpenFor", fmt.Sprintf("%v is over MaxOpenFor %v", o.OpenFor, o.MaxOpenFor))
	}
	if o.Probes == 0 {
		o.Probes = 1
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o, nil
}

// State returns the current state.
func (b *Breaker) State() BreakerState {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.look().state
}

// Trip opens the breaker by hand, for OpenFor. It does nothing when it's open
// already.
func (b *Breaker) Trip() {
	b.change(func() {
		if b.look().state != BreakerOpen {
			b.open(nil)
		}
	})
}

// Reset closes the breaker by hand and forgets what it has counted.
func (b *Breaker) Reset() {
	b.change(func() {
		if b.look().state != BreakerClosed {
			b.close()
		}
		b.inARow = 0
		b.window = breakerWindow{width: b.window.width}
	})
}

func (b *Breaker) change(f func()) {
	b.mu.Lock()
	if b.err != nil {
		b.mu.Unlock()
		return // it never lets anything pass; see Bind
	}
	f()
	wake := b.seats.rouse()
	b.mu.Unlock()
	call(wake)
}

// Bind implements queue.Binder: it returns the gate for one consumer.
func (b *Breaker) Bind(queue.ConsumerInfo) (queue.Middleware, error) {
	if b.err != nil {
		return nil, b.err
	}
	return &breakerSeat{b: b}, nil
}

// Wrap implements queue.Middleware, for use in a Chain.
func (b *Breaker) Wrap(next queue.Handler) queue.Handler {
	if b.err != nil {
		return refuse(b.err)
	}
	s := &breakerSeat{b: b}
	return func(ctx context.Context, d *queue.Delivery) error {
		e := s.Enter(d)
		if !e.OK {
			wait := time.Second
			if !e.Until.IsZero() {
				wait = time.Until(e.Until)
			}
			return queue.Snooze(wait)
		}
		res := queue.GateResult{Started: true, Interrupted: true} // what ends without returning says nothing
		defer func() { s.Leave(e.Ticket, res) }()
		res.Err = protect(ctx, next, d)
		res.Interrupted = queue.Interrupted(ctx, res.Err)
		return res.Err
	}
}

// look returns the phase, after the passing of time.
func (b *Breaker) look() *breakerPhase {
	if b.phase.state == BreakerOpen && !time.Now().Before(b.phase.until) {
		b.enter(&breakerPhase{state: BreakerHalfOpen}, nil)
	}
	return b.phase
}

func (b *Breaker) open(err error) {
	d := float64(b.opts.OpenFor) * math.Pow(2, float64(b.streak))
	wait := b.opts.MaxOpenFor
	if d < float64(wait) {
		wait = time.Duration(d)
	}
	b.streak++
	b.enter(&breakerPhase{state: BreakerOpen, until: time.Now().Add(wait)}, err)
}

func (b *Breaker) close() {
	b.streak, b.inARow = 0, 0
	b.window = breakerWindow{width: b.window.width}
	b.enter(&breakerPhase{state: BreakerClosed}, nil)
}

// enter changes the phase and has the change told. That's done by a goroutine,
// as consumers ask their gates with their own locks held.
func (b *Breaker) enter(p *breakerPhase, err error) {
	b.changes = append(b.changes, BreakerChange{From: b.phase.state, To: p.state, Until: p.until, Err: err})
	b.phase = p
	if !b.telling {
		b.telling = true
		go b.tell()
	}
}

// tell ends when there is nothing more to tell.
func (b *Breaker) tell() {
	for {
		b.mu.Lock()
		if len(b.changes) == 0 {
			b.telling = false
			b.mu.Unlock()
			return
		}
		c := b.changes[0]
		b.changes = b.changes[1:]
		b.mu.Unlock()
		b.log(c)
		if b.opts.OnChange != nil {
			b.opts.OnChange(c)
		}
	}
}

func (b *Breaker) log(c BreakerChange) {
	level, attrs := slog.LevelInfo, []any{"state", c.To.String(), "was", c.From.String()}
	if b.opts.Name != "" {
		attrs = append(attrs, "name", b.opts.Name)
	}
	if c.To == BreakerOpen {
		level = slog.LevelWarn
		attrs = append(attrs, "in", time.Until(c.Until).Round(time.Millisecond))
	}
	if c.Err != nil {
		attrs = append(attrs, "err", c.Err)
	}
	b.opts.Logger.Log(context.Background(), level, "circuit_breaker", attrs...)
}

type verdict int

const (
	neutral verdict = iota
	good
	bad
)

// judge tells what a result says about the dependency.
func (b *Breaker) judge(r queue.GateResult) verdict {
	switch {
	case !r.Started || r.Interrupted:
		return neutral
	case r.Err == nil:
		return good
	}
	err := r.Err
	for queue.OutcomeOf(err).Kind == queue.DeadLettered { // what was it before?
		if err = errors.Unwrap(err); err == nil {
			return neutral
		}
	}
	switch queue.OutcomeOf(err).Kind {
	case queue.Failed, queue.Retry:
	default:
		return neutral
	}
	if b.opts.If != nil && !b.opts.If(err) {
		return neutral
	}
	return bad
}

// breakerSeat is a Breaker as one consumer sees it.
type breakerSeat struct {
	b *Breaker
	seat
}

// Wrap does nothing: the consumer asks before a delivery starts.
func (s *breakerSeat) Wrap(next queue.Handler) queue.Handler { return next }

// Attach implements queue.Gate.
func (s *breakerSeat) Attach(wake func()) (detach func()) {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.b.seats.attach(&s.seat, wake)
	return sync.OnceFunc(func() {
		s.b.mu.Lock()
		defer s.b.mu.Unlock()
		s.b.seats.detach(&s.seat)
	})
}

// Room implements queue.Gate.
func (s *breakerSeat) Room() queue.Room {
	b := s.b
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.look()
	switch p.state {
	case BreakerClosed:
		return queue.Unlimited
	case BreakerHalfOpen:
		if n := b.opts.Probes - p.passed - p.probing; n > 0 {
			return queue.Room{N: n}
		}
	case BreakerOpen:
	}
	b.seats.mark(&s.seat)
	return queue.Room{Until: p.until}
}

// Enter implements queue.Gate.
func (s *breakerSeat) Enter(*queue.Delivery) queue.Entry {
	b := s.b
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.look()
	switch p.state {
	case BreakerClosed:
		return queue.Entry{OK: true, Ticket: p}
	case BreakerHalfOpen:
		if p.passed+p.probing < b.opts.Probes {
			p.probing++
			return queue.Entry{OK: true, Ticket: p}
		}
	case BreakerOpen:
	}
	b.seats.mark(&s.seat)
	return queue.Entry{Until: p.until}
}

// Leave counts what the result says, if it's of the current phase.
func (s *breakerSeat) Leave(ticket any, result queue.GateResult) {
	b := s.b
	v := b.judge(result)
	b.mu.Lock()
	p, ok := ticket.(*breakerPhase)
	if !ok || p != b.phase {
		b.mu.Unlock()
		return
	}
	if p.state == BreakerClosed {
		b.count(v, result.Err)
		b.mu.Unlock() // nobody waits while it's closed
		return
	}
	p.probing--
	switch v {
	case good:
		if p.passed++; p.passed == b.opts.Probes {
			b.close()
		}
	case bad:
		b.open(result.Err)
	case neutral: // another one may be tried
	}
	var wake []func()
	if result.Started {
		wake = b.seats.rouse()
	} else if len(b.seats.waiting) > 0 {
		b.seats.late.arm(b.wakeLate)
	}
	b.mu.Unlock()
	call(wake)
}

func (b *Breaker) wakeLate() {
	b.mu.Lock()
	b.seats.late.fired()
	wake := b.seats.rouse()
	b.mu.Unlock()
	call(wake)
}

// count counts a result while the breaker is closed.
func (b *Breaker) count(v verdict, err error) {
	switch v {
	case neutral:
		return
	case good:
		b.inARow = 0
	case bad:
		b.inARow++
	}
	if b.opts.Ratio > 0 {
		b.window.add(time.Now(), v == bad)
	}
	if v != bad {
		return
	}
	if n := b.opts.Failures; n > 0 && b.inARow >= n {
		b.open(err)
		return
	}
	if b.opts.Ratio > 0 {
		if calls, failed := b.window.sum(); calls >= b.opts.MinCalls && float64(failed) >= b.opts.Ratio*float64(calls) {
			b.open(err)
		}
	}
}

var (
	_ queue.Binder = (*Breaker)(nil)
	_ queue.Gate   = (*breakerSeat)(nil)
)
