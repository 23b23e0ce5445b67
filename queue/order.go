package queue

import (
	"container/heap"
	"slices"
	"time"
)

// A keyLine is what's in memory of one ordering key: the delivery that may run,
// or is running, and those that wait behind it.
type keyLine struct {
	key  string
	head *lease
	rest []*lease
	// full says that one has been given back for want of room: those after it
	// mustn't overtake it.
	full bool
}

// placeLocked decides where a delivery waits that has just arrived or whose wait
// for its time is over.
func (c *Consumer) placeLocked(l *lease, now time.Time) {
	if key := l.d.OrderingKey; key != "" && l.line == nil {
		if line := c.keys[key]; line != nil {
			c.followLocked(line, l, now)
			return
		}
		if c.keys == nil {
			c.keys = map[string]*keyLine{}
		}
		l.line = &keyLine{key: key, head: l}
		c.keys[key] = l.line
	}
	c.readyLocked(l, now)
}

// readyLocked makes a delivery wait for a slot, or for its time.
func (c *Consumer) readyLocked(l *lease, now time.Time) {
	if l.due.After(now) {
		c.holdUntilDueLocked(l, now)
		return
	}
	l.state = leaseReady
	c.ready.pushBack(l)
}

// followLocked puts a delivery behind others of its key.
func (c *Consumer) followLocked(line *keyLine, l *lease, now time.Time) {
	// A broker that doesn't lock keys sends the rest of a key again after a
	// failure: the newer lease takes the older one's place.
	for i, old := range line.rest {
		if old.brokerID != "" && old.brokerID == l.brokerID {
			l.line, l.state = line, leaseFollower
			line.rest[i] = l
			old.line = nil
			c.forgetLocked(old)
			return
		}
	}
	if line.full || c.heldLocked() >= c.opts.MaxHold {
		line.full = true
		c.giveBackLocked(l, c.overflowDelay(), now)
		return
	}
	l.line, l.state = line, leaseFollower
	line.rest = append(line.rest, l)
	c.waiting++
}

// overflowDelay is for what doesn't fit into MaxHold: coming back at once it
// would only be given back again.
func (c *Consumer) overflowDelay() time.Duration { return c.opts.Backoff.Delay(1) }

// advanceLocked lets the next of a key go on after its head is done.
func (c *Consumer) advanceLocked(line *keyLine, now time.Time) {
	if len(line.rest) == 0 {
		delete(c.keys, line.key)
		line.head = nil
		return
	}
	next := line.rest[0]
	line.rest[0] = nil
	line.rest = line.rest[1:]
	c.waiting--
	line.head = next
	c.readyLocked(next, now)
}

// scatterLocked gives back everything that waits behind a key's head.
func (c *Consumer) scatterLocked(line *keyLine, delay time.Duration, now time.Time) {
	c.releaseAllLocked(c.dissolveLocked(line), delay, now)
}

// dissolveLocked ends a line and returns what has waited behind its head.
func (c *Consumer) dissolveLocked(line *keyLine) []*lease {
	rest := line.rest
	line.rest, line.head = nil, nil
	delete(c.keys, line.key)
	c.waiting -= len(rest)
	for _, f := range rest {
		f.line = nil
	}
	return rest
}

func (c *Consumer) releaseAllLocked(ls []*lease, delay time.Duration, now time.Time) {
	for _, l := range ls {
		c.releaseLocked(l, delay, now)
	}
}

// ---- waiting for a time

