package admin

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// Operation is a redrive and how far it is.
type Operation struct {
	RedriveSpec

	Status Status `json:"status"`
	Why    string `json:"why,omitempty"` // it's Stopped or Failed

	// Elsewhere says that it's under way in another process, which has it from the same
	// Store: it can be paused and canceled all the same, and its counts are a second old.
	Elsewhere bool `json:"elsewhere,omitempty"`

	// Began is the time at which the operation is frozen.
	Began   time.Time `json:"began"`
	Updated time.Time `json:"updated"`

	// Total is how many messages the dead-letter queue had at the start, as far as the
	// broker tells; nil: unknown.
	Total *int64 `json:"total"`

	Moved    int `json:"moved"`    // published back; removed, but for Repeated
	Repeated int `json:"repeated"` // of Moved: removing failed, so that they may come twice

	// What's left is counted anew when it goes on after an interruption.
	Failed  int `json:"failed"`  // couldn't be published
	Skipped int `json:"skipped"` // not selected
	Newer   int `json:"newer"`   // dead-lettered after the start

	CameBack int `json:"came_back"` // moved, and dead-lettered again, as far as that was met
	// Undated are of those that were selected: without a history, so that they may
	// have been dead-lettered after the start.
	Undated int `json:"undated"`

	// Tried is how many were moved as a test, which has ended at TestedAt. When it found
	// nothing to move the operation is Done.
	Tried    int       `json:"tried,omitempty"`
	TriedAt  time.Time `json:"tried_at,omitzero"`
	TestedAt time.Time `json:"tested_at,omitzero"`
}

// clone shares nothing with op.
func (op Operation) clone() Operation {
	op.Select = op.Select.clone()
	if op.Total != nil {
		n := *op.Total
		op.Total = &n
	}
	return op
}

// Status is what becomes of an operation.
type Status string

// The statuses.
const (
	Testing     Status = "testing" // the first few are moved, and watched
	Running     Status = "running"
	Paused      Status = "paused"
	Interrupted Status = "interrupted" // by the end of its process
	Done        Status = "done"
	Canceled    Status = "canceled"
	Stopped     Status = "stopped" // as the first few have failed again
	Failed      Status = "failed"  // by an error, which may pass
)

// UnderWay reports whether something is being moved, or watched.
func (s Status) UnderWay() bool { return s == Testing || s == Running }

func (s Status) resumable() bool {
	return s == Paused || s == Interrupted || s == Stopped || s == Failed
}

// haltError ends an operation before it's done.
type haltError struct{ status Status }

func (e *haltError) Error() string { return "redrive " + string(e.status) }

var (
	errPaused      = &haltError{Paused}
	errCanceled    = &haltError{Canceled}
	errInterrupted = &haltError{Interrupted}
)

// stoppedError says that the test has failed.
type stoppedError struct{ cameBack, tried int }

func (e *stoppedError) Error() string {
	return fmt.Sprintf("%d of the first %d have failed again", e.cameBack, e.tried)
}

// operation runs an Operation.
type operation struct {
	admin *Admin

	// Of Admin.mu.
	now   Operation
	stop  context.CancelCauseFunc // while it's under way
	done  chan struct{}           // closed when it isn't any more; nil before and after
	saved time.Time
	turn  int // changes whenever it begins or ends
	// unkept says that the Store doesn't know of its end.
	unkept bool

	// Of the goroutine that moves.
	from, to queue.Queue
	quiet    time.Duration
}

func (o *operation) state() Operation {
	o.admin.mu.Lock()
	defer o.admin.mu.Unlock()
	return o.now.clone()
}

func (o *operation) change(f func(*Operation)) {
	o.admin.mu.Lock()
	defer o.admin.mu.Unlock()
	f(&o.now)
	o.now.Updated = time.Now()
}

// wait waits for the end of what was under way.
func (o *operation) wait(ctx context.Context, done <-chan struct{}) (Operation, error) {
	if done != nil {
		select {
		case <-done:
		case <-ctx.Done():
			return o.state(), fmt.Errorf("admin: redrive: %w", context.Cause(ctx))
		}
	}
	return o.state(), nil
}

