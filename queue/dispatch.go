package queue

import (
	"context"
	"errors"
	"maps"
	"runtime/debug"
	"slices"
	"time"
)

// errGoexit is the error of a handler that ended its goroutine, as
// testing.T.FailNow does.
var errGoexit = errors.New("queue: the handler called runtime.Goexit")

// leasesPerBlock bounds how much memory one lease that lasts can hold. A block is
// small enough for the allocator's fast way.
const leasesPerBlock = 32

// newLeases makes what a receive has brought ready to be accepted, as far as
// that can be done without the lock, for which all handlers' ends wait. The
// leases are chained by their next.
func (c *Consumer) newLeases(ds []*Delivery, now time.Time) *lease {
	var first *lease
	last := &first
	var block []lease
	for i, d := range ds {
		if len(block) == 0 {
			block = make([]lease, min(len(ds)-i, leasesPerBlock))
		}
		l := &block[0]
		block = block[1:]
		*last, last = l, &l.next
		l.c, l.d, l.unfilled = c, d, c.filler != nil
		l.kept = keep(d)
		l.arrived, l.due = now, d.Due()
		if !d.Deadline.IsZero() {
			l.deadline = d.Deadline
			l.length = c.caps.Lease
			if l.length <= 0 {
				l.length = d.Deadline.Sub(now)
			}
			l.capAt = now.Add(c.opts.MaxExtension)
			if m := c.caps.MaxLease; m > 0 && m < c.opts.MaxExtension {
				l.capAt = now.Add(m)
			}
		}
	}
	return first
}

// acceptLocked takes over n deliveries that a receive has brought.
func (c *Consumer) acceptLocked(first *lease, n int, now time.Time) {
	c.stats.Received += uint64(n) //nolint:gosec // a length
	idle := c.phase != phaseRunning || c.stats.Paused
	c.settle.corked = idle
	for l := first; l != nil; l = first {
		first, l.next = l.next, nil
		l.scope = c.scope
		d := l.d
		if d.Attempt != 1 {
			c.noteRedeliveryLocked(d)
		}
		if l.due.After(now) {
			c.track.waited(d)
		}
		l.failures = c.track.failures(d)
		d.Failures = l.failures
		if due := c.track.due(d); due.After(l.due) {
			l.due = due
		}
		c.keepLocked(l)
		if idle {
			c.releaseLocked(l, 0, now)
			continue
		}
		c.placeLocked(l, now)
	}
	c.armLeasesLocked(now)
	if idle {
		c.settle.uncorkLocked()
		return
	}
	c.dispatchLocked(now)
	c.armSweepLocked(now)
}

// noteRedeliveryLocked finds out that a lease is lost by the message coming again
// while its handler still runs.
func (c *Consumer) noteRedeliveryLocked(d *Delivery) {
	if d.BrokerID == "" {
		return
	}
	for w := c.workers; w != nil; w = w.next {
		if old := w.l; old.brokerID == d.BrokerID && !old.lost && c.loseLocked(old) {
			go c.tellLost(old)
		}
	}
}

// dispatchLocked starts handlers while there are slots and something to start: one
// worker, which starts the next when it runs itself, unless another is on its way
// here, see spreadLocked. Where gates must be asked it starts all at once.
func (c *Consumer) dispatchLocked(now time.Time) {
	if len(c.gates) == 0 {
		c.spreadLocked(now)
		return
	}
	for c.phase == phaseRunning && c.running < c.limit && c.ready.len() > 0 {
		l := c.nextLocked(now)
		if l == nil {
			return
		}
		c.goLocked(l)
	}
}

// spreadLocked starts one more worker if there's a slot and something to start, and
// no worker that's going to call it: one that was started and hasn't run yet, or one
// that waits for the lock. So there are as many as handlers keep busy or processors
// can run: more would only wait for the lock, each in another's way.
func (c *Consumer) spreadLocked(now time.Time) {
	if c.starting > 0 || c.coming.Load() > 0 || c.phase != phaseRunning || c.running >= c.limit || c.ready.len() == 0 {
		return
	}
	if l := c.nextLocked(now); l != nil {
		c.goLocked(l)
	}
}

// A worker is a goroutine that runs handlers in one slot. It's started when
// there's something to start and ends when there isn't: an idle consumer has
// none.
type worker struct {
	l          *lease // what it runs
	next, prev *worker
}

