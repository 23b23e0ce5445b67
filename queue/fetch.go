package queue

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// fetcher receives. It asks for what can start soon: the free slots, and what
// the measured rate starts while a receive is under way. Idle it keeps one
// receive open; busy it opens more as long as each comes back full. All of it is
// guarded by the consumer's mu.
type fetcher struct {
	c        *Consumer
	wake     *sync.Cond
	asleep   int  // fetchers that wait for room
	running  int  // fetchers
	epoch    int  // of Run: a receive that has outlived its own counts no more
	reserved int  // what receives under way may bring
	gateShut bool // a gate has no room

	ctx    context.Context //nolint:containedctx // of receives; ends after the grace of a drain, or with a pause
	cancel context.CancelCauseFunc
	grace  *time.Timer
	awake  context.Context //nolint:containedctx // of waits between receives; ends when a drain begins
	rouse  context.CancelFunc

	rtt      time.Duration // of receives that didn't have to wait, smoothed
	rate     float64       // handlers started a second, smoothed
	started  uint64        // handlers, at the last measurement
	measured time.Time

	// Where most of what comes isn't due yet it goes as it comes, and needs no slot: what
	// lies behind it shouldn't wait for one small receive after the other.
	undue      bool    // most of the last answer
	undueRate  float64 // deliveries a second, smoothed
	undueSoFar uint64  // at the last measurement
	handing    bool    // the next worker is for the goroutine that has received
	handed     *worker // to it

	errors  int // in a row
	empties int // receives in a row that came back at once with nothing
}

const (
	maxFetchers    = 64
	minFetchWindow = time.Millisecond
	maxFetchWindow = time.Second
	// A receive that can bring hundreds costs as much when it brings few: what starts
	// within this is worth waiting for.
	bulkReceive    = 100
	bulkWindow     = 50 * time.Millisecond
	leaseWindow    = 20 // the part of a lease that may pass before a handler starts
	maxRTT         = 250 * time.Millisecond
	slowReceive    = 200 * time.Microsecond // below, parallel receives gain nothing
	maxAhead       = 10000
	maxUndueAhead  = 1000 // a broker that takes its time mustn't make us gather them
	receiveBackoff = 100 * time.Millisecond
	receiveMaxWait = 30 * time.Second
	rateInterval   = 10 * time.Millisecond
	quickReceive   = time.Millisecond // a poll that comes back sooner, and empty, isn't one
	emptyBackoff   = time.Millisecond
)

// errReceiveCut is the cause of a receive's context when its grace is over.
var errReceiveCut = errors.New("queue: receive cut off")

func (f *fetcher) init(c *Consumer) {
	f.c = c
	f.wake = sync.NewCond(&c.mu)
}

func (f *fetcher) start() {
	f.open()
	f.awake, f.rouse = context.WithCancel(f.c.scope.base)
	f.errors = 0
	f.epoch++
	f.running, f.reserved, f.asleep = 0, 0, 0
	f.measured = time.Now()
	f.spawn()
}

func (f *fetcher) open() {
	f.ctx, f.cancel = context.WithCancelCause(f.c.scope.base)
}

func (f *fetcher) spawn() {
	f.running++
	go f.loop(f.epoch)
}

// pause cuts open receives off where that costs nothing. Elsewhere they end by
// themselves, and what they bring is given back: cut off, the broker would hide
// it, or count an attempt that nobody here knows of.
func (f *fetcher) pause() {
	if f.cancel != nil && f.c.caps.CancelSafe {
		f.cancel(errReceiveCut)
	}
}

// end cuts open receives off, after their grace where that's needed.
func (f *fetcher) end() {
	cancel := f.cancel
	if f.c.opts.ReceiveGrace == 0 || f.c.caps.CancelSafe {
		cancel(errReceiveCut)
		return
	}
	f.grace = time.AfterFunc(f.c.opts.ReceiveGrace, func() { cancel(errReceiveCut) })
}

func (f *fetcher) resume() {
	if f.ctx != nil && f.c.phase == phaseRunning {
		if f.ctx.Err() != nil {
			f.open()
		}
		f.wake.Broadcast()
	}
}

// wakeLocked is called when there may be room for more.
func (f *fetcher) wakeLocked() {
	if f.asleep > 0 && f.wantLocked() > 0 {
		f.wake.Signal()
	}
}

// lookAgainLocked is for room that has come otherwise than by a handler's end: no
// receive has measured the rate since.
func (f *fetcher) lookAgainLocked(now time.Time) {
	f.measureLocked(now)
	f.wakeLocked()
}

// aheadLocked is how much may be received beyond the free slots: what starts
// before another receive could bring it. Answers vary: with two round trips slots
// were seen to stay empty.
func (f *fetcher) aheadLocked() int {
	trips := time.Duration(3)
	if f.c.caps.MaxReceive == 0 {
		// One receive brings all, and takes the longer the more it brings: looking
		// ahead by a multiple of it would feed itself.
		trips = 1
	}
	least := minFetchWindow
	if f.c.caps.MaxReceive >= bulkReceive {
		least = bulkWindow
	}
	window := min(max(trips*f.rtt, least), f.windowLocked()).Seconds()
	ahead := min(int(f.rate*window), maxAhead)
	if f.undue {
		ahead += max(min(int(f.undueRate*window), maxUndueAhead-len(f.c.settle.pending)), 0)
	}
	return ahead
}

