package broker

// What package sqstest needs beyond what memory does: Amazon SQS tells the place
// of a message in its queue when it's sent, and lets the last receiver of a
// message delete it though its lease has ended.

// SendNumbered is Send that also tells each message's Lease.Seq, in seqs.
func (q *Queue[P]) SendNumbered(now Instant, es []Entry[P], seqs []uint64) {
	q.lock(now)
	if q.retention > 0 {
		q.expireReady(now)
	}
	for i := range es {
		q.add(&es[i], now)
		seqs[i] = q.seq
	}
	q.finish(now)
}

// AckLate removes a message without a key whose lease has ended, if it wasn't
// received since: receives is the Lease.Receives of the last delivery. It takes
// as long as the queue has ready messages.
func (q *Queue[P]) AckLate(now Instant, it *Item[P], receives int) bool {
	q.lock(now)
	defer q.finish(now)
	if it.key != nil || int(it.receives) != receives {
		return false
	}
	switch it.state {
	case Ready:
		found := false
		q.ready.filter(func(x *Item[P]) bool {
			found = found || x == it
			return x != it
		})
		if !found {
			return false // on its way to the dead-letter queue
		}
	case Delayed:
		q.timed.remove(it)
		q.delayed--
	case Leased, Gone, acked:
		return false
	}
	q.forget(it)
	it.gen++
	return true
}

// State tells where a message is at the time.
func (q *Queue[P]) State(now Instant, it *Item[P]) State {
	q.lock(now)
	defer q.finish(now)
	return it.state
}

// Totals returns how many messages there are, and how many of them are leased.
// Unlike Counts it takes no longer for a long queue, and counts what the queue
// no longer keeps but hasn't dropped yet.
func (q *Queue[P]) Totals(now Instant) (total, leased int) {
	q.lock(now)
	defer q.finish(now)
	return q.total, q.leased
}

// EachLeased calls f with the payload of everything that's leased, in no order.
// f must not call the queue.
func (q *Queue[P]) EachLeased(now Instant, f func(P)) {
	q.lock(now)
	defer q.finish(now)
	q.walk(func(it *Item[P]) {
		if it.state == Leased {
			f(it.Payload)
		}
	})
}

// PassOver moves what's ready, has no key and for which later is true behind
// everything else that's ready. It takes as long as the queue has ready messages.
// later must not call the queue.
func (q *Queue[P]) PassOver(now Instant, later func(P) bool) {
	q.lock(now)
	defer q.finish(now)
	var last fifo[P]
	q.ready.filter(func(it *Item[P]) bool {
		if it.key == nil && later(it.Payload) {
			last.push(it)
			return false
		}
		return true
	})
	for it := last.pop(); it != nil; it = last.pop() {
		q.ready.push(it)
	}
}
