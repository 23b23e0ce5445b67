package broker

// A waiter is a Receive that waits. While it's in the list its room is 0;
// whoever wakes it takes it out and sets the room to what it can take.
type waiter struct {
	wake       chan struct{} // has room for one
	max, room  int
	prev, next *waiter
}

type waiterList struct{ head, tail *waiter }

func (l *waiterList) push(w *waiter) {
	w.prev, w.next = l.tail, nil
	if l.tail == nil {
		l.head = w
	} else {
		l.tail.next = w
	}
	l.tail = w
}

func (l *waiterList) remove(w *waiter) {
	if w.prev == nil {
		l.head = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		l.tail = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next = nil, nil
}

func (q *Queue[P]) newWaiter(most int) *waiter {
	w := q.spare
	if w == nil {
		w = &waiter{wake: make(chan struct{}, 1)}
	}
	q.spare = nil
	w.max = most
	return w
}

func (q *Queue[P]) release(w *waiter) {
	if w != nil {
		q.spare = w
	}
}

// wake wakes as many receivers as what's ready needs, the longest waiting first,
// and no more: those that were woken take up to their max each.
func (q *Queue[P]) wake() {
	for q.waiters.head != nil {
		n := q.ready.n
		if q.cfg.MaxInFlight > 0 {
			n = min(n, q.cfg.MaxInFlight-q.leased)
		}
		if n <= q.wokenRoom {
			return
		}
		w := q.waiters.head
		q.waiters.remove(w)
		w.room = w.max
		q.wokenRoom += w.room
		w.wake <- struct{}{}
	}
}
