package admin

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/anyqueue/anyqueue/queue"
)

// RedriveSpec says what a redrive operation does. Only From is needed.
type RedriveSpec struct {
	// ID names the operation: 1 to 64 letters, digits, - and _. Default: a new one.
	ID string `json:"id"`

	// From is the dead-letter queue, To where its messages go; queues of the file.
	// Default of To: the queue that dead-letters to From, if it's the only one.
	From string `json:"from"`
	To   string `json:"to"`

	Select Selection `json:"select,omitzero"`

	// Max ends the operation after so many messages were moved; 0: no limit. After a
	// crash it may be exceeded by what was moved since the Store last knew: within a
	// second, or in the last batch.
	Max int `json:"max,omitempty"`

	// Rate is the most messages moved a second; 0: no limit.
	Rate float64 `json:"rate,omitempty"`

	// Try is how many messages are moved first, as a test; 0: none. After TryFor
	// (default 1 minute, which must be enough for the queue's consumers to handle
	// them: what nobody has tried hasn't failed) those that failed again are counted,
	// and with more than TryAllow the operation is Stopped.
	Try      int           `json:"try,omitempty"`
	TryFor   time.Duration `json:"try_for_ns,omitempty"`
	TryAllow int           `json:"try_allow,omitempty"`

	By
}

var operationID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func (a *Admin) complete(s RedriveSpec) (RedriveSpec, error) {
	invalid := func(field, reason string) (RedriveSpec, error) {
		return s, &queue.InvalidError{Field: "RedriveSpec." + field, Reason: reason}
	}
	if s.ID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return s, fmt.Errorf("admin: a name for the operation: %w", err)
		}
		s.ID = id.String()
	}
	switch {
	case !operationID.MatchString(s.ID):
		return invalid("ID", fmt.Sprintf("%q isn't 1 to 64 letters, digits, - and _", s.ID))
	case s.Max < 0:
		return invalid("Max", "negative")
	case !(s.Rate >= 0) || math.IsInf(s.Rate, 0):
		return invalid("Rate", "must be a number of messages a second, or 0")
	case s.Try < 0 || s.TryFor < 0 || s.TryAllow < 0:
		return invalid("Try", "negative")
	case s.Try == 0 && (s.TryFor > 0 || s.TryAllow > 0):
		return invalid("Try", "isn't set, but TryFor or TryAllow is")
	case s.Max > 0 && s.Try > s.Max:
		return invalid("Try", "is over Max")
	case !s.Select.After.IsZero() && !s.Select.Before.IsZero() && !s.Select.After.Before(s.Select.Before):
		return invalid("Select", "After isn't before Before, so that nothing would be selected")
	}
	s.Select = s.Select.clone()
	if s.Try > 0 {
		s.TryFor = cmp.Or(s.TryFor, time.Minute)
	}
	if _, err := a.file.Find("RedriveSpec.From", s.From); err != nil {
		return s, err
	}
	if s.To == "" {
		sources := a.sources(s.From)
		switch len(sources) {
		case 0:
			return invalid("To", fmt.Sprintf("no queue of %s dead-letters to %s: it must be said where its messages go", a.file.Name, s.From))
		case 1:
			s.To = sources[0]
		default:
			return invalid("To", fmt.Sprintf("several queues dead-letter to %s: it must be one of %s", s.From, strings.Join(sources, ", ")))
		}
	}
	if s.To == s.From {
		return invalid("To", "is From")
	}
	_, err := a.file.Find("RedriveSpec.To", s.To)
	return s, err
}