// holdUntilDueLocked deals with a delivery that came before its due time. Where
// the broker can delay, it's sent on its way again. Elsewhere it's held, and
// what can't be held goes back for as long as the broker can: sending it again
// would only bring it at once.
func (c *Consumer) holdUntilDueLocked(l *lease, now time.Time) {
	c.undue++
	if c.caps.MaxDelay > 0 && l.line == nil && l.due.Equal(l.d.Due()) {
		c.stats.Deferred++
		c.finalLocked(l, Settlement{Kind: Defer, Until: l.due, failures: l.failures}, now)
		return
	}
	until, anew := l.due, false
	if l.line == nil && c.caps.Delays && c.halfGoneBy(l, l.due) {
		// Sent again it lives as long anew. If it may be held meanwhile that's not done at
		// once: where the broker's clock and ours are far apart, the next copy would be as
		// old.
		r := c.caps.Retention
		half := l.kept.copied.Add(r / 2)
		anew = !now.Before(half)
		if again := later(half, l.arrived.Add(min(r/10, time.Minute))); again.Before(until) {
			until = again
		}
	}
	if until.After(now) && c.heldLocked() < c.opts.MaxHold && (l.deadline.IsZero() || until.Before(l.capAt)) {
		c.holdLocked(l, until)
		return
	}
	if anew {
		c.stats.Deferred++
		c.finalLocked(l, Settlement{Kind: Defer, Until: l.due, failures: l.failures}, now)
		return
	}
	delay := until.Sub(now)
	line := l.line
	l.line = nil
	c.stats.Deferred++
	if c.caps.ReleaseCounts && c.caps.Delays && l.d.Attempt > 1 && line == nil {
		// It has waited at the broker before, which counted that as an attempt. Sent
		// again it's counted anew: else a long wait would pass for many failures.
		c.finalLocked(l, Settlement{Kind: Defer, Until: l.due, failures: l.failures}, now)
		return
	}
	if c.caps.ReleaseCounts {
		c.track.add(l.brokerID, 0, 1)
	}
	c.finalLocked(l, Settlement{Kind: Release, Delay: min(delay, c.mostRedelivery(l, now))}, now)
	if line != nil {
		c.scatterLocked(line, delay, now)
	}
}

func (c *Consumer) holdLocked(l *lease, until time.Time) {
	l.state, l.until = leaseTimed, until
	heap.Push(&c.timed, l)
	c.armHoldLocked()
}

func (c *Consumer) armHoldLocked() {
	if c.phase != phaseRunning {
		return // nothing starts any more: a time that's over would be so again and again
	}
	at := c.gateUntil
	if len(c.timed) > 0 && (at.IsZero() || c.timed[0].until.Before(at)) {
		at = c.timed[0].until
	}
	if !at.IsZero() {
		c.holdTimer.arm(time.Now(), at)
	}
}

// holdOver starts what has waited for its time.
func (c *Consumer) holdOver() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holdTimer.fired()
	now := time.Now()
	for len(c.timed) > 0 && !c.timed[0].until.After(now) {
		l := heap.Pop(&c.timed).(*lease)
		c.placeLocked(l, now)
	}
	if !c.gateUntil.IsZero() && !c.gateUntil.After(now) {
		c.pumpLocked(now)
	}
	c.dispatchLocked(now)
	c.armHoldLocked()
}

// timedHeap orders what waits for a time by that time.
type timedHeap []*lease

func (h timedHeap) Len() int           { return len(h) }
func (h timedHeap) Less(i, j int) bool { return h[i].until.Before(h[j].until) }
func (h timedHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *timedHeap) Push(x any)        { *h = append(*h, x.(*lease)) }
func (h *timedHeap) Pop() any {
	old := *h
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return l
}

// takeOutLocked takes a delivery that hasn't started out of wherever it waits. It
// returns those that waited behind it: they mustn't overtake it.
func (c *Consumer) takeOutLocked(l *lease) (behind []*lease) {
	same := func(o *lease) bool { return o == l }
	switch l.state {
	case leaseReady:
		c.ready.remove(same)
	case leaseGated:
		c.gated = slices.DeleteFunc(c.gated, same)
	case leaseTimed:
		if i := slices.Index(c.timed, l); i >= 0 {
			heap.Remove(&c.timed, i)
		}
	case leaseFollower:
		line := l.line
		i := slices.Index(line.rest, l)
		behind = slices.Clone(line.rest[i+1:])
		line.rest = line.rest[:i:i]
		c.waiting -= 1 + len(behind)
		l.line = nil
		for _, f := range behind {
			f.line = nil
		}
		return behind
	case leaseRunning, leaseDone, leaseAbandoned:
	}
	if line := l.line; line != nil && line.head == l {
		l.line = nil
		return c.dissolveLocked(line)
	}
	return nil
}

