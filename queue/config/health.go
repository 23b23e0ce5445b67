package config

import (
	"encoding/json"
	"net/http"
	"time"
)

// Health is what Live and Ready answer with, as JSON.
type Health struct {
	OK     bool          `json:"ok"`
	Why    string        `json:"why,omitempty"`
	Queues []QueueHealth `json:"queues,omitempty"` // that aren't as they should be
}

// QueueHealth is a queue that isn't running, or is paused.
type QueueHealth struct {
	Queue   string    `json:"queue"`
	Status  Status    `json:"status"`
	Paused  bool      `json:"paused,omitempty"`
	Err     string    `json:"err,omitempty"`
	RetryAt time.Time `json:"retry_at,omitzero"`
}

// Live answers whether the process is worth keeping: 200 while Run is under way or
// hasn't begun, 503 after Close. A queue that fails is no reason to kill the others:
// it's in the answer, and is started again by itself.
func (b *Bus) Live() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		b.mu.Lock()
		closed := b.closed
		b.mu.Unlock()
		h := b.health()
		if h.OK = !closed; closed {
			h.Why = "closed"
		}
		answer(w, h)
	})
}

// Ready answers whether the process does its work: 200 when Run is under way and each
// of its consumers runs or has been tried, 503 before, while it drains, and after. A
// queue that's missing doesn't keep a deployment from going on; it's in the answer.
func (b *Bus) Ready() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		b.mu.Lock()
		running := b.done != nil && !b.closed && b.running.Err() == nil
		b.mu.Unlock()
		h := b.health()
		h.OK = running
		if !running {
			h.Why = "not running"
		}
		for _, q := range h.Queues {
			if q.Status == Starting && q.Err == "" { // for the first time
				h.OK, h.Why = false, "starting"
			}
		}
		answer(w, h)
	})
}

// health lists what isn't as it should be.
func (b *Bus) health() Health {
	var h Health
	for _, s := range b.States() {
		if !s.Handled || !s.Selected || s.Status == Running && s.Paused == nil {
			continue
		}
		q := QueueHealth{Queue: s.Queue, Status: s.Status, Paused: s.Paused != nil, RetryAt: s.RetryAt}
		if s.Err != nil {
			q.Err = s.Err.Error()
		}
		h.Queues = append(h.Queues, q)
	}
	return h
}

func answer(w http.ResponseWriter, h Health) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !h.OK {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(h) // whoever asked has gone
}
