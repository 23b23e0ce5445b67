package queue

import (
	"context"
	"errors"
	"time"
)

type stdContext struct {
	context.Context //nolint:containedctx // it is one
	cancel          context.CancelCauseFunc
}

type leaseKey struct{}

var errExtendPanicked = errors.New("queue: Extend panicked")

func (l *lease) Deadline() (time.Time, bool) { return time.Time{}, false }
func (l *lease) Done() <-chan struct{}       { return l.standard().Done() }

func (l *lease) Err() error {
	if s := l.std.Load(); s != nil {
		return s.Err()
	}
	return nil
}

// A scope is what the handlers of one Run have in common.
type scope struct {
	base context.Context //nolint:containedctx // the values of Run's context, without its end; it lives as long as Run
	over *stdContext     // of handlers that have returned
}

func newScope(ctx context.Context) *scope {
	base := context.WithoutCancel(ctx)
	over, cancel := context.WithCancelCause(base)
	cancel(context.Canceled)
	return &scope{base, &stdContext{over, cancel}}
}

func (l *lease) Value(key any) any {
	if _, ok := key.(leaseKey); ok {
		return l
	}
	if s := l.std.Load(); s != nil {
		return s.Value(key)
	}
	return l.scope.base.Value(key)
}

// standard returns the real context behind l. As long as nobody has called
// Done, nobody can wait for the end of l, so it needn't exist.
func (l *lease) standard() *stdContext {
	if s := l.std.Load(); s != nil {
		return s
	}
	ctx, cancel := context.WithCancelCause(l.scope.base)
	s := &stdContext{ctx, cancel}
	if !l.std.CompareAndSwap(nil, s) { // somebody was faster, or it's over
		cancel(context.Canceled)
		return l.std.Load()
	}
	return s
}

func (l *lease) cancel(cause error) { l.standard().cancel(cause) }

// end releases what hangs on the context after the handler has returned, also
// what comes to hang on it later.
func (l *lease) end() {
	if !l.std.CompareAndSwap(nil, l.scope.over) {
		l.std.Load().cancel(context.Canceled)
	}
}

// LeaseDeadline returns when the lease of the delivery that ctx belongs to ends
// unless it's extended again; false when ctx isn't a handler's, or the broker
// gives no leases.
func LeaseDeadline(ctx context.Context) (time.Time, bool) {
	var earliest time.Time
	for _, l := range leasesOf(ctx) {
		l.c.mu.Lock()
		at := l.deadline
		l.c.mu.Unlock()
		if !at.IsZero() && (earliest.IsZero() || at.Before(earliest)) {
			earliest = at
		}
	}
	return earliest, !earliest.IsZero()
}

// leasesOf returns the leases behind a handler's context: one, or those of a
// Batch.
func leasesOf(ctx context.Context) []*lease {
	switch v := ctx.Value(leaseKey{}).(type) {
	case *lease:
		return []*lease{v}
	case leaseGroup:
		return v
	}
	return nil
}

// ExtendLease makes the lease of the delivery that ctx belongs to last at least
// d from now, also beyond MaxExtension, as far as the broker allows, and returns
// its new end. The engine keeps leases by itself; this is for work that is known
// to take longer than MaxExtension. It fails with ErrLeaseLost when it's too
// late and with ErrUnsupported when ctx isn't a handler's or the broker gives no
// leases.
//
// In a Batch it's done for every delivery of the batch, and the earliest end is
// returned; it fails only when none could be extended.
func ExtendLease(ctx context.Context, d time.Duration) (time.Time, error) {
	leases := leasesOf(ctx)
	if len(leases) == 0 {
		return time.Time{}, &UnsupportedError{"ExtendLease outside of a handler", "this context"}
	}
	if d <= 0 {
		return time.Time{}, &InvalidError{"ExtendLease", "the duration must be positive"}
	}
	var earliest time.Time
	var errs []error
	for _, l := range leases {
		at, err := l.c.extendNow(ctx, l, d)
		if err != nil {
			errs = append(errs, err)
		} else if earliest.IsZero() || at.Before(earliest) {
			earliest = at
		}
	}
	if len(errs) == len(leases) {
		return time.Time{}, errors.Join(errs...)
	}
	return earliest, nil
}

func (c *Consumer) extendNow(ctx context.Context, l *lease, d time.Duration) (time.Time, error) {
	c.mu.Lock()
	for l.extending {
		if l.extended == nil {
			l.extended = make(chan struct{})
		}
		wait := l.extended
		c.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return time.Time{}, context.Cause(ctx)
		}
		c.mu.Lock()
	}
	switch {
	case l.lost || l.state != leaseRunning:
		c.mu.Unlock()
		return time.Time{}, ErrLeaseLost
	case l.deadline.IsZero():
		c.mu.Unlock()
		return time.Time{}, &UnsupportedError{"ExtendLease", c.caps.system()}
	}
	now := time.Now()
	d = min(d, maxWait) // beyond what any broker grants; sums mustn't overflow
	if want := now.Add(d); !want.After(l.deadline) && !want.After(l.capAt) {
		at := l.deadline // it lasts that long already
		c.mu.Unlock()
		return at, nil
	}
	if until := now.Add(d); until.After(l.capAt) {
		l.capAt = until
	}
	// Asking for less than there is would shorten the lease.
	ask := max(d, l.deadline.Sub(now))
	l.extending = true
	c.leases.remove(l)
	// Meanwhile nobody watches over the lease, so it mustn't take longer than that.
	limit := max(min(extendTimeout, l.deadline.Sub(now)), time.Millisecond)
	c.mu.Unlock()

	var granted []time.Time
	err := errExtendPanicked
	var at time.Time
	var lost bool
	func() {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		defer func() { // also when Extend panics: the handler's panic, then
			c.mu.Lock()
			tell := c.extendedLocked(l, first(granted), first(settleErrors(err, 1)), ask, time.Now())
			at, lost = l.deadline, l.lost
			c.armLeasesLocked(time.Now())
			c.mu.Unlock()
			if tell {
				c.tellLost(l)
			}
		}()
		began := time.Now()
		granted, err = c.sub.Extend(ctx, ask, l.handle())
		c.tellExtendCall(1, began, err)
	}()
	switch {
	case lost:
		return time.Time{}, ErrLeaseLost
	case err != nil:
		return time.Time{}, err
	}
	return at, nil
}

func first[T any](s []T) T {
	if len(s) > 0 {
		return s[0]
	}
	var zero T
	return zero
}