// begin starts what isn't under way. Nothing moves before the Store knows.
func (o *operation) begin(ctx context.Context, by By, what string) (Operation, error) {
	a := o.admin
	a.mu.Lock()
	if err := o.mayLocked(); err != nil {
		a.mu.Unlock()
		return Operation{}, err
	}
	before := o.now
	moving, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	o.stop, o.done = stop, make(chan struct{})
	o.turn++
	a.mu.Unlock()

	release, err := o.takeQueue(ctx)
	if err == nil {
		defer func() {
			if err != nil {
				release()
			}
		}()
		a.mu.Lock()
		before = o.now
		if before.Status != "" && !before.Status.resumable() {
			err = isAlready(before)
		}
		a.mu.Unlock()
	}
	if err == nil {
		err = o.open(ctx, before.Status)
	}
	if err == nil {
		o.change(func(op *Operation) {
			if op.Status == Stopped {
				op.TestedAt = time.Now() // whoever resumes it knows
			}
			op.Why, op.Status = "", Running
			if op.Try > 0 && op.TestedAt.IsZero() {
				op.Status = Testing
			}
		})
		err = a.save(ctx, o.state())
	}
	if err != nil {
		a.mu.Lock()
		o.now = before
		o.restLocked()
		a.mu.Unlock()
		stop(nil)
		return Operation{}, err
	}
	op := o.state()
	a.opts.Logger.Info(what, "operation", op.ID, "queue", op.From, "to", op.To, "actor", by.Actor, "reason", by.Reason)
	go func() {
		defer stop(nil)
		watching, enough := context.WithCancel(moving)
		var watch sync.WaitGroup
		if a.shared != nil {
			watch.Go(func() { o.watch(watching, stop) })
		}
		err := o.run(moving)
		enough()
		watch.Wait()
		o.end(moving, err, release)
	}()
	return op, nil
}

// restLocked says that it isn't under way any more.
func (o *operation) restLocked() {
	close(o.done)
	o.stop, o.done = nil, nil
	o.turn++
}

func isAlready(op Operation) error {
	return &queue.InvalidError{Field: "operation", Reason: fmt.Sprintf("%s is %s", op.ID, op.Status)}
}

func (o *operation) mayLocked() error {
	switch {
	case o.admin.closed:
		return fmt.Errorf("admin: redrive: %w", queue.ErrClosed)
	case o.done != nil:
		return &queue.InvalidError{Field: "operation", Reason: o.now.ID + " is under way"}
	case o.now.Elsewhere: // its lock knows better: somebody may only have looked
	case o.now.Status != "" && !o.now.Status.resumable():
		return isAlready(o.now)
	}
	for _, other := range o.admin.ops {
		if other != o && other.done != nil && other.now.From == o.now.From {
			return &queue.InvalidError{Field: "operation", Reason: fmt.Sprintf("%s is under way on %s: it would see only a part of it", other.now.ID, o.now.From)}
		}
	}
	return nil
}

func (o *operation) open(ctx context.Context, status Status) error {
	var err error
	op := o.state()
	if o.from, err = o.admin.open(ctx, op.From, queue.ForConsume); err != nil {
		return err
	}
	if o.to, err = o.admin.open(ctx, op.To, queue.ForBoth); err != nil {
		return err
	}
	o.quiet = 0 // the default
	if status == Interrupted || status == Failed {
		// What was on its way then is hidden until its lease ends.
		o.quiet = o.from.Capabilities().Lease + 2*time.Second
	}
	return nil
}

// run does what's left of the operation.
func (o *operation) run(ctx context.Context) error {
	op := o.state()
	if op.Try > 0 && op.TestedAt.IsZero() {
		if err := o.test(ctx, op); err != nil {
			return err
		}
		if o.state().Tried == 0 {
			return nil // there was nothing; what appears now wouldn't have been tested
		}
		o.change(func(op *Operation) { op.TestedAt, op.Status = time.Now(), Running })
		op = o.state()
	}
	opts := queue.RedriveOptions{}
	if op.Max > 0 {
		if opts.Max = op.Max - op.Moved; opts.Max <= 0 {
			return nil
		}
	}
	return o.pass(ctx, opts)
}

// test moves the first few, waits, and looks whether they come back.
func (o *operation) test(ctx context.Context, op Operation) error {
	if op.TriedAt.IsZero() {
		if left := op.Try - op.Tried; left > 0 {
			if err := o.pass(ctx, queue.RedriveOptions{Trial: true, Max: left}); err != nil {
				return err
			}
		}
		o.change(func(now *Operation) { now.TriedAt = time.Now() })
		op = o.state()
		o.keep(ctx)
	}
	if op.Tried == 0 {
		return nil
	}
	if err := pause(ctx, time.Until(op.TriedAt.Add(op.TryFor))); err != nil {
		return err
	}
	if err := o.look(ctx, op.TryAllow); err != nil {
		return err
	}
	if n := o.state().CameBack; n > op.TryAllow {
		return &stoppedError{n, op.Tried}
	}
	return nil
}

