package batcher

// unit is what can go next: one item without a key, or a line.
type unit[T any] struct {
	item *Item[T]
	line *line[T]
}

// units is a queue.
type units[T any] struct {
	list []unit[T]
	head int
}

func (q *units[T]) push(u unit[T]) { q.list = append(q.list, u) }

func (q *units[T]) peek() (unit[T], bool) {
	if q.head == len(q.list) {
		return unit[T]{}, false
	}
	return q.list[q.head], true
}

func (q *units[T]) pop() (unit[T], bool) {
	u, ok := q.peek()
	if !ok {
		return u, false
	}
	q.list[q.head] = unit[T]{} // for the garbage collector
	q.head++
	switch {
	case q.head == len(q.list):
		q.list, q.head = q.list[:0], 0
	case q.head > 64 && q.head > len(q.list)/2:
		n := copy(q.list, q.list[q.head:])
		clear(q.list[n:])
		q.list, q.head = q.list[:n], 0
	}
	return u, true
}
