package config

import (
	"fmt"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// A Change says who changes a consumer while it runs, why, and for how long.
type Change struct {
	Actor  string
	Reason string
	// For is after how long it's undone by itself; 0: when somebody does, or the Bus ends.
	For time.Duration
}

// Applied is a Change that's in force.
type Applied struct {
	Change
	Since time.Time
	Until time.Time // zero: no end
	Value int       // of a concurrency
}

// setting is what can be changed live; b.mu guards it.
type setting struct {
	now   *Applied
	timer *time.Timer
}

func (s *setting) applied() *Applied {
	if s.now == nil {
		return nil
	}
	cp := *s.now
	return &cp
}

func (s *setting) clear() {
	if s.timer != nil {
		s.timer.Stop()
	}
	*s = setting{}
}

// control is what was changed live of one worker.
type control struct{ paused, limit setting }

// Pause stops receiving from a queue in this process until Resume, or for as long as
// the Change says; running handlers go on. It also holds for a consumer that's started
// later. A second Pause takes the place of the first. It fails when the queue isn't in
// the file or has no handler, and after Close.
func (b *Bus) Pause(name string, c Change) error {
	return b.change("Pause", name, c, func(w *worker) *setting { return &w.control.paused }, 0)
}

// Resume ends a Pause.
func (b *Bus) Resume(name string, c Change) error {
	return b.undo("Resume", name, c, func(w *worker) *setting { return &w.control.paused })
}

// SetConcurrency changes how many handlers of a queue run at once in this process, for
// as long as the Change says: 1 to queue.MaxConcurrency, or 0 for what the file says.
// When there are more, they finish. A limit of the file that queues share holds as well:
// no more run than it allows.
func (b *Bus) SetConcurrency(name string, n int, c Change) error {
	limit := func(w *worker) *setting { return &w.control.limit }
	switch {
	case n == 0:
		return b.undo("SetConcurrency", name, c, limit)
	case n < 0 || n > queue.MaxConcurrency:
		return &queue.InvalidError{Field: "SetConcurrency", Reason: fmt.Sprintf("%d isn't from 1 to %d; 0 is what the file says", n, queue.MaxConcurrency)}
	}
	return b.change("SetConcurrency", name, c, limit, n)
}

func (b *Bus) change(what, name string, c Change, which func(*worker) *setting, value int) error {
	if c.For < 0 {
		return &queue.InvalidError{Field: what, Reason: fmt.Sprintf("for %v", c.For)}
	}
	err := b.with(what, name, func(w *worker) {
		s := which(w)
		s.clear()
		a := &Applied{Change: c, Since: time.Now(), Value: value}
		s.now = a
		if c.For > 0 {
			a.Until = a.Since.Add(c.For)
			s.timer = time.AfterFunc(c.For, func() { b.expire(what, w, which(w), a) })
		}
	})
	if err == nil {
		b.log().Info("changed live", "queue", name, "what", what, "value", value, "actor", c.Actor, "reason", c.Reason, "for", c.For)
	}
	return err
}

func (b *Bus) undo(what, name string, c Change, which func(*worker) *setting) error {
	err := b.with(what, name, func(w *worker) { which(w).clear() })
	if err == nil {
		b.log().Info("changed live", "queue", name, "what", what, "actor", c.Actor, "reason", c.Reason)
	}
	return err
}

// expire undoes a change whose time is over, unless another one has taken its place.
func (b *Bus) expire(what string, w *worker, s *setting, a *Applied) {
	b.mu.Lock()
	over := s.now == a
	if over {
		s.clear()
		w.applyLocked()
	}
	b.mu.Unlock()
	if over {
		b.log().Info("changed back, as its time is over", "queue", w.queue.Name, "what", what, "actor", a.Actor, "reason", a.Reason)
	}
}

// with changes what's set of a worker.
func (b *Bus) with(what, name string, set func(*worker)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, err := b.find(what, name); err != nil {
		return err
	}
	w := b.workers[name]
	switch {
	case w == nil:
		return &queue.InvalidError{Field: what, Reason: name + " has no handler in this process"}
	case b.closed:
		return fmt.Errorf("config: %s %s: %w", what, name, queue.ErrClosed)
	}
	set(w)
	w.applyLocked()
	return nil
}

// applyLocked makes the consumer, if there is one, what was asked for.
func (w *worker) applyLocked() {
	if w.consumer == nil {
		return
	}
	if w.control.paused.now != nil {
		w.consumer.Pause()
	} else {
		w.consumer.Resume()
	}
	n := w.queue.Concurrency
	if n == 0 {
		n = queue.DefaultConcurrency
	}
	if a := w.control.limit.now; a != nil {
		n = a.Value
	}
	_ = w.consumer.SetConcurrency(n) // it was checked
}
