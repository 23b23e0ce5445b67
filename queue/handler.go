package queue

import "context"

// A Handler processes one delivery. What it returns says what becomes of it:
// nil acknowledges it, an error makes it come back after a backoff; RetryAfter,
// Reject, Drop and Snooze say more.
//
// Handlers run concurrently. A handler's context is cancelled when its lease is
// lost (cause ErrLeaseLost), shortly before the end of one that can't be kept for
// longer (ConsumerOptions.MaxExtension; cause context.DeadlineExceeded) or when a
// shutdown has waited for DrainTimeout (cause ErrDraining); a shutdown as such
// doesn't cancel it. A handler that returns after its lease was lost may have run
// beside another one for the same message: handlers must be idempotent. A panic
// counts as an error.
type Handler func(ctx context.Context, d *Delivery) error

// Middleware wraps handlers. One that must decide whether a delivery may start
// at all also implements Gate; one that depends on the queue implements Binder.
type Middleware interface {
	Wrap(next Handler) Handler
}

// MiddlewareFunc adapts a function to Middleware.
type MiddlewareFunc func(next Handler) Handler

// Wrap calls f.
func (f MiddlewareFunc) Wrap(next Handler) Handler { return f(next) }

// Chain applies middleware to h; the first is the outermost. Gates and Binders
// work only when they're given to NewConsumer instead.
func Chain(h Handler, mw ...Middleware) Handler {
	for i := len(mw) - 1; i >= 0; i-- {
		if mw[i] == nil {
			return invalidHandler(&InvalidError{"Middleware", "nil"})
		}
		h = mw[i].Wrap(h)
	}
	return h
}

// A Binder is middleware that depends on the consumer it's used in. NewConsumer
// calls Bind once, uses what it returns in place of the Binder, and fails with
// its error: that is how middleware refuses what can't work (a policy by
// attempts where the broker doesn't count any). Bind must not change the
// receiver, so that one value may serve many consumers.
type Binder interface {
	Middleware
	Bind(info ConsumerInfo) (Middleware, error)
}

// A GiveUpper is middleware that takes messages out of the queue after so many
// failures or such an age. The engine asks it for its log lines.
type GiveUpper interface {
	// GiveUp returns the limits; zero means none.
	GiveUp() GiveUp
}
