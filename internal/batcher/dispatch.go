package batcher

import (
	"context"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

const (
	// A request that isn't full waits while another such is under way, or so many
	// in all; for at most this part of what a request usually takes. With less,
	// few publishers wait less and many fill fewer requests; with more, the other
	// way round.
	busyCalls     = 5
	patiencePart  = 3
	maxPatience   = 20 * time.Millisecond
	firstPatience = 2 * time.Millisecond // while that isn't known

	minPause = 50 * time.Millisecond // before the second try
	maxPause = 5 * time.Second
)

// enqueueLocked puts a new item where it waits.
func (b *Batcher[T]) enqueueLocked(it *Item[T]) {
	if it.Key == "" {
		b.pushLocked(&b.ready, unit[T]{item: it})
		return
	}
	l := b.lines[it.Key]
	if l == nil {
		if b.lines == nil {
			b.lines = map[string]*line[T]{}
		}
		l = &line[T]{key: it.Key}
		b.lines[it.Key] = l
	}
	it.line = l
	l.items = append(l.items, it)
	switch {
	case l.busy:
		it.state = behind
	case len(l.items) == 1:
		b.pushLocked(&b.ready, unit[T]{line: l})
	default: // its line waits already
		b.countLocked(it)
	}
}

// pushLocked makes a unit one that may go.
func (b *Batcher[T]) pushLocked(q *units[T], u unit[T]) {
	if b.KeysApart && u.line != nil {
		q = &b.apart
	}
	q.push(u)
	if u.line == nil {
		b.countLocked(u.item)
		return
	}
	u.line.busy = false
	for _, it := range u.line.items {
		if it.state != done {
			b.countLocked(it)
		}
	}
}

// countLocked makes an item wait in a unit.
func (b *Batcher[T]) countLocked(it *Item[T]) {
	it.state = waiting
	if b.KeysApart && it.line != nil {
		return
	}
	if b.count == 0 {
		b.since = time.Now()
	}
	b.count++
	b.bytes += it.Size
}

// uncountLocked undoes countLocked; the caller sets the state.
func (b *Batcher[T]) uncountLocked(it *Item[T]) {
	if b.KeysApart && it.line != nil {
		return
	}
	b.count--
	b.bytes -= it.Size
}

// freeLocked lets a line go on after its head, or forgets it.
func (b *Batcher[T]) freeLocked(l *line[T], q *units[T]) {
	for len(l.items) > 0 && l.items[0].state == done {
		l.items = l.items[1:]
	}
	if len(l.items) == 0 {
		l.busy = false
		delete(b.lines, l.key)
		return
	}
	b.pushLocked(q, unit[T]{line: l})
}

// goLocked sends what may go now; with full, only full requests.
func (b *Batcher[T]) goLocked(full bool) {
	if b.closed {
		b.dropLocked()
		return
	}
	for more := true; more; { // in turn, so that neither starves
		apart := b.sendApartLocked(full)
		more = b.sendLocked(full) || apart
	}
}

// mayCallLocked reports whether one more request may be under way.
func (b *Batcher[T]) mayCallLocked() bool {
	// While the broker is slow one is enough to find out when that's over.
	return b.calls < b.MaxCalls && (b.slow == 0 || b.calls == 0)
}

// sendLocked sends the next request of again and ready, if it may go now.
func (b *Batcher[T]) sendLocked(full bool) bool {
	if b.count == 0 || !b.mayCallLocked() {
		return false
	}
	partial := b.count < b.MaxItems && b.bytes <= b.MaxBytes
	if partial && full {
		return false
	}
	wait := partial && b.worthwaitingLocked()
	if wait || !b.pause.IsZero() {
		now := time.Now()
		at := b.pause
		if wait {
			if since := b.since.Add(b.patience()); since.After(at) {
				at = since
			}
		}
		if now.Before(at) {
			b.armLocked(now, at)
			return false
		}
	}
	if items := b.takeLocked(); len(items) > 0 {
		b.startLocked(items, partial)
	}
	return true
}

// sendApartLocked sends the next request of one key.
func (b *Batcher[T]) sendApartLocked(full bool) bool {
	u, ok := b.apart.peek()
	if !ok || !b.mayCallLocked() || full && len(u.line.items) < b.MaxItems { // the caller may have more of it
		return false
	}
	if now := time.Now(); now.Before(b.pause) {
		b.armLocked(now, b.pause)
		return false
	}
	b.apart.pop()
	var items []*Item[T]
	size := 0
	b.takeLineLocked(u.line, &items, &size)
	if len(items) > 0 {
		b.startLocked(items, false)
	}
	return true
}

// worthwaitingLocked reports whether what doesn't fill a request should wait for
// more.
func (b *Batcher[T]) worthwaitingLocked() bool {
	return b.part >= max(b.MaxPartial, 1) || b.calls >= busyCalls
}

// dropLocked fails what nobody sends any more.
func (b *Batcher[T]) dropLocked() {
	for _, q := range []*units[T]{&b.again, &b.ready, &b.apart} {
		for u, ok := q.pop(); ok; u, ok = q.pop() {
			items := []*Item[T]{u.item}
			if u.line != nil {
				items = u.line.items
				delete(b.lines, u.line.key)
			}
			for _, it := range items {
				if it.state != done {
					b.finishLocked(it, queue.ErrClosed)
				}
			}
		}
	}
}

func (b *Batcher[T]) patience() time.Duration {
	if b.rtt == 0 {
		return firstPatience
	}
	if b.Patience > 0 {
		return min(time.Duration(float64(b.rtt)*b.Patience), maxPatience)
	}
	return min(b.rtt/patiencePart, maxPatience)
}

// armLocked makes sure that goLocked is called at a time.
func (b *Batcher[T]) armLocked(now, at time.Time) {
	switch {
	case !b.timeAt.IsZero() && !b.timeAt.After(at):
		return // it's early, and will be set again
	case b.timer == nil:
		b.timer = time.AfterFunc(at.Sub(now), b.tick)
	default:
		b.timer.Reset(at.Sub(now))
	}
	b.timeAt = at
}

func (b *Batcher[T]) tick() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.timeAt = time.Time{}
	b.goLocked(false)
}

