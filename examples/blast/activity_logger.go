package main

import (
	"context"

	"github.com/anyqueue/anyqueue/queue"
)

// An ActivityLogger writes activities to the activity service. Many can wait
// here without holding up anything else: the queue has its own small share of
// concurrency.
type ActivityLogger struct {
	Service *ActivityService
}

// Handle is the handler of activity-logger. The service takes the same id
// twice, so repeats need no care.
func (l *ActivityLogger) Handle(ctx context.Context, a Activity, d *queue.Delivery) error {
	return outcome(l.Service.Put(ctx, d.ID, a))
}
