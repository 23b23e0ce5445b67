package queue

import (
	"context"
	"errors"
	"time"
)

// settler groups settlements into few calls. All of it is guarded by the
// consumer's mu.
type settler struct {
	c        *Consumer
	pending  []Settlement
	leases   []*lease  // of pending, by index
	due      time.Time // when pending must go
	flights  int       // first calls under way, bounded
	retries  int       // batches that failed in part and are tried again: they mustn't hold up others
	timer    lazyTimer
	ctx      context.Context //nolint:containedctx // ends when a drain gives up on the broker
	cancel   context.CancelFunc
	batch    int
	parked   int       // settlements that wait for the end of an extension
	corked   bool      // more is coming at once: wait for it
	noDefers time.Time // until then none is tried where there is no need: one has failed

	// What calls have done with, for the next pending.
	spare []spareBatch
}

type spareBatch struct {
	settlements []Settlement
	leases      []*lease
}

// maxSpare bounds the memory that an idle consumer keeps for its next calls. More
// calls than that are under way only where a call takes long.
const maxSpare = 4

const (
	maxLinger       = 50 * time.Millisecond
	settleBatch     = 128 // where the broker has no limit of its own
	settleFlights   = 64
	settleTimeout   = 30 * time.Second
	settleRetryMin  = 50 * time.Millisecond
	settleRetryMax  = 5 * time.Second
	settleNoLease   = time.Minute // how long to retry where there's no lease
	flushTimeout    = 10 * time.Second
	abandonedGrace  = time.Second
	lingerLeasePart = 20
	noDefersFor     = time.Minute
)

func (s *settler) init(c *Consumer) {
	s.c = c
	s.timer.fire = s.fire
	s.batch = settleBatch
	if m := c.caps.MaxSettle; m > 0 {
		s.batch = m
	}
}

func (s *settler) start() {
	s.ctx, s.cancel = context.WithCancel(s.c.scope.base)
}

// finalLocked ends a delivery with a settlement. If an extension is under way
// the settlement waits for it: the broker might see the two in either order.
func (c *Consumer) finalLocked(l *lease, s Settlement, now time.Time) {
	c.leases.remove(l)
	l.state = leaseDone
	if l.extending {
		parked := s // a variable of its own: it's this one that goes to the heap
		l.parked = &parked
		c.settle.parked++
		return
	}
	c.settle.addLocked(l, s, now)
}

func (s *settler) addLocked(l *lease, st Settlement, now time.Time) {
	st.Delivery = l.restore()
	if st.Kind == Release {
		l.until = now.Add(st.Delay)
	}
	due := now.Add(s.linger(l, now))
	if len(s.pending) == 0 || due.Before(s.due) {
		s.due = due
	}
	s.pending = append(s.pending, st)
	s.leases = append(s.leases, l)
	if s.corked {
		return
	}
	if len(s.pending) >= s.batch || !now.Before(s.due) || s.c.phase != phaseRunning {
		s.flushLocked()
		return
	}
	s.timer.arm(now, s.due)
}

// linger is how long a settlement may wait for company.
func (s *settler) linger(l *lease, now time.Time) time.Duration {
	if l.deadline.IsZero() {
		return maxLinger
	}
	d := min(maxLinger, l.length/lingerLeasePart)
	if left := l.deadline.Sub(now); left < 8*d {
		return 0
	}
	return d
}

func (s *settler) fire() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.timer.fired()
	if len(s.pending) == 0 {
		return
	}
	if now := time.Now(); now.Before(s.due) { // armed for a batch that has gone since
		s.timer.arm(now, s.due)
		return
	}
	s.flushLocked()
}

func (s *settler) uncorkLocked() {
	s.corked = false
	s.flushLocked()
}

// flushLocked sends what's pending on its way.
func (s *settler) flushLocked() {
	if len(s.pending) == 0 || s.flights >= settleFlights && s.c.phase == phaseRunning {
		return // the next call that ends takes it along
	}
	batch, leases := s.pending, s.leases
	s.pending, s.leases = nil, nil
	if last := len(s.spare) - 1; last >= 0 {
		s.pending, s.leases = s.spare[last].settlements, s.spare[last].leases
		s.spare[last] = spareBatch{}
		s.spare = s.spare[:last]
	}
	s.flights++
	go s.flight(s.ctx, batch, leases)
}

// landed ends a first call; left settlements of its batch are tried again. all
// says that every one of it was taken.
func (s *settler) landed(left int, all bool, batch []Settlement, leases []*lease) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s.flights--
	if left > 0 {
		s.retries++
	} else if all && !c.track.empty() {
		for i := range batch {
			if batch[i].Kind != Release {
				c.track.forget(leases[i].brokerID)
			}
		}
	}
	if left == 0 && len(s.spare) < maxSpare && cap(batch) <= 2*settleBatch {
		clear(batch)
		clear(leases)
		s.spare = append(s.spare, spareBatch{batch[:0], leases[:0]})
	}
	if len(s.pending) >= s.batch || !time.Now().Before(s.due) || c.phase != phaseRunning {
		s.flushLocked()
	}
	if c.phase == phaseDraining {
		c.changed.Broadcast()
	}
}

// gaveUp ends the retries of a batch.
func (s *settler) gaveUp() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.retries--
	if s.c.phase == phaseDraining {
		s.c.changed.Broadcast()
	}
}