// takeLocked takes the items of the next request, in order.
func (b *Batcher[T]) takeLocked() []*Item[T] {
	var items []*Item[T]
	size := 0
	for _, q := range []*units[T]{&b.again, &b.ready} {
		for len(items) < b.MaxItems {
			u, ok := q.peek()
			if !ok {
				break
			}
			l := u.line
			if l == nil {
				if !b.pickLocked(u.item, &items, &size) {
					return b.takenLocked(items)
				}
				q.pop()
				continue
			}
			n := len(items)
			whole := b.takeLineLocked(l, &items, &size)
			if len(items) > n || len(l.items) == 0 {
				q.pop()
			}
			if !whole {
				return b.takenLocked(items)
			}
		}
	}
	return b.takenLocked(items)
}

// takeLineLocked takes the items of a line that go in a request. It reports false
// when there's no room for the next one.
func (b *Batcher[T]) takeLineLocked(l *line[T], items *[]*Item[T], size *int) (whole bool) {
	n := len(*items)
	whole = true
	for len(l.items) > 0 && whole && len(*items) < b.MaxItems {
		if len(*items) > n && l.items[0].tries < (*items)[n].tries {
			break // what failed before goes alone, lest it fails again and is overtaken
		}
		if whole = b.pickLocked(l.items[0], items, size); whole {
			l.items[0] = nil
			l.items = l.items[1:]
		}
	}
	switch {
	case len(*items) > n: // some are on their way, and the others wait for them
		b.busyLocked(l)
	case len(l.items) == 0:
		delete(b.lines, l.key)
	}
	return whole
}

func (b *Batcher[T]) takenLocked(items []*Item[T]) []*Item[T] {
	b.since = time.Now() // of what's left
	return items
}

// busyLocked makes what's left in a line wait for its head.
func (b *Batcher[T]) busyLocked(l *line[T]) {
	l.busy = true
	for _, it := range l.items {
		if it.state == waiting {
			b.uncountLocked(it)
			it.state = behind
		}
	}
}

// pickLocked adds an item to a request. It reports false when there's no room
// for it.
func (b *Batcher[T]) pickLocked(it *Item[T], items *[]*Item[T], size *int) bool {
	if it.state == done { // its caller has gone
		return true
	}
	if it.left() {
		b.finishLocked(it, gaveUp(it.group.endLocked(), it.err))
		return true
	}
	if len(*items) > 0 && *size+it.Size > b.MaxBytes {
		return false
	}
	b.uncountLocked(it)
	it.state = flying
	*items = append(*items, it)
	*size += it.Size
	return true
}

