package queue

// deque is a ring of pointers that grows as needed and gives its memory back
// when it empties after having been large.
type deque[T any] struct {
	buf  []*T
	head int
	n    int
}

const dequeKeep = 1024

func (q *deque[T]) len() int { return q.n }

func (q *deque[T]) pushBack(v *T) {
	q.grow()
	q.buf[(q.head+q.n)&(len(q.buf)-1)] = v
	q.n++
}

func (q *deque[T]) front() *T { return q.buf[q.head] }

func (q *deque[T]) popFront() *T {
	v := q.buf[q.head]
	q.buf[q.head] = nil
	q.head = (q.head + 1) & (len(q.buf) - 1)
	q.n--
	if q.n == 0 && len(q.buf) > dequeKeep {
		q.buf, q.head = nil, 0
	}
	return v
}

// remove takes out every element for which gone reports true, keeping the order
// of the others.
func (q *deque[T]) remove(gone func(*T) bool) {
	kept := 0
	for i := range q.n {
		v := q.buf[(q.head+i)&(len(q.buf)-1)]
		if gone(v) {
			continue
		}
		q.buf[(q.head+kept)&(len(q.buf)-1)] = v
		kept++
	}
	for i := kept; i < q.n; i++ {
		q.buf[(q.head+i)&(len(q.buf)-1)] = nil
	}
	q.n = kept
}

func (q *deque[T]) grow() {
	if q.n < len(q.buf) {
		return
	}
	size := max(2*len(q.buf), 8)
	buf := make([]*T, size)
	for i := range q.n {
		buf[i] = q.buf[(q.head+i)&(len(q.buf)-1)]
	}
	q.buf, q.head = buf, 0
}
