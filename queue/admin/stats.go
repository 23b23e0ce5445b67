package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// QueueStats is what's known of one queue.
type QueueStats struct {
	Queue   string
	Backend string // as the file calls it
	// DeadLetter is its dead-letter queue, and DeadLetterOf are the queues that it's
	// the dead-letter queue of.
	DeadLetter   string
	DeadLetterOf []string
	// Endpoint and Address are those of its Capabilities, once it could be opened.
	Endpoint queue.Endpoint
	Address  string

	queue.Stats
	Err error // why nothing is known
}

// MarshalJSON gives what's unknown as null, and ages in seconds.
func (s QueueStats) MarshalJSON() ([]byte, error) {
	out := struct {
		Queue        string    `json:"queue"`
		Backend      string    `json:"backend"`
		DeadLetter   string    `json:"dead_letter,omitempty"`
		DeadLetterOf []string  `json:"dead_letter_of,omitempty"`
		Ready        *int64    `json:"ready"`
		InFlight     *int64    `json:"in_flight"`
		Delayed      *int64    `json:"delayed"`
		Total        *int64    `json:"total"`
		OldestAge    *float64  `json:"oldest_age_seconds"`
		AsOf         time.Time `json:"as_of,omitzero"`
		Approximate  bool      `json:"approximate"`
		Source       string    `json:"source,omitempty"`
		Err          string    `json:"error,omitempty"`
	}{
		s.Queue, s.Backend, s.DeadLetter, s.DeadLetterOf, s.Ready, s.InFlight, s.Delayed, s.Total, nil,
		s.AsOf, s.Approximate, s.Source, "",
	}
	if s.OldestAge != nil {
		seconds := s.OldestAge.Seconds()
		out.OldestAge = &seconds
	}
	if s.Err != nil {
		out.Err = s.Err.Error()
	}
	return json.Marshal(out)
}

// Stats tells about the queues that patterns of path.Match select; without a pattern all
// of them, in the order of the file. A pattern that selects none is refused. Each queue
// costs a request or two, and has Options.Timeout to open and as long to answer; what it
// can't say is in its own row. When none of a backend has answered for Options.Timeout, the
// rest of its queues aren't asked, so that a provider that's down costs no more than one
// queue that doesn't answer, and keeps the others waiting for nothing.
func (a *Admin) Stats(ctx context.Context, only ...string) ([]QueueStats, error) {
	names, err := a.bus.Names(only...)
	if err != nil {
		return nil, err
	}
	out := make([]QueueStats, len(names))
	asked := map[string]*asking{}
	var wg sync.WaitGroup
	for i, name := range names {
		q := a.file.Queue(name)
		out[i] = QueueStats{Queue: name, Backend: q.Backend, DeadLetterOf: a.sources(name)}
		if q.DeadLetter != nil {
			out[i].DeadLetter = q.DeadLetter.Queue
		}
		at := asked[q.Backend]
		if at == nil {
			at = &asking{slots: make(chan struct{}, a.opts.Parallel)}
			asked[q.Backend] = at
		}
		wg.Go(func() {
			at.slots <- struct{}{}
			defer func() { <-at.slots }()
			if !at.answers(a.opts.Timeout) {
				out[i].Err = fmt.Errorf("admin: not asked, as other queues of %s don't answer: %w", q.Backend, context.DeadlineExceeded)
				return
			}
			begun := time.Now()
			out[i].Stats, out[i].Err = a.stats(ctx, &out[i])
			if time.Since(begun) < a.opts.Timeout || out[i].Err == nil {
				at.last.Store(time.Now())
			}
		})
	}
	wg.Wait()
	return out, nil
}

// asking is what Stats does with a backend.
type asking struct {
	slots chan struct{}
	last  atomic.Value // time.Time: of the last answer, at first of the first question
}

func (k *asking) answers(within time.Duration) bool {
	k.last.CompareAndSwap(nil, time.Now())
	last, _ := k.last.Load().(time.Time)
	return time.Since(last) < within
}

func (a *Admin) stats(ctx context.Context, of *QueueStats) (queue.Stats, error) {
	q, err := a.open(ctx, of.Queue, queue.ForConsume)
	if err != nil {
		return queue.Stats{}, err
	}
	caps := q.Capabilities()
	of.Endpoint, of.Address = caps.Source, caps.Address
	in, err := inspector(q, nil)
	if err != nil {
		return queue.Stats{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.opts.Timeout)
	defer cancel()
	return in.Stats(ctx)
}

func inspector(q queue.Queue, err error) (queue.Inspector, error) {
	if err != nil {
		return nil, err
	}
	in, ok := queue.As[queue.Inspector](q)
	if !ok {
		return nil, &queue.UnsupportedError{Feature: "looking into a queue", System: q.Capabilities().Source.System}
	}
	return in, nil
}

// sources are the queues that dead-letter to one.
func (a *Admin) sources(name string) []string {
	var out []string
	for _, q := range a.file.Queues {
		if q.DeadLetter != nil && q.DeadLetter.Queue == name {
			out = append(out, q.Name)
		}
	}
	return out
}