// flight settles a batch. What fails is tried again until the leases end.
func (s *settler) flight(ctx context.Context, batch []Settlement, leases []*lease) {
	left, leftLeases, all := s.call(ctx, batch, leases)
	s.landed(len(left), all, batch, leases)
	batch, leases = left, leftLeases
	if len(batch) == 0 {
		return
	}
	defer s.gaveUp()
	for pause := settleRetryMin; len(batch) > 0; pause = min(2*pause, settleRetryMax) {
		if !sleep(ctx, min(pause, halfOfLease(leases))) {
			s.sift(ctx, batch, leases, context.Cause(ctx))
			break
		}
		now := time.Now()
		for i := range batch {
			if batch[i].Kind == Release { // the delay runs from the handler's return
				batch[i].Delay = max(leases[i].until.Sub(now), 0)
			}
		}
		if batch, leases, _ = s.call(ctx, batch, leases); len(batch) == 0 {
			break
		}
	}
}

// halfOfLease is half of what's left of the shortest lease, so that there's a try
// before its end.
func halfOfLease(leases []*lease) time.Duration {
	now := time.Now()
	left := settleRetryMax
	for _, l := range leases {
		if !l.deadline.IsZero() {
			left = min(left, l.deadline.Sub(now)/2)
		}
	}
	return max(left, settleRetryMin/5)
}

// doneLocked reports whether nothing is left to settle.
func (s *settler) doneLocked() bool {
	return s.flights == 0 && s.retries == 0 && s.parked == 0 && len(s.pending) == 0
}

// call settles once. It returns what failed and can still be tried, and whether
// nothing failed.
func (s *settler) call(ctx context.Context, batch []Settlement, leases []*lease) ([]Settlement, []*lease, bool) {
	limit := settleTimeout
	for i := range batch {
		if l := leases[i]; batch[i].Kind == Defer && !l.deadline.IsZero() { // a copy that's sent after the lease is one too many
			left := time.Until(l.deadline)
			limit = min(limit, max(left-l.length/lastShare, left/2)) // else there's a release to be sent
		}
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	began := time.Now()
	err := s.c.sub.Settle(limited, batch...)
	cancel()
	s.c.tellSettleCall(batch, began, err)
	if err == nil {
		return nil, nil, true
	}
	batch, leases = s.sift(ctx, batch, leases, err)
	return batch, leases, false
}

// sift keeps what failed and can still be tried.
func (s *settler) sift(ctx context.Context, batch []Settlement, leases []*lease, err error) ([]Settlement, []*lease) {
	errs := settleErrors(err, len(batch))
	now := time.Now()
	n := 0
	var failed, lost uint64
	var last error
	for i, e := range errs {
		if e == nil {
			continue
		}
		failed++
		last = e
		l := leases[i]
		end := l.deadline
		if end.IsZero() {
			end = l.arrived.Add(settleNoLease)
		}
		again := now.Before(end) && !errors.Is(e, ErrLeaseLost) && !errors.Is(e, ErrClosed) && ctx.Err() == nil
		s.report(batch[i], l, e, again)
		if !again {
			lost++
			continue
		}
		batch[n], leases[n] = batch[i], l
		// A release is as good for now, and takes as long as the lease does.
		if batch[n].Kind == Defer && (unsendable(e) || end.Sub(now) < l.length/lastShare) {
			batch[n] = s.insteadOfDefer(batch[n], l, e, now)
		}
		n++
	}
	s.c.mu.Lock()
	s.c.stats.SettleErrors += failed
	s.c.stats.SettleLost += lost
	if last != nil {
		s.c.stats.LastSettleError, s.c.stats.LastSettleErrorAt = last, now
	}
	s.c.mu.Unlock()
	return batch[:n], leases[:n]
}

// unsendable tells errors of a publish that trying again can't heal: a consumer
// needs no right to publish, but for this.
func unsendable(err error) bool {
	var limit *LimitError
	return errors.As(err, &limit) || errors.Is(err, ErrInvalid) || errors.Is(err, ErrUnsupported) || errors.Is(err, ErrPermission)
}

// insteadOfDefer is for a message that can't be published again with its due
// time, as that doesn't fit, isn't allowed, or has failed for as long as there was: it's
// released for as long as the broker can, and the time is remembered here.
func (s *settler) insteadOfDefer(st Settlement, l *lease, err error, now time.Time) Settlement {
	c := s.c
	if c.expiresBy(l, st.Until) {
		c.opts.Logger.Warn("the queue's retention ends before the message comes back, and it can't be published again: it may be lost then",
			"queue", c.opts.Name, "id", l.id, "in", max(st.Until.Sub(now), 0).Round(time.Millisecond), "retention", c.caps.Retention, "err", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var limit *LimitError
	if !errors.As(err, &limit) && !errors.Is(err, ErrInvalid) { // those are about this message
		s.noDefers = now.Add(noDefersFor)
	}
	c.track.notBefore(l.brokerID, st.Until)
	switch {
	case st.failures > l.failures:
		c.track.add(l.brokerID, 1, 0)
	case c.caps.ReleaseCounts:
		c.track.add(l.brokerID, 0, 1)
	}
	delay := min(max(st.Until.Sub(now), 0), c.mostRedelivery(l, now))
	l.until = now.Add(delay)
	return Settlement{Delivery: st.Delivery, Kind: Release, Delay: delay}
}

func (s *settler) report(st Settlement, l *lease, err error, again bool) {
	c := s.c
	if !again {
		c.opts.Logger.Warn("settlement given up; the message will come again", "queue", c.opts.Name, "id", l.id, "kind", st.Kind.String(), "err", err)
	}
	for _, h := range c.hooks {
		if h.SettleFailed != nil {
			h.SettleFailed(st.Delivery, st.Kind, err, again)
		}
	}
}

// sleep waits for d and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
