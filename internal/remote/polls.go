package remote

import (
	"context"
	"sync"
	"time"
)

// Polls runs long polls. One whose caller has gone isn't cut off: the broker
// might hand the next message to a connection that nobody reads, and hide it
// until its lease ends (SQS does, and so does every server that stands in for it
// or for Pub/Sub). It goes on by itself; the next caller takes it over, and what
// it brings before that is given back.
//
// The fields are set before first use; the methods may be called concurrently.
type Polls[T any] struct {
	// Poll asks the broker for at most max. It ends by itself after a while.
	Poll func(ctx context.Context, max int) ([]T, error)
	// GiveBack makes the broker deliver to somebody else at once.
	GiveBack func(ctx context.Context, items []T)
	// Keep is how long what has come without a caller waits for the next one before
	// it's given back. With it a poll may be taken over by a caller with less room,
	// and what he has no room for waits too.
	Keep time.Duration
	// Ordered says that a poll doesn't begin while something is being given back, which
	// it could overtake.
	Ordered bool
	// Most is how many polls are under way at a time, where Polls is the second of
	// ReceiveAny; 0: one for each caller.
	Most int

	workers Workers

	mu     sync.Mutex
	open   int                   // polls under way
	rich   bool                  // the latest that has ended brought something, and no turn of it was in vain since
	first  bool                  // of the second of ReceiveAny: it's its turn
	left   map[*poll[T]]struct{} // without a caller
	giving int                   // groups that are being given back
	gave   chan struct{}         // made with the first of them, closed with the last
	closed bool
	cut    bool          // the context of a Close has ended
	quiet  chan struct{} // made by Close, closed when left is empty
	still  bool          // quiet is closed
}

type poll[T any] struct {
	max    int
	cancel context.CancelFunc // of the poll; then, of giving back what it has brought
	given  bool               // nobody may take it over any more
	done   chan struct{}      // closed when items and err are set
	items  []T
	err    error
	keep   *time.Timer // gives back what nobody has fetched
}

// ended is closed when a poll has ended; never for none.
func (one *poll[T]) ended() <-chan struct{} {
	if one == nil {
		return nil
	}
	return one.done
}

// over reports whether a poll has ended and brought something.
func (one *poll[T]) over() bool {
	if one == nil {
		return false
	}
	select {
	case <-one.done:
		return len(one.items) > 0
	default:
		return false
	}
}

const giveBackTimeout = 10 * time.Second

// Receive polls for at most max. It returns as soon as ctx has ended, with what
// has come until then.
func (p *Polls[T]) Receive(ctx context.Context, max int) ([]T, error) {
	return ReceiveAny(ctx, max, p, nil)
}

// ReceiveAny polls for at most max from two sources at once, of which second may be
// nil, and returns what either brings. The other's poll goes on for the next caller.
//
// While both have something whenever they're asked, they're asked in turn: each of two
// polls for the same room would bring what there's no room for, to be given back.
func ReceiveAny[T any](ctx context.Context, max int, first, second *Polls[T]) ([]T, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	a, b := first, second
	if second != nil && second.isFirst() {
		a, b = second, first
	}
	if items := a.kept(max); len(items) > 0 {
		if b != nil {
			second.nextFirst(b == second)
			items = append(items, b.kept(max-len(items))...)
		}
		return items, nil
	}
	if b != nil {
		if items := b.kept(max); len(items) > 0 {
			return items, nil
		}
	}
	one := a.takeOver(max)
	var other *poll[T]
	if b != nil {
		other = b.takeOver(max)
	}
	if b != nil && a.isRich() && b.isRich() {
		second.nextFirst(b == second)
		if one == nil && other == nil {
			one = a.begin(ctx, max)
		}
		lead(ctx, a, one, b, other)
	}
	if !one.over() && !other.over() && ctx.Err() == nil {
		if one == nil {
			one = a.begin(ctx, max)
		}
		if b != nil && other == nil {
			other = b.begin(ctx, max)
		}
	}
	var cut error
	select {
	case <-one.ended():
	case <-other.ended():
	case <-ctx.Done():
		cut = ctx.Err()
	}
	items, over, err := a.part(one, max)
	more, too, e := b.part(other, max-len(items))
	items, over = append(items, more...), over || too
	if err == nil {
		err = e
	}
	switch {
	case len(items) > 0:
		return items, nil // an error beside it comes again
	case over:
		return nil, err
	}
	return nil, cut
}

