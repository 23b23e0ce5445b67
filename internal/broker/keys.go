package broker

import (
	"cmp"
	"math"
	"slices"
)

// key is an ordering key with messages that aren't done.
type key[P any] struct {
	name string
	// active is the item that stands for the key in Queue.ready, or in
	// Queue.timed while the key's first message isn't due.
	active *Item[P]

	// Of OneByOne and Grouped.
	waiting list[P] // by seq, without active
	out     int     // leased
	// leased are those, by seq; of Grouped.
	leased []*Item[P]

	// Of Resend: see there.
	log    []*Item[P]
	cursor int
}

func (q *Queue[P]) keyFor(name string) *key[P] {
	k := q.keys[name]
	if k == nil {
		if q.keys == nil {
			q.keys = map[string]*key[P]{}
		}
		k = &key[P]{name: name}
		q.keys[name] = k
	}
	return k
}

// putKeyed adds an item that's new or has come back to its key.
func (q *Queue[P]) putKeyed(it *Item[P], now Instant) {
	k := it.key
	if q.cfg.Ordering == Resend {
		k.log = append(k.log, it)
	} else {
		k.waiting.insert(it)
	}
	q.activate(k, now)
}

// activate makes the key's next message receivable, if the key isn't locked, and
// forgets a key that has nothing left.
func (q *Queue[P]) activate(k *key[P], now Instant) {
	if k.active != nil {
		return
	}
	if q.cfg.Ordering == Resend {
		switch {
		case k.cursor < len(k.log):
			k.active = k.log[k.cursor]
			q.ready.push(k.active)
		case len(k.log) == 0:
			delete(q.keys, k.name)
		}
		return
	}
	it := k.waiting.head
	switch {
	case k.out > 0 && (it == nil || it.seq > k.firstLeased()):
		return
	case it == nil:
		delete(q.keys, k.name)
		return
	}
	k.waiting.pop()
	k.active = it
	if it.at > now {
		q.timedPush(it)
	} else {
		q.readyPush(it)
	}
}

// firstLeased is the place of the earliest message that's leased: only those
// before it can be received. With OneByOne there's none before it.
func (k *key[P]) firstLeased() uint64 {
	switch {
	case k.out == 0:
		return math.MaxUint64
	case len(k.leased) == 0:
		return 0
	}
	return k.leased[0].seq
}

func (q *Queue[P]) keyLeased(it *Item[P]) {
	k := it.key
	k.out++
	if q.cfg.Ordering == Grouped {
		k.leased = slices.Insert(k.leased, place(k.leased, it.seq), it)
	}
}

func (q *Queue[P]) keyFreed(it *Item[P]) {
	k := it.key
	k.out--
	if q.cfg.Ordering == Grouped {
		i := place(k.leased, it.seq)
		k.leased = slices.Delete(k.leased, i, i+1)
	}
}

// leave takes an item that was just popped from Queue.ready, and isn't leased,
// out of its key.
func (q *Queue[P]) leave(it *Item[P], now Instant) {
	k := it.key
	if k == nil {
		return
	}
	k.active = nil
	if q.cfg.Ordering == Resend {
		k.log = slices.Delete(k.log, k.cursor, k.cursor+1)
		q.trim(k)
	}
	q.activate(k, now)
}

// drop takes an item that was leased, and won't be put back, out of its key.
func (q *Queue[P]) drop(it *Item[P], now Instant) {
	k := it.key
	if k == nil {
		return
	}
	if q.cfg.Ordering == Resend {
		i := k.index(it)
		k.log = slices.Delete(k.log, i, i+1)
		k.cursor--
		q.trim(k)
	}
	q.activate(k, now)
}

// An ordered queue of Pub/Sub sends the messages of a key in order, without
// waiting for the former to be acknowledged. log has the key's messages from
// the first that isn't done; those before cursor were sent: they're leased,
// backing off, or acknowledged and kept, as the first may come back.

// index finds an item in its key's log.
func (k *key[P]) index(it *Item[P]) int { return place(k.log, it.seq) }

// place is where an item with that seq is, or belongs.
func place[P any](items []*Item[P], seq uint64) int {
	i, _ := slices.BinarySearchFunc(items, seq, func(x *Item[P], seq uint64) int { return cmp.Compare(x.seq, seq) })
	return i
}

// resend makes the queue send it, and everything of its key that was sent after
// it, again.
func (q *Queue[P]) resend(it *Item[P]) {
	k := it.key
	from := k.index(it)
	for _, x := range k.log[from:k.cursor] {
		switch x.state { //nolint:exhaustive // the others are in none of the structures
		case Leased:
			q.endLease(x)
			x.gen++
		case Delayed:
			q.timed.remove(x)
			q.delayed--
		case acked:
			q.total++
			q.bytes += int64(x.size)
		}
		x.state = Ready
	}
	k.cursor = from
	q.activate(k, 0)
}

// done takes an acknowledged item out of the log, or keeps it there while an
// earlier one isn't done.
func (q *Queue[P]) done(it *Item[P]) {
	it.state = acked
	q.total--
	q.bytes -= int64(it.size)
	q.trim(it.key)
	q.activate(it.key, 0)
}

// trim forgets what was acknowledged and can't come back.
func (q *Queue[P]) trim(k *key[P]) {
	n := 0
	for n < k.cursor && k.log[n].state == acked {
		k.log[n].state = Gone
		n++
	}
	clear(k.log[:n])
	k.log = k.log[n:] // moving the rest would cost as much as the key is long
	k.cursor -= n
}
