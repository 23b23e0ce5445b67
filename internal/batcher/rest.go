package batcher

import (
	"math/rand/v2"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// rest is items that are sent again after a pause.
type rest[T any] struct {
	items []*Item[T]
	lines []*line[T] // that wait for them
	timer *time.Timer
}

// err is what a resting item ends with at Close.
func (r *rest[T]) err(it *Item[T]) error { return gaveUp(queue.ErrClosed, it.err) }

// restLocked sends items again after a pause.
func (b *Batcher[T]) restLocked(items []*Item[T]) {
	if len(items) == 0 {
		return
	}
	r := &rest[T]{items: items}
	tries := 0
	heads := map[*line[T]][]*Item[T]{}
	for _, it := range items {
		tries = max(tries, it.tries)
		if l := it.line; l != nil {
			if heads[l] == nil {
				r.lines = append(r.lines, l)
			}
			heads[l] = append(heads[l], it)
		}
	}
	for l, its := range heads { // before those that wait behind them
		l.items = append(its, l.items...)
	}
	if b.rests == nil {
		b.rests = map[*rest[T]]struct{}{}
	}
	b.rests[r] = struct{}{}
	r.timer = time.AfterFunc(pauseAfter(tries), func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if _, ok := b.rests[r]; ok {
			b.endLocked(r)
			b.goLocked(false)
		}
	})
}

// endLocked ends a rest: what's left of its items may go.
func (b *Batcher[T]) endLocked(r *rest[T]) {
	delete(b.rests, r)
	for _, it := range r.items {
		if it.line == nil && it.state != done {
			b.pushLocked(&b.again, unit[T]{item: it})
		}
	}
	for _, l := range r.lines {
		b.freeLocked(l, &b.again)
	}
}

// pauseAfter doubles with each try, half of it by chance.
func pauseAfter(tries int) time.Duration {
	d := min(minPause<<min(tries-1, 16), maxPause)
	return d - time.Duration(rand.Int64N(int64(d)/2+1)) //nolint:gosec // spreads load
}
