package main

import (
	"context"
	"encoding/json"

	"github.com/anyqueue/anyqueue/queue"
)

// inspector looks at a queue, if its backend can do that; nil: it can't.
func (c *conductor) inspector(ctx context.Context, name string) (queue.Inspector, error) {
	q, err := c.bus.Queue(ctx, name)
	if err != nil {
		return nil, err
	}
	in, ok := queue.As[queue.Inspector](q)
	if !ok {
		c.blind.Do(func() {
			c.time.tell("%s can't be looked into: dead letters are taken from the mail API's log alone", name)
		})
		return nil, nil
	}
	return in, nil
}

// waiting is how many messages a queue has, handled ones included, as far as
// the broker says.
func (c *conductor) waiting(ctx context.Context, name string) (int64, error) {
	in, err := c.inspector(ctx, name)
	if in == nil {
		return 0, err
	}
	s, err := in.Stats(ctx)
	if err != nil {
		return 0, err
	}
	var n int64
	for _, part := range []*int64{s.Ready, s.InFlight, s.Delayed} {
		if part != nil {
			n += *part
		}
	}
	return n, nil
}

// deadLetters shows the judge the dead-letter queue of the customer sender. It
// returns how many messages should be there and aren't.
func (c *conductor) deadLetters(ctx context.Context) (missing int, err error) {
	if c.fakes.Judge.DeadLettered(nil) == 0 && !c.fakes.Judge.Ended().IsZero() {
		return 0, nil // looking isn't free everywhere
	}
	in, err := c.inspector(ctx, mailDeadLetters)
	if in == nil {
		return 0, err
	}
	dead, err := in.Peek(ctx, 100_000)
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
