package admin

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// Selection says which dead letters an operation moves: those for which everything holds
// that's said. The zero value selects all that came from the queue that they go to.
type Selection struct {
	IDs          []string `json:"ids,omitempty"`          // of messages (Delivery.ID), any of them
	Fingerprints []string `json:"fingerprints,omitempty"` // of failures, any of them
	Reasons      []string `json:"reasons,omitempty"`      // queue.DeadLetterReason, any of them
	Error        string   `json:"error,omitempty"`        // the error's text contains it
	// Attributes are what the message's own must be.
	Attributes map[string]string `json:"attributes,omitempty"`
	// After and Before are about the last failure; without a history about the
	// first enqueue. After is inclusive.
	After  time.Time `json:"after,omitzero"`
	Before time.Time `json:"before,omitzero"`
	// AnySource also selects what came from another queue than the one it goes to.
	AnySource bool `json:"any_source,omitempty"`
}

func (s Selection) clone() Selection {
	s.IDs, s.Fingerprints, s.Reasons = slices.Clone(s.IDs), slices.Clone(s.Fingerprints), slices.Clone(s.Reasons)
	s.Attributes = maps.Clone(s.Attributes)
	return s
}

// match is for queue.RedriveOptions.Filter.
func (s *Selection) match(d *queue.Delivery) bool {
	info := d.DeadLetter
	if info == nil {
		info = &queue.DeadLetterInfo{}
	}
	at := info.LastAt
	if at.IsZero() {
		at = d.EnqueuedAt
	}
	switch {
	case len(s.IDs) > 0 && !slices.Contains(s.IDs, d.ID),
		len(s.Fingerprints) > 0 && !slices.Contains(s.Fingerprints, info.Fingerprint),
		len(s.Reasons) > 0 && !slices.Contains(s.Reasons, string(info.Reason)),
		s.Error != "" && !strings.Contains(info.Error, s.Error),
		!s.After.IsZero() && at.Before(s.After),
		!s.Before.IsZero() && !at.Before(s.Before):
		return false
	}
	for k, v := range s.Attributes {
		if have, ok := d.Attributes[k]; !ok || have != v {
			return false
		}
	}
	return true
}
