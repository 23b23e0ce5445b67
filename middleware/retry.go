package middleware

import (
	"context"
	"fmt"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// RetryOptions are the settings of Retry. The zero value is usable.
type RetryOptions struct {
	// Backoff is how long a delivery that failed stays away, by its failures.
	// Default: the consumer's backoff.
	Backoff queue.Backoff

	// InPlace is how many more times the handler is tried at once, before the
	// delivery goes back to the broker. The slot stays taken and the lease is
	// kept meanwhile; all these tries are one attempt and at most one failure.
	// It's for failures that pass within moments. Default 0.
	InPlace int

	// Pause is the time between tries in place. Default: 100 ms to 2 s.
	Pause queue.Backoff

	// If tells which errors are tried again; others are rejected, as trying
	// again can't help. It isn't asked about explicit outcomes (RetryAfter,
	// Reject, Drop, Snooze). It's called concurrently. Default: all.
	If func(error) bool
}

// Retry makes a delivery whose handler failed come back after a backoff that
// grows with its failures. The broker holds it meanwhile, so that the worker is
// free and a restart doesn't forget it.
//
// Who decides the delay: the error (queue.RetryAfter), then Retry, then the
// consumer's backoff. Retry leaves explicit outcomes as they are, and attempts
// that a shutdown or a lost lease cut short. A panic is a failure.
//
// Retry never gives up; DeadLetter does, and belongs outside of Retry, so that
// what If refuses reaches the dead-letter queue.
func Retry(o RetryOptions) queue.Middleware {
	opts, err := o.validate()
	return &retry{opts: opts, err: err}
}

func (o RetryOptions) validate() (RetryOptions, error) {
	if o.InPlace < 0 {
		return o, invalid("Retry.InPlace", fmt.Sprintf("%d is negative", o.InPlace))
	}
	if err := o.Backoff.Validate(); err != nil {
		return o, fmt.Errorf("middleware: Retry.Backoff: %w", err)
	}
	if err := o.Pause.Validate(); err != nil {
		return o, fmt.Errorf("middleware: Retry.Pause: %w", err)
	}
	if o.Pause == (queue.Backoff{}) {
		o.Pause = queue.Backoff{Min: 100 * time.Millisecond, Max: 2 * time.Second}
	}
	return o, nil
}

type retry struct {
	opts RetryOptions
	err  error
}

// Bind implements queue.Binder.
func (r *retry) Bind(info queue.ConsumerInfo) (queue.Middleware, error) {
	if r.err != nil {
		return nil, r.err
	}
	b := *r
	if b.opts.Backoff == (queue.Backoff{}) {
		b.opts.Backoff = info.Backoff
	}
	return &b, nil
}

// Wrap implements queue.Middleware.
func (r *retry) Wrap(next queue.Handler) queue.Handler {
	if r.err != nil {
		return refuse(r.err)
	}
	return func(ctx context.Context, d *queue.Delivery) error {
		failures := d.Failures // the handler may change d
		err := r.try(ctx, next, d)
		switch {
		case queue.OutcomeOf(err).Kind != queue.Failed || queue.Interrupted(ctx, err):
			return err
		case r.opts.If != nil && !r.opts.If(err):
			return queue.Reject(err)
		}
		return queue.RetryAfter(r.opts.Backoff.Delay(failures+1), err)
	}
}

// try calls the handler until it doesn't fail or there are no tries in place
// left. Each try but the last gets a copy of its own, so that it sees what came
// from the broker.
func (r *retry) try(ctx context.Context, next queue.Handler, d *queue.Delivery) error {
	for i := 1; i <= r.opts.InPlace; i++ {
		given := snapshot(d)
		err := protect(ctx, next, &given)
		switch {
		case queue.OutcomeOf(err).Kind != queue.Failed:
			return err
		case r.opts.If != nil && !r.opts.If(err):
			return err
		case !pause(ctx, r.opts.Pause.Delay(i)):
			return err
		}
	}
	return protect(ctx, next, d)
}
