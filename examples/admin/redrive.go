package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/anyqueue/anyqueue/queue/admin"
)

func (t *tool) redrive(flags *flag.FlagSet) command {
	flags.StringVar(&t.state, "state", t.env("QUEUES_STATE", ".redrives"), "the folder that keeps redrives, so that they go on after a crash")
	var spec admin.RedriveSpec
	var ids, prints, reasons, attributes list
	var after, before moment
	flags.StringVar(&spec.To, "to", "", "where they go. Default: the queue that dead-letters there")
	flags.StringVar(&spec.ID, "id", "", "a name for the operation. Default: a new one")
	flags.Var(&ids, "message", "only the message of this id; may be repeated")
	flags.Var(&prints, "fingerprint", "only failures of this fingerprint (see peek -groups); may be repeated")
	flags.Var(&reasons, "failed-by", "only what was given up by: rejected, failures, age or trial; may be repeated")
	flags.StringVar(&spec.Select.Error, "error", "", "only failures whose text contains this")
	flags.Var(&attributes, "attr", "only messages with this attribute, NAME=VALUE; may be repeated, and then all must be so")
	flags.Var(&after, "after", "only what failed at this time or later: 2026-11-27, 2026-11-27T14:30 (here), 2026-11-27T14:30:00Z, or 2h for two hours ago")
	flags.Var(&before, "before", "only what failed earlier than this time")
	flags.BoolVar(&spec.Select.AnySource, "any-source", false, "also what failed in another queue")
	flags.IntVar(&spec.Max, "max", 0, "at most so many")
	flags.Float64Var(&spec.Rate, "rate", 0, "at most so many a second")
	flags.IntVar(&spec.Try, "try", 0, "move so many first, and the rest only if they don't fail again")
	flags.DurationVar(&spec.TryFor, "try-for", 0, "how long the queue's consumers, which must run, get to handle those. Default 1m")
	flags.IntVar(&spec.TryAllow, "try-allow", 0, "so many of those may fail again")
	flags.StringVar(&spec.Reason, "reason", "", "why, for the log")
	resume := flags.String("resume", "", "go on with the operation of this id")
	pause := flags.String("pause", "", "stop the operation of this id, also of another process, until -resume")
	cancel := flags.String("cancel", "", "give up the operation of this id, also of another process; what was moved stays moved")
	forget := flags.String("forget", "", "remove the operation of this id from the folder, once it's done or canceled")
	all := flags.Bool("list", false, "list the operations")
	return command{run: func(ctx context.Context, a *admin.Admin, args []string) error {
		spec.Select.IDs, spec.Select.Fingerprints, spec.Select.Reasons = ids, prints, reasons
		spec.Select.After, spec.Select.Before = after.Time, before.Time
		var err error
		if spec.Select.Attributes, err = attributes.pairs(); err != nil {
			return err
		}
		who := by(spec.Reason)
		switch {
		case *all:
			ops, err := a.Operations(ctx)
			if err != nil {
				return err
			}
			return t.operations(ops)
		case *cancel != "":
			op, err := a.CancelRedrive(ctx, *cancel, who)
			if err != nil {
				return err
			}
			return t.operations([]admin.Operation{op})
		case *pause != "":
			op, err := a.PauseRedrive(ctx, *pause, who)
			if err != nil {
				return err
			}
			return t.operations([]admin.Operation{op})
		case *forget != "":
			if err := a.ForgetRedrive(ctx, *forget, who); err != nil {
				return err
			}
			if t.json {
				return t.print(map[string]string{"forgotten": *forget})
			}
			t.printf("%s is forgotten\n", *forget)
			return nil
		case *resume != "":
			op, err := a.ResumeRedrive(ctx, *resume, who)
			if err != nil {
				return err
			}
			return t.follow(ctx, a, op.ID)
		case len(args) != 1:
			return errors.New("redrive needs the name of one dead-letter queue")
		}
		spec.From, spec.Actor = args[0], who.Actor
		op, err := a.Redrive(ctx, spec)
		if err != nil {
			return err
		}
		return t.follow(ctx, a, op.ID)
	}}
}

func (t *tool) operations(list []admin.Operation) error {
	for _, op := range list {
		if t.json {
			if err := t.print(op); err != nil {
				return err
			}
			continue
		}
		t.printf("%s  %s  %s -> %s  %s\n", op.ID, op.Began.Format(time.DateTime), op.From, op.To, progress(op))
	}
	return nil
}

// follow shows how an operation goes on. An interrupt pauses it.
func (t *tool) follow(ctx context.Context, a *admin.Admin, id string) error {
	const often, seldom = 200 * time.Millisecond, 2 * time.Second
	every := seldom
	if t.terminal {
		every = often
	}
	for {
		waiting, cancel := context.WithTimeout(ctx, every)
		op, err := a.WaitRedrive(waiting, id)
		cancel()
		if err != nil && ctx.Err() != nil {
			fmt.Fprintln(t.errs, "pausing ...")
			pausing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
			op, err = a.PauseRedrive(pausing, id, by("interrupted"))
			if err != nil {
				op, err = a.Operation(pausing, id) // it was over
			}
			cancel()
			if err != nil {
				return err
			}
		}
		if op.Status.UnderWay() {
			t.bar(op)
			continue
		}
		return t.ended(op)
	}
}

func (t *tool) bar(op admin.Operation) {
	switch {
	case t.json:
	case t.terminal:
		const width = 30
		bar := ""
		if op.Total != nil && *op.Total > 0 {
			done := min(width*(op.Moved+op.Skipped)/int(*op.Total), width)
			bar = "[" + strings.Repeat("#", done) + strings.Repeat(".", width-done) + "] "
		}
		t.printf("\r\x1b[K%s%s", bar, progress(op))
	default:
		t.printf("%s\n", progress(op))
	}
}

func progress(op admin.Operation) string {
	var b strings.Builder
	b.WriteString(string(op.Status))
	if op.Elsewhere {
		b.WriteString(" in another process")
	}
	fmt.Fprintf(&b, ": %d moved", op.Moved)
	if op.Total != nil {
		fmt.Fprintf(&b, " of %d", *op.Total)
	}
	for _, c := range []struct {
		n    int
		what string
	}{
		{op.Skipped, "not selected"}, {op.Failed, "couldn't be moved"}, {op.Newer, "newer"}, {op.CameBack, "came back"}, {op.Repeated, "may come twice"},
		{op.Undated, "without a time of their failure"},
	} {
		if c.n > 0 {
			fmt.Fprintf(&b, ", %d %s", c.n, c.what)
		}
	}
	return b.String()
}

// ended says how an operation has ended; anything but done and canceled is a failure.
func (t *tool) ended(op admin.Operation) error {
	if t.json {
		if err := t.print(op); err != nil {
			return err
		}
	} else {
		if t.terminal {
			t.printf("\r\x1b[K")
		}
		t.printf("%s\n", progress(op))
	}
	switch op.Status { //nolint:exhaustive // the others are as they were asked for
	case admin.Paused, admin.Interrupted:
		return fmt.Errorf("not done; go on with: admin redrive -resume %s", op.ID)
	case admin.Stopped, admin.Failed:
		return fmt.Errorf("%s; to go on all the same: admin redrive -resume %s", op.Why, op.ID)
	}
	return nil
}