// headStart is how long the other source waits for the one whose turn it is. As there
// was something to be had, it usually comes within a round trip.
const headStart = 250 * time.Millisecond

// isFirst reports whether it's the turn of this second source of two.
func (p *Polls[T]) isFirst() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.first
}

// nextFirst says whether the next turn is that of this second source of two.
func (p *Polls[T]) nextFirst(is bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.first = is
}

func (p *Polls[T]) isRich() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rich
}

// lead waits for what's under way, for the length of the head start. A source that
// doesn't bring anything by then is one that has to be waited for, and no reason to let
// the other one wait.
func lead[T any](ctx context.Context, a *Polls[T], one *poll[T], b *Polls[T], other *poll[T]) {
	if one == nil && other == nil {
		return
	}
	t := time.NewTimer(headStart)
	defer t.Stop()
	select {
	case <-one.ended():
	case <-other.ended():
	case <-t.C:
		a.poor(one)
		b.poor(other)
	case <-ctx.Done():
	}
}

// poor notes that a poll, if there's one, hasn't brought anything for a while.
func (p *Polls[T]) poor(one *poll[T]) {
	if one == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rich = false
}

// kept takes at most so many of what polls without a caller have brought. What's left
// of that doesn't wait for longer.
func (p *Polls[T]) kept(most int) []T {
	p.mu.Lock()
	defer p.mu.Unlock()
	var items []T
	for one := range p.left {
		if one.keep == nil || one.given {
			continue
		}
		n := min(len(one.items), most-len(items))
		items, one.items = append(items, one.items[:n]...), one.items[n:]
		if len(one.items) == 0 {
			p.holdLocked(one)
			p.hushLocked()
		}
	}
	return items
}

// takeOver returns a poll without a caller, if there's one that suits: one that has
// brought something before one that's under way.
func (p *Polls[T]) takeOver(most int) *poll[T] {
	p.mu.Lock()
	defer p.mu.Unlock()
	var best *poll[T]
	for one := range p.left {
		if one.given || p.Keep == 0 && one.max > most {
			continue
		}
		if best == nil || one.keep != nil || best.keep == nil && one.max > best.max {
			best = one
		}
	}
	if best != nil {
		p.holdLocked(best)
	}
	return best
}

// holdLocked gives a poll a caller.
func (p *Polls[T]) holdLocked(one *poll[T]) {
	delete(p.left, one)
	if one.keep != nil {
		one.keep.Stop() // if it has fired already, it finds that one has a caller
		one.keep = nil
	}
}

// begin returns a new poll for a caller; nil when there are as many as may be.
func (p *Polls[T]) begin(ctx context.Context, max int) *poll[T] {
	p.mu.Lock()
	if p.Most > 0 && p.open >= p.Most {
		p.mu.Unlock()
		return nil
	}
	p.open++
	p.mu.Unlock()
	detached, cancel := context.WithCancel(context.WithoutCancel(ctx))
	one := &poll[T]{max: max, cancel: cancel, done: make(chan struct{})}
	// What ctx says about its end is worth knowing to the poll all the same.
	until, bounded := ctx.Deadline()
	if bounded {
		detached = context.WithValue(detached, untilKey{}, until)
	}
	p.workers.Go(func() {
		if p.Ordered {
			p.awaitGivenBack(detached)
		}
		items, err := p.Poll(detached, max)
		cancel()
		p.ended(one, items, err)
	})
	return one
}

type untilKey struct{}

