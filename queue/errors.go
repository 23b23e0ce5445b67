package queue

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Sentinels, for errors.Is. They mean the same on every backend.
var (
	// ErrLeaseLost says that the broker may have given the delivery to somebody
	// else. It's the cause of a handler's context when its lease is lost.
	ErrLeaseLost = errors.New("queue: lease lost")
	// ErrDraining is the cause of a handler's context when a shutdown has
	// waited for it for DrainTimeout.
	ErrDraining = errors.New("queue: draining")
	// ErrUnsupported says that this queue can't do what was asked.
	ErrUnsupported = errors.New("queue: not supported")
	// ErrQueueNotFound says that the queue doesn't exist. It's never created
	// silently.
	ErrQueueNotFound = errors.New("queue: queue not found")
	// ErrThrottled says that the provider asks to slow down.
	ErrThrottled = errors.New("queue: throttled")
	// ErrPermission says that the credentials don't allow the call.
	ErrPermission = errors.New("queue: permission denied")
	// ErrUnknownOutcome says that a call may have taken effect: it was sent,
	// and no answer was seen. It may come together with another sentinel, that
	// of a later try: test for it first.
	ErrUnknownOutcome = errors.New("queue: outcome unknown")
	// ErrClosed says that the queue or consumer was closed.
	ErrClosed = errors.New("queue: closed")
	// ErrFull says that a bounded queue can't take more now.
	ErrFull = errors.New("queue: full")
	// ErrInvalid says that an argument is wrong whatever the backend.
	ErrInvalid = errors.New("queue: invalid")
)

// LimitError says that a message is beyond a limit of the messaging system. It
// comes before any request is sent.
type LimitError struct {
	Field  string // "body", "attributes", `attribute "x"`, "ordering key", "delay", ...; it may say more
	Got    int64  // in the unit of Max
	Max    int64  // bytes, a count, or nanoseconds for delays
	System string
}

func (e *LimitError) Error() string {
	if strings.HasPrefix(e.Field, "delay") {
		return fmt.Sprintf("queue: %s of %v is over the limit of %v on %s", e.Field, time.Duration(e.Got), time.Duration(e.Max), e.System)
	}
	return fmt.Sprintf("queue: %s: %d is over the limit of %d on %s", e.Field, e.Got, e.Max, e.System)
}

// InvalidError says that an argument is wrong whatever the state of the queue.
// It matches ErrInvalid.
type InvalidError struct {
	Field  string
	Reason string
}

func (e *InvalidError) Error() string        { return "queue: invalid " + e.Field + ": " + e.Reason }
func (e *InvalidError) Is(target error) bool { return target == ErrInvalid }

// UnsupportedError says what a queue can't do. It matches ErrUnsupported.
type UnsupportedError struct {
	Feature string
	System  string
}

func (e *UnsupportedError) Error() string {
	return "queue: " + e.Feature + " is not supported on " + e.System
}
func (e *UnsupportedError) Is(target error) bool { return target == ErrUnsupported }

// EntryError is the failure of one entry of a call.
type EntryError struct {
	Index int // in the arguments of the call
	Err   error
}

// PublishError names the messages of a Publish that failed. The others are
// durable. errors.Is and errors.As look into every entry.
type PublishError struct {
	Total  int // messages in the call
	Failed []EntryError
}

func (e *PublishError) Error() string   { return entriesText("publish", e.Total, e.Failed) }
func (e *PublishError) Unwrap() []error { return entryErrs(e.Failed) }

// SettleError names the entries of a Settle or Extend that failed.
type SettleError struct {
	Total  int
	Failed []EntryError
}

func (e *SettleError) Error() string   { return entriesText("settle", e.Total, e.Failed) }
func (e *SettleError) Unwrap() []error { return entryErrs(e.Failed) }

// NewPublishError returns a *PublishError with the entries of errs that aren't
// nil, or nil when all are. It's for backends.
func NewPublishError(errs []error) error {
	if f := failed(errs); f != nil {
		return &PublishError{Total: len(errs), Failed: f}
	}
	return nil
}

// NewSettleError returns a *SettleError with the entries of errs that aren't
// nil, or nil when all are. It's for backends.
func NewSettleError(errs []error) error {
	if f := failed(errs); f != nil {
		return &SettleError{Total: len(errs), Failed: f}
	}
	return nil
}

// PublishErrors spreads the error of a Publish of n messages over its messages:
// nil for those that are durable. An error that isn't a *PublishError of n
// messages counts for all of them.
func PublishErrors(err error, n int) []error {
	var pe *PublishError
	if errors.As(err, &pe) && pe.Total == n {
		return spread(err, pe.Failed, n)
	}
	return spread(err, nil, n)
}

func settleErrors(err error, n int) []error {
	if err == nil {
		return nil
	}
	var se *SettleError
	if errors.As(err, &se) && se.Total == n {
		return spread(err, se.Failed, n)
	}
	return spread(err, nil, n)
}

// spread gives each entry its error. Where none is named, all have failed: a
// success must never be guessed.
func spread(err error, entries []EntryError, n int) []error {
	out := make([]error, n)
	if err == nil {
		return out
	}
	named := false
	for _, e := range entries {
		if e.Index >= 0 && e.Index < n && e.Err != nil {
			out[e.Index], named = e.Err, true
		}
	}
	if !named {
		for i := range out {
			out[i] = err
		}
	}
	return out
}

func failed(errs []error) []EntryError {
	var out []EntryError
	for i, err := range errs {
		if err != nil {
			out = append(out, EntryError{Index: i, Err: err})
		}
	}
	return out
}

func entryErrs(es []EntryError) []error {
	out := make([]error, len(es))
	for i, e := range es {
		out[i] = e.Err
	}
	return out
}

func entriesText(op string, total int, es []EntryError) string {
	if total == 1 && len(es) == 1 {
		return fmt.Sprint(es[0].Err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "queue: %s: %d of %d failed", op, len(es), total)
	for i, e := range es {
		if i == 3 {
			fmt.Fprintf(&b, "; and %d more", len(es)-i)
			break
		}
		fmt.Fprintf(&b, "; [%d] %v", e.Index, e.Err)
	}
	return b.String()
}

// AbandonedError is what Run returns when handlers were still running one
// second after their contexts had been cancelled. Their deliveries weren't
// settled: the broker delivers them again when their leases end.
type AbandonedError struct {
	IDs []string // of the deliveries
}

func (e *AbandonedError) Error() string {
	ids := e.IDs
	more := ""
	if len(ids) > 5 {
		more = fmt.Sprintf(" and %d more", len(ids)-5)
		ids = ids[:5]
	}
	handlers := "handlers"
	if len(e.IDs) == 1 {
		handlers = "handler"
	}
	return fmt.Sprintf("queue: %d %s ignored the end of the context: %s%s", len(e.IDs), handlers, strings.Join(ids, ", "), more)
}