// Redrive begins to move dead letters back, and returns as soon as the Store has the
// operation and its queues are open; ctx is only for that. It fails with ErrInvalid
// when the spec can't be meant, when there's an operation of that ID, or one is under
// way on the same dead-letter queue, be it in another process with the Store.
func (a *Admin) Redrive(ctx context.Context, spec RedriveSpec) (Operation, error) {
	spec, err := a.complete(spec)
	if err != nil {
		return Operation{}, err
	}
	o := &operation{admin: a, now: Operation{RedriveSpec: spec, Began: time.Now()}}
	if in, err := inspector(a.open(ctx, spec.From, queue.ForConsume)); err == nil {
		sctx, cancel := context.WithTimeout(ctx, a.opts.Timeout)
		if s, err := in.Stats(sctx); err == nil { // else it's unknown
			o.now.Total = cmp.Or(s.Total, s.Ready)
		}
		cancel()
	}
	a.mu.Lock()
	if _, ok := a.ops[spec.ID]; ok {
		a.mu.Unlock()
		return Operation{}, exists(spec.ID)
	}
	a.ops[spec.ID] = o
	a.mu.Unlock()
	op, err := o.begin(ctx, spec.By, "redrive began")
	if err != nil {
		a.mu.Lock()
		delete(a.ops, spec.ID)
		a.mu.Unlock()
		return Operation{}, err
	}
	return op, nil
}

func exists(id string) error {
	return &queue.InvalidError{Field: "RedriveSpec.ID", Reason: "there's an operation " + id}
}

