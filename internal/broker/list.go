package broker

// list is a queue of items, linked through their next field: an item is in one
// list at a time. It never has to be grown or copied, however long it gets.
type list[P any] struct {
	head, tail *Item[P]
	n          int
}

func (l *list[P]) push(it *Item[P]) {
	if l.tail == nil {
		l.head = it
	} else {
		l.tail.next = it
	}
	l.tail = it
	l.n++
}

func (l *list[P]) pop() *Item[P] {
	it := l.head
	if it == nil {
		return nil
	}
	l.head = it.next
	if l.head == nil {
		l.tail = nil
	}
	it.next = nil
	l.n--
	return it
}

// insert puts it before the first item that was sent later.
func (l *list[P]) insert(it *Item[P]) {
	if l.tail == nil || l.tail.seq < it.seq {
		l.push(it)
		return
	}
	at := &l.head
	for (*at).seq < it.seq {
		at = &(*at).next
	}
	it.next = *at
	*at = it
	l.n++
}

// ring holds leases in the order of their ends, which for leases of the same
// length is the order in which they begin. An item leaves from anywhere in
// constant time, by its position.
type ring[P any] struct {
	buf        []*Item[P] // its length is a power of two; nil where an item has left
	head, tail int        // count up for ever, modulo len(buf)
	live       int
	last       Instant // the latest end
}

// fits reports whether a lease that ends at the given time can be appended.
func (r *ring[P]) fits(at Instant) bool { return r.live == 0 || at >= r.last }

func (r *ring[P]) push(it *Item[P]) {
	if r.tail-r.head == len(r.buf) {
		r.makeRoom()
	}
	it.pos = r.tail
	r.buf[r.tail&(len(r.buf)-1)] = it
	r.tail++
	r.live++
	r.last = it.at
}

func (r *ring[P]) remove(it *Item[P]) {
	r.buf[it.pos&(len(r.buf)-1)] = nil
	r.live--
	if r.live == 0 {
		r.head = r.tail
		if len(r.buf) > 1024 {
			*r = ring[P]{}
		}
		return
	}
	for r.buf[r.head&(len(r.buf)-1)] == nil {
		r.head++
	}
}

func (r *ring[P]) first() *Item[P] {
	if r.live == 0 {
		return nil
	}
	return r.buf[r.head&(len(r.buf)-1)]
}

// makeRoom closes the gaps that items have left, and doubles the buffer when
// that alone would soon have to be done again.
func (r *ring[P]) makeRoom() {
	from := r.buf
	if r.live > len(r.buf)/2 || len(r.buf) == 0 {
		r.buf = make([]*Item[P], max(2*len(r.buf), 16))
	}
	// Items only move towards the head, so that the same buffer will do.
	to := r.head
	for i := r.head; i < r.tail; i++ {
		it := from[i&(len(from)-1)]
		if it == nil {
			continue
		}
		from[i&(len(from)-1)] = nil
		it.pos = to
		r.buf[to&(len(r.buf)-1)] = it
		to++
	}
	r.tail = to
}

// heap holds items by their time: delayed messages, and leases that don't fit
// the ring. Items with the same time are in the order of their sending.
type heap[P any] []*Item[P]

func (h heap[P]) less(i, j int) bool {
	a, b := h[i], h[j]
	return a.at < b.at || a.at == b.at && a.seq < b.seq
}

func (h heap[P]) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}

func (h heap[P]) first() *Item[P] {
	if len(h) == 0 {
		return nil
	}
	return h[0]
}

func (h *heap[P]) push(it *Item[P]) {
	it.pos = len(*h)
	*h = append(*h, it)
	h.up(it.pos)
}

func (h *heap[P]) remove(it *Item[P]) {
	i, last := it.pos, len(*h)-1
	if i != last {
		h.swap(i, last)
	}
	(*h)[last] = nil
	*h = (*h)[:last]
	if i != last {
		h.down(i)
		h.up(i)
	}
	if last == 0 && cap(*h) > 1024 {
		*h = nil
	}
}

func (h heap[P]) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !h.less(i, parent) {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h heap[P]) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(h) {
			return
		}
		if child+1 < len(h) && h.less(child+1, child) {
			child++
		}
		if !h.less(child, i) {
			return
		}
		h.swap(i, child)
		i = child
	}
}