// Until returns the time that the caller of Receive waits for, if it has named
// one: a poll should end before it.
func Until(ctx context.Context) (time.Time, bool) {
	t, ok := ctx.Value(untilKey{}).(time.Time)
	return t, ok
}

// ended hands over what a poll has brought, or gives it back.
func (p *Polls[T]) ended(one *poll[T], items []T, err error) {
	p.mu.Lock()
	p.open--
	p.rich = len(items) > 0
	one.items, one.err = items, err
	close(one.done)
	_, alone := p.left[one]
	if alone {
		p.restLocked(one)
	}
	p.mu.Unlock()
}

// restLocked lets what a poll without a caller has brought wait for the next one,
// or gives it back.
func (p *Polls[T]) restLocked(one *poll[T]) {
	switch {
	case len(one.items) == 0:
		// An error of a poll that nobody waits for is nobody's: the next one has it too.
		p.forgetLocked(one)
	case p.Keep > 0 && !p.closed:
		one.keep = time.AfterFunc(p.Keep, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			if _, alone := p.left[one]; alone && !one.given {
				p.giveBackLocked(one)
			}
		})
	default:
		p.giveBackLocked(one)
	}
}

func (p *Polls[T]) giveBackLocked(one *poll[T]) {
	one.given = true
	ctx, cancel := context.WithTimeout(context.Background(), giveBackTimeout)
	one.cancel = cancel
	if p.cut {
		cancel()
	}
	if p.giving++; p.giving == 1 {
		p.gave = make(chan struct{})
	}
	p.workers.Go(func() {
		defer cancel()
		p.GiveBack(ctx, one.items)
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.giving--; p.giving == 0 {
			close(p.gave)
		}
		p.forgetLocked(one)
	})
}

// awaitGivenBack waits until nothing is being given back.
func (p *Polls[T]) awaitGivenBack(ctx context.Context) {
	p.mu.Lock()
	giving, gave := p.giving, p.gave
	p.mu.Unlock()
	if giving == 0 {
		return
	}
	select {
	case <-gave:
	case <-ctx.Done():
	}
}

func (p *Polls[T]) forgetLocked(one *poll[T]) {
	delete(p.left, one)
	p.hushLocked()
}

func (p *Polls[T]) hushLocked() {
	if p.closed && !p.still && len(p.left) == 0 {
		p.still = true
		close(p.quiet)
	}
}

// part takes at most so many of what a poll has brought, and reports whether it has
// ended. What it has brought beyond that waits for the next caller, and a poll
// that's under way goes on.
func (p *Polls[T]) part(one *poll[T], most int) (items []T, over bool, err error) {
	if one == nil {
		return nil, false, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-one.done:
		over = true
		n := min(len(one.items), most)
		items, one.items = one.items[:n:n], one.items[n:]
		if len(one.items) == 0 {
			return items, over, one.err
		}
	default:
	}
	if p.left == nil {
		p.left = map[*poll[T]]struct{}{}
	}
	p.left[one] = struct{}{}
	switch {
	case over:
		p.restLocked(one)
	case p.closed: // by a Close that has cut its caller off
		one.cancel()
	}
	return items, over, nil
}

// Close waits for the polls without a caller to end by themselves, and for what
// they have brought to be given back; what's left when ctx ends is cut off. No
// Receive may be under way or follow.
func (p *Polls[T]) Close(ctx context.Context) {
	defer p.workers.Close()
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		p.quiet = make(chan struct{})
		for one := range p.left {
			if one.keep != nil && !one.given {
				p.holdLocked(one) // nobody will come for it
				p.left[one] = struct{}{}
				p.giveBackLocked(one)
			}
		}
		p.hushLocked()
	}
	p.mu.Unlock()
	select {
	case <-p.quiet:
		return
	case <-ctx.Done():
	}
	p.mu.Lock()
	p.cut = true
	for one := range p.left {
		one.cancel()
	}
	p.mu.Unlock()
	<-p.quiet // they end at once now
}
