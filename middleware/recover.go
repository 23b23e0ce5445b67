package middleware

import (
	"context"

	"github.com/anyqueue/anyqueue/queue"
)

// Recover turns a panic of what it wraps into a *queue.PanicError with its
// stack, which is a failure. The consumer does so too, and the middleware of this
// package treats a panic as a failure by itself; Recover is for middleware of
// one's own that looks at errors, and belongs inside of it.
func Recover() queue.Middleware {
	return queue.MiddlewareFunc(func(next queue.Handler) queue.Handler {
		return func(ctx context.Context, d *queue.Delivery) error { return protect(ctx, next, d) }
	})
}
