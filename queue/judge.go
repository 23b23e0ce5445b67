package queue

import "time"

// judge works out what becomes of a delivery whose handler returned err.
func (c *Consumer) judge(l *lease, err error, now time.Time) Settled {
	v := Settled{Delivery: l.d, Outcome: OutcomeOf(err), Err: err, Failures: l.failures}
	if err == nil {
		return v
	}
	l.restore()
	v.GiveUp = c.giveUp
	if c.giveUp.MaxAge > 0 {
		if from := l.d.AgeFrom(); !from.IsZero() {
			v.GivesUpIn = max(c.giveUp.MaxAge-now.Sub(from), 0)
		}
	}
	switch v.Outcome.Kind {
	case Failed:
		if s := l.std.Load(); s != nil && Interrupted(s, err) {
			v.Interrupted = true
			break
		}
		v.Failures++
		v.Delay = c.opts.Backoff.Delay(v.Failures)
	case Retry:
		v.Failures++
		v.Delay = v.Outcome.Delay
	case Rejected:
		v.Failures++
		v.Unroutable = true
		v.Delay = c.opts.Backoff.Max
	case Snoozed:
		v.Delay = v.Outcome.Delay
	case DeadLettered:
		v.Failures++
	case Success, Dropped:
	}
	return v
}

func (c *Consumer) countLocked(v *Settled, panicked bool, now time.Time) {
	s := &c.stats
	if panicked {
		s.Panics++
	}
	switch v.Outcome.Kind {
	case Success:
		s.Succeeded++
		s.LastSuccessAt = now
	case Failed, Retry:
		if v.Interrupted {
			s.Interrupted++
		} else {
			s.Failed++
			s.LastFailure, s.LastFailureAt = v.Err, now
		}
	case Rejected:
		s.Rejected++
		s.LastFailure, s.LastFailureAt = v.Err, now
	case Dropped:
		s.Dropped++
	case Snoozed:
		s.Snoozed++
	case DeadLettered:
		s.DeadLettered++
		s.LastFailure, s.LastFailureAt = v.Err, now
	}
}

// settleLocked tells the broker, and lets the others of the key go on or back.
func (c *Consumer) settleLocked(l *lease, v *Settled, now time.Time) {
	line := l.line
	switch v.Outcome.Kind {
	case Success, Dropped, DeadLettered:
		// Also when the lease was lost: if the broker hasn't given the message
		// to somebody else yet, this keeps it from doing so.
		c.finalLocked(l, Settlement{Kind: Ack}, now)
		if line != nil {
			l.line = nil
			if c.caps.KeyLocked && len(line.rest) == 0 {
				c.settle.flushLocked() // the broker withholds the key's next until then
			}
			c.advanceLocked(line, now)
		}
		return
	case Failed, Retry, Rejected, Snoozed:
	}
	failed := v.Outcome.Kind != Snoozed && !v.Interrupted
	if l.lost {
		// Somebody else may have it: only his word counts now.
		l.state = leaseDone
		c.leases.remove(l)
		if line != nil {
			l.line = nil
			c.scatterLocked(line, 0, now)
		}
		return
	}
	if line != nil && !c.caps.KeyLocked && c.holdHeadLocked(l, v, failed, now) {
		return
	}
	c.comeBackLocked(l, v, failed, now)
	if line != nil {
		l.line = nil
		// With the head's delay: nobody could have them before it, and a server
		// was seen to unlock the key as soon as one of them is visible.
		c.scatterLocked(line, v.Delay, now)
	}
}

// comeBackLocked makes the broker deliver again after v.Delay.
func (c *Consumer) comeBackLocked(l *lease, v *Settled, failed bool, now time.Time) {
	back := now.Add(v.Delay)
	far := v.Delay > c.mostRedelivery(l, now) || c.agesBy(l, back, now)
	if far && c.caps.Delays && l.line == nil {
		// Longer than the broker can hold it back, or than it's sure to keep it:
		// published again, with what its count of deliveries would have told.
		c.finalLocked(l, Settlement{Kind: Defer, Until: back, failures: v.Failures}, now)
		return
	}
	switch {
	case failed:
		c.track.add(l.brokerID, 1, 0)
	case c.caps.ReleaseCounts:
		c.track.add(l.brokerID, 0, 1)
	}
	c.releaseForLocked(l, v.Delay, now)
}

// expiresBy reports that the broker will have dropped its copy by a time, or nearly.
func (c *Consumer) expiresBy(l *lease, at time.Time) bool {
	r := c.caps.Retention
	return c.copiedBefore(l, at, r-min(r/10, time.Minute))
}

// halfGoneBy reports that half of the time for which the broker keeps its copy will be
// over. What comes back after that is published anew, if it can be: the broker drops what
// is over without a word, may round a delay up to just then, and what has come back in
// time must still find somebody who receives it in time.
func (c *Consumer) halfGoneBy(l *lease, at time.Time) bool {
	return c.copiedBefore(l, at, c.caps.Retention/2)
}

// agesBy reports that what comes back at a time should be published anew for its age.
// Where a broker counts deliveries, to dead-letter what fails again and again, that begins
// anew, too: so it's put off there until nothing else is left. And where it has just been
// refused it isn't tried as long as there's time.
func (c *Consumer) agesBy(l *lease, at, now time.Time) bool {
	if c.caps.BrokerMaxAttempts > 0 || now.Before(c.settle.noDefers) {
		return c.expiresBy(l, at)
	}
	return c.halfGoneBy(l, at)
}

// copiedBefore reports that the broker's copy will be that old, where it doesn't keep it
// for ever.
func (c *Consumer) copiedBefore(l *lease, at time.Time, age time.Duration) bool {
	return c.caps.Retention > 0 && !l.kept.copied.IsZero() && !at.Before(l.kept.copied.Add(age))
}

// releaseForLocked releases for a delay that may be longer than the broker can
// hold a message back. Then it comes early, and the time until which it isn't to
// be handled is remembered here.
func (c *Consumer) releaseForLocked(l *lease, delay time.Duration, now time.Time) {
	if most := c.mostRedelivery(l, now); delay > most {
		c.track.notBefore(l.brokerID, now.Add(delay))
		delay = most
	}
	c.finalLocked(l, Settlement{Kind: Release, Delay: delay}, now)
}

// holdHeadLocked keeps a key's head and those behind it in memory until its
// backoff ends, where the broker doesn't keep the order for us. It reports
// whether it did: not when the lease can't be kept that long.
func (c *Consumer) holdHeadLocked(l *lease, v *Settled, failed bool, now time.Time) bool {
	until := now.Add(v.Delay)
	if c.phase != phaseRunning || c.stats.Paused || l.deadline.IsZero() || !until.Before(l.capAt) || l.extending ||
		c.heldLocked() >= c.opts.MaxHold {
		return false
	}
	// The next attempt gets a lease of its own: the context of this one is over.
	next := &lease{
		c: c, d: l.original, kept: l.kept, failures: l.failures, original: l.original, arrived: l.arrived, due: l.due,
		deadline: l.deadline, length: l.length, capAt: l.capAt, line: l.line, scope: l.scope,
	}
	c.leases.remove(l)
	l.state, l.line = leaseDone, nil
	next.line.head = next
	if failed {
		next.failures++
		// A failure without a delivery of its own: the broker doesn't count it.
		c.track.add(l.brokerID, 1, -1)
	}
	c.holdLocked(next, until)
	c.keepLocked(next)
	c.armLeasesLocked(now)
	return true
}
