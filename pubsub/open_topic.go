package pubsub

import (
	"context"
	"errors"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// mostRead is how many subscriptions of a topic are read that's published to by its
// address.
const mostRead = 20

// readAll is for a topic that's published to by its address, so that none of its
// subscriptions is the queue's own: what any of them keeps for the shortest time counts,
// it has order where one of them has, and one without a filter must be among them. What
// may not be read is taken to be as Pub/Sub makes it.
func (h *handle) readAll(ctx context.Context, at *place, s *settings, found []string) error {
	var (
		unfit     error // of one that gets nothing
		shortest  time.Duration
		filtered  []string
		filter    string
		unlimited = len(found) > mostRead // or one without a filter, as far as known
	)
	keeps := func(d time.Duration) {
		if shortest == 0 || d < shortest {
			shortest = d
		}
	}
	for _, name := range found[:min(len(found), mostRead)] {
		sub, err := h.look(ctx, name)
		switch {
		case denied(err):
			if len(s.assumed) == 0 {
				s.assume(err, "message_retention_duration", "filter")
			}
			keeps(defaultRetention)
			unlimited = true
			continue
		case errors.Is(err, queue.ErrQueueNotFound): // deleted meanwhile
			unfit = err
			continue
		case err != nil:
			return err
		}
		if err := usable(sub, at); err != nil {
			unfit = err
			continue
		}
		own := *s
		own.read(sub)
		keeps(own.retention)
		s.ordering = s.ordering || own.ordering
		if own.filter == "" {
			unlimited = true
			continue
		}
		filtered, filter = append(filtered, name), own.filter
	}
	if shortest > 0 {
		s.retention = shortest
	}
	switch {
	case unlimited: // that others want less is their business
		return nil
	case len(filtered) > 0:
		return onlyFiltered(filter, filtered...)
	}
	return unfit
}
