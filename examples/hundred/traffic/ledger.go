package traffic

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// Counts are what has become of the messages.
type Counts struct {
	Published    int `json:"published"`     // confirmed
	Refused      int `json:"refused"`       // not published, which is certain
	InDoubt      int `json:"in_doubt"`      // maybe published
	Handled      int `json:"handled"`       // each once
	DeadLettered int `json:"dead_lettered"` // each once
	Repeated     int `json:"repeated"`      // came again after they were handled or dead-lettered
	Early        int `json:"early"`         // handled before their delay was over
	Overtaken    int `json:"overtaken"`     // handled after a later one of their key
	Failures     int `json:"failures"`      // tries
	Open         int `json:"open"`          // confirmed, and neither handled nor dead-lettered
}

// sent is a message that's under way.
type sent struct {
	due       time.Time // not to be handled before; zero: at once
	line      line      // zero: it's in no order
	number    int       // in the line
	confirmed bool
}

// line is what's to be handled in order: a key of a queue.
type line struct{ queue, key string }

// Ledger knows the messages that are under way, and counts the others. Its methods may
// be called concurrently.
type Ledger struct {
	mu      sync.Mutex
	counts  Counts
	open    map[string]sent   // by id
	last    map[line]int      // number of the last one that was handled
	dead    map[string]string // id to dead-letter queue, as consumers say
	changed chan struct{}     // closed and replaced at each end of a message
}

// NewLedger returns an empty one.
func NewLedger() *Ledger {
	return &Ledger{open: map[string]sent{}, last: map[line]int{}, dead: map[string]string{}, changed: make(chan struct{})}
}

// Counts tells how it stands.
func (l *Ledger) Counts() Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts
}

// Wait waits until no message is open, or ctx ends.
func (l *Ledger) Wait(ctx context.Context) error {
	for {
		l.mu.Lock()
		open, changed := l.counts.Open, l.changed
		l.mu.Unlock()
		if open == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Hooks note what is dead-lettered. Give them to config.Options.
func (l *Ledger) Hooks() *queue.Hooks {
	return &queue.Hooks{Settled: func(s queue.Settled) {
		switch s.Outcome.Kind { //nolint:exhaustive // the handlers tell the rest
		case queue.DeadLettered:
			l.deadLettered(s.Delivery.ID, s.Outcome.To)
		case queue.Failed, queue.Retry:
			l.mu.Lock()
			l.counts.Failures++
			l.mu.Unlock()
		}
	}}
}

// sending notes a message before it's published: it may be handled before that is known.
func (l *Ledger) sending(id string, m sent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[id] = m
}

// published notes how that went. What's refused for sure is forgotten; what's in doubt
// may come, or not.
func (l *Ledger) published(id string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.counts.Published++
		if m, ok := l.open[id]; ok {
			m.confirmed = true
			l.open[id] = m
			l.counts.Open++
		}
	case errors.Is(err, queue.ErrUnknownOutcome):
		l.counts.InDoubt++
	default:
		l.counts.Refused++
		delete(l.open, id)
	}
}

// handled notes that a message was handled.
func (l *Ledger) handled(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, dead := l.dead[id]; dead { // it was moved back
		delete(l.dead, id)
		l.counts.DeadLettered--
		l.counts.Handled++
		return
	}
	m, open := l.endLocked(id)
	if !open {
		return
	}
	l.counts.Handled++
	if time.Now().Before(m.due) {
		l.counts.Early++
	}
	if m.line == (line{}) {
		return
	}
	if m.number < l.last[m.line] {
		l.counts.Overtaken++
	}
	l.last[m.line] = max(l.last[m.line], m.number)
}

// deadLettered notes that a message lies in a dead-letter queue, as its consumer says.
func (l *Ledger) deadLettered(id, queue string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, open := l.endLocked(id); open {
		l.counts.DeadLettered++
		l.dead[id] = queue
	}
}

// endLocked takes a message out of those under way. It reports whether it was there.
func (l *Ledger) endLocked(id string) (sent, bool) {
	m, open := l.open[id]
	if !open {
		l.counts.Repeated++
		return m, false
	}
	delete(l.open, id)
	if m.confirmed {
		l.counts.Open--
	}
	close(l.changed)
	l.changed = make(chan struct{})
	return m, true
}