// Operations returns all operations that are known, the latest first: those of other
// processes too, if the Store is shared. It fails when the Store can't be read.
func (a *Admin) Operations(ctx context.Context) ([]Operation, error) {
	if err := a.refresh(ctx); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]Operation, 0, len(a.ops))
	for _, o := range a.ops {
		if o.now.Status != "" { // it has begun
			out = append(out, o.now.clone())
		}
	}
	slices.SortFunc(out, func(a, b Operation) int {
		return cmp.Or(b.Began.Compare(a.Began), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

// Operation returns one operation as it is now.
func (a *Admin) Operation(ctx context.Context, id string) (Operation, error) {
	o, err := a.find(ctx, id)
	if err != nil {
		return Operation{}, err
	}
	return o.state(), nil
}

// find returns an operation, as the Store knows it if another process may have it.
func (a *Admin) find(ctx context.Context, id string) (*operation, error) {
	a.mu.Lock()
	o := a.ops[id]
	ours := o != nil && o.done != nil
	a.mu.Unlock()
	if ours {
		return o, nil
	}
	if err := a.refresh(ctx); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if o = a.ops[id]; o == nil {
		return nil, unknown(id)
	}
	return o, nil
}

func unknown(id string) error {
	return &queue.InvalidError{Field: "operation", Reason: fmt.Sprintf("there's none with the id %q", id)}
}

// WaitRedrive waits until an operation isn't under way any more, be it in another
// process, or ctx ends.
func (a *Admin) WaitRedrive(ctx context.Context, id string) (Operation, error) {
	for {
		o, err := a.find(ctx, id)
		if err != nil {
			return Operation{}, err
		}
		a.mu.Lock()
		done, op := o.done, o.now.clone()
		a.mu.Unlock()
		if !op.Elsewhere {
			return o.wait(ctx, done)
		}
		if err := pause(ctx, askAgain); err != nil {
			return op, fmt.Errorf("admin: redrive: %w", err)
		}
	}
}

// PauseRedrive finishes the batch on its way, and leaves the rest to ResumeRedrive. It
// returns when that has happened, or ctx ends.
func (a *Admin) PauseRedrive(ctx context.Context, id string, by By) (Operation, error) {
	return a.halt(ctx, id, by, errPaused)
}

// CancelRedrive is PauseRedrive for good. What was moved stays moved.
func (a *Admin) CancelRedrive(ctx context.Context, id string, by By) (Operation, error) {
	return a.halt(ctx, id, by, errCanceled)
}

// ResumeRedrive goes on with an operation that's Paused, Interrupted, Failed or Stopped;
// one that's Stopped goes on without a further test. What it has moved before isn't moved
// again, even if it has come back. After a crash it takes as long as the dead-letter
// queue's lease, and 2 s, to be Done, as what was on its way is hidden until then. It
// fails when another process with the Store has the operation.
func (a *Admin) ResumeRedrive(ctx context.Context, id string, by By) (Operation, error) {
	o, err := a.find(ctx, id)
	if err != nil {
		return Operation{}, err
	}
	return o.begin(ctx, by, "redrive resumed")
}

// ForgetRedrive removes an operation from the Store that's Done or Canceled.
func (a *Admin) ForgetRedrive(ctx context.Context, id string, by By) error {
	o, err := a.find(ctx, id)
	if err != nil {
		return err
	}
	op, err := o.rest(ctx, func(op *Operation) error {
		if op.Status != Done && op.Status != Canceled {
			return &queue.InvalidError{Field: "operation", Reason: fmt.Sprintf("%s is %s: it isn't forgotten before it's done or canceled", id, op.Status)}
		}
		if err := a.opts.Store.Remove(ctx, id); err != nil {
			return fmt.Errorf("admin: forgetting the operation %s: %w", id, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	a.mu.Lock()
	delete(a.ops, id)
	a.mu.Unlock()
	a.opts.Logger.Info("redrive forgotten", "operation", id, "queue", op.From, "actor", by.Actor, "reason", by.Reason)
	return nil
}

func (a *Admin) halt(ctx context.Context, id string, by By, cause *haltError) (Operation, error) {
	told := false
	for {
		o, err := a.find(ctx, id)
		if err != nil {
			return Operation{}, err
		}
		a.mu.Lock()
		done, now := o.done, o.now
		if done != nil {
			o.stop(cause)
		}
		a.mu.Unlock()
		if !told && (done != nil || now.Elsewhere) {
			a.logHalt(now, cause.status, by)
		}
		switch {
		case done != nil:
			op, err := o.wait(ctx, done)
			if err == nil && op.Status == "" {
				return Operation{}, &queue.InvalidError{Field: "operation", Reason: id + " couldn't begin"}
			}
			return op, err
		case now.Elsewhere:
			told = true
			if err := a.ask(ctx, o, by, cause); err != nil {
				return o.state(), err
			}
		case told && now.Status == cause.status: // as it was asked
			return o.state(), nil
		case cause == errCanceled && now.Status.resumable():
			op, err := o.rest(ctx, func(op *Operation) error {
				if !op.Status.resumable() {
					return isAlready(*op)
				}
				canceled := *op
				canceled.Status, canceled.Updated = Canceled, time.Now()
				if err := a.save(ctx, canceled); err != nil {
					return err
				}
				*op = canceled
				return nil
			})
			if err == nil {
				a.logHalt(op, cause.status, by)
			}
			return op, err
		default:
			return Operation{}, isAlready(now)
		}
	}
}

func (a *Admin) logHalt(op Operation, status Status, by By) {
	a.opts.Logger.Info("redrive to be "+string(status), "operation", op.ID, "queue", op.From, "actor", by.Actor, "reason", by.Reason)
}

// rest changes an operation that nobody has under way, while nobody can begin it.
func (o *operation) rest(ctx context.Context, change func(*Operation) error) (Operation, error) {
	a := o.admin
	a.mu.Lock()
	if o.done != nil {
		a.mu.Unlock()
		return Operation{}, &queue.InvalidError{Field: "operation", Reason: o.now.ID + " is under way"}
	}
	o.stop, o.done = func(error) {}, make(chan struct{})
	o.turn++
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		o.restLocked()
		a.mu.Unlock()
	}()
	release, err := o.take(ctx)
	if err != nil {
		return Operation{}, err
	}
	defer release()
	op := o.state()
	if err := change(&op); err != nil {
		return Operation{}, err
	}
	a.mu.Lock()
	o.now, o.unkept = op, false
	a.mu.Unlock()
	return op, nil
}

// save keeps an operation's state in the Store.
func (a *Admin) save(ctx context.Context, op Operation) error {
	if err := a.opts.Store.Save(ctx, op); err != nil {
		return fmt.Errorf("admin: keeping the operation %s: %w", op.ID, err)
	}
	return nil
}