// windowLocked is the longest that a delivery may wait for a slot.
func (f *fetcher) windowLocked() time.Duration {
	if l := f.c.caps.Lease; l > 0 {
		return min(l/leaseWindow, maxFetchWindow)
	}
	return maxFetchWindow
}

// wantLocked is how many deliveries to ask for now, in one receive.
func (f *fetcher) wantLocked() int {
	n := f.roomLocked()
	if m := f.c.caps.MaxReceive; m > 0 {
		n = min(n, m)
	}
	return n
}

// roomLocked is how many more deliveries are wanted.
func (f *fetcher) roomLocked() int {
	c := f.c
	if c.stats.Paused || c.phase != phaseRunning {
		return 0
	}
	free := max(c.limit-c.running, 0) // the limit is bounded, so nothing overflows
	ahead := f.aheadLocked()
	have := c.ready.len() + f.reserved
	n := free + ahead - have
	if n <= 0 || have > free && n < f.worthwhile(ahead) {
		return 0
	}
	f.gateShut = false
	for _, g := range c.gates {
		c.gateWaiting.Store(true)
		r := g.Room()
		if r.N < 0 {
			continue
		}
		if room := r.N - have - len(c.gated); room < n {
			n = room
			if n <= 0 {
				f.gateShut = true
				c.askAgainLocked(r.Until)
				c.armHoldLocked()
				return 0
			}
		}
	}
	if len(c.gates) > 0 {
		c.gateWaiting.Store(len(c.gated) > 0)
	}
	return n
}

// worthwhile is the fewest deliveries that are worth a call as long as there's
// enough to start.
func (f *fetcher) worthwhile(ahead int) int {
	if m := f.c.caps.MaxReceive; m > 0 {
		return min(m, ahead/4)
	}
	return ahead / 4
}

// loop receives until there's a handler to start, which it then runs itself: so
// the handler starts without waiting for another goroutine. A new one goes on
// receiving.
func (f *fetcher) loop(epoch int) {
	c := f.c
	c.mu.Lock()
	w, more := f.loopLocked(epoch)
	switch {
	case epoch != f.epoch:
	case more:
		go f.loop(epoch)
	default:
		f.running--
		if f.running == 0 {
			c.changed.Broadcast()
		}
	}
	c.mu.Unlock()
	if w != nil {
		c.work(w)
	}
}

// loopLocked returns a worker to run, if any, and whether to go on receiving.
func (f *fetcher) loopLocked(epoch int) (w *worker, more bool) {
	c := f.c
	for c.phase == phaseRunning && c.fatal == nil && epoch == f.epoch {
		n := f.wantLocked()
		if n == 0 {
			if f.running > 1 {
				return nil, false
			}
			f.asleep++
			f.wake.Wait()
			f.asleep--
			continue
		}
		more = f.receiveLocked(n) || f.running == 1
		if w = f.handed; w != nil {
			f.handed = nil
			return w, more
		}
		if !more {
			return nil, false
		}
	}
	return nil, false
}

// receiveLocked receives once, with the lock released meanwhile. It reports
// whether this fetcher is worth keeping beside others.
func (f *fetcher) receiveLocked(n int) bool {
	c := f.c
	ctx, epoch := f.ctx, f.epoch
	f.reserved += n
	c.stats.ReceiveCalls++
	c.mu.Unlock()

	begun := time.Now()
	ds, err := c.receive(ctx, n)
	now := time.Now()
	if len(c.hooks) > 0 {
		c.tellReceived(Received{Asked: n, Deliveries: ds, Began: begun, Took: now.Sub(begun), Err: err})
	}

	leases := c.newLeases(ds, now)
	c.mu.Lock()
	if epoch == f.epoch {
		f.reserved -= n
	}
	cut := ctx.Err() != nil
	if cut && len(ds) == 0 && !c.caps.CancelSafe {
		c.stats.CutReceives++
	}
	f.measureLocked(now)
	if len(ds) > 0 {
		// After an error this goroutine has to wait; a late one just hands over.
		f.handing = err == nil && epoch == f.epoch
		before := c.undue
		c.acceptLocked(leases, len(ds), now)
		f.undue = c.undue-before > uint64(len(ds)/2)
		f.handing = false
	}
	if epoch != f.epoch {
		return false
	}
	if err != nil && !cut {
		return f.failedLocked(err, now)
	}
	if err == nil {
		f.errors = 0
		c.stats.LastError = nil
	}
	if len(ds) > 0 || now.Sub(begun) > quickReceive {
		f.empties = 0
	} else if !cut && err == nil {
		f.empties++
		f.napLocked(emptyBackoff<<min(f.empties-1, 8), nil)
	}
	if !f.backlogLocked(len(ds), n, now.Sub(begun)) {
		return false
	}
	f.growLocked()
	return true
}

