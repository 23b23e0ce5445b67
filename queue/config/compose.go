package config

import (
	"cmp"
	"slices"

	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
)

// composeLocked returns the middleware of a queue, the outermost first. The
// order is part of what the package documents:
//
//   - gates first, as they decide before anything else whether a delivery starts;
//   - DeadLetter outside of Retry, so that it decides once for all the tries in
//     place, and sees what Retry makes of the last one;
//   - Timeout inside of Retry, so that each try has its own.
func (b *Bus) composeLocked(q *Queue, more []queue.Middleware) []queue.Middleware {
	mw := slices.Concat(b.opts.Middleware, b.limits[q.Limit])
	if q.Rate > 0 {
		mw = append(mw, middleware.RateLimit(q.Rate, middleware.RateLimitOptions{}))
	}
	if dl := q.DeadLetter; dl != nil {
		mw = append(mw, middleware.DeadLetter(b.sharedLocked(b.queues[dl.Queue], queue.ForPublish), middleware.DeadLetterOptions{
			Name: dl.Queue, MaxFailures: dl.MaxFailures, MaxAge: dl.MaxAge, OnExhausted: dl.OnExhausted,
		}))
	}
	if q.Retry.InPlace > 0 {
		mw = append(mw, middleware.Retry(middleware.RetryOptions{InPlace: q.Retry.InPlace}))
	}
	if q.Timeout > 0 {
		mw = append(mw, middleware.Timeout(q.Timeout))
	}
	return append(mw, more...)
}

// gates are what the queues that name the limit have in common.
func (l *Limit) gates() []queue.Middleware {
	var mw []queue.Middleware
	if l.Concurrency > 0 {
		mw = append(mw, middleware.Limit(l.Concurrency, middleware.LimitOptions{}))
	}
	if l.Rate > 0 {
		mw = append(mw, middleware.RateLimit(l.Rate, middleware.RateLimitOptions{}))
	}
	return mw
}

// consumerOptions are the settings of a queue that are the consumer's own.
func (b *Bus) consumerOptions(w *worker) *queue.ConsumerOptions {
	q := w.queue
	drain := q.DrainTimeout
	if most := b.opts.DrainTimeout; most > 0 && cmp.Or(drain, queue.DefaultDrainTimeout) > most {
		drain = most
	}
	return &queue.ConsumerOptions{
		Name:         q.Name,
		Concurrency:  q.Concurrency,
		Middleware:   w.middleware,
		Backoff:      queue.Backoff{Min: q.Retry.Min, Max: q.Retry.Max, Factor: q.Retry.Factor, Jitter: q.Retry.Jitter},
		MaxHold:      q.MaxHold,
		DrainTimeout: drain,
		ReceiveGrace: q.ReceiveGrace,
		MaxExtension: q.MaxExtension,
		Logger:       b.opts.Logger,
		Hooks:        b.opts.Hooks,
	}
}
