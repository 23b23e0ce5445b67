package queue

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"
)

// A lease is a delivery that's ours, from its receive to its settlement. It's
// also the context of its handler: a context tree is built only when somebody
// asks for it.
type lease struct {
	c *Consumer
	d *Delivery

	// What settling needs, kept out of the handler's reach.
	kept
	failures int       // before this attempt
	original *Delivery // untouched copy, where the delivery may be tried again from memory

	state    leaseState
	lost     bool
	unfilled bool // see fill
	arrived  time.Time
	deadline time.Time // zero: no lease to keep
	length   time.Duration
	capAt    time.Time // not extended beyond

	cutOff    *cutOffError  // the cause of its context's end, as it can't be kept
	extending bool          // a call is under way; nothing may be settled meanwhile
	extended  chan struct{} // made by who waits for the end of extending
	parked    *Settlement   // to be settled when extending ends

	tickets []any // of the gates
	line    *keyLine
	until   time.Time // while held: when it may start; released: when it may come back
	due     time.Time // not to be handled before

	next, prev *lease // in leaseList
	at         time.Time
	listed     bool

	scope *scope
	std   atomic.Pointer[stdContext]
}

// kept is what of a delivery isn't left to the handler: what settling and
// publishing again need.
type kept struct {
	native     any
	carried    *metadata
	meta       *metadata
	brokerID   string
	id         string
	key        string
	source     Endpoint
	enqueuedAt time.Time
	released   time.Time // Delivery.due
	copied     time.Time
	attempt    int
}

func keep(d *Delivery) kept {
	return kept{d.Native, d.carried, d.meta, d.BrokerID, d.ID, d.OrderingKey, d.Source, d.EnqueuedAt, d.due, d.copied, d.Attempt}
}

type leaseState uint8

const (
	leaseReady leaseState = iota
	leaseGated
	leaseTimed
	leaseFollower
	leaseRunning
	leaseDone
	leaseAbandoned
)

const (
	renewAtShare  = 2               // renewed when 1/2 of its length is left
	renewSlack    = 10              // what is due within 1/10 of the length goes along
	lastShare     = 4               // of its length: what's left of a lease that can't be kept when it's given back, or its handler cut off
	lastMost      = 5 * time.Second // of the latter
	extendTimeout = 10 * time.Second
	extendBatch   = 1000
)

// A cutOffError is the cause of the context of a handler whose lease can't be kept. It's
// as if it had a timeout: the failure is its own, and there's time to settle it. Once
// there isn't, the lease is lost as any other.
type cutOffError struct{ lost atomic.Bool }

func (e *cutOffError) Error() string {
	return "queue: the handler has run for as long as its lease may be kept"
}

// Is makes it match what's true at the time of asking.
func (e *cutOffError) Is(target error) bool {
	return target == context.DeadlineExceeded || target == ErrLeaseLost && e.lost.Load()
}

// nextEvent is when something must be done about the lease: renewed; or, when it
// may not be, given back in time if it hasn't started, its handler cut off in time,
// and ended.
func (l *lease) nextEvent() time.Time {
	switch {
	case l.capAt.After(l.deadline):
		return l.deadline.Add(-l.length / renewAtShare)
	case l.state != leaseRunning:
		return l.deadline.Add(-l.length / lastShare)
	case l.cutOff == nil:
		return l.deadline.Add(-min(l.length/lastShare, lastMost))
	}
	return l.deadline
}

// keepLocked begins to keep the lease of a delivery that was just received.
func (c *Consumer) keepLocked(l *lease) {
	if !l.deadline.IsZero() {
		l.at = l.nextEvent()
		c.leases.insert(l)
	}
}

func (c *Consumer) armLeasesLocked(now time.Time) {
	if l := c.leases.first(); l != nil {
		c.leaseTimer.arm(now, l.at)
	}
}

