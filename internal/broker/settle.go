package broker

import (
	"math"
	"time"
)

// Kind is what to do with a lease.
type Kind uint8

const (
	// Ack removes the message.
	Ack Kind = iota
	// Release gives it back, to be received again after Op.For.
	Release
	// Extend makes the lease end Op.For from now.
	Extend
	// Replace sends Op.Entry and removes the message.
	Replace
)

// An Op changes one lease.
type Op[P any] struct {
	Item  *Item[P]
	Gen   uint32
	Kind  Kind
	For   time.Duration
	Entry *Entry[P] // of Replace

	Until Instant // the new end of an extended lease
	// Freed says that the message is gone and that nobody else reads its payload
	// or ever will: it was received just once, and is settled by who did.
	Freed bool
	Err   error // ErrStale
}

// Settle does all ops that have no error yet. An Ack or Release that repeats an earlier one succeeds;
// any other op on a lease that has ended fails with ErrStale, except that a
// Replace sends its entry all the same if force is set.
func (q *Queue[P]) Settle(now Instant, force bool, ops []Op[P]) {
	q.lock(now)
	for i := range ops {
		if ops[i].Err == nil {
			q.settle(&ops[i], now, force)
		}
	}
	q.finish(now)
}

func (q *Queue[P]) settle(op *Op[P], now Instant, force bool) {
	it := op.Item
	if it.state != Leased || it.gen != op.Gen {
		if repeats := it.gen == op.Gen+1; !repeats || (op.Kind == Ack) != (it.state == Gone || it.state == acked) || op.Kind > Release {
			op.Err = ErrStale
			if op.Kind == Replace && force {
				q.add(op.Entry, now)
			}
		}
		return
	}
	switch op.Kind {
	case Replace:
		q.add(op.Entry, now)
		fallthrough
	case Ack:
		q.endLease(it)
		op.Freed = it.alone() && (it.key == nil || q.cfg.Ordering != Resend)
		switch {
		case it.key == nil:
			q.forget(it)
		case q.cfg.Ordering == Resend:
			q.done(it)
		default:
			q.forget(it)
			q.drop(it, now)
		}
	case Release:
		d := op.For
		if q.cfg.MaxLease > 0 {
			d = min(d, time.Duration(it.leasedAt.Add(q.cfg.MaxLease)-now))
		}
		q.endLease(it)
		q.comeBack(it, d, now, it.alone())
	case Extend:
		until := now.Add(op.For)
		if q.cfg.MaxLease > 0 {
			until = min(until, it.leasedAt.Add(q.cfg.MaxLease))
		}
		gen := it.gen
		q.endLease(it)
		it.gen = gen
		if it.key != nil {
			q.keyLeased(it)
		}
		q.leaseUntil(it, until)
		op.Until = until
	}
}

// alone reports whether who ends an item's lease is the only one who may ever have read
// its payload, and does so no longer.
func (it *Item[P]) alone() bool { return it.receives == 1 && !it.shared }

// comeBack returns an item whose lease has ended. alone says that nobody reads its
// payload.
func (q *Queue[P]) comeBack(it *Item[P], delay time.Duration, now Instant, alone bool) {
	it = q.rehouse(it, alone)
	if it.returns < math.MaxUint8 {
		it.returns++
	}
	it.at = now.Add(delay)
	if q.deadAfter > 0 && !q.cfg.LateDeadLetter && uint32(it.returns) >= q.deadAfter {
		q.drop(it, now)
		q.bury(it)
		return
	}
	if it.key == nil || q.cfg.Ordering != Resend {
		q.put(it, now)
		return
	}
	if delay > 0 {
		q.timedPush(it)
		return
	}
	q.resend(it)
}

// rehouse lets OnReturn move the payload of an item that's in none of the structures. If
// somebody may be reading it, what's returned is another item; the old one is for who
// still has it.
func (q *Queue[P]) rehouse(it *Item[P], alone bool) *Item[P] {
	if q.onReturn == nil || it.key != nil {
		return it
	}
	p, ok := q.onReturn(&it.Payload, alone)
	if !ok {
		return it
	}
	cp := &Item[P]{
		Payload: p, seq: it.seq, enqueued: it.enqueued, at: it.at, leasedAt: it.leasedAt, size: it.size,
		gen: it.gen, receives: it.receives, returns: it.returns,
	}
	it.state, it.shared = Ready, true // as far as its holder is concerned: see settle, and Share
	return cp
}
