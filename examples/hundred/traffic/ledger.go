package traffic

import (
	"context"
	"errors"
	"sync"

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
	Failures     int `json:"failures"`      // tries
	Open         int `json:"open"`          // confirmed, and neither handled nor dead-lettered
}

// Ledger knows the messages that are under way, and counts the others. Its methods may
// be called concurrently.
type Ledger struct {
	mu      sync.Mutex
	counts  Counts
	open    map[string]bool   // id to whether it's confirmed
	dead    map[string]string // id to dead-letter queue, as consumers say
	changed chan struct{}     // closed and replaced at each end of a message
}

// NewLedger returns an empty one.
func NewLedger() *Ledger {
	return &Ledger{open: map[string]bool{}, dead: map[string]string{}, changed: make(chan struct{})}
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
			l.ended(s.Delivery.ID, s.Outcome.To)
		case queue.Failed, queue.Retry:
			l.mu.Lock()
			l.counts.Failures++
			l.mu.Unlock()
		}
	}}
}

// sent notes a message before it's published: it may be handled before that is known.
func (l *Ledger) sent(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[id] = false
}

// published notes how that went. What's refused for sure is forgotten; what's in doubt
// may come, or not.
func (l *Ledger) published(id string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.counts.Published++
		if _, ok := l.open[id]; ok {
			l.open[id] = true
			l.counts.Open++
		}
	case errors.Is(err, queue.ErrUnknownOutcome):
		l.counts.InDoubt++
	default:
		l.counts.Refused++
		delete(l.open, id)
	}
}

// ended notes that a message was handled, or, with a queue, dead-lettered.
func (l *Ledger) ended(id, deadLetterQueue string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	confirmed, open := l.open[id]
	_, dead := l.dead[id]
	switch {
	case dead && deadLetterQueue == "": // it was moved back
		delete(l.dead, id)
		l.counts.DeadLettered--
		l.counts.Handled++
		return
	case !open:
		l.counts.Repeated++
		return
	case deadLetterQueue == "":
		l.counts.Handled++
	default:
		l.counts.DeadLettered++
		l.dead[id] = deadLetterQueue
	}
	delete(l.open, id)
	if confirmed {
		l.counts.Open--
	}
	close(l.changed)
	l.changed = make(chan struct{})
}
