package config

import (
	"context"
	"fmt"

	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
)

// brokerNet is how many times the file's own limit the broker is given, which
// knows nothing of snoozes and shutdowns and keeps no history.
const brokerNet = 10

// ensure creates a queue that doesn't exist, after the ones that it dead-letters
// to; those don't lead back, or the file would have been refused. A queue with
// an address is somebody else's to create.
func (b *Bus) ensure(ctx context.Context, q *Queue) error {
	if q.DeadLetter != nil {
		if err := b.ensure(ctx, b.queues[q.DeadLetter.Queue]); err != nil {
			return fmt.Errorf("its dead-letter queue: %w", err)
		}
	}
	if q.Address != "" {
		b.log().Debug("not created, as it has an address", "queue", q.Name, "address", q.Address)
		return nil
	}
	backend := b.backends[q.Backend]
	e, ok := queue.As[queue.Ensurer](backend)
	if !ok {
		return fmt.Errorf("ensure: %w", &queue.UnsupportedError{Feature: "creating queues", System: backend.System()})
	}
	report, err := e.Ensure(ctx, q.Name, b.spec(q))
	if err != nil {
		return err
	}
	if report == nil {
		return nil
	}
	if len(report.Created) > 0 {
		b.log().Info("created", "queue", q.Name, "what", report.Created)
	}
	if len(report.Changed) > 0 {
		b.log().Info("changed", "queue", q.Name, "what", report.Changed)
	}
	if len(report.Differences) > 0 {
		b.log().Warn("differs from the file", "queue", q.Name, "what", report.Differences)
	}
	if len(report.Warnings) > 0 {
		b.log().Warn("not all is set up", "queue", q.Name, "what", report.Warnings)
	}
	return nil
}

func (b *Bus) spec(q *Queue) *queue.QueueSpec {
	spec := &queue.QueueSpec{Ordered: q.Ordered, Lease: q.Lease, IsDeadLetter: b.targets[q.Name]}
	if dl := q.DeadLetter; dl != nil {
		// The broker can only move messages to a queue of its own, and knows
		// nothing of keys that are to wait.
		to := b.queues[dl.Queue]
		if to.Backend == q.Backend && to.Address == "" && dl.MaxFailures > 0 && dl.OnExhausted != middleware.Block {
			spec.DeadLetter = dl.Queue
			spec.BrokerMaxAttempts = brokerNet * dl.MaxFailures
		}
	}
	return spec
}
