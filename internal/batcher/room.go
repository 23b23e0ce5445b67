package batcher

import (
	"context"
	"slices"
)

// roomLocked waits, with the lock released, until an item of a group may be held.
// It reports false when that has ended before.
func (b *Batcher[T]) roomLocked(g *Group[T], it *Item[T]) bool {
	ctx := g.ctx
	for first := true; ; first = false {
		if g.expired || ctx.Err() != nil {
			g.expired = g.expired || g.ctx.Err() == nil
			b.makeRoomLocked() // what this caller was woken for is another's
			return false
		}
		if b.closed || b.fitsLocked(it.Size) && (len(b.room) == 0 || !first) {
			return true
		}
		turn := make(chan struct{})
		if first {
			if !g.expires.IsZero() {
				var cancel context.CancelFunc
				ctx, cancel = context.WithDeadline(g.ctx, g.expires)
				defer cancel()
			}
			b.room = append(b.room, turn)
		} else {
			b.room = slices.Insert(b.room, 0, turn)
		}
		b.goLocked(false) // what's held must go on
		b.mu.Unlock()
		select {
		case <-turn:
		case <-ctx.Done():
		}
		b.mu.Lock()
		if i := slices.Index(b.room, turn); i >= 0 {
			b.room = slices.Delete(b.room, i, i+1)
		}
	}
}

// fitsLocked reports whether there's room. One item always fits, however large.
func (b *Batcher[T]) fitsLocked(size int) bool {
	return b.held == 0 || b.held < b.MaxHeld && b.heldB+size <= b.MaxHeldBytes
}

// makeRoomLocked lets the next caller see whether there's room for it; and that
// one lets the next, when it has been let in.
func (b *Batcher[T]) makeRoomLocked() {
	for len(b.room) > 0 && b.closed || len(b.room) > 0 && b.fitsLocked(0) {
		close(b.room[0])
		b.room = b.room[1:]
		if !b.closed {
			return
		}
	}
}
