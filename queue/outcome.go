package queue

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// OutcomeKind says what becomes of a delivery after its handler has returned.
type OutcomeKind int

// The kinds of Outcome.
const (
	Success      OutcomeKind = iota // acknowledged
	Failed                          // redelivered after a backoff; counts as a failure
	Retry                           // redelivered after Outcome.Delay; counts as a failure
	Rejected                        // goes to the dead-letter queue now
	Dropped                         // removed, logged and counted
	Snoozed                         // redelivered after Outcome.Delay; doesn't count as a failure
	DeadLettered                    // its copy is confirmed elsewhere: acknowledged
)

var outcomeNames = [...]string{"success", "failed", "retry", "rejected", "dropped", "snoozed", "dead_lettered"}

func (k OutcomeKind) String() string {
	if k < 0 || int(k) >= len(outcomeNames) {
		return fmt.Sprintf("OutcomeKind(%d)", int(k))
	}
	return outcomeNames[k]
}

// Outcome is the meaning of what a handler returned.
type Outcome struct {
	Kind  OutcomeKind
	Delay time.Duration // of Retry and Snoozed
	To    string        // of DeadLettered: the dead-letter queue
}

// outcomeError carries an outcome through error wrapping.
type outcomeError struct {
	outcome Outcome
	err     error
}

func (e *outcomeError) Error() string {
	if e.err != nil {
		return e.err.Error()
	}
	if e.outcome.Kind == Snoozed {
		return fmt.Sprintf("snoozed for %v", e.outcome.Delay)
	}
	return e.outcome.Kind.String()
}
func (e *outcomeError) Unwrap() error { return e.err }

// RetryAfter makes the delivery come back after d and counts as a failure. A
// negative d means at once.
func RetryAfter(d time.Duration, err error) error {
	return &outcomeError{Outcome{Kind: Retry, Delay: max(d, 0)}, orUnspecified(err)}
}

// Reject sends the delivery to the dead-letter queue now: trying again can't
// help. Without a dead-letter queue it's redelivered at the maximum backoff and
// reported as unroutable; it's never removed.
func Reject(err error) error {
	return &outcomeError{Outcome{Kind: Rejected}, orUnspecified(err)}
}

// Drop removes the delivery although it failed. It's logged and counted.
func Drop(err error) error {
	return &outcomeError{Outcome{Kind: Dropped}, orUnspecified(err)}
}

// Snooze makes the delivery come back after d without counting as a failure. A
// negative d means at once.
func Snooze(d time.Duration) error {
	return &outcomeError{Outcome{Kind: Snoozed, Delay: max(d, 0)}, nil}
}

// WithDeadLettered reports that a copy of the delivery, which failed with err,
// is durable in the queue to, so that the original can be acknowledged. It's
// for middleware that moves messages; handlers return Reject.
func WithDeadLettered(to string, err error) error {
	return &outcomeError{Outcome{Kind: DeadLettered, To: to}, orUnspecified(err)}
}

var errUnspecified = errors.New("no reason given")

func orUnspecified(err error) error {
	if err == nil {
		return errUnspecified
	}
	return err
}

// OutcomeOf tells what err, as returned by a handler, means. Through wrapping
// the outermost outcome wins; among the branches of errors.Join (and of
// fmt.Errorf with several %w) it's the first of: dead-lettered, Reject, Drop,
// RetryAfter, Snooze. An error without any is Failed, and so is a panic,
// whatever its value.
func OutcomeOf(err error) Outcome {
	if err == nil {
		return Outcome{Kind: Success}
	}
	if o, ok := findOutcome(err); ok {
		return o
	}
	return Outcome{Kind: Failed}
}

// precedence among the branches of a join: lower wins.
var outcomePrecedence = [...]int{DeadLettered: 0, Rejected: 1, Dropped: 2, Retry: 3, Snoozed: 4, Failed: 5, Success: 6}

func findOutcome(err error) (Outcome, bool) {
	for err != nil {
		if oe, ok := err.(*outcomeError); ok { //nolint:errorlint // walks the chain by hand: the outermost wins
			return oe.outcome, true
		}
		switch x := err.(type) { //nolint:errorlint // as above
		case *PanicError:
			return Outcome{}, false
		case interface{ Unwrap() error }:
			err = x.Unwrap()
		case interface{ Unwrap() []error }:
			best, found := Outcome{}, false
			for _, e := range x.Unwrap() {
				o, ok := findOutcome(e)
				if ok && (!found || outcomePrecedence[o.Kind] < outcomePrecedence[best.Kind]) {
					best, found = o, true
				}
			}
			return best, found
		default:
			return Outcome{}, false
		}
	}
	return Outcome{}, false
}

// Interrupted reports whether an attempt that returned err was cut short rather
// than failed: the handler's context was cancelled by a shutdown or because its
// lease was lost, and err is no explicit outcome. Policies that count failures
// must not count such an attempt.
func Interrupted(ctx context.Context, err error) bool {
	if err == nil || ctx.Err() == nil {
		return false
	}
	cause := context.Cause(ctx)
	if !errors.Is(cause, ErrDraining) && !errors.Is(cause, ErrLeaseLost) {
		return false
	}
	return OutcomeOf(err).Kind == Failed
}

// PanicError is a panic of a handler, as an error.
type PanicError struct {
	Value any    // what was given to panic
	Stack []byte // where
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns the panic's value when it's an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}