// giveBackLocked releases a delivery that hasn't started, wherever it waits.
func (c *Consumer) giveBackLocked(l *lease, delay time.Duration, now time.Time) {
	behind := c.takeOutLocked(l)
	c.releaseLocked(l, delay, now)
	c.releaseAllLocked(behind, delay, now)
}

// releaseWithLineLocked releases a delivery that hasn't started and waits nowhere
// any more, and then those behind it: a broker that unlocks a key with the first
// that's visible must see the head first.
func (c *Consumer) releaseWithLineLocked(l *lease, delay time.Duration, now time.Time) {
	line := l.line
	l.line = nil
	c.releaseLocked(l, delay, now)
	if line != nil {
		c.scatterLocked(line, delay, now)
	}
}

// expireLocked forgets a delivery that hasn't started and isn't ours any more.
func (c *Consumer) expireLocked(l *lease) {
	behind := c.takeOutLocked(l)
	c.forgetLocked(l)
	c.releaseAllLocked(behind, 0, time.Now())
}

// forgetLocked drops a delivery without a settlement: its lease is over, or a
// newer one has taken its place.
func (c *Consumer) forgetLocked(l *lease) {
	c.leases.remove(l)
	l.state = leaseDone
	c.stats.Expired++
	c.track.add(l.brokerID, 0, 1)
}

// releaseLocked gives back a delivery that hasn't started and waits nowhere any
// more. It doesn't count as a failure.
func (c *Consumer) releaseLocked(l *lease, delay time.Duration, now time.Time) {
	if c.phase == phaseRunning && !c.stats.Paused && l.line == nil && l.key == "" && c.caps.Delays && c.agesBy(l, now.Add(delay), now) {
		// Here and there again, as a gate holds it back: it, too, stays longer than the
		// broker keeps it.
		c.stats.Deferred++
		c.finalLocked(l, Settlement{Kind: Defer, Until: later(now.Add(delay), l.due), failures: l.failures}, now)
		return
	}
	c.stats.Released++
	if c.caps.ReleaseCounts {
		c.track.add(l.brokerID, 0, 1)
	}
	c.finalLocked(l, Settlement{Kind: Release, Delay: min(delay, c.mostRedelivery(l, now))}, now)
}

// mostRedelivery is the longest delay of a Release. Where a lease has an end that no
// extension moves, the time until then counts from the receive, and a broker that's asked
// for more may give less without a word.
func (c *Consumer) mostRedelivery(l *lease, now time.Time) time.Duration {
	most := maxWait
	if m := c.caps.MaxRedeliveryDelay; m > 0 {
		most = m
	}
	if m := c.caps.MaxLease; m > 0 {
		most = min(most, max(l.arrived.Add(m-min(m/10, time.Minute)).Sub(now), 0))
	}
	return most
}

// releaseWaitingLocked gives back everything that hasn't started.
func (c *Consumer) releaseWaitingLocked() {
	now := time.Now()
	c.settle.corked = true
	var all []*lease
	for c.ready.len() > 0 {
		all = append(all, c.ready.popFront())
	}
	all = append(all, c.gated...)
	c.gated = nil
	backoffs := c.timed
	c.timed = nil
	for _, l := range all {
		c.releaseWithLineLocked(l, 0, now)
	}
	for _, l := range backoffs {
		delay := max(l.until.Sub(now), 0)
		if c.phase == phaseRunning && l.line != nil && !c.caps.KeyLocked {
			// It's this consumer that gets the key again after a pause. If the head
			// stayed away longer than what was never fetched, that would overtake it.
			c.track.notBefore(l.brokerID, l.until)
			delay = 0
		}
		c.releaseWithLineLocked(l, delay, now)
	}
	// What's left waits behind a running handler.
	for _, line := range c.keys {
		rest := line.rest
		line.rest = nil
		c.waiting -= len(rest)
		for _, f := range rest {
			f.line = nil
			c.releaseLocked(f, 0, now)
		}
	}
	c.settle.uncorkLocked()
}