// renew extends the leases that are due, in one call, and ends those that have
// run out.
func (c *Consumer) renew() {
	c.mu.Lock()
	c.leaseTimer.fired()
	now := time.Now()
	var batch []*lease
	var lost, capped, cutOff []*lease
	for len(batch) < extendBatch {
		l := c.leases.first()
		if l == nil || l.at.After(now) && (len(batch) == 0 || l.at.After(now.Add(l.length/renewSlack))) {
			break
		}
		c.leases.remove(l)
		if !now.Before(l.deadline) {
			if c.loseLocked(l) {
				lost = append(lost, l)
			}
			continue
		}
		if l.capAt.Sub(l.deadline) < l.length/renewSlack {
			l.capAt = l.deadline // not worth a call
		}
		if !l.capAt.After(l.deadline) { // not to be extended
			if l.state != leaseRunning {
				c.giveBackLocked(l, 0, now)
				continue
			}
			if l.at = l.nextEvent(); !l.at.After(now) {
				l.cutOff, l.at = &cutOffError{}, l.deadline
				cutOff = append(cutOff, l)
			}
			capped = append(capped, l)
			continue
		}
		l.extending = true
		batch = append(batch, l)
	}
	for _, l := range capped {
		c.leases.insert(l)
	}
	c.armLeasesLocked(now)
	c.fetch.lookAgainLocked(now) // what isn't ours any more leaves room
	base := c.scope.base
	c.mu.Unlock()
	for _, l := range lost {
		c.tellLost(l)
	}
	for _, l := range cutOff {
		l.cancel(l.cutOff)
		c.opts.Logger.Warn("handler cut off: its lease can't be kept for longer", "queue", c.opts.Name, "id", l.id)
	}
	if len(batch) > 0 {
		c.extend(base, batch, now)
	}
}

// extend asks the broker for the leases' usual length, or for less when one may
// not be kept that long. Leases that may be kept nearly as long as each other go
// together, by the shortest of them.
func (c *Consumer) extend(base context.Context, batch []*lease, now time.Time) {
	slices.SortStableFunc(batch, func(a, b *lease) int { return cmp.Compare(a.askable(now), b.askable(now)) })
	for len(batch) > 0 {
		length := batch[0].askable(now)
		step := batch[0].length / renewSlack
		n := 1
		for n < len(batch) && batch[n].askable(now)-length < step {
			n++
		}
		c.extendSome(base, batch[:n], length)
		batch = batch[n:]
	}
}

func (l *lease) askable(now time.Time) time.Duration {
	return min(l.capAt.Sub(now), l.length)
}

func (c *Consumer) extendSome(base context.Context, batch []*lease, length time.Duration) {
	ds := make([]*Delivery, len(batch))
	for i, l := range batch {
		ds[i] = l.handle()
	}
	ctx, cancel := context.WithTimeout(base, max(min(extendTimeout, length/renewAtShare), time.Millisecond))
	began := time.Now()
	granted, err := c.sub.Extend(ctx, length, ds...)
	cancel()
	c.tellExtendCall(len(ds), began, err)
	errs := settleErrors(err, len(batch))
	c.mu.Lock()
	now := time.Now()
	var lost []*lease
	for i, l := range batch {
		var at time.Time
		if i < len(granted) {
			at = granted[i]
		}
		var e error
		if errs != nil {
			e = errs[i]
		}
		if c.extendedLocked(l, at, e, length, now) {
			lost = append(lost, l)
		}
	}
	c.armLeasesLocked(now)
	c.fetch.lookAgainLocked(now)
	c.mu.Unlock()
	for _, l := range lost {
		c.tellLost(l)
	}
}