func (b *Batcher[T]) startLocked(items []*Item[T], partial bool) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(items[0].group.ctx))
	c := &call[T]{items: items, cancel: cancel, partial: partial, live: len(items), done: make(chan struct{})}
	for _, it := range items {
		it.call, it.before = c, it.doubts
	}
	if b.open == nil {
		b.open = map[*call[T]]struct{}{}
	}
	b.open[c] = struct{}{}
	b.calls++
	if partial {
		b.part++
	}
	b.wg.Add(1)
	b.workers.Go(func() {
		defer b.wg.Done()
		begun := time.Now()
		r := b.Send(ctx, items)
		cancel()
		b.returned(c, r, time.Since(begun))
	})
}

// returned notes what became of a request, and lets the next go.
func (b *Batcher[T]) returned(c *call[T], r Report, took time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer close(c.done)
	delete(b.open, c)
	b.calls--
	if c.partial {
		b.part--
	}
	failed := false
	for i := range r.Results {
		failed = failed || r.Results[i].Err != nil
	}
	if failed {
		b.keepOrderLocked(c.items, r.Results)
	} else if b.rtt == 0 {
		b.rtt = took
	} else {
		b.rtt += (took - b.rtt) / 8
	}
	switch now := time.Now(); {
	case !r.Slow:
		b.slow, b.pause = 0, time.Time{}
	case !now.Before(b.pause): // else it was sent before the others said so
		b.slow++
		b.pause = now.Add(pauseAfter(b.slow))
	}
	var rest []*Item[T]
	for i, it := range c.items {
		switch res := &r.Results[i]; {
		case it.state == done: // its caller has gone
		case res.Err == nil:
			b.finishLocked(it, nil)
		default:
			if res.Doubt {
				it.doubts++
			}
			if !res.Again || b.closed {
				b.finishLocked(it, res.Err)
			} else if it.left() {
				b.finishLocked(it, gaveUp(it.group.endLocked(), res.Err))
			} else {
				it.state, it.err = resting, res.Err
				it.tries++
				rest = append(rest, it)
			}
		}
	}
	b.restLocked(rest)
	for _, it := range c.items {
		if it.state == done {
			var zero T
			it.Value = zero // a caller with many more to send keeps its items
		}
		if l := it.line; l != nil && l.busy && it.state != resting && !resumes(l) {
			b.freeLocked(l, &b.ready)
		}
	}
	b.goLocked(false)
}

// resumes reports whether a line waits for a pause to end.
func resumes[T any](l *line[T]) bool { return len(l.items) > 0 && l.items[0].state == resting }

// keepOrderLocked sees to it that no item is sent after a later one of its key
// and Group was taken, nor after an earlier one has failed for good.
func (b *Batcher[T]) keepOrderLocked(items []*Item[T], results []Result) {
	type owner struct {
		group *Group[T]
		key   string
	}
	taken, doubtful := map[owner]bool{}, map[owner]bool{}
	for i := len(items) - 1; i >= 0; i-- {
		it, r := items[i], &results[i]
		switch o := (owner{it.group, it.Key}); {
		case it.Key == "":
		case r.Err == nil:
			taken[o] = true
		case taken[o] || doubtful[o] && !r.Doubt:
			r.Again = false
		default:
			doubtful[o] = doubtful[o] || r.Doubt
		}
	}
	broken := map[owner]bool{}
	for i, it := range items {
		r := &results[i]
		o := owner{it.group, it.Key}
		if it.Key == "" || r.Err == nil {
			continue
		}
		if r.Again && broken[o] {
			r.Again = false
			if !r.Doubt && it.doubts == 0 {
				r.Err = ErrOvertaking
			}
		}
		if !r.Again && !broken[o] {
			broken[o] = true
			b.breakLocked(it)
		}
	}
}

// breakLocked fails the later items of a key and Group that wait behind one that
// has failed.
func (b *Batcher[T]) breakLocked(failed *Item[T]) {
	for _, it := range failed.line.items {
		if it.state != done && it.group == failed.group {
			b.finishLocked(it, ErrOvertaking)
		}
	}
}
