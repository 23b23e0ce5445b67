package middleware

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// Timeout gives the handler's context a deadline of d. It never returns before
// its handler, so a handler that ignores its context keeps its slot; one that
// returns nil late has succeeded. When the handler returns the context's error,
// that error says that it timed out after d, and still matches
// context.DeadlineExceeded. It's a failure like others. d must be positive; what's
// over the consumer's MaxExtension doesn't come about, as the handler is cut off then.
func Timeout(d time.Duration) queue.Middleware {
	t := &timeout{d: d}
	if d <= 0 {
		t.err = invalid("Timeout", fmt.Sprintf("%v isn't positive", d))
	}
	return t
}

type timeout struct {
	d   time.Duration
	err error
}

// Bind implements queue.Binder.
func (t *timeout) Bind(queue.ConsumerInfo) (queue.Middleware, error) { return t, t.err }

// Wrap implements queue.Middleware.
func (t *timeout) Wrap(next queue.Handler) queue.Handler {
	if t.err != nil {
		return refuse(t.err)
	}
	return func(ctx context.Context, d *queue.Delivery) error {
		why := &timeoutError{t.d}
		tctx, cancel := context.WithTimeoutCause(ctx, t.d, why)
		defer cancel()
		err := next(tctx, d)
		if err == nil || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(context.Cause(tctx), error(why)) {
			return err
		}
		if errors.Is(err, error(why)) {
			return err // the handler returned the context's cause
		}
		// %w keeps an explicit outcome.
		return fmt.Errorf("middleware: handler timed out after %v: %w", t.d, err)
	}
}

// timeoutError is the cause of a context that Timeout has ended.
type timeoutError struct{ d time.Duration }

func (e *timeoutError) Error() string {
	return fmt.Sprintf("middleware: handler timed out after %v", e.d)
}

// Is makes it match what other timeouts match.
func (e *timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// Timeout is for code that asks errors whether they are one, as net does.
func (e *timeoutError) Timeout() bool { return true }