// growLocked opens up to two more receives, so that their number triples with
// each round trip as long as there's a backlog and room. Where nothing but the order
// of answers tells the order of a key there's one: a second could overtake it.
func (f *fetcher) growLocked() {
	if f.rtt <= slowReceive || f.c.caps.Ordering && !f.c.caps.KeyLocked {
		return
	}
	room := f.roomLocked()
	for range 2 {
		if room <= 0 || f.running >= maxFetchers {
			return
		}
		f.spawn()
		m := f.c.caps.MaxReceive
		if m == 0 {
			return // one takes all
		}
		room -= m
	}
}

// backlogLocked reports whether a receive that asked for n in so long shows that
// there's more to be had: a full one does. So does one that has brought several
// without having waited for them, as servers often bring less than there is.
func (f *fetcher) backlogLocked(brought, n int, took time.Duration) bool {
	if brought >= n {
		f.learnRTT(took)
		return true
	}
	if brought < 2 {
		return false
	}
	prompt := f.rtt > 0 && took < f.rtt+f.rtt/2
	f.learnRTT(took)
	return prompt
}

func (f *fetcher) learnRTT(d time.Duration) {
	// A long poll may have waited for its first message: the shortest counts.
	d = min(d, maxRTT)
	if f.rtt == 0 || d < f.rtt {
		f.rtt = d
		return
	}
	f.rtt += (d - f.rtt) / 8
}

func (f *fetcher) measureLocked(now time.Time) {
	dt := now.Sub(f.measured)
	if dt < max(rateInterval, 2*f.rtt) {
		return
	}
	s := &f.c.stats
	starts := s.Succeeded + s.Failed + s.Rejected + s.DeadLettered + s.Dropped + s.Snoozed + s.Interrupted
	r, u := float64(starts-f.started)/dt.Seconds(), float64(f.c.undue-f.undueSoFar)/dt.Seconds()
	if dt < maxFetchWindow/2 {
		r, u = (f.rate+r)/2, (f.undueRate+u)/2
	} // else what was before is history
	f.rate, f.undueRate = r, u
	f.started, f.undueSoFar, f.measured = starts, f.c.undue, now
}

// failedLocked decides what an error of Receive means, and waits.
func (f *fetcher) failedLocked(err error, now time.Time) bool {
	c := f.c
	if c.phase != phaseRunning {
		return false
	}
	c.stats.ReceiveErrors++
	c.stats.LastError, c.stats.LastErrorAt = err, now
	if final(err) {
		if c.fatal == nil {
			c.fatal = err
			c.changed.Broadcast()
		}
		return false
	}
	if f.running > 1 {
		return false // one is enough to find out when it's over
	}
	f.errors++
	d := receiveMaxWait
	if f.errors < 10 {
		d = min(receiveBackoff<<(f.errors-1), receiveMaxWait)
	}
	d -= time.Duration(rand.Int64N(int64(d)/2 + 1)) //nolint:gosec // spreads load
	f.napLocked(d, err)
	return true
}

// napLocked waits, with the lock released, unless a drain begins.
func (f *fetcher) napLocked(d time.Duration, err error) {
	c, ctx := f.c, f.awake
	c.mu.Unlock()
	if err != nil {
		c.opts.Logger.Warn("receive failed", "queue", c.opts.Name, "err", err, "in", d.Round(time.Millisecond))
	}
	sleep(ctx, d)
	c.mu.Lock()
}

// final tells errors that trying again can't heal.
func final(err error) bool {
	for _, target := range []error{ErrQueueNotFound, ErrPermission, ErrUnsupported, ErrClosed, ErrInvalid} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// ---- what waits too long for a slot

// armSweepLocked makes sure that what's received doesn't grow old unseen.
func (c *Consumer) armSweepLocked(now time.Time) {
	if c.ready.len() > 0 {
		c.sweepTimer.arm(now, c.ready.front().arrived.Add(c.fetch.windowLocked()))
	}
}

// sweep gives back what has waited for a slot longer than it should: others may
// have room for it.
func (c *Consumer) sweep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sweepTimer.fired()
	if c.phase != phaseRunning {
		return
	}
	now := time.Now()
	limit := c.fetch.windowLocked()
	var old []*lease
	c.ready.remove(func(l *lease) bool {
		// A key's next, where the broker locks keys: nobody else could have it.
		// And what has waited here before may have waited long by intention.
		if l.arrived.Add(limit).After(now) || l.line != nil && c.caps.KeyLocked || !l.until.IsZero() {
			return false
		}
		old = append(old, l)
		return true
	})
	for _, l := range old {
		c.releaseWithLineLocked(l, 0, now)
	}
	if len(old) > 0 {
		c.settle.flushLocked()
	}
	if c.ready.len() > 0 {
		at := c.ready.front().arrived.Add(limit)
		if !at.After(now) {
			at = now.Add(limit)
		}
		c.sweepTimer.arm(now, at)
	}
}