func (c *Consumer) endWorkerLocked(w *worker) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		c.workers = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	}
}

func (c *Consumer) goLocked(l *lease) {
	w := &worker{l: l, next: c.workers}
	if w.next != nil {
		w.next.prev = w
	}
	c.workers = w
	c.running++
	c.starting++
	if f := &c.fetch; f.handing && f.handed == nil {
		f.handed = w
		return
	}
	go c.work(w)
}

// nextLocked takes the first delivery that may start. Those that a gate holds
// back go aside.
func (c *Consumer) nextLocked(now time.Time) *lease {
	for c.ready.len() > 0 {
		l := c.ready.popFront()
		if !l.deadline.IsZero() && !now.Before(l.deadline) {
			l.state = leaseDone // it's in no line of waiting any more
			c.expireLocked(l)
			continue
		}
		if len(c.gates) > 0 && !c.enterLocked(l) {
			c.gateHoldLocked(l, now)
			continue
		}
		c.startLocked(l)
		return l
	}
	return nil
}

// startLocked makes l ready for its handler.
func (c *Consumer) startLocked(l *lease) {
	l.state = leaseRunning
	if l.line != nil && !c.caps.KeyLocked {
		// It may be tried again from memory: that must bring the original.
		c.fill(l)
		if l.original == nil {
			l.original = cloneDelivery(l.d)
		} else {
			l.d = cloneDelivery(l.original)
		}
	}
	l.d.Failures = l.failures
	l.d.Deadline = l.deadline
	if l.listed && !l.capAt.After(l.deadline) {
		l.at = l.nextEvent() // it won't be given back now
		c.leases.insert(l)
	}
}

func cloneDelivery(d *Delivery) *Delivery {
	cp := *d
	cp.Body = slices.Clone(d.Body)
	cp.Attributes = maps.Clone(d.Attributes)
	if d.DeadLetter != nil {
		dl := *d.DeadLetter
		cp.DeadLetter = &dl
	}
	return &cp
}

// enterLocked asks every gate, in order. It's all or none.
func (c *Consumer) enterLocked(l *lease) bool {
	if l.tickets == nil {
		l.tickets = make([]any, len(c.gates))
	}
	for i, g := range c.gates {
		// Set before the question, so that a wake just after the answer counts.
		c.gateWaiting.Store(true)
		e := g.Enter(l.d)
		if e.OK {
			l.tickets[i] = e.Ticket
			continue
		}
		c.askAgainLocked(e.Until)
		for j := i - 1; j >= 0; j-- {
			c.gates[j].Leave(l.tickets[j], GateResult{})
			l.tickets[j] = nil
		}
		return false
	}
	c.gateWaiting.Store(len(c.gated) > 0 || c.fetch.gateShut)
	return true
}

// askAgainLocked notes the earliest time that a gate has named.
func (c *Consumer) askAgainLocked(until time.Time) {
	if !until.IsZero() && (c.gateUntil.IsZero() || until.Before(c.gateUntil)) {
		c.gateUntil = until
	}
}

func (c *Consumer) gateHoldLocked(l *lease, now time.Time) {
	if c.heldLocked() >= c.opts.MaxHold {
		delay := c.overflowDelay()
		c.releaseWithLineLocked(l, delay, now)
		return
	}
	l.state = leaseGated
	c.gated = append(c.gated, l)
	c.armHoldLocked()
}

// dispatchGatedLocked asks again for what gates have held back, oldest first.
func (c *Consumer) dispatchGatedLocked(now time.Time) {
	kept := c.gated[:0]
	for i, l := range c.gated {
		if c.running >= c.limit {
			kept = append(kept, c.gated[i:]...)
			// It's not the gate that they wait for now.
			c.gateDirty.Store(true)
			break
		}
		if !l.deadline.IsZero() && !now.Before(l.deadline) {
			l.state = leaseDone
			c.expireLocked(l)
			continue
		}
		if !c.enterLocked(l) {
			kept = append(kept, l)
			continue
		}
		c.startLocked(l)
		c.goLocked(l)
	}
	clear(c.gated[len(kept):])
	c.gated = kept
}

// work is a worker's life.
func (c *Consumer) work(w *worker) {
	c.mu.Lock()
	c.starting--
	if c.ready.len() > 0 {
		c.dispatchLocked(time.Now())
	}
	c.mu.Unlock()
	c.goOn(w)
}

