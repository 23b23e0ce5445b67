package middleware

import (
	"bytes"
	"context"
	"maps"
	"runtime/debug"
	"slices"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// protect calls next and returns a panic as a *queue.PanicError. Middleware that
// decides by what the handler returned uses it, so that a panic counts as the
// failure that it is wherever Recover stands in the chain.
func protect(ctx context.Context, next queue.Handler, d *queue.Delivery) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &queue.PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return next(ctx, d)
}

// refuse is the handler of middleware with invalid options that is used outside
// of a consumer, which would have refused it. Every delivery fails, so none is
// lost.
func refuse(err error) queue.Handler {
	return func(context.Context, *queue.Delivery) error { return err }
}

// snapshot returns a copy of d that doesn't change when a handler changes what
// it was given.
func snapshot(d *queue.Delivery) queue.Delivery {
	c := *d
	c.Body = bytes.Clone(d.Body)
	c.Attributes = maps.Clone(d.Attributes)
	c.Options = slices.Clone(d.Options)
	if d.DeadLetter != nil {
		dl := *d.DeadLetter
		c.DeadLetter = &dl
	}
	return c
}

// pause waits for d and reports whether it did: false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	if ctx.Err() != nil {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// detached returns a context for what must be done after a handler has returned:
// a shutdown or a timeout of the handler doesn't end it, d does.
func detached(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), d)
}

func invalid(field, reason string) error {
	return &queue.InvalidError{Field: field, Reason: reason}
}
