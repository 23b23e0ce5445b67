package backends

import (
	"context"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// Look returns up to max messages of a queue without taking them.
func Look(ctx context.Context, q queue.Queue, max int) ([]*queue.Delivery, error) {
	in, err := inspector(q)
	if err != nil {
		return nil, err
	}
	return in.Peek(ctx, max)
}

// Waiting is how many messages a queue has: handled and delayed ones included, as
// far as the broker says. Pub/Sub doesn't say, so that there a look has to do: it
// tells whether there are messages that nobody has.
func Waiting(ctx context.Context, q queue.Queue) (int64, error) {
	in, err := inspector(q)
	if err != nil {
		return 0, err
	}
	s, err := in.Stats(ctx)
	if err != nil {
		return 0, err
	}
	var n int64
	known := false
	for _, part := range []*int64{s.Ready, s.InFlight, s.Delayed} {
		if part != nil {
			n, known = n+*part, true
		}
	}
	if known {
		return n, nil
	}
	some, err := in.Peek(ctx, 1)
	return int64(len(some)), err
}

func inspector(q queue.Queue) (queue.Inspector, error) {
	in, ok := queue.As[queue.Inspector](q)
	if !ok {
		return nil, &queue.UnsupportedError{Feature: "looking into a queue", System: q.Capabilities().Source.System}
	}
	return in, nil
}

const (
	oneLook     = 10_000 // messages
	betweenLook = 100 * time.Millisecond
)

// Gather looks into a queue until what was seen is enough, or ctx ends, which is no
// error. One look alone may not show all there is. It returns what was seen, by id.
func Gather(ctx context.Context, q queue.Queue, enough func(seen map[string]*queue.Delivery) bool) (map[string]*queue.Delivery, error) {
	seen := map[string]*queue.Delivery{}
	for {
		ds, err := Look(ctx, q, oneLook)
		for _, d := range ds {
			seen[d.ID] = d
		}
		switch done := enough(seen); {
		case ctx.Err() != nil, err == nil && done:
			return seen, nil //nolint:nilerr // its time is up
		case err != nil:
			return seen, err
		}
		select {
		case <-ctx.Done():
			return seen, nil
		case <-time.After(betweenLook):
		}
	}
}
