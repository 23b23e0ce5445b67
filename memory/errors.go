package memory

import (
	"errors"
	"fmt"

	"github.com/anyqueue/anyqueue/internal/broker"
	"github.com/anyqueue/anyqueue/queue"
)

// translate gives errors of the broker the meaning that they have on every
// backend.
func translate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, broker.ErrBubble):
		return &queue.InvalidError{Field: "use of a memory.Broker", Reason: err.Error()}
	case errors.Is(err, broker.ErrFull):
		return queue.ErrFull
	case errors.Is(err, broker.ErrStale):
		return queue.ErrLeaseLost
	case errors.Is(err, broker.ErrStopped):
		return queue.ErrClosed
	case errors.Is(err, broker.ErrInFlight):
		return fmt.Errorf("%w: %w", queue.ErrThrottled, err)
	}
	return err
}

// fail adds what was tried to an error.
func (h *handle) fail(what string, err error) error {
	return fmt.Errorf("memory: %s %s: %w", what, h.core.name, translate(err))
}
