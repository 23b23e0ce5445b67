package middleware

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// DefaultMaxAge is the age at which DeadLetter gives up when nothing else is
// said.
const DefaultMaxAge = 24 * time.Hour

// DeadLetterOptions are the settings of DeadLetter. The zero value is usable.
type DeadLetterOptions struct {
	// Name is what log lines call the dead-letter queue. Default: the queue's
	// own name if it tells it, otherwise "dead-letter queue".
	Name string

	// MaxFailures is the failure after which a delivery is given up, counted
	// from 1. It needs a broker that counts deliveries. It's approximate where
	// releases count and several processes consume (SQS): what one has released,
	// another takes for a failure; MaxAge isn't. Default 0: no limit.
	MaxFailures int

	// MaxAge is the age, at a failure, from which a delivery is given up. It
	// counts from Delivery.AgeFrom, and works on every broker. It must be
	// shorter than the queue's retention. Default 24 h, or half the queue's
	// retention where that's known and shorter; negative: no limit.
	MaxAge time.Duration

	// OnExhausted says what becomes of a delivery with an OrderingKey that has
	// reached a limit. Default Skip.
	OnExhausted OnExhausted

	// PublishTimeout is how long publishing the copy may take. Default 30 s.
	PublishTimeout time.Duration
}

// OnExhausted says what becomes of an ordered delivery that has reached a limit.
type OnExhausted int

const (
	// Skip moves it to the dead-letter queue; the key's next message follows.
	Skip OnExhausted = iota
	// Block lets it fail until it succeeds, and holds back its key meanwhile.
	// What the handler rejects goes all the same: that's its own decision. It
	// needs a queue that keeps an order.
	Block
)

// DeadLetter gives up on deliveries: one that the handler rejects, or that fails
// once too often or for too long, is published to the queue to with its history
// (queue.DeadLetterInfo), and acknowledged only when that is confirmed. When the
// copy can't be published the delivery comes back as after any failure.
//
// Only a delivery whose own attempt failed is given up: never one that
// succeeded, was dropped, snoozed, or was cut short by a shutdown or a lost
// lease. What was moved back as a test (queue.RedriveOptions.Trial) is given up at its
// first failure. A panic is a failure. The copy is of what the broker delivered, whatever
// the handler has done to it. A shutdown doesn't stop the publishing.
//
// NewConsumer refuses a policy that can't work on its queue: MaxFailures where
// deliveries aren't counted, a MaxAge that the queue's retention doesn't reach,
// the queue itself as its dead-letter queue. The dead-letter queue of an ordered
// queue needn't be ordered: redrive restores the OrderingKey.
func DeadLetter(to queue.Publisher, o DeadLetterOptions) queue.Middleware {
	dl := &deadLetter{to: to, age: o.MaxAge}
	dl.opts, dl.err = o.validate(to)
	return dl
}

func (o DeadLetterOptions) validate(to queue.Publisher) (DeadLetterOptions, error) {
	switch {
	case to == nil:
		return o, invalid("DeadLetter", "no dead-letter queue given")
	case o.MaxFailures < 0:
		return o, invalid("DeadLetter.MaxFailures", fmt.Sprintf("%d is negative", o.MaxFailures))
	case o.OnExhausted != Skip && o.OnExhausted != Block:
		return o, invalid("DeadLetter.OnExhausted", fmt.Sprintf("%d is neither Skip nor Block", o.OnExhausted))
	case o.PublishTimeout < 0:
		return o, invalid("DeadLetter.PublishTimeout", "negative")
	}
	if o.Name == "" {
		o.Name = "dead-letter queue"
		if caps, ok := capabilities(to); ok && caps.Source.Name != "" {
			o.Name = caps.Source.Name
		}
	}
	if o.MaxAge == 0 {
		o.MaxAge = DefaultMaxAge
	}
	o.MaxAge = max(o.MaxAge, 0)
	if o.PublishTimeout == 0 {
		o.PublishTimeout = queue.DefaultPublishTimeout
	}
	return o, nil
}

func capabilities(p queue.Publisher) (queue.Capabilities, bool) {
	c, ok := queue.As[interface{ Capabilities() queue.Capabilities }](p)
	if !ok {
		return queue.Capabilities{}, false
	}
	return c.Capabilities(), true
}

type deadLetter struct {
	to   queue.Publisher
	opts DeadLetterOptions
	age  time.Duration // MaxAge as it was given
	err  error
}

// Bind implements queue.Binder.
func (dl *deadLetter) Bind(info queue.ConsumerInfo) (queue.Middleware, error) {
	if dl.err != nil {
		return nil, dl.err
	}
	b := *dl
	if r := info.Capabilities.Retention; r > 0 && b.age == 0 {
		b.opts.MaxAge = min(b.opts.MaxAge, r/2)
	}
	if err := b.check(info); err != nil {
		return nil, err
	}
	b.warn(info)
	return &b, nil
}

// check refuses what can't work on the consumer's queue.
func (dl *deadLetter) check(info queue.ConsumerInfo) error {
	o, caps := dl.opts, info.Capabilities
	if o.MaxFailures > 0 && caps.Attempts == queue.AttemptsUnknown {
		return invalid("DeadLetter.MaxFailures", fmt.Sprintf("%s doesn't count deliveries, so failures aren't known: give up by age (MaxAge; max_age in a file), or let the broker count too (QueueSpec.BrokerMaxAttempts; ensure with update does it for a file's max_failures)", info.Name))
	}
	if caps.Retention > 0 && o.MaxAge >= caps.Retention {
		return invalid("DeadLetter.MaxAge", fmt.Sprintf("%s keeps messages for %v, so none reaches the age of %v", info.Name, caps.Retention, o.MaxAge))
	}
	if o.OnExhausted == Block && !caps.Ordering {
		return invalid("DeadLetter.OnExhausted", fmt.Sprintf("%s keeps no order, so there is nothing to block", info.Name))
	}
	to, ok := capabilities(dl.to)
	if !ok {
		return nil
	}
	if to.Source == caps.Source && caps.Source != (queue.Endpoint{}) {
		return invalid("DeadLetter", fmt.Sprintf("%s can't be its own dead-letter queue", info.Name))
	}
	return nil
}

