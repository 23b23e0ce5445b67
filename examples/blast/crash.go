package main

import (
	"context"
	"sync"

	"github.com/anyqueue/anyqueue/queue"
)

// crashing is the publisher of a list sender that dies, once, after so many
// messages: in the middle of its fan-out.
type crashing struct {
	queue.Publisher
	after int
	tell  func(format string, args ...any)

	mu        sync.Mutex
	published int
	crashed   bool
	again     bool
}

func (c *crashing) Publish(ctx context.Context, msgs ...*queue.Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.crashed && !c.again {
		c.again = true
		c.tell("list sender: runs again, from the start; what was already published is published again")
	}
	if !c.crashed && c.published+len(msgs) > c.after {
		c.crashed = true
		part := msgs[:c.after-c.published]
		if err := c.Publisher.Publish(ctx, part...); err != nil {
			return err
		}
		c.tell("list sender: dies after %s messages (as asked for with -die)", count(c.after))
		panic("the list sender dies")
	}
	if err := c.Publisher.Publish(ctx, msgs...); err != nil {
		return err
	}
	c.published += len(msgs)
	return nil
}

// Unwrap lets queue.As look through.
func (c *crashing) Unwrap() queue.Publisher { return c.Publisher }
