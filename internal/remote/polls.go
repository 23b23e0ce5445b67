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

	workers Workers

	mu     sync.Mutex
	left   map[*poll[T]]struct{} // without a caller
	closed bool
	cut    bool          // the context of a Close has ended
	quiet  chan struct{} // made by Close, closed when left is empty
	still  bool          // quiet is closed
}

type poll[T any] struct {
	max    int
	cancel context.CancelFunc // of the poll; then, of giving back what it has brought
	ended  bool               // nobody may take it over any more
	done   chan struct{}      // closed when items and err are set
	items  []T
	err    error
}

const giveBackTimeout = 10 * time.Second

// Receive polls for at most max. It returns as soon as ctx has ended, with what
// has come until then.
func (p *Polls[T]) Receive(ctx context.Context, max int) ([]T, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	one := p.takeOver(max)
	if one == nil {
		one = p.begin(ctx, max)
	}
	select {
	case <-one.done:
	case <-ctx.Done():
		if !p.leave(one) {
			return nil, ctx.Err()
		}
	}
	return one.items, one.err
}

// takeOver returns a poll without a caller, if there's one that doesn't bring
// too much.
func (p *Polls[T]) takeOver(most int) *poll[T] {
	p.mu.Lock()
	defer p.mu.Unlock()
	var best *poll[T]
	for one := range p.left {
		if !one.ended && one.max <= most && (best == nil || one.max > best.max) {
			best = one
		}
	}
	if best != nil {
		delete(p.left, best)
	}
	return best
}

func (p *Polls[T]) begin(ctx context.Context, max int) *poll[T] {
	detached, cancel := context.WithCancel(context.WithoutCancel(ctx))
	one := &poll[T]{max: max, cancel: cancel, done: make(chan struct{})}
	// What ctx says about its end is worth knowing to the poll all the same.
	until, bounded := ctx.Deadline()
	if bounded {
		detached = context.WithValue(detached, untilKey{}, until)
	}
	p.workers.Go(func() {
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
	one.items, one.err, one.ended = items, err, true
	close(one.done)
	_, alone := p.left[one]
	if !alone {
		p.mu.Unlock()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), giveBackTimeout)
	defer cancel()
	one.cancel = cancel
	if p.cut {
		cancel()
	}
	p.mu.Unlock()
	// An error of a poll that nobody waits for is nobody's: the next one has it too.
	if len(items) > 0 {
		p.GiveBack(ctx, items)
	}
	p.forget(one)
}

func (p *Polls[T]) forget(one *poll[T]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.left, one)
	p.hushLocked()
}

func (p *Polls[T]) hushLocked() {
	if p.closed && !p.still && len(p.left) == 0 {
		p.still = true
		close(p.quiet)
	}
}

// leave lets a poll go on without its caller. It reports true when the poll has
// ended meanwhile, and what it brought is the caller's.
func (p *Polls[T]) leave(one *poll[T]) (ended bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-one.done:
		return true
	default:
	}
	if p.left == nil {
		p.left = map[*poll[T]]struct{}{}
	}
	p.left[one] = struct{}{}
	if p.closed { // by a Close that has cut its caller off
		one.cancel()
	}
	return false
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
