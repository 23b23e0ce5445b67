package broker

// fifo is a queue of items, first in, first out. It holds them by the block, so
// that it never has to be grown or copied, however long it gets, and the garbage
// collector finds many of them at a time: through a linked list of a million it
// could only go step by step.
type fifo[P any] struct {
	head, tail *block[P] // of one item or more, or both nil
	from, to   int       // of the first item in head, and behind the last one in tail
	n          int
	spare      *block[P] // an empty one, for the next that's needed
}

// block has room for as many items as make it half a kibibyte.
type block[P any] struct {
	items [63]*Item[P]
	next  *block[P]
}

func (f *fifo[P]) push(it *Item[P]) {
	if f.tail == nil || f.to == len(f.tail.items) {
		b := f.spare
		f.spare = nil
		if b == nil {
			b = &block[P]{}
		}
		if f.tail == nil {
			f.head = b
		} else {
			f.tail.next = b
		}
		f.tail, f.to = b, 0
	}
	f.tail.items[f.to] = it
	f.to++
	f.n++
}

// first returns the item that pop would; nil: there's none.
func (f *fifo[P]) first() *Item[P] {
	if f.n == 0 {
		return nil
	}
	return f.head.items[f.from]
}

func (f *fifo[P]) pop() *Item[P] {
	if f.n == 0 {
		return nil
	}
	b := f.head
	it := b.items[f.from]
	b.items[f.from] = nil
	f.from++
	f.n--
	switch {
	case f.n == 0:
		*f = fifo[P]{spare: b}
	case f.from == len(b.items):
		f.head, f.from = b.next, 0
		b.next = nil
		f.spare = b
	}
	return it
}

// all calls yield for every item, in order. The queue mustn't change meanwhile.
func (f *fifo[P]) all(yield func(*Item[P]) bool) {
	at := f.from
	b := f.head
	for range f.n {
		if at == len(b.items) {
			b, at = b.next, 0
		}
		if !yield(b.items[at]) {
			return
		}
		at++
	}
}

// filter keeps the items for which keep is true.
func (f *fifo[P]) filter(keep func(*Item[P]) bool) {
	for range f.n {
		if it := f.pop(); keep(it) {
			f.push(it)
		}
	}
}
