package batcher

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/internal/remote"
	"github.com/anyqueue/anyqueue/queue"
)

// ErrOvertaking is the error of an item that wasn't sent as an earlier one of its
// key and Group has failed.
var ErrOvertaking = errors.New("not sent: an earlier message with the same OrderingKey failed")

// A Batcher puts the items of concurrent Groups into requests.
//
// A full request leaves at once. One that isn't full leaves at once too, unless
// another such is under way, or many are: then it waits until it's full, until
// they have returned, or for a part of the time that a request usually takes. So
// an idle Batcher never delays anything, and a busy one fills its requests.
//
// Items with the same Key go in order, in one request at a time. What fails and
// may pass is sent again after a pause, in company with others. All fields are
// set before first use; the methods may be called concurrently.
type Batcher[T any] struct {
	MaxItems int // of a request
	MaxBytes int // of a request; a larger item goes alone
	MaxCalls int // requests under way
	// MaxPartial is how many requests that aren't full may be under way before another
	// one waits for more items; 0: 1. Patience is how long it waits then, as a part of
	// what a request usually takes; 0: a third.
	MaxPartial int
	Patience   float64
	// KeysApart gives the items of each Key requests of their own: a broker may
	// take one key in a request. They don't wait for company, as only those of
	// their key could join them, and these wait behind them anyway.
	KeysApart bool

	// MaxHeld and MaxHeldBytes bound what's held for all callers together. Add
	// waits for room.
	MaxHeld, MaxHeldBytes int

	// Timeout is how long after its Begin a Group ends whose context has no deadline;
	// 0: never.
	Timeout time.Duration

	// Send sends one request and tells what became of each item, in their order.
	// Its context has the values of the first item's Group, and ends when nobody
	// waits for any of them, or at Close.
	Send func(ctx context.Context, batch []*Item[T]) Report

	mu     sync.Mutex
	again  units[T] // what failed before: it goes first
	ready  units[T]
	apart  units[T] // lines, with KeysApart
	count  int      // items in again and ready
	bytes  int
	since  time.Time // when the first of them began to wait
	lines  map[string]*line[T]
	calls  int
	part   int // of calls: those that weren't full
	rtt    time.Duration
	slow   int       // reports of Slow in a row
	pause  time.Time // nothing is sent before
	timer  *time.Timer
	timeAt time.Time // that the timer is set to; zero: not set
	held   int
	heldB  int
	room   []chan struct{} // of callers that wait for it, in order
	open   map[*call[T]]struct{}
	rests  map[*rest[T]]struct{}
	expiry expiry[T]
	closed bool
	wg     sync.WaitGroup

	workers remote.Workers
}

// Report is what became of a request.
type Report struct {
	Results []Result // one for each item
	// Slow says that the broker asks to slow down: all wait for a while.
	Slow bool
}

// Result is what became of an item.
type Result struct {
	Err   error
	Again bool // Err may pass: it's sent again
	Doubt bool // in spite of Err the item may have been taken
}

// An Item is one thing to send.
type Item[T any] struct {
	Value T
	Size  int
	Key   string // empty: no order

	group  *Group[T]
	state  state
	next   *Item[T] // of the group
	call   *call[T]
	line   *line[T]
	err    error
	tries  int
	doubts int
	before int // doubts when its request left: Send reads it without the lock
}

type state uint8

const (
	waiting state = iota // in a unit that may go
	behind               // in a line whose head is elsewhere
	flying
	resting // until it's tried again
	done
)

// Doubts is how many tries may have taken effect, before the one under way. It's
// for Send.
func (it *Item[T]) Doubts() int { return it.before }

// Err is what became of the item, after Wait.
func (it *Item[T]) Err() error { return it.err }

// A Group is what one caller sends. Its methods are for one goroutine.
type Group[T any] struct {
	b      *Batcher[T]
	ctx    context.Context //nolint:containedctx // of the caller, who waits
	first  *Item[T]        // the others follow by next
	last   *Item[T]
	left   int // not done
	sealed bool
	done   chan struct{}   // closed when it's sealed and left is 0
	broken map[string]bool // keys of which one has failed

	expires        time.Time // zero: with ctx
	expired        bool
	leaving        bool
	earlier, later *Group[T] // in expiry
	listed         bool      // there
}

// line is the items of one key. While its head is under way, or rests, it's busy
// and no unit.
type line[T any] struct {
	key   string
	items []*Item[T]
	busy  bool
}

// call is a request under way.
type call[T any] struct {
	items   []*Item[T]
	cancel  context.CancelFunc
	partial bool
	live    int           // items that somebody waits for
	done    chan struct{} // closed when what became of them is noted
}

// Begin starts a Group. ctx bounds how long its caller waits, and Timeout where ctx
// has no deadline; now is the time.
func (b *Batcher[T]) Begin(ctx context.Context, now time.Time) *Group[T] {
	g := &Group[T]{b: b, ctx: ctx, done: make(chan struct{})}
	if _, ok := ctx.Deadline(); !ok && b.Timeout > 0 {
		g.expires = now.Add(b.Timeout)
	}
	return g
}

