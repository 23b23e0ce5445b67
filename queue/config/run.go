package config

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

const (
	// closeTimeout is how long closing a queue may take that was opened too late.
	closeTimeout = 5 * time.Second
	// pollTimeout is the same after a consumer has ended. It has settled
	// everything by then, and polls that are left have had their ReceiveGrace.
	pollTimeout = 250 * time.Millisecond
	// steady is how long a consumer must have run for its earlier failures to
	// be forgotten.
	steady = time.Minute
)

// restart is how long a consumer that has stopped waits before it's tried again.
func restart() queue.Backoff { return queue.Backoff{Min: time.Second, Max: time.Minute} }

// Run consumes the queues that have a handler until ctx ends, then drains them
// all at once. It returns nil, or what couldn't be drained (*queue.AbandonedError).
// It fails at once when Handle was given something wrong, when there's no
// handler, when a Run is under way, and after Close (queue.ErrClosed).
//
// No consumer stops another: one that can't start or go on, as its queue or
// dead-letter queue is missing, isn't permitted, or can't do what the file asks,
// is logged and tried again after 1 s to 1 min; State tells why. Queues that have
// no handler in this process, or that Options.Only leaves out, are logged in one
// line. Run may be called again after it has returned.
func (b *Bus) Run(ctx context.Context) error {
	ctx, workers, err := b.begin(ctx)
	if err != nil {
		return err
	}
	defer b.finish()
	errs := make([]error, len(workers))
	var wg sync.WaitGroup
	for i, w := range workers {
		wg.Go(func() { errs[i] = b.keepRunning(ctx, w) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// begin returns what to run, in the order of the file.
func (b *Bus) begin(ctx context.Context) (context.Context, []*worker, error) {
	ctx, workers, without, left, err := b.started(ctx)
	if len(without) > 0 {
		b.log().Info("queues without a handler in this process", "queues", without)
	}
	if len(left) > 0 {
		b.log().Info("queues left to other processes", "queues", left, "only", b.opts.Only)
	}
	return ctx, workers, err
}

func (b *Bus) started(ctx context.Context) (running context.Context, workers []*worker, without, left []string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		err = fmt.Errorf("config: run: %w", queue.ErrClosed)
	case b.done != nil:
		err = &queue.InvalidError{Field: "Run", Reason: "the Bus is already running"}
	case len(b.mistakes) > 0:
		err = errors.Join(b.mistakes...)
	case len(b.workers) == 0:
		err = &queue.InvalidError{Field: "Run", Reason: "there is no handler; a Bus that only publishes needn't run"}
	}
	if err != nil {
		return nil, nil, nil, nil, err
	}
	for _, q := range b.file.Queues {
		if w := b.workers[q.Name]; w != nil && b.selected != nil && !b.selected[q.Name] {
			left = append(left, q.Name)
		} else if w != nil {
			workers = append(workers, w)
		} else if !b.targets[q.Name] {
			without = append(without, q.Name)
		}
	}
	if len(workers) == 0 {
		return nil, nil, without, left, &queue.InvalidError{Field: "Options.Only", Reason: fmt.Sprintf("%q selects no queue that has a handler", b.opts.Only)}
	}
	running, b.stop = context.WithCancel(ctx)
	b.running = running
	b.done = make(chan struct{})
	return running, workers, without, left, nil
}

func (b *Bus) finish() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stop()
	close(b.done)
	b.stop, b.running, b.done = nil, nil, nil
}

// keepRunning consumes one queue until ctx ends, whatever becomes of it.
func (b *Bus) keepRunning(ctx context.Context, w *worker) error {
	defer func() { b.note(w, Stopped, nil, 0, time.Time{}) }()
	var last error
	for failures := 0; ; {
		b.note(w, Starting, last, failures, time.Time{})
		begun := time.Now()
		err := b.consume(ctx, w)
		last = err
		if ctx.Err() != nil {
			if abandoned, ok := errors.AsType[*queue.AbandonedError](err); ok {
				return fmt.Errorf("config: queue %s: %w", w.queue.Name, abandoned)
			}
			return nil
		}
		if time.Since(begun) >= steady {
			failures = 0
		}
		failures++
		wait := restart().Delay(failures)
		b.note(w, Failing, err, failures, time.Now().Add(wait))
		b.log().Error("consumer stopped", "queue", w.queue.Name, "err", err, "failures", failures, "in", wait.Round(time.Millisecond))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// consume opens the queue of w and consumes it until ctx or the consumer ends.
func (b *Bus) consume(ctx context.Context, w *worker) error {
	if dl := w.queue.DeadLetter; dl != nil {
		// Opened now, as a failure that can't be dead-lettered is found too late,
		// and as the middleware is told here what that queue can do.
		b.mu.Lock()
		to := b.sharedLocked(b.queues[dl.Queue], queue.ForPublish)
		b.mu.Unlock()
		if _, err := to.get(ctx); err != nil {
			return err
		}
	}
	q, err := b.open(ctx, w.queue, queue.ForConsume)
	if err != nil {
		return err
	}
	defer func() {
		cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pollTimeout)
		defer cancel()
		if err := q.Close(cctx); err != nil {
			b.log().Warn("queue not closed", "queue", w.queue.Name, "err", err)
		}
	}()
	c, err := queue.NewConsumer(q, w.handler, b.consumerOptions(w))
	if err != nil {
		return fmt.Errorf("config: queue %s: %w", w.queue.Name, err)
	}
	b.attach(w, c)
	defer b.attach(w, nil)
	defer func() {
		if n := c.Stats().CutReceives; n > 0 {
			b.log().Info("receives cut off; what they may have taken is hidden until its lease ends", "queue", w.queue.Name, "count", n)
		}
	}()
	return c.Run(ctx)
}
