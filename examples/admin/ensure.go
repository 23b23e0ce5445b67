package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
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
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			file, err := config.Parse(name, data, t.lookup)
			if err == nil {
				// Nothing is connected: it looks whether the backends are there.
				_, err = config.OpenFile(file, t.backends, nil)
			}
			list, ok := errors.AsType[*config.Error](err)
			switch {
			case ok:
			case err != nil:
				return err
			case !t.json:
				t.printf("%s: %d queues, nothing wrong\n", name, len(file.Queues))
				continue
			default:
				continue
			}
			wrong += len(list.Problems)
			for _, p := range list.Problems {
				if !t.json {
					t.printf("%s\n", p)
				} else if err := t.print(problem(p)); err != nil {
					return err
				}
			}
		}
		if wrong > 0 {
			return fmt.Errorf("%d problems", wrong)
		}
		return nil
	}}
}

func (t *tool) plan() command {
	return command{run: func(ctx context.Context, a *admin.Admin, args []string) error {
		list, err := a.Plan(ctx, &config.EnsureOptions{Only: args, Update: true})
		if err != nil {
			return err
		}
		return t.reports(list, "would be created", "would be changed (with -update)")
	}}
}

func (t *tool) ensure(flags *flag.FlagSet) command {
	update := flags.Bool("update", false, "change what differs from the file, as far as that's possible")
	return command{run: func(ctx context.Context, a *admin.Admin, args []string) error {
		list, err := a.Ensure(ctx, &config.EnsureOptions{Only: args, Update: *update})
		if err != nil {
			return err
		}
		return t.reports(list, "created", "changed")
	}}
}

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

func (t *tool) reports(list []config.Ensured, created, changed string) error {
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
		say("differs, and can't be changed", r.Differences...)
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
		t.printf("%d of %d queues are as the file says\n", quiet, len(list))
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d queues failed", failed, len(list))
	}
	return nil
}
