package config

import (
	"fmt"
	"path"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// Status is what a Bus does with a queue's consumer.
type Status string

// The statuses.
const (
	Stopped  Status = "stopped"  // Run isn't under way, or leaves it out, or has ended it
	Starting Status = "starting" // its queue is being opened
	Running  Status = "running"  // also when it's paused
	Draining Status = "draining"
	Failing  Status = "failing" // it couldn't start or go on, and is started again
)

// State is what a Bus does with a queue, at a time.
type State struct {
	Queue   string
	Backend string // as the file calls it
	// Handled says that there's a handler, Selected that Options.Only doesn't leave it
	// out. What isn't both is never consumed here.
	Handled, Selected bool

	Status Status
	Since  time.Time // of Status
	// Err says why it's Failing, and RetryAt when it's started again, after so many
	// Failures in a row.
	Err      error
	RetryAt  time.Time
	Failures int

	// Paused and Concurrency are what was changed live, nil if nothing was.
	Paused      *Applied
	Concurrency *Applied

	// Stats has the limit, what's in use, what waits and for what, the last errors and
	// the last success. While there's no consumer it's of the one before. Counts begin
	// anew with each consumer; what was last is kept from one to the next.
	Stats queue.ConsumerStats
}

// States tells about all queues, in the order of the file. It makes no request.
func (b *Bus) States() []State {
	b.mu.Lock()
	states := make([]State, len(b.file.Queues))
	consumers := make([]*queue.Consumer, len(states))
	for i, q := range b.file.Queues {
		states[i], consumers[i] = b.stateLocked(q)
	}
	b.mu.Unlock()
	for i, c := range consumers {
		fill(&states[i], c)
	}
	return states
}

// State tells about one queue.
func (b *Bus) State(name string) (State, error) {
	b.mu.Lock()
	q, err := b.find("State", name)
	if err != nil {
		b.mu.Unlock()
		return State{}, err
	}
	s, c := b.stateLocked(q)
	b.mu.Unlock()
	fill(&s, c)
	return s, nil
}

func (b *Bus) stateLocked(q *Queue) (State, *queue.Consumer) {
	s := State{Queue: q.Name, Backend: q.Backend, Selected: b.selected == nil || b.selected[q.Name], Status: Stopped}
	w := b.workers[q.Name]
	if w == nil {
		return s, nil
	}
	s.Handled = true
	if w.status != "" {
		s.Status = w.status
	}
	s.Since, s.Err, s.Failures, s.RetryAt = w.since, w.err, w.failures, w.again
	if s.Status == Running && time.Since(s.Since) >= steady {
		s.Failures = 0
	}
	s.Stats = w.before
	s.Paused, s.Concurrency = w.control.paused.applied(), w.control.limit.applied()
	return s, w.consumer
}

func fill(s *State, c *queue.Consumer) {
	if c == nil {
		return
	}
	s.Stats = carry(c.Stats(), s.Stats)
	if s.Stats.Draining {
		s.Status = Draining
	}
}

// carry adds to a consumer's stats what was last in the one before it.
func carry(s, before queue.ConsumerStats) queue.ConsumerStats {
	if s.LastFailureAt.IsZero() {
		s.LastFailure, s.LastFailureAt = before.LastFailure, before.LastFailureAt
	}
	if s.LastSettleErrorAt.IsZero() {
		s.LastSettleError, s.LastSettleErrorAt = before.LastSettleError, before.LastSettleErrorAt
	}
	if s.LastErrorAt.IsZero() {
		s.LastErrorAt = before.LastErrorAt // the error was over with the consumer
	}
	if s.LastSuccessAt.IsZero() {
		s.LastSuccessAt = before.LastSuccessAt
	}
	return s
}

// note remembers what has become of a worker.
func (b *Bus) note(w *worker, status Status, err error, failures int, again time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.noteLocked(w, status)
	w.err, w.failures, w.again = err, failures, again
}

func (b *Bus) noteLocked(w *worker, status Status) {
	if w.status != status {
		w.status, w.since = status, time.Now()
	}
}

// attach tells which consumer a worker has, and gives that what was changed live.
func (b *Bus) attach(w *worker, c *queue.Consumer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c == nil {
		w.before = carry(w.consumer.Stats(), w.before)
		w.consumer = nil
		return
	}
	w.consumer = c
	b.noteLocked(w, Running)
	w.err = nil
	w.applyLocked()
}

// Names returns the queues of the file that patterns of path.Match select; without a
// pattern all of them, in the order of the file. A pattern that selects none is refused.
func (b *Bus) Names(patterns ...string) ([]string, error) {
	chosen, err := b.choose("queue", patterns)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, q := range b.file.Queues {
		if chosen == nil || chosen[q.Name] {
			names = append(names, q.Name)
		}
	}
	return names, nil
}

// choose returns the queues that patterns of path.Match select; nil for no patterns.
// Each pattern must match a queue.
func (b *Bus) choose(field string, patterns []string) (map[string]bool, error) {
	if len(patterns) == 0 {
		return nil, nil //nolint:nilnil // all of them
	}
	chosen := map[string]bool{}
	for _, pattern := range patterns {
		found := false
		for name := range b.queues {
			ok, err := path.Match(pattern, name)
			if err != nil {
				return nil, &queue.InvalidError{Field: field, Reason: fmt.Sprintf("%q: %v", pattern, err)}
			}
			if ok {
				found, chosen[name] = true, true
			}
		}
		if !found {
			return nil, b.file.noQueue(field, pattern)
		}
	}
	return chosen, nil
}