// warn tells what works only as long as it isn't needed.
func (dl *deadLetter) warn(info queue.ConsumerInfo) {
	if info.Logger == nil {
		return
	}
	o, caps := dl.opts, info.Capabilities
	if o.MaxAge == 0 && o.MaxFailures == 0 && caps.Retention > 0 {
		info.Logger.Warn("deliveries that keep failing are never given up: they come again until they succeed, or the queue's retention removes them",
			"queue", info.Name, "retention", caps.Retention)
	}
	if n := caps.BrokerMaxAttempts; n > 0 && o.MaxFailures >= n {
		info.Logger.Warn("the broker gives up before MaxFailures, and keeps no history",
			"queue", info.Name, "max_failures", o.MaxFailures, "broker_max_attempts", n)
	}
	to, _ := capabilities(dl.to)
	if caps.Retention > 0 && to.Retention > 0 && to.Retention <= caps.Retention {
		info.Logger.Warn("the dead-letter queue keeps messages no longer than the queue: dead letters may expire before somebody has looked",
			"queue", info.Name, "to", o.Name, "retention", to.Retention)
	}
	if n := to.Wire.MaxBytes; n > 0 && (caps.Wire.MaxBytes == 0 || caps.Wire.MaxBytes > n) {
		info.Logger.Warn("the dead-letter queue takes smaller messages than the queue: a larger one can't be given up",
			"queue", info.Name, "to", o.Name, "max_bytes", n)
	}
}

// GiveUp returns the policy, for the consumer's log lines.
func (dl *deadLetter) GiveUp() queue.GiveUp {
	if dl.opts.OnExhausted == Block { // the keys of an ordered queue have no limit
		return queue.GiveUp{To: dl.opts.Name}
	}
	return queue.GiveUp{To: dl.opts.Name, MaxFailures: dl.opts.MaxFailures, MaxAge: dl.opts.MaxAge}
}

// Wrap implements queue.Middleware.
func (dl *deadLetter) Wrap(next queue.Handler) queue.Handler {
	if dl.err != nil {
		return refuse(dl.err)
	}
	return func(ctx context.Context, d *queue.Delivery) error {
		before := snapshot(d) // the handler may change d, its body too
		err := protect(ctx, next, d)
		if err == nil {
			return nil
		}
		original := &before
		outcome := queue.OutcomeOf(err)
		now := time.Now()
		reason := dl.reason(ctx, original, outcome.Kind, err, now)
		if reason == "" {
			return err
		}
		pctx, cancel := detached(ctx, dl.opts.PublishTimeout)
		defer cancel()
		if perr := dl.to.Publish(pctx, queue.NewDeadLetter(original, withCause(ctx, err), reason, now)); perr != nil {
			back := error(&notMovedError{to: dl.opts.Name, err: err, publish: perr})
			if outcome.Kind == queue.Retry {
				back = queue.RetryAfter(outcome.Delay, back)
			}
			return back
		}
		return queue.WithDeadLettered(dl.opts.Name, err)
	}
}

// withCause says why the handler's context ended, where the handler only says that it
// has.
func withCause(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if cause == nil || errors.Is(err, cause) || !errors.Is(err, ctx.Err()) {
		return err
	}
	return fmt.Errorf("%w: %w", cause, err)
}

// reason tells why a delivery is given up; "" when it isn't.
func (dl *deadLetter) reason(ctx context.Context, d *queue.Delivery, kind queue.OutcomeKind, err error, now time.Time) queue.DeadLetterReason {
	if errors.Is(context.Cause(ctx), queue.ErrLeaseLost) {
		return "" // somebody else has it, whatever this handler says
	}
	switch kind {
	case queue.Rejected:
		return queue.ReasonRejected
	case queue.Failed, queue.Retry:
	default:
		return ""
	}
	if queue.Interrupted(ctx, err) || dl.opts.OnExhausted == Block && d.OrderingKey != "" {
		return ""
	}
	if d.DeadLetter != nil && d.DeadLetter.Trial {
		return queue.ReasonTrial
	}
	if n := dl.opts.MaxFailures; n > 0 && d.Failures+1 >= n {
		return queue.ReasonFailures
	}
	if from := d.AgeFrom(); dl.opts.MaxAge > 0 && !from.IsZero() && now.Sub(from) >= dl.opts.MaxAge {
		return queue.ReasonAge
	}
	return ""
}

// notMovedError says that a delivery failed and that its copy couldn't be
// published. It's a plain failure whatever err was, as a rejected delivery must
// come back too. So it shows both errors to errors.Is and errors.As, but has no
// Unwrap, through which an outcome would be found.
type notMovedError struct {
	to           string
	err, publish error
}

func (e *notMovedError) Error() string {
	return fmt.Sprintf("%v (and not moved to %s: %v)", e.err, e.to, e.publish)
}

// Is is for errors.Is.
func (e *notMovedError) Is(target error) bool {
	return errors.Is(e.err, target) || errors.Is(e.publish, target)
}

// As is for errors.As.
func (e *notMovedError) As(target any) bool {
	return errors.As(e.err, target) || errors.As(e.publish, target)
}
