package admin

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// Peek returns up to max messages of a queue without taking them. On a broker that can
// only look by receiving it hides them for a moment, and fails with
// queue.ErrUnsupported where that has consequences: see queue.PeekConfirmer.
func (a *Admin) Peek(ctx context.Context, name string, max int) ([]*queue.Delivery, error) {
	in, err := inspector(a.open(ctx, name, queue.ForConsume))
	if err != nil {
		return nil, err
	}
	return in.Peek(ctx, max)
}

// PeekConfirmed is Peek, whatever it costs.
func (a *Admin) PeekConfirmed(ctx context.Context, name string, max int) ([]*queue.Delivery, error) {
	in, err := inspector(a.open(ctx, name, queue.ForConsume))
	if err != nil {
		return nil, err
	}
	if c, ok := in.(queue.PeekConfirmer); ok {
		return c.PeekConfirmed(ctx, max)
	}
	return in.Peek(ctx, max)
}

// By says who does something, and why, for the log.
type By struct {
	Actor  string `json:"actor,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// Purge removes everything from a queue, which can't be undone. A broker may take a
// minute for it, and messages that are being handled may go too.
func (a *Admin) Purge(ctx context.Context, name string, by By) error {
	q, err := a.open(ctx, name, queue.ForConsume)
	if err != nil {
		return err
	}
	p, ok := queue.As[queue.Purger](q)
	if !ok {
		return &queue.UnsupportedError{Feature: "purging a queue", System: q.Capabilities().Source.System}
	}
	if err := p.Purge(ctx); err != nil {
		a.opts.Logger.Warn("purge failed", "queue", name, "actor", by.Actor, "reason", by.Reason, "err", err)
		return err
	}
	a.opts.Logger.Warn("purged", "queue", name, "actor", by.Actor, "reason", by.Reason)
	return nil
}

// Publish publishes to a queue as the programs that use the file do: with the file's
// delay.
func (a *Admin) Publish(ctx context.Context, name string, by By, msgs ...*queue.Message) error {
	err := a.bus.Publisher(name).Publish(ctx, msgs...)
	count := len(msgs)
	if err != nil {
		count = 0
	}
	if partly, ok := errors.AsType[*queue.PublishError](err); ok {
		count = partly.Total - len(partly.Failed)
	}
	if count > 0 {
		a.opts.Logger.Info("published", "queue", name, "count", count, "actor", by.Actor, "reason", by.Reason)
	}
	if err != nil {
		a.opts.Logger.Warn("publish failed", "queue", name, "count", len(msgs)-count, "actor", by.Actor, "reason", by.Reason, "err", err)
	}
	return err
}

// FailureGroup is what several dead letters have in common.
type FailureGroup struct {
	Fingerprint string    `json:"fingerprint"` // empty: of those without a history
	Count       int       `json:"count"`
	Sources     []string  `json:"sources,omitempty"` // the queues in which they failed, by name
	Error       string    `json:"error,omitempty"`   // of the first one
	Example     string    `json:"example,omitempty"`
	First       time.Time `json:"first,omitzero"` // failure
	Last        time.Time `json:"last,omitzero"`
}

// Group puts dead letters together whose failures are alike, the largest group first.
func Group(ds []*queue.Delivery) []FailureGroup {
	index := map[string]int{}
	var groups []FailureGroup
	for _, d := range ds {
		info := d.DeadLetter
		if info == nil {
			info = &queue.DeadLetterInfo{}
		}
		i, ok := index[info.Fingerprint]
		if !ok {
			i = len(groups)
			index[info.Fingerprint] = i
			groups = append(groups, FailureGroup{
				Fingerprint: info.Fingerprint, Error: info.Error, Example: d.ID, First: info.LastAt, Last: info.LastAt,
			})
		}
		g := &groups[i]
		g.Count++
		if name := info.Source.Name; name != "" {
			if at, there := slices.BinarySearch(g.Sources, name); !there {
				g.Sources = slices.Insert(g.Sources, at, name)
			}
		}
		if info.LastAt.Before(g.First) {
			g.First = info.LastAt
		}
		if info.LastAt.After(g.Last) {
			g.Last = info.LastAt
		}
	}
	slices.SortStableFunc(groups, func(a, b FailureGroup) int { return cmp.Compare(b.Count, a.Count) })
	return groups
}
