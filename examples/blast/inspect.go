package main

import (
	"context"
	"encoding/json"

	"github.com/anyqueue/anyqueue/examples/internal/backends"
)

// waiting is how many messages a queue has, handled ones included, as far as
// that can be known.
func (c *conductor) waiting(ctx context.Context, name string) (int64, error) {
	q, err := c.bus.Queue(ctx, name)
	if err != nil {
		return 0, err
	}
	return backends.Waiting(ctx, q)
}

// deadLetters shows the judge the dead-letter queue of the customer sender. It
// returns how many messages should be there and aren't.
func (c *conductor) deadLetters(ctx context.Context) (missing int, err error) {
	if c.fakes.Judge.DeadLettered(nil) == 0 && !c.fakes.Judge.Ended().IsZero() {
		return 0, nil // looking isn't free everywhere
	}
	q, err := c.bus.Queue(ctx, mailDeadLetters)
	if err != nil {
		return 0, err
	}
	dead, err := backends.Look(ctx, q, 100_000)
	if err != nil {
		return 0, err
	}
	var customers []string
	for _, d := range dead {
		var m CustomerMail
		if err := json.Unmarshal(d.Body, &m); err != nil || m.Blast.ID != c.blast.ID {
			continue // of another blast
		}
		if len(customers) == 0 {
			c.firstDead = d.DeadLetter
		}
		customers = append(customers, m.Customer)
	}
	return c.fakes.Judge.DeadLettered(customers), nil
}
