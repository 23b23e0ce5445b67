package middleware

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// How gates are used: given to NewConsumer, Bind returns a seat, which is the
// gate as that consumer sees it; the seat's Wrap does nothing, as the consumer
// asks before a delivery starts. Given to queue.Chain, nobody asks, so the
// gate's own Wrap does, and holds the handler's slot meanwhile: worse, but never
// without effect.

// seats are the consumers that use a gate, guarded by the gate's mutex.
type seats struct {
	attached int
	waiting  []*seat
	late     lateWake
}

// seat is one of them.
type seat struct {
	wake    func()
	waiting bool // was refused, and nobody has woken it since
}

func (s *seats) attach(st *seat, wake func()) {
	st.wake = wake
	s.attached++
}

func (s *seats) detach(st *seat) {
	s.attached--
	st.wake, st.waiting = nil, false
	s.waiting = slices.DeleteFunc(s.waiting, func(o *seat) bool { return o == st })
}

// mark notes that a consumer was refused.
func (s *seats) mark(st *seat) {
	if !st.waiting {
		st.waiting = true
		s.waiting = append(s.waiting, st)
	}
}

// othersWait tells whether anybody but st waits.
func (s *seats) othersWait(st *seat) bool {
	return len(s.waiting) > 1 || len(s.waiting) == 1 && s.waiting[0] != st
}

// rouse returns the wake functions of those that wait. They are to be called
// without the mutex.
func (s *seats) rouse() []func() {
	var out []func()
	for _, st := range s.waiting {
		st.waiting = false
		out = append(out, st.wake)
	}
	clear(s.waiting)
	s.waiting = s.waiting[:0]
	return out
}

// lateWake wakes those that were refused while a place was taken for a moment
// and then given back unused, because another gate had refused. It's late, as two
// consumers that each do so would keep waking each other, and never rest.
type lateWake struct{ pending bool }

const lateWakeTime = 10 * time.Millisecond

// arm makes fire be called soon. The gate's mutex must be held; fire takes it,
// and calls fired.
func (w *lateWake) arm(fire func()) {
	if !w.pending {
		w.pending = true
		time.AfterFunc(lateWakeTime, fire)
	}
}

func (w *lateWake) fired() { w.pending = false }

func call(fns []func()) {
	for _, f := range fns {
		if f != nil {
			f()
		}
	}
}

// share is a consumer's part of what is free. Several consumers that each fetch
// for all of it would have to hold most of what they get.
func share(free, consumers int) int {
	if consumers <= 1 {
		return free
	}
	return (free + consumers - 1) / consumers
}

// waitAtGate is a handler that waits until a gate lets it pass: how a gate works
// in a Chain. newSeat returns a seat for one delivery.
func waitAtGate(newSeat func() queue.Gate, next queue.Handler) queue.Handler {
	return func(ctx context.Context, d *queue.Delivery) error {
		g := newSeat()
		ticket, err := enter(ctx, g, d)
		if err != nil {
			return err
		}
		res := queue.GateResult{Started: true}
		defer func() { g.Leave(ticket, res) }()
		res.Err = next(ctx, d)
		res.Interrupted = queue.Interrupted(ctx, res.Err)
		return res.Err
	}
}

func enter(ctx context.Context, g queue.Gate, d *queue.Delivery) (ticket any, err error) {
	woken := make(chan struct{}, 1)
	detach := g.Attach(func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	})
	defer detach()
	for {
		e := g.Enter(d)
		if e.OK {
			return e.Ticket, nil
		}
		var after <-chan time.Time
		if !e.Until.IsZero() {
			after = time.After(time.Until(e.Until))
		}
		select {
		case <-woken:
		case <-after:
		case <-ctx.Done():
			err := fmt.Errorf("middleware: waiting for a limit: %w", context.Cause(ctx))
			if queue.Interrupted(ctx, err) {
				return nil, err
			}
			return nil, queue.Snooze(time.Second) // it has never started, so it hasn't failed
		}
	}
}