// extendedLocked takes the broker's answer. It reports whether a running handler
// lost its lease by it.
func (c *Consumer) extendedLocked(l *lease, granted time.Time, err error, asked time.Duration, now time.Time) (lost bool) {
	l.extending = false
	if l.extended != nil {
		close(l.extended)
		l.extended = nil
	}
	if err == nil && !granted.IsZero() {
		l.deadline = granted
		if granted.Before(now.Add(min(asked, l.length) / 2)) {
			l.capAt = granted // the broker doesn't give more
		}
	}
	if l.parked != nil { // the handler has returned meanwhile
		s := *l.parked
		l.parked = nil
		c.settle.parked--
		c.settle.addLocked(l, s, now)
		return false
	}
	if l.state == leaseDone || l.state == leaseAbandoned {
		return false
	}
	if errors.Is(err, ErrLeaseLost) {
		return c.loseLocked(l)
	}
	switch {
	case err != nil:
		// Tried again soon, until the lease has run out.
		l.at = now.Add(min(max(l.length/20, 10*time.Millisecond), 5*time.Second))
		if l.at.After(l.deadline) {
			l.at = l.deadline
		}
	default:
		l.at = l.nextEvent()
		if soon := now.Add(l.length / 20); l.at.Before(soon) && l.capAt.After(l.deadline) {
			l.at = soon // a broker that grants little isn't asked without end
		}
	}
	c.leases.insert(l)
	return false
}

// loseLocked ends a lease that's no longer ours. A running handler's context is
// cancelled; what hasn't started is forgotten: the broker has given it to
// somebody else, or will. It reports whether a handler was running.
func (c *Consumer) loseLocked(l *lease) bool {
	l.lost = true
	if l.cutOff != nil {
		l.cutOff.lost.Store(true)
	}
	if l.state == leaseRunning {
		c.leases.remove(l)
		c.stats.LeasesLost++
		c.track.add(l.brokerID, 0, 1) // whatever the handler returns: it's no failure
		return true
	}
	c.expireLocked(l)
	return false
}

func (c *Consumer) tellLost(l *lease) {
	l.cancel(ErrLeaseLost)
	c.opts.Logger.Warn("lease lost", "queue", c.opts.Name, "id", l.id)
	for _, h := range c.hooks {
		if h.LeaseLost != nil {
			h.LeaseLost(l.handle())
		}
	}
}

// handle returns a delivery with what a backend needs to extend its lease. The
// handler may be writing to its own.
func (l *lease) handle() *Delivery {
	return &Delivery{Message: Message{ID: l.id}, Source: l.source, BrokerID: l.brokerID, Native: l.native, carried: l.carried}
}

// restore returns the delivery as the backend knows it, whatever the handler has
// done to it. The handler must have returned.
func (l *lease) restore() *Delivery {
	d := l.d
	k := &l.kept
	d.Native, d.carried, d.meta, d.BrokerID, d.ID, d.OrderingKey = k.native, k.carried, k.meta, k.brokerID, k.id, k.key
	d.Source, d.EnqueuedAt, d.due, d.copied, d.Attempt = k.source, k.enqueuedAt, k.released, k.copied, k.attempt
	return d
}

// leaseList holds leases in the order of their next event. Leases of one queue
// are nearly always as long as each other, so a new one goes to the end.
type leaseList struct{ head, tail *lease }

func (q *leaseList) first() *lease { return q.head }

func (q *leaseList) insert(l *lease) {
	if l.listed {
		q.remove(l)
	}
	after := q.tail
	for after != nil && l.at.Before(after.at) {
		after = after.prev
	}
	l.listed = true
	l.prev = after
	if after == nil {
		l.next = q.head
		q.head = l
	} else {
		l.next = after.next
		after.next = l
	}
	if l.next == nil {
		q.tail = l
	} else {
		l.next.prev = l
	}
}

func (q *leaseList) remove(l *lease) {
	if !l.listed {
		return
	}
	if l.prev == nil {
		q.head = l.next
	} else {
		l.prev.next = l.next
	}
	if l.next == nil {
		q.tail = l.prev
	} else {
		l.next.prev = l.prev
	}
	l.next, l.prev, l.listed = nil, nil, false
}
