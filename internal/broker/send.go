package broker

import "time"

// MaxDelay is the longest delay that a queue takes: far from where times
// overflow.
const MaxDelay = 100 * 365 * 24 * time.Hour

// An Entry is a message to send, and what became of it.
type Entry[P any] struct {
	// Item is a new item with its Payload. It's not to be touched after Send.
	Item  *Item[P]
	Key   string
	Dedup string // dropped silently when it was sent before within the window
	Delay time.Duration
	Size  int
	At    time.Time // the time on the wall, for Lease.Enqueued

	// Err is ErrFull after Send. An entry that has an error before isn't sent.
	Err error
}

// Send adds messages in order, and returns their size together with that of all others
// in the queue. When all is set, none is sent unless all can be.
func (q *Queue[P]) Send(now Instant, all bool, es []Entry[P]) (size int64) {
	q.lock(now)
	if q.retention > 0 {
		q.expireReady(now)
	}
	if (q.cfg.MaxMessages > 0 || q.cfg.MaxBytes > 0) && !q.checkRoom(all, es) {
		size = q.bytes
		q.finish(now)
		return size
	}
	for i := range es {
		if e := &es[i]; e.Err == nil && !(e.Dedup != "" && q.dedup.seen(e.Dedup, now, q.cfg.DedupWindow)) {
			q.add(e, now)
		}
	}
	size = q.bytes
	q.finish(now)
	return size
}

// checkRoom marks the entries for which there's no room.
func (q *Queue[P]) checkRoom(all bool, es []Entry[P]) bool {
	n, bytes, full := q.total, q.bytes, false
	for i := range es {
		if es[i].Err != nil {
			continue
		}
		n++
		bytes += int64(es[i].Size)
		if q.cfg.MaxMessages > 0 && n > q.cfg.MaxMessages || q.cfg.MaxBytes > 0 && bytes > q.cfg.MaxBytes {
			n--
			bytes -= int64(es[i].Size)
			es[i].Err, full = ErrFull, true
		}
	}
	if full && all {
		for i := range es {
			if es[i].Err == nil {
				es[i].Err = ErrFull
			}
		}
		return false
	}
	return true
}

func (q *Queue[P]) add(e *Entry[P], now Instant) {
	it := e.Item
	q.seq++
	it.seq = q.seq
	it.enqueued = e.At.UnixNano()
	it.at = now
	if e.Delay > 0 {
		it.at = now.Add(e.Delay)
	}
	it.size = int32(min(e.Size, 1<<31-1)) //nolint:gosec // it fits
	q.total++
	q.bytes += int64(it.size)
	if e.Key != "" && q.cfg.Ordering != Unordered {
		it.key = q.keyFor(e.Key)
	}
	q.put(it, now)
}

// dedup remembers the ids of a window. Its zero value is empty.
type dedup struct {
	until map[string]Instant
	order []dedupEntry // in the order of their ends
}

type dedupEntry struct {
	id    string
	until Instant
}

// seen reports whether id was given to it within the window, and remembers it
// otherwise.
func (d *dedup) seen(id string, now Instant, window time.Duration) bool {
	n := 0
	for n < len(d.order) && d.order[n].until <= now {
		delete(d.until, d.order[n].id)
		n++
	}
	if n > 0 {
		clear(d.order[:n])
		d.order = d.order[n:]
	}
	if _, ok := d.until[id]; ok {
		return true
	}
	if d.until == nil {
		d.until = map[string]Instant{}
	}
	until := now.Add(window)
	d.until[id] = until
	d.order = append(d.order, dedupEntry{id, until})
	return false
}
