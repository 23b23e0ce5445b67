package memory

import (
	"context"
	"fmt"
	"time"

	"github.com/anyqueue/anyqueue/internal/broker"
	"github.com/anyqueue/anyqueue/queue"
)

type instant = broker.Instant

var (
	_ queue.Queue     = (*handle)(nil)
	_ queue.Inspector = (*handle)(nil)
	_ queue.Purger    = (*handle)(nil)
	_ queue.Redriver  = (*handle)(nil)
)

// admin begins a call that isn't about single messages.
func (h *handle) admin(ctx context.Context, what string) (instant, error) {
	if err := h.begin(); err != nil {
		return 0, h.fail(what, err)
	}
	now, err := h.core.broker.group.Clock.Now()
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		h.end()
		return 0, h.fail(what, err)
	}
	return now, nil
}

// Stats counts the messages. It walks the queue, which takes a while when it's
// very deep. Like SQS and Pub/Sub it says that the counts are approximate,
// although they're exact, and like SQS it doesn't tell an age.
func (h *handle) Stats(ctx context.Context) (queue.Stats, error) {
	now, err := h.admin(ctx, "stats of")
	if err != nil {
		return queue.Stats{}, err
	}
	defer h.end()
	c := h.core.q.Counts(now)
	ready, leased, delayed := int64(c.Ready), int64(c.Leased), int64(c.Delayed)
	total := ready + leased + delayed
	s := queue.Stats{
		Ready: &ready, InFlight: &leased, Delayed: &delayed, Total: &total,
		AsOf: time.Now(), Approximate: h.core.broker.like.approximate, Source: System,
	}
	if !h.core.broker.like.noAge {
		var age time.Duration // none when there's no message
		if !c.Oldest.IsZero() {
			age = max(s.AsOf.Sub(c.Oldest), 0)
		}
		s.OldestAge = &age
	}
	return s, nil
}

// Peek returns copies of the messages that could be received now or wait for
// their key, in the order of their publishing.
func (h *handle) Peek(ctx context.Context, max int) ([]*queue.Delivery, error) {
	now, err := h.admin(ctx, "peek into")
	if err != nil {
		return nil, err
	}
	defer h.end()
	if max <= 0 {
		return nil, h.fail("peek into", &queue.InvalidError{Field: "max", Reason: "must be at least 1"})
	}
	return h.core.copies(now, h.core.q.Snapshot(now, max, true), h.caps.Attempts), nil
}

// Purge removes every message, also those that are being handled. Like SQS it
// fails with queue.ErrThrottled within a minute of the last one.
func (h *handle) Purge(ctx context.Context) error {
	now, err := h.admin(ctx, "purge")
	if err != nil {
		return err
	}
	defer h.end()
	c, every := h.core, h.core.broker.like.purgeEvery
	if every > 0 {
		c.broker.mu.Lock()
		early := c.purged && time.Duration(now-c.lastPurge) < every
		if !early {
			c.purged, c.lastPurge = true, now
		}
		c.broker.mu.Unlock()
		if early {
			return h.fail("purge", fmt.Errorf("%w: once in %v", queue.ErrThrottled, every))
		}
	}
	c.q.Purge(now)
	return nil
}

// copies makes deliveries that can't be settled.
func (c *core) copies(now instant, ss []broker.Snapshot[payload], attempts queue.AttemptCount) []*queue.Delivery {
	like, wall := c.broker.like, time.Now().Round(0)
	out := make([]*queue.Delivery, len(ss))
	for i := range ss {
		s := &ss[i]
		d := &queue.Delivery{}
		s.Item.Payload.load(d, &c.wire)
		if s.Key != "" {
			d.OrderingKey = s.Key
		}
		d.Source = c.source
		d.FillFromBroker(c.ids.of(s.Seq), s.Enqueued)
		d.Attempt = like.attempt(attempts, s.Receives, s.Returns)
		info := &Info{State: s.State.String(), Receives: s.Receives, Options: s.Item.Payload.options()}
		switch s.State { //nolint:exhaustive // the others have no time
		case broker.Leased:
			d.Deadline = c.broker.group.Clock.Time(s.At)
		case broker.Delayed:
			info.Until = wall.Add(time.Duration(s.At - now))
		}
		d.Native = info
		out[i] = d
	}
	return out
}

// Messages returns copies of all messages that a queue holds, whatever their
// state (InfoOf tells), in the order of their publishing; none when there's no
// such queue. They can't be settled.
func (b *Broker) Messages(name string) []*queue.Delivery {
	c := b.find(name)
	if c == nil {
		return nil
	}
	now, err := b.group.Clock.Now()
	if err != nil {
		return nil
	}
	b.mu.Lock()
	attempts := b.capabilities(c).Attempts
	b.mu.Unlock()
	return c.copies(now, c.q.Snapshot(now, 0, false), attempts)
}

// LoseLeases ends all leases of a queue as if their time was up, and returns
// their number. It's for tests.
func (b *Broker) LoseLeases(name string) int {
	c := b.find(name)
	if c == nil {
		return 0
	}
	now, err := b.group.Clock.Now()
	if err != nil {
		return 0
	}
	return c.q.LoseLeases(now)
}
