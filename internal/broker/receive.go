package broker

import (
	"context"
	"math"
	"time"
)

// A Request says what to receive.
type Request struct {
	Max   int
	Lease time.Duration
	Wait  time.Duration // how long to wait for a message; 0: until ctx ends; negative: not at all
	Stop  <-chan struct{}
}

// A Lease is a message that was received.
type Lease[P any] struct {
	Item     *Item[P]
	Gen      uint32 // with Item: what to settle
	Key      string
	Seq      uint64
	Enqueued time.Time // on the wall
	Until    Instant
	Receives int // with this one
	Returns  int // before this one
}

// A Batch is what Receive returns. Give it to Recycle afterwards.
type Batch[P any] struct {
	Leases []Lease[P]
}

// Receive waits for messages and returns at most r.Max of them. It returns nil
// when it has waited for long enough, ErrStopped when r.Stop was closed, and the
// context's error when that has ended.
func (q *Queue[P]) Receive(ctx context.Context, r Request) (*Batch[P], error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var (
		w       *waiter
		timeout <-chan time.Time
	)
	for {
		now, err := q.group.Clock.Now()
		if err != nil {
			return nil, err
		}
		q.lock(now)
		if w != nil {
			q.wokenRoom -= w.room
			w.room = 0
		}
		got, err := q.take(r, now)
		if got != nil || err != nil || r.Wait < 0 {
			q.release(w)
			q.finish(now)
			return got, err
		}
		if w == nil {
			w = q.newWaiter(r.Max)
		}
		q.waiters.push(w)
		q.finish(now)
		if r.Wait > 0 && timeout == nil {
			t := time.NewTimer(r.Wait)
			defer t.Stop() //nolint:revive // once at most
			timeout = t.C
		}
		err = nil
		select {
		case <-w.wake:
			continue
		case <-timeout:
		case <-ctx.Done():
			err = ctx.Err()
		case <-r.Stop:
			err = ErrStopped
		}
		q.mu.Lock()
		if w.room > 0 {
			// Woken meanwhile: what it was woken for is somebody else's.
			<-w.wake
			q.wokenRoom -= w.room
			w.room = 0
			q.wake()
		} else {
			q.waiters.remove(w)
		}
		q.release(w)
		q.mu.Unlock()
		return nil, err
	}
}

// Recycle takes back what Receive returned, which mustn't be used any more.
func (q *Queue[P]) Recycle(b *Batch[P]) {
	if cap(b.Leases) > 1024 {
		return
	}
	clear(b.Leases)
	b.Leases = b.Leases[:0]
	q.group.scratch.Put(b)
}

// take leases what's ready.
func (q *Queue[P]) take(r Request, now Instant) (*Batch[P], error) {
	if q.ready.n == 0 {
		return nil, nil
	}
	most := r.Max
	if q.cfg.MaxInFlight > 0 && q.leased+r.Max > q.cfg.MaxInFlight {
		most = max(q.cfg.MaxInFlight-q.leased, 0)
		if most == 0 && q.cfg.InFlightFails {
			return nil, ErrInFlight
		}
	}
	batch, ok := q.group.scratch.Get().(*Batch[P])
	if !ok {
		batch = &Batch[P]{}
	}
	out := batch.Leases
	passed := 0
	for len(out) < most {
		it := q.ready.pop()
		if it == nil {
			break
		}
		k := it.key
		if k != nil && q.cfg.Ordering == Resend {
			it = k.log[k.cursor]
		}
		switch {
		case q.expired(it, now):
			q.leave(it, now)
			q.forget(it)
			continue
		case q.deadAfter > 0 && q.cfg.LateDeadLetter && it.receives >= q.deadAfter:
			q.leave(it, now)
			q.bury(it)
			continue
		case k == nil && q.cfg.Reorder > 0 && passed < q.ready.n && q.cfg.Rand.Float64() < q.cfg.Reorder:
			passed++
			q.ready.push(it)
			continue
		}
		first := uint64(math.MaxUint64)
		if k != nil {
			k.active, first = nil, k.firstLeased()
		}
		out = append(out, q.lease(it, r.Lease, now))
		switch {
		case k == nil:
			if q.cfg.Duplicate > 0 && q.cfg.Rand.Float64() < q.cfg.Duplicate {
				q.duplicate(it, now)
			}
		case q.cfg.Ordering == Grouped:
			for len(out) < most && k.waiting.head != nil && k.waiting.head.at <= now && k.waiting.head.seq < first {
				out = append(out, q.lease(k.waiting.pop(), r.Lease, now))
			}
		case q.cfg.Ordering == Resend:
			k.cursor++
			q.activate(k, now)
		}
	}
	batch.Leases = out
	if len(out) == 0 {
		q.group.scratch.Put(batch)
		return nil, nil
	}
	return batch, nil
}

