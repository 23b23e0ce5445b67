package broker

import (
	"math"
	"slices"
	"time"
)

// Counts are the numbers of a queue at a time.
type Counts struct {
	Ready, Leased, Delayed int
	Oldest                 time.Time // when the oldest message was sent, on the wall; zero if there's none
}

// Counts counts the messages. It walks all of them.
func (q *Queue[P]) Counts(now Instant) Counts {
	q.lock(now)
	defer q.finish(now)
	q.sweep(now)
	c := Counts{Leased: q.leased, Delayed: q.delayed, Ready: q.total - q.leased - q.delayed}
	oldest := int64(math.MaxInt64)
	q.walk(func(it *Item[P]) { oldest = min(oldest, it.enqueued) })
	if q.total > 0 {
		c.Oldest = time.Unix(0, oldest)
	}
	return c
}

// A Snapshot is a message as it is in the queue.
type Snapshot[P any] struct {
	Item              *Item[P] // for its Payload
	Key               string
	Seq               uint64
	State             State
	Enqueued          time.Time // on the wall
	At                Instant   // the end of the lease, or when it's due
	Receives, Returns int
}

// Snapshot returns up to limit messages in the order of their sending; only
// the ready ones if ready is set; all if limit is 0.
func (q *Queue[P]) Snapshot(now Instant, limit int, ready bool) []Snapshot[P] {
	q.lock(now)
	q.sweep(now)
	var items []*Item[P]
	q.walk(func(it *Item[P]) {
		if !ready || it.state == Ready {
			items = append(items, it)
		}
	})
	slices.SortStableFunc(items, func(a, b *Item[P]) int {
		if a.seq < b.seq {
			return -1
		} else if a.seq > b.seq {
			return 1
		}
		return 0
	})
	if limit > 0 && len(items) > limit {
		items = items[:limit]
	}
	out := make([]Snapshot[P], 0, len(items))
	for _, it := range items {
		it.shared = true
		s := Snapshot[P]{
			Item: it, Seq: it.seq, State: it.state, Enqueued: time.Unix(0, it.enqueued), At: it.at,
			Receives: int(it.receives), Returns: int(it.returns),
		}
		if it.key != nil {
			s.Key = it.key.name
		}
		out = append(out, s)
	}
	q.finish(now)
	return out
}

// walk calls f for every message that isn't done, in no order.
func (q *Queue[P]) walk(f func(*Item[P])) {
	for it := range q.ready.all {
		if it.key == nil || q.cfg.Ordering != Resend {
			f(it)
		}
	}
	for i := q.leases.head; i < q.leases.tail; i++ {
		if it := q.leases.buf[i&(len(q.leases.buf)-1)]; it != nil {
			f(it)
		}
	}
	for _, it := range q.timed {
		f(it)
	}
	for _, k := range q.keys {
		for it := k.waiting.head; it != nil; it = it.next {
			f(it)
		}
		for _, it := range k.log {
			if it.state == Ready { // others were found above, or are done
				f(it)
			}
		}
	}
}

// sweep drops what the queue no longer keeps and nobody has leased.
func (q *Queue[P]) sweep(now Instant) {
	if q.retention == 0 {
		return
	}
	// Keys are swept when their turn comes: a message without a key is the usual
	// one, and taking one from the middle of a key is a different matter.
	q.ready.filter(func(it *Item[P]) bool {
		if it.key != nil || !q.expired(it, now) {
			return true
		}
		q.forget(it)
		return false
	})
}

// Purge removes every message, also the leased ones.
func (q *Queue[P]) Purge(now Instant) {
	q.lock(now)
	q.walk(func(it *Item[P]) {
		it.state = Gone
		it.gen += 2
	})
	for _, k := range q.keys {
		for _, it := range k.log {
			it.state = Gone
		}
	}
	q.ready, q.leases, q.timed, q.keys = fifo[P]{}, ring[P]{}, nil, nil
	q.total, q.leased, q.delayed, q.bytes = 0, 0, 0, 0
	q.finish(now)
}

// LoseLeases ends all leases as if they had expired, and returns their number.
func (q *Queue[P]) LoseLeases(now Instant) int {
	q.lock(now)
	defer q.finish(now)
	var held []*Item[P]
	q.walk(func(it *Item[P]) {
		if it.state == Leased {
			held = append(held, it)
		}
	})
	slices.SortFunc(held, func(a, b *Item[P]) int { return int(a.at - b.at) })
	for _, it := range held {
		if it.state != Leased {
			continue // a message before it in its key has taken it along
		}
		q.endLease(it)
		it.gen++
		q.comeBack(it, 0, now, false)
	}
	return len(held)
}

// Lose ends a lease as if it had expired.
func (q *Queue[P]) Lose(now Instant, it *Item[P], gen uint32) {
	q.lock(now)
	if it.state == Leased && it.gen == gen {
		q.endLease(it)
		it.gen++
		q.comeBack(it, 0, now, false)
	}
	q.finish(now)
}

// Share says that a payload is going to be read without a lease, so that it's
// never freed. It reports whether it's still there.
func (q *Queue[P]) Share(it *Item[P]) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if it.state == Gone {
		return it.shared // then it never was freed
	}
	it.shared = true
	return true
}

// Again makes a message that's leased come once more, beside what becomes of the
// lease.
func (q *Queue[P]) Again(now Instant, it *Item[P], gen uint32) {
	q.lock(now)
	if it.state == Leased && it.gen == gen {
		q.duplicate(it, now)
	}
	q.finish(now)
}

// AddConsumer tells that the queue has n more receivers that come back again
// and again; a negative n: fewer.
func (q *Queue[P]) AddConsumer(n int) {
	q.mu.Lock()
	q.consumers += n
	q.mu.Unlock()
	q.group.notify()
}

// Load is what Pending tells of one queue.
type Load struct {
	Messages  int // not done
	Moving    int // on their way to the dead-letter queue
	Consumers int
}

// Pending counts the messages of all queues at one moment, so that a message
// that moves from one to another is seen. The order of qs must always be the
// same.
func Pending[P any](qs []*Queue[P]) []Load {
	out := make([]Load, len(qs))
	for i, q := range qs {
		q.mu.Lock()
		out[i] = Load{Messages: q.total, Moving: q.moving, Consumers: q.consumers}
	}
	for _, q := range qs {
		q.mu.Unlock()
	}
	return out
}

// Watch calls check until it returns true, first at once and then whenever a
// queue of the group may have become idle, and returns false when done was
// closed before.
func (g *Group) Watch(done <-chan struct{}, check func() bool) bool {
	g.watchers.Add(1)
	defer g.watchers.Add(-1)
	for {
		g.mu.Lock()
		if g.changed == nil {
			g.changed = make(chan struct{})
		}
		changed := g.changed
		g.mu.Unlock()
		if check() {
			return true
		}
		select {
		case <-changed:
		case <-done:
			return false
		}
	}
}

func (g *Group) notify() {
	if g.watchers.Load() == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}
