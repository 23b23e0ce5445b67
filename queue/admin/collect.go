package admin

import (
	"context"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// Collect asks for Stats at once and then every so often, and gives each answer to tell,
// until ctx ends; then it returns nil. It's for gauges of how much waits, and how long: a
// queue that couldn't be asked has an Err and no numbers. It returns an error at once
// when an argument is wrong, as Stats does for its patterns.
//
// Each time costs a request or two per queue, whatever the number of processes that do
// it: one is enough for a file, and a minute is often enough.
func (a *Admin) Collect(ctx context.Context, every time.Duration, tell func([]QueueStats), only ...string) error {
	switch {
	case every <= 0:
		return &queue.InvalidError{Field: "Collect", Reason: "the interval must be positive"}
	case tell == nil:
		return &queue.InvalidError{Field: "Collect", Reason: "nil function"}
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		stats, err := a.Stats(ctx, only...)
		if ctx.Err() != nil { // what was cut off says nothing
			return nil
		}
		if err != nil {
			return err
		}
		tell(stats)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