// goOn runs handlers until there's nothing to start.
func (c *Consumer) goOn(w *worker) {
	l, started := w.l, time.Now()
	for l != nil {
		c.fill(l)
		panicked, err := c.call(w, l)
		ended := time.Now()
		l = c.finish(w, l, err, panicked, started, ended)
		started = ended
	}
}

// call runs the handler. A panic becomes an error. When the handler ends the
// goroutine (runtime.Goexit), the slot goes to another one.
func (c *Consumer) call(w *worker, l *lease) (panicked bool, err error) {
	var ctx context.Context = l
	if t := c.opts.HandlerTimeout; t > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(l, t)
		defer cancel()
	}
	returned := false
	defer func() {
		if returned {
			return
		}
		if v := recover(); v != nil {
			err, panicked = &PanicError{Value: v, Stack: debug.Stack()}, true
			return
		}
		go func() {
			now := time.Now()
			if c.finish(w, l, errGoexit, true, now, now) != nil {
				c.goOn(w)
			}
		}()
	}()
	if err = c.handler(ctx, l.d); err != nil {
		_ = OutcomeOf(err) // an Unwrap that panics does it here, as the handler's panic
	}
	returned = true
	return false, err
}

// finish decides what becomes of a delivery whose handler has returned, and
// takes the next one for the slot.
func (c *Consumer) finish(w *worker, l *lease, err error, panicked bool, started, ended time.Time) *lease {
	v := c.judge(l, err, ended)
	l.end()
	v.Took, v.Waited = ended.Sub(started), started.Sub(l.arrived)
	if err != nil && !panicked { // middleware may have made an error of a panic
		_, panicked = errors.AsType[*PanicError](err)
	}
	if !c.tell(w, l, &v, panicked, ended) {
		return nil
	}
	return c.conclude(w, l, &v, panicked, ended)
}

// tell tells gates and hooks. They mustn't panic, nor end their goroutine (as a
// test's FailNow does); if they do, the delivery is settled all the same.
func (c *Consumer) tell(w *worker, l *lease, v *Settled, panicked bool, ended time.Time) (told bool) {
	if len(c.gates) == 0 && len(c.hooks) == 0 && v.Err == nil {
		return true
	}
	returned := false
	defer func() {
		if returned {
			return
		}
		if p := recover(); p != nil {
			c.opts.Logger.Error("a hook or gate panicked", "queue", c.opts.Name, "id", l.id, "err", p, "stack", string(debug.Stack()))
			told = true
			return
		}
		verdict := *v // of its own, so that v needn't go to the heap
		go func() {   // the goroutine is on its way out
			if c.conclude(w, l, &verdict, panicked, ended) != nil {
				c.goOn(w)
			}
		}()
	}()
	for i, g := range c.gates {
		g.Leave(l.tickets[i], GateResult{Started: true, Interrupted: v.Interrupted, Err: v.Err})
	}
	c.tellSettled(l, v)
	returned = true
	return true
}

// conclude settles, and takes the next delivery for the slot.
func (c *Consumer) conclude(w *worker, l *lease, v *Settled, panicked bool, ended time.Time) *lease {
	if !c.mu.TryLock() {
		c.coming.Add(1)
		c.mu.Lock()
		c.coming.Add(-1)
	}
	defer c.mu.Unlock()
	if l.state == leaseAbandoned { // Run has returned without us
		c.dispatchLocked(ended) // the next Run may have counted on us
		return nil
	}
	c.countLocked(v, panicked, ended)
	c.settleLocked(l, v, ended)
	next := c.nextForSlotLocked(ended)
	if next == nil {
		c.endWorkerLocked(w)
	}
	w.l = next
	return next
}

// nextForSlotLocked takes the next delivery for a slot that has become free, or
// gives the slot back.
func (c *Consumer) nextForSlotLocked(now time.Time) *lease {
	c.running--
	if c.phase != phaseRunning {
		if c.running == 0 {
			c.changed.Broadcast()
		}
		return nil
	}
	if len(c.gates) > 0 && c.gateDirty.Load() && c.running < c.limit {
		c.pumpLocked(now)
	}
	var next *lease
	if c.running < c.limit {
		if next = c.nextLocked(now); next != nil {
			c.running++
		}
	}
	if len(c.gates) == 0 {
		c.spreadLocked(now)
	}
	c.fetch.wakeLocked()
	return next
}
