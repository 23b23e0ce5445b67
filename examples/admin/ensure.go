package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"

	"github.com/anyqueue/anyqueue/queue/admin"
	"github.com/anyqueue/anyqueue/queue/config"
)

// check reads files without touching a queue.
func (t *tool) check() command {
	return command{bare: func(args []string) error {
		if len(args) == 0 {
			args = []string{t.file}
		}
		type problem struct {
			File   string `json:"file"`
			Line   int    `json:"line,omitempty"`
			Column int    `json:"column,omitempty"`
			Path   string `json:"path,omitempty"`
			Reason string `json:"reason"`
		}
		wrong := 0
		for _, name := range args {
			file, problems, err := t.problems(name)
			if err != nil {
				return err
			}
			if len(problems) == 0 && !t.json {
				t.printf("%s: %s, nothing wrong\n", name, plural(len(file.Queues), "queue"))
			}
			wrong += len(problems)
			for _, p := range problems {
				if !t.json {
					t.printf("%s\n", p)
				} else if err := t.print(problem(p)); err != nil {
					return err
				}
			}
		}
		if wrong > 0 {
			return errors.New(plural(wrong, "problem"))
		}
		return nil
	}}
}

// problems is what's wrong with a file, that it can't be read too.
func (t *tool) problems(name string) (*config.File, []config.Problem, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		reason := err.Error()
		if detail, ok := errors.AsType[*fs.PathError](err); ok {
			reason = detail.Err.Error()
		}
		return nil, []config.Problem{{File: name, Reason: reason}}, nil
	}
	if err := config.Check(name, data, t.lookup, t.backends); err != nil {
		if list, ok := errors.AsType[*config.Error](err); ok {
			return nil, list.Problems, nil
		}
		return nil, nil, err
	}
	file, err := config.Parse(name, data, t.lookup)
	return file, nil, err
}

func (t *tool) plan() command {
	return command{run: func(ctx context.Context, a *admin.Admin, args []string) error {
		list, err := a.Plan(ctx, &config.EnsureOptions{Only: args, Update: true})
		if err != nil {
			return err
		}
		return t.reports(list, "would be created", "would be changed (with -update)", fixed)
	}}
}

func (t *tool) ensure(flags *flag.FlagSet) command {
	update := flags.Bool("update", false, "change what differs from the file, as far as that's possible")
	reason := flags.String("reason", "", "why, for the log")
	return command{run: func(ctx context.Context, a *admin.Admin, args []string) error {
		list, err := a.Ensure(ctx, &config.EnsureOptions{Only: args, Update: *update}, by(*reason))
		if err != nil {
			return err
		}
		differs := fixed
		if !*update {
			differs = "differs (ensure -update changes what can be changed)"
		}
		return t.reports(list, "created", "changed", differs)
	}}
}

// fixed is what's said of a difference that Update doesn't change.
const fixed = "differs, and can't be changed"

// report is an Ensured as JSON.
type report struct {
	Queue       string   `json:"queue"`
	Backend     string   `json:"backend"`
	Created     []string `json:"created,omitempty"`
	Changed     []string `json:"changed,omitempty"`
	Differences []string `json:"differences,omitempty"`
	Warnings    []string `json:"warnings,omitempty"`
	Skipped     string   `json:"skipped,omitempty"`
	Err         string   `json:"error,omitempty"`
}

func (t *tool) reports(list []config.Ensured, created, changed, differs string) error {
	failed, quiet := 0, 0
	for _, e := range list {
		r := report{
			Queue: e.Queue, Backend: e.Backend, Skipped: e.Skipped,
			Created: e.Report.Created, Changed: e.Report.Changed, Differences: e.Report.Differences, Warnings: e.Report.Warnings,
		}
		if e.Err != nil {
			failed++
			r.Err = e.Err.Error()
		}
		if t.json {
			if err := t.print(r); err != nil {
				return err
			}
			continue
		}
		said := false
		say := func(kind string, lines ...string) {
			for _, line := range lines {
				t.printf("%-28s %s: %s\n", e.Queue, kind, line)
				said = true
			}
		}
		say(created, r.Created...)
		say(changed, r.Changed...)
		say(differs, r.Differences...)
		say("needs somebody else", r.Warnings...)
		if r.Skipped != "" {
			say("skipped", r.Skipped)
		}
		if r.Err != "" {
			say("failed", r.Err)
		}
		if !said {
			quiet++
		}
	}
	if !t.json && quiet > 0 {
		t.printf("as the file says: %d of %s\n", quiet, plural(len(list), "queue"))
	}
	if failed > 0 {
		return fmt.Errorf("%d of %s failed", failed, plural(len(list), "queue"))
	}
	return nil
}