// look goes through the dead-letter queue to count what has come back, up to more than
// enough.
func (o *operation) look(ctx context.Context, enough int) error {
	begun := time.Now()
	looking, stop := context.WithCancel(ctx)
	defer stop()
	op := o.state()
	res, err := queue.Redrive(looking, o.from, o.to, &queue.RedriveOptions{
		ID: op.ID, Before: op.Began, Quiet: o.quiet, Aside: time.Second,
		Filter: func(*queue.Delivery) bool { return false },
		Progress: func(r queue.RedriveResult) {
			if r.CameBack > enough {
				stop()
			}
		},
	})
	o.change(func(op *Operation) { op.CameBack = max(op.CameBack, res.CameBack) })
	switch {
	case res.CameBack > enough:
		return nil
	case err != nil:
		return err
	}
	if res.Skipped+res.Newer > mostHeld {
		// It has hidden those for up to twice the time that it took.
		return pause(ctx, 2*time.Since(begun)+time.Second)
	}
	return nil
}

// mostHeld is how many messages queue.Redrive makes visible again at its end; others
// become so later.
const mostHeld = 1000

// pass moves what's selected.
func (o *operation) pass(ctx context.Context, opts queue.RedriveOptions) error {
	base := o.state()
	undated := 0
	opts.ID, opts.Before, opts.Rate, opts.AnySource, opts.Quiet = base.ID, base.Began, base.Rate, base.Select.AnySource, o.quiet
	opts.Filter = func(d *queue.Delivery) bool {
		if !base.Select.match(d) {
			return false
		}
		if d.DeadLetter == nil || d.DeadLetter.LastAt.IsZero() {
			undated++
		}
		return true
	}
	count := func(r queue.RedriveResult) {
		o.change(func(op *Operation) {
			op.Moved, op.Repeated = base.Moved+r.Moved, base.Repeated+r.Repeated
			op.Failed, op.Skipped, op.Newer, op.CameBack = r.Failed, r.Skipped, r.Newer, max(op.CameBack, r.CameBack)
			op.Undated = base.Undated + undated
			if opts.Trial {
				op.Tried = base.Tried + r.Moved
			}
		})
	}
	opts.Progress = func(r queue.RedriveResult) {
		count(r)
		o.keepSometimes(ctx)
	}
	res, err := queue.Redrive(ctx, o.from, o.to, &opts)
	count(res)
	return err
}

// keepSometimes saves the counts once a second.
func (o *operation) keepSometimes(ctx context.Context) {
	o.admin.mu.Lock()
	now := time.Now()
	due := now.Sub(o.saved) >= time.Second
	if due {
		o.saved = now
	}
	o.admin.mu.Unlock()
	if due {
		o.keep(ctx)
	}
}

// keep saves the state of an operation that goes on all the same when that fails: what
// matters, its id and its beginning, was saved before.
func (o *operation) keep(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.admin.opts.Timeout)
	defer cancel()
	err := o.admin.save(ctx, o.state())
	o.admin.mu.Lock()
	o.unkept = err != nil
	o.admin.mu.Unlock()
	if err != nil {
		o.admin.opts.Logger.Error("redrive not kept", "operation", o.state().ID, "err", err)
	}
}

// end says what has become of it, and gives it back.
func (o *operation) end(ctx context.Context, err error, release func()) {
	o.change(func(op *Operation) {
		var halt *haltError
		var stopped *stoppedError
		switch {
		case err == nil:
			op.Status = Done
		case errors.As(context.Cause(ctx), &halt) && ctx.Err() != nil:
			op.Status = halt.status
		case errors.As(err, &stopped):
			op.Status, op.Why = Stopped, err.Error()
		default:
			op.Status, op.Why = Failed, err.Error()
		}
	})
	o.keep(ctx)
	op := o.state()
	o.admin.opts.Logger.Info("redrive "+string(op.Status), "operation", op.ID, "queue", op.From, "to", op.To, "moved", op.Moved, "failed", op.Failed,
		"came_back", op.CameBack, "err", err)
	release()
	o.admin.mu.Lock()
	defer o.admin.mu.Unlock()
	o.restLocked()
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
