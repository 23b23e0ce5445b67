package traffic

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// quiet is how long a dead-letter queue brings nothing when it's empty.
const quiet = 3 * time.Second

// Collect removes this run's messages from the dead-letter queues, and returns those that
// should be there and aren't: by id, their dead-letter queue. Others' messages stay.
func (t *Traffic) Collect(ctx context.Context) (missing map[string]string, err error) {
	t.ledger.mu.Lock()
	missing = maps.Clone(t.ledger.dead)
	t.ledger.mu.Unlock()
	queues := map[string]bool{}
	for _, name := range missing {
		queues[name] = true
	}
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	for name := range queues {
		wg.Go(func() {
			err := t.empty(ctx, name, func(id string) {
				mu.Lock()
				defer mu.Unlock()
				delete(missing, id)
			})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, fmt.Errorf("collecting the dead letters of %s: %w", name, err))
			}
		})
	}
	wg.Wait()
	return missing, errors.Join(errs...)
}

// empty takes what's of this run out of a queue.
func (t *Traffic) empty(ctx context.Context, name string, seen func(id string)) error {
	q, err := t.bus.Queue(ctx, name)
	if err != nil {
		return err
	}
	for last := time.Now(); time.Since(last) < quiet; {
		polling, cancel := context.WithTimeout(ctx, quiet)
		ds, err := q.Receive(polling, 10)
		ended := polling.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && !ended:
			return err
		}
		var settlements []queue.Settlement
		for _, d := range ds {
			s := queue.Settlement{Delivery: d, Kind: queue.Release, Delay: time.Minute}
			if d.Attributes[runAttribute] == t.run {
				last = time.Now()
				seen(d.ID)
				s = queue.Settlement{Delivery: d}
			}
			settlements = append(settlements, s)
		}
		if len(settlements) > 0 {
			if err := q.Settle(ctx, settlements...); err != nil {
				return err
			}
		}
	}
	return nil
}
