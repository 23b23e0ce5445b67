package batcher

import (
	"context"
	"time"
)

// Groups whose context has no deadline end Timeout after they have begun. One
// timer serves them all, the first in line: a context with a timer of its own for
// each would cost a Publish more than all else here.
type expiry[T any] struct {
	first, last *Group[T] // by their time
	timer       *time.Timer
	at          time.Time // that the timer is set to; zero: not set
}

// expireLocked makes a group, for whose end its caller begins to wait, end in time.
func (b *Batcher[T]) expireLocked(g *Group[T]) {
	e := &b.expiry
	before := e.last
	for before != nil && before.expires.After(g.expires) {
		before = before.earlier
	}
	g.earlier = before
	if before == nil {
		g.later, e.first = e.first, g
	} else {
		g.later, before.later = before.later, g
	}
	if g.later == nil {
		e.last = g
	} else {
		g.later.earlier = g
	}
	g.listed = true
	b.armExpiryLocked()
}

// unlistLocked is for a group that has ended otherwise.
func (b *Batcher[T]) unlistLocked(g *Group[T]) {
	if !g.listed {
		return
	}
	e := &b.expiry
	if g.earlier == nil {
		e.first = g.later
	} else {
		g.earlier.later = g.later
	}
	if g.later == nil {
		e.last = g.earlier
	} else {
		g.later.earlier = g.earlier
	}
	g.earlier, g.later, g.listed = nil, nil, false
}

// armExpiryLocked sets the timer, unless it fires early enough: then it's set again.
// It does so after Close too, as a request may not heed that it was cut off.
func (b *Batcher[T]) armExpiryLocked() {
	e := &b.expiry
	if e.first == nil || !e.at.IsZero() && !e.at.After(e.first.expires) {
		return
	}
	e.at = e.first.expires
	if d := time.Until(e.at); e.timer == nil {
		e.timer = time.AfterFunc(d, b.expire)
	} else {
		e.timer.Reset(d)
	}
}

// expire ends the groups whose time has come.
func (b *Batcher[T]) expire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := &b.expiry
	e.at = time.Time{}
	now := time.Now()
	for g := e.first; g != nil && !g.expires.After(now); g = e.first {
		b.unlistLocked(g)
		g.expired = true
		if b.closed { // Close may be waiting already
			go g.leave()
		} else {
			b.wg.Go(g.leave)
		}
	}
	b.armExpiryLocked()
}

// goneLocked reports whether the group's caller waits no more.
func (g *Group[T]) goneLocked() bool { return g.expired || g.ctx.Err() != nil }

// endLocked says why.
func (g *Group[T]) endLocked() error {
	if g.ctx.Err() == nil {
		return context.DeadlineExceeded
	}
	return endOf(g.ctx)
}
