package memory

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/anyqueue/anyqueue/internal/broker"
	"github.com/anyqueue/anyqueue/queue"
)

// startGrace is how long WaitIdle gives the consumer of a queue with messages to
// begin. On virtual time it's over when everybody else waits too, which is
// exact; on real time it's a guess that costs little.
const startGrace = 100 * time.Millisecond

// WaitIdle waits until nothing is left to be done: no message is ready, leased
// or delayed in any queue that is received from. A queue counts as received
// from when Receive was called on it and the Queue wasn't closed since; so a
// dead-letter queue that nobody reads doesn't matter. A queue that holds
// messages is given 100 ms for its consumer to begin; and when no queue
// at all is received from, WaitIdle waits for the first.
//
// Given names, it waits for just these queues, whether or not they're received
// from.
//
// It fails when ctx ends, saying where messages are left.
func (b *Broker) WaitIdle(ctx context.Context, names ...string) error {
	if _, err := b.group.Clock.Now(); err != nil {
		return fmt.Errorf("memory: wait until idle: %w", translate(err))
	}
	for _, name := range names {
		if b.find(name) == nil {
			return fmt.Errorf("memory: wait until idle: %w: %s", queue.ErrQueueNotFound, name)
		}
	}
	for {
		var left, unread []string
		if !b.group.Watch(ctx.Done(), func() bool {
			left, unread = b.busy(names)
			return len(left) == 0
		}) {
			return fmt.Errorf("memory: wait until idle: %w: left are %s", ctx.Err(), strings.Join(left, ", "))
		}
		if len(unread) == 0 {
			return nil
		}
		grace := time.NewTimer(startGrace)
		select {
		case <-grace.C:
		case <-ctx.Done():
			grace.Stop()
		}
		if left, _ = b.busy(names); len(left) == 0 {
			return nil
		}
	}
}

// busy describes the queues for which WaitIdle waits, and those for which it
// doesn't although they hold messages.
func (b *Broker) busy(names []string) (left, unread []string) {
	b.mu.Lock()
	cores := slices.Clone(b.order)
	b.mu.Unlock()
	qs := make([]*broker.Queue[payload], len(cores))
	for i, c := range cores {
		qs[i] = c.q
	}
	loads := broker.Pending(qs)
	anyConsumer := slices.ContainsFunc(loads, func(l broker.Load) bool { return l.Consumers > 0 })
	for i, l := range loads {
		if l.Messages+l.Moving == 0 {
			continue
		}
		text := fmt.Sprintf("%d in %s", l.Messages+l.Moving, cores[i].name)
		switch {
		case l.Moving > 0: // to a queue that may be waited for
			left = append(left, text)
		case len(names) > 0:
			if slices.Contains(names, cores[i].name) {
				left = append(left, text)
			}
		case l.Consumers > 0 || !anyConsumer:
			left = append(left, text)
		default:
			unread = append(unread, text)
		}
	}
	return left, unread
}
