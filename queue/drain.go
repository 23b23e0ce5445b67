package queue

import (
	"slices"
	"time"
)

// drain ends everything that Run has begun, each step within its time.
func (c *Consumer) drain() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	begun := time.Now()
	c.phase = phaseDraining
	c.fetch.rouse()
	c.fetch.end()
	c.fetch.wake.Broadcast()
	c.releaseWaitingLocked()

	var err error
	if !c.waitLocked(c.opts.DrainTimeout, func() bool { return c.running == 0 }) {
		c.cancelRunningLocked()
		if !c.waitLocked(abandonedGrace, func() bool { return c.running == 0 }) {
			err = c.abandonLocked()
		}
	}
	// A receive that doesn't end with its context holds up nothing else.
	grace := c.opts.ReceiveGrace - time.Since(begun)
	if !c.waitLocked(max(grace, 0)+flushTimeout, func() bool { return c.fetch.running == 0 }) {
		c.mu.Unlock()
		c.opts.Logger.Error("a receive ignores its context", "queue", c.opts.Name)
		c.mu.Lock()
	}
	if c.fetch.grace != nil {
		c.fetch.grace.Stop()
		c.fetch.grace = nil
	}
	c.fetch.cancel(errReceiveCut)
	c.fetch.cancel = nil

	c.settle.flushLocked()
	if !c.waitLocked(flushTimeout, c.settle.doneLocked) {
		c.settle.cancel()
		c.waitLocked(flushTimeout, c.settle.doneLocked)
	}
	c.settle.cancel()
	for _, t := range []*lazyTimer{&c.leaseTimer, &c.holdTimer, &c.sweepTimer, &c.settle.timer} {
		t.stop()
	}
	c.keys, c.gateUntil = nil, time.Time{}
	return err
}

// waitLocked waits, for at most d, until done reports true. It's signalled
// through changed.
func (c *Consumer) waitLocked(d time.Duration, done func() bool) bool {
	if done() {
		return true
	}
	if d <= 0 {
		return false
	}
	over := false
	t := time.AfterFunc(d, func() {
		c.mu.Lock()
		over = true
		c.changed.Broadcast()
		c.mu.Unlock()
	})
	defer t.Stop()
	for !done() {
		if over {
			return false
		}
		c.changed.Wait()
	}
	return true
}

func (c *Consumer) cancelRunningLocked() {
	for w := c.workers; w != nil; w = w.next {
		w.l.cancel(ErrDraining)
	}
}

// abandonLocked gives up on the handlers that are still running.
func (c *Consumer) abandonLocked() error {
	e := &AbandonedError{}
	for w := c.workers; w != nil; w = w.next {
		w.l.state = leaseAbandoned
		c.leases.remove(w.l)
		if !w.l.lost { // else that's noted already
			c.track.add(w.l.brokerID, 0, 1) // it was no failure
		}
		e.IDs = append(e.IDs, w.l.id)
	}
	c.workers = nil
	c.running = 0
	slices.Sort(e.IDs)
	return e
}