// Add hands over an item, whose unexported fields are zero. It waits for room
// when too much is held. Full requests leave; others, at Wait.
func (g *Group[T]) Add(it *Item[T]) {
	b := g.b
	it.group = g
	b.mu.Lock()
	defer b.mu.Unlock()
	if g.last == nil {
		g.first = it
	} else {
		g.last.next = it
	}
	g.last = it
	g.left++
	switch {
	case b.closed:
		it.err, it.state = queue.ErrClosed, done
	case !b.roomLocked(g, it):
		it.err, it.state = g.endLocked(), done
	case g.broken[it.Key] && it.Key != "":
		it.err, it.state = ErrOvertaking, done
	}
	if it.state == done {
		g.left--
		b.makeRoomLocked() // its turn is another's
		return
	}
	b.held++
	b.heldB += it.Size
	b.enqueueLocked(it)
	b.goLocked(true)
	b.makeRoomLocked()
}

// Wait returns when every item is sent or has failed, or the context has ended;
// then the items have their errors. What wasn't sent by then won't be; what was
// under way has queue.ErrUnknownOutcome.
func (g *Group[T]) Wait() {
	b := g.b
	b.mu.Lock()
	g.sealed = true
	over := g.left == 0
	if !over {
		b.goLocked(false)
		if g.left > 0 && !g.expires.IsZero() {
			b.expireLocked(g)
		}
	}
	b.mu.Unlock()
	if over {
		return
	}
	select {
	case <-g.done:
	case <-g.ctx.Done():
		g.leave()
	}
}

// Close cuts off what's under way, and waits for it. What comes later fails with
// queue.ErrClosed.
func (b *Batcher[T]) Close() {
	b.mu.Lock()
	b.closed = true
	for c := range b.open {
		c.cancel()
	}
	if b.timer != nil {
		b.timer.Stop()
	}
	for r := range b.rests {
		r.timer.Stop()
		for _, it := range r.items {
			if it.state != done {
				b.finishLocked(it, r.err(it))
			}
		}
		b.endLocked(r)
	}
	b.goLocked(false)
	b.makeRoomLocked()
	b.mu.Unlock()
	b.wg.Wait()
	b.workers.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.expiry.first == nil && b.expiry.timer != nil {
		b.expiry.timer.Stop()
	}
}

// finishLocked notes what became of an item.
func (b *Batcher[T]) finishLocked(it *Item[T], err error) {
	if it.state == waiting {
		b.uncountLocked(it)
	}
	if err != nil && it.doubts > 0 && !errors.Is(err, queue.ErrUnknownOutcome) {
		err = fmt.Errorf("%w: %w", queue.ErrUnknownOutcome, err)
	}
	it.state, it.err = done, err
	g := it.group
	if err != nil && it.Key != "" {
		if g.broken == nil {
			g.broken = map[string]bool{}
		}
		g.broken[it.Key] = true
	}
	b.held--
	b.heldB -= it.Size
	b.makeRoomLocked()
	if g.left--; g.left == 0 && g.sealed {
		b.unlistLocked(g)
		close(g.done)
	}
}

// leave gives up what isn't done.
func (g *Group[T]) leave() {
	b := g.b
	b.mu.Lock()
	if g.leaving { // its time is over, and its context has ended as well
		b.mu.Unlock()
		<-g.done
		return
	}
	g.leaving = true
	cause := g.endLocked()
	var calls []*call[T]
	for it := g.first; it != nil; it = it.next {
		switch it.state {
		case done:
		case flying:
			if it.call.live--; it.call.live == 0 {
				it.call.cancel()
				calls = append(calls, it.call)
			}
		default:
			b.finishLocked(it, gaveUp(cause, it.err))
			var zero T
			it.Value = zero // it may stay in a line for a while
		}
	}
	b.mu.Unlock()
	// Those that nobody else waits for return soon, and know best.
	if len(calls) > 0 {
		t := time.NewTimer(cutGrace)
		defer t.Stop()
		for _, c := range calls {
			select {
			case <-c.done:
				continue
			case <-t.C:
			}
			break
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for it := g.first; it != nil; it = it.next {
		if it.state != done {
			it.doubts++
			b.finishLocked(it, gaveUp(cause, it.err))
		}
	}
}

// cutGrace is how long a request that was cut off may take to return.
const cutGrace = time.Second

// endOf says that ctx has ended, and why.
func endOf(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

func gaveUp(cause, last error) error {
	if last == nil {
		return cause
	}
	return fmt.Errorf("%w; the last try: %w", cause, last)
}

// left reports whether nobody waits for the item any more.
func (it *Item[T]) left() bool { return it.group.goneLocked() }
