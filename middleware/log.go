package middleware

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// LogOptions are the settings of Log. The zero value is usable.
type LogOptions struct {
	// Logger gets the lines. Default: the consumer's, and slog.Default() in a
	// Chain.
	Logger *slog.Logger

	// Success is the level of the line of a success. Default: slog.LevelDebug.
	Success slog.Leveler
}

// Log writes a line about what became of each delivery, in place of the
// consumer's own lines. The message says what: success, retry, drop, snooze,
// dead_letter, interrupted, or unroutable for what was rejected and has no
// dead-letter queue. The attributes have the same names everywhere:
//
//	id        the delivery's
//	queue     the consumer's name
//	attempt   the broker's count of deliveries, if known
//	failures  with this one
//	took      the handler
//	in        how long until it comes back
//	err       what the handler returned
//	gives_up  how long until it's given up by age, if it is
//	to        the dead-letter queue
//
// It only observes: what other middleware sees is the same with and without it,
// wherever it stands. Bodies and attributes are never written.
//
// In a queue.Chain there's no consumer to say what becomes of a delivery: then it
// logs what the handler returned, and a rejection as reject.
func Log(o LogOptions) queue.Middleware {
	if o.Success == nil {
		o.Success = slog.LevelDebug
	}
	return &logging{opts: o}
}

type logging struct{ opts LogOptions }

// Bind implements queue.Binder.
func (l *logging) Bind(info queue.ConsumerInfo) (queue.Middleware, error) {
	b := &boundLogging{logging: *l, queue: info.Name}
	if b.opts.Logger == nil {
		b.opts.Logger = info.Logger
	}
	return b, nil
}

func (l *logging) logger() *slog.Logger {
	if l.opts.Logger == nil {
		return slog.Default()
	}
	return l.opts.Logger
}

// Wrap implements queue.Middleware, for use in a Chain.
func (l *logging) Wrap(next queue.Handler) queue.Handler {
	return func(ctx context.Context, d *queue.Delivery) (err error) {
		seen := *d // the handler may change d
		start := time.Now()
		returned := false
		defer func() {
			s := queue.Settled{
				Delivery: &seen, Outcome: queue.OutcomeOf(err), Err: err, Took: time.Since(start),
				Interrupted: queue.Interrupted(ctx, err), Failures: seen.Failures,
			}
			s.Delay = s.Outcome.Delay
			if !returned {
				s.Outcome.Kind, s.Err = queue.Failed, errNotReturned
			}
			if k := s.Outcome.Kind; !s.Interrupted && k != queue.Success && k != queue.Snoozed {
				s.Failures++
			}
			l.settled(ctx, seen.Source.Name, &s)
		}()
		err = next(ctx, d)
		returned = true
		return err
	}
}

// boundLogging is Log in a consumer, which tells it what happens.
type boundLogging struct {
	logging
	queue string
}

// Wrap does nothing: the consumer tells what happens.
func (l *boundLogging) Wrap(next queue.Handler) queue.Handler { return next }

// Hooks is what the consumer calls.
func (l *boundLogging) Hooks() *queue.Hooks {
	return &queue.Hooks{
		LogsDeliveries: true,
		Settled:        func(s queue.Settled) { l.settled(context.Background(), l.queue, &s) },
	}
}

// settled writes the line of one delivery.
func (l *logging) settled(ctx context.Context, name string, s *queue.Settled) {
	level, what := l.line(s)
	log := l.logger()
	if !log.Enabled(ctx, level) {
		return
	}
	attrs := []any{"id", s.Delivery.ID, "queue", name}
	if s.Delivery.Attempt > 0 {
		attrs = append(attrs, "attempt", s.Delivery.Attempt)
	}
	attrs = append(attrs, "failures", s.Failures, "took", s.Took.Round(time.Microsecond))
	if s.Outcome.Kind == queue.DeadLettered {
		attrs = append(attrs, "to", s.Outcome.To)
	}
	if s.Delay > 0 {
		attrs = append(attrs, "in", s.Delay.Round(time.Millisecond))
	}
	if s.Err != nil && s.Outcome.Kind != queue.Snoozed {
		attrs = append(attrs, "err", s.Err)
	}
	if k := s.Outcome.Kind; s.GivesUpIn > 0 && (k == queue.Failed || k == queue.Retry) {
		attrs = append(attrs, "gives_up", s.GivesUpIn.Round(time.Second))
	}
	log.Log(ctx, level, what, attrs...)
}

func (l *logging) line(s *queue.Settled) (slog.Level, string) {
	if s.Interrupted {
		return slog.LevelInfo, "interrupted"
	}
	switch s.Outcome.Kind {
	case queue.Success:
		return l.opts.Success.Level(), "success"
	case queue.Snoozed:
		return slog.LevelDebug, "snooze"
	case queue.Dropped:
		return slog.LevelWarn, "drop"
	case queue.Rejected:
		if s.Unroutable {
			return slog.LevelError, "unroutable"
		}
		return slog.LevelWarn, "reject" // in a Chain: something outside may still move it
	case queue.DeadLettered:
		return slog.LevelError, "dead_letter"
	case queue.Failed, queue.Retry:
	}
	return slog.LevelWarn, "retry"
}

// errNotReturned stands for what a handler that panicked would have returned.
var errNotReturned = errors.New("the handler panicked")
