package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

const (
	askAgain = time.Second            // whether a request was left, and to leave it once more
	lookers  = 250 * time.Millisecond // how long a lock may be held by who only looks
)

// read returns what the Store has. What it can't read is logged once.
func (a *Admin) read(ctx context.Context) (map[string]Operation, map[string]error, error) {
	list, err := a.opts.Store.Load(ctx)
	var unreadable map[string]error
	if partly, ok := errors.AsType[*UnreadableError](err); ok {
		unreadable, err = partly.Operations, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("admin: operations: %w", err)
	}
	for id, why := range unreadable {
		a.mu.Lock()
		said := a.unreadable[id]
		a.unreadable[id] = true
		a.mu.Unlock()
		if !said {
			a.opts.Logger.Error("redrive can't be read", "operation", id, "err", why)
		}
	}
	known := make(map[string]Operation, len(list))
	for _, op := range list {
		op.Elsewhere = false
		known[op.ID] = op
	}
	return known, unreadable, nil
}

// refresh learns what other processes have done.
func (a *Admin) refresh(ctx context.Context) error {
	if a.shared == nil {
		return nil
	}
	return a.load(ctx)
}

// load takes over what the Store has, but for what this process has under way.
func (a *Admin) load(ctx context.Context) error {
	a.mu.Lock()
	turns, ours := map[string]int{}, map[string]bool{}
	for id, o := range a.ops {
		turns[id], ours[id] = o.turn, o.done != nil
	}
	a.mu.Unlock()
	known, _, err := a.read(ctx)
	if err == nil {
		err = a.judge(ctx, known, ours)
	}
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, op := range known {
		o, before := a.ops[id], turns[id]
		switch {
		case o == nil:
			if before == 0 { // else it was forgotten just now
				a.ops[id] = &operation{admin: a, now: op, turn: 1}
			}
		case o.turn == before && o.oursLocked(op):
		case o.turn == before:
			o.now = op
		}
	}
	for id, o := range a.ops {
		if _, ok := known[id]; !ok && o.turn == turns[id] && !o.oursLocked(Operation{}) {
			delete(a.ops, id) // somebody else has forgotten it
		}
	}
	return nil
}

// oursLocked reports whether this process knows better than the Store.
func (o *operation) oursLocked(stored Operation) bool {
	return o.done != nil || o.now.Status == "" || o.unkept && !stored.Updated.After(o.now.Updated)
}

// judge tells what's under way elsewhere from what was interrupted.
func (a *Admin) judge(ctx context.Context, known map[string]Operation, ours map[string]bool) error {
	var free []string
	for id, op := range known {
		if !op.Status.UnderWay() || ours[id] {
			continue
		}
		if a.shared != nil {
			release, held, err := a.shared.Lock(ctx, id)
			if err != nil {
				return fmt.Errorf("admin: operations: %w", err)
			}
			if held {
				op.Elsewhere = true
				known[id] = op
				continue
			}
			defer release()
		}
		free = append(free, id)
	}
	if len(free) == 0 {
		return nil
	}
	again := known
	if a.shared != nil { // it may have ended before it was free
		var err error
		if again, _, err = a.read(ctx); err != nil {
			return err
		}
	}
	for _, id := range free {
		op, ok := again[id]
		if !ok {
			delete(known, id)
			continue
		}
		if op.Status.UnderWay() {
			op.Status = Interrupted
		}
		known[id] = op
	}
	return nil
}

func elsewhere(id string) error {
	return &queue.InvalidError{Field: "operation", Reason: id + " is under way in another process"}
}

// lock takes a name of the Store, if there's anybody to share it with; false: another
// process has it.
func (a *Admin) lock(ctx context.Context, name string) (release func(), ok bool, err error) {
	if a.shared == nil {
		return func() {}, true, nil
	}
	for until := time.Now().Add(lookers); ; {
		release, held, err := a.shared.Lock(ctx, name)
		switch {
		case err != nil:
			return nil, false, fmt.Errorf("admin: taking %s: %w", name, err)
		case !held:
			return release, true, nil
		case !time.Now().Before(until):
			return nil, false, nil
		}
		if err := pause(ctx, lookers/5); err != nil {
			return nil, false, err
		}
	}
}

// take makes an operation this process's alone, with what the Store knows of it.
func (o *operation) take(ctx context.Context) (release func(), err error) {
	a, op := o.admin, o.state()
	release, ok, err := a.lock(ctx, op.ID)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, elsewhere(op.ID)
	}
	if err := o.reload(ctx, op.Status == ""); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// takeQueue takes the dead-letter queue as well, and throws away what was asked before.
func (o *operation) takeQueue(ctx context.Context) (release func(), err error) {
	a, op := o.admin, o.state()
	first, err := o.take(ctx)
	if err != nil || a.shared == nil {
		return first, err
	}
	second, ok, err := a.lock(ctx, "queue."+op.From)
	if err == nil && !ok {
		err = &queue.InvalidError{Field: "operation", Reason: "another process has one under way on " + op.From + ": it would see only a part of it"}
	}
	if err == nil {
		_, _, err = a.shared.Asked(ctx, op.ID)
		if err != nil {
			second()
		}
	}
	if err != nil {
		first()
		return nil, err
	}
	return func() { second(); first() }, nil
}

// reload takes over what the Store knows of an operation that nobody has.
func (o *operation) reload(ctx context.Context, isNew bool) error {
	a, id := o.admin, o.state().ID
	if a.shared == nil && !isNew {
		return nil
	}
	known, unreadable, err := a.read(ctx)
	if err != nil {
		return err
	}
	op, there := known[id]
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case unreadable[id] != nil:
		return fmt.Errorf("admin: the operation %s can't be read: %w", id, unreadable[id])
	case isNew && there:
		return exists(id)
	case isNew, o.unkept && !op.Updated.After(o.now.Updated):
		return nil
	case !there:
		return unknown(id)
	case op.Status.UnderWay():
		op.Status = Interrupted
	}
	o.now = op
	return nil
}

// watch looks for what other processes ask of an operation, until ctx ends.
func (o *operation) watch(ctx context.Context, stop context.CancelCauseFunc) {
	a, op := o.admin, o.state()
	for pause(ctx, askAgain) == nil {
		r, ok, err := a.shared.Asked(ctx, op.ID)
		switch {
		case err != nil && ctx.Err() == nil:
			a.opts.Logger.Error("redrive: requests can't be read", "operation", op.ID, "err", err)
		case ok:
			i := slices.IndexFunc([]*haltError{errPaused, errCanceled}, func(e *haltError) bool { return e.status == r.Status })
			if i < 0 {
				continue
			}
			a.logHalt(op, r.Status, r.By)
			stop([]*haltError{errPaused, errCanceled}[i])
		}
	}
}

// ask has another process halt an operation, and waits until it isn't under way any more.
func (a *Admin) ask(ctx context.Context, o *operation, by By, cause *haltError) error {
	id := o.state().ID
	for asked := (time.Time{}); ; {
		if time.Since(asked) >= askAgain { // it may have been taken for an earlier one
			asked = time.Now()
			if err := a.shared.Ask(ctx, id, Request{Status: cause.status, By: by}); err != nil {
				return fmt.Errorf("admin: asking for the operation %s to be %s: %w", id, cause.status, err)
			}
		}
		if err := pause(ctx, askAgain/5); err != nil {
			return fmt.Errorf("admin: redrive: %w", err)
		}
		if err := a.refresh(ctx); err != nil {
			return err
		}
		if !o.state().Elsewhere {
			return nil
		}
	}
}