func (q *Queue[P]) lease(it *Item[P], d time.Duration, now Instant) Lease[P] {
	it.gen++
	it.receives++
	it.leasedAt = now
	if q.cfg.MaxLease > 0 {
		d = min(d, q.cfg.MaxLease)
	}
	q.leaseUntil(it, now.Add(d))
	l := Lease[P]{
		Item: it, Gen: it.gen, Seq: it.seq, Enqueued: time.Unix(0, it.enqueued), Until: it.at,
		Receives: int(it.receives), Returns: int(it.returns),
	}
	if it.key != nil {
		q.keyLeased(it)
		l.Key = it.key.name
	}
	return l
}

func (q *Queue[P]) leaseUntil(it *Item[P], at Instant) {
	it.at = at
	it.state = Leased
	q.leased++
	it.inRing = q.leases.fits(at)
	if it.inRing {
		q.leases.push(it)
	} else {
		q.timed.push(it)
	}
}

// endLease takes a leased item out of all structures; its holder is the past.
func (q *Queue[P]) endLease(it *Item[P]) {
	if it.inRing {
		q.leases.remove(it)
	} else {
		q.timed.remove(it)
	}
	it.gen++
	it.state = Ready
	q.leased--
	if it.key != nil {
		q.keyFreed(it)
	}
}

// duplicate makes a second message of one, which has the same place in the order
// and so the same id.
func (q *Queue[P]) duplicate(it *Item[P], now Instant) {
	it.shared = true
	cp := &Item[P]{shared: true, Payload: it.Payload, seq: it.seq, enqueued: it.enqueued, at: now, size: it.size, receives: it.receives, returns: it.returns}
	q.total++
	q.bytes += int64(cp.size)
	if it.key != nil {
		cp.key = q.keyFor(it.key.name)
		if q.cfg.Ordering == Resend {
			q.seq++
			cp.seq = q.seq // a log can't hold the same place twice
		}
	}
	q.put(cp, now)
}

// expired reports whether the queue no longer keeps an item.
func (q *Queue[P]) expired(it *Item[P], now Instant) bool {
	return q.retention > 0 && q.group.Clock.Time(now).UnixNano()-it.enqueued >= int64(q.retention)
}

// expireReady drops what the queue no longer keeps from the head of a queue that nobody
// receives from.
func (q *Queue[P]) expireReady(now Instant) {
	for it := q.ready.first(); it != nil && it.key == nil && q.expired(it, now); it = q.ready.first() {
		q.ready.pop()
		q.forget(it)
	}
}

// bury makes an item that's in none of the structures leave for the dead-letter
// queue.
func (q *Queue[P]) bury(it *Item[P]) {
	it.state = Gone
	q.total--
	q.bytes -= int64(it.size)
	q.moving++
	q.dead = append(q.dead, it)
}

// move sends buried items to the dead-letter queue.
func (q *Queue[P]) move(dead []*Item[P], to *Queue[P], now Instant) {
	to.lock(now)
	for _, it := range dead {
		e := Entry[P]{Item: &Item[P]{Payload: it.Payload, receives: it.receives, shared: true}, Size: int(it.size), At: time.Now()}
		if q.cfg.KeepAge {
			e.At = time.Unix(0, it.enqueued)
		}
		if it.key != nil {
			e.Key = it.key.name
		}
		to.add(&e, now)
	}
	to.finish(now)
	q.mu.Lock()
	q.moving -= len(dead)
	q.mu.Unlock()
	q.group.notify()
}
