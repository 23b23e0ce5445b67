package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/admin"
)

func (t *tool) stats(flags *flag.FlagSet) command {
	watch := flags.Duration("watch", 0, "ask again at this interval, until interrupted; each time costs a request or two for every queue")
	return command{run: func(ctx context.Context, a *admin.Admin, args []string) error {
		for {
			rows, err := a.Stats(ctx, args...)
			if err != nil {
				return err
			}
			if *watch > 0 && t.terminal && !t.json {
				t.printf("\x1b[H\x1b[2J")
			}
			if err := t.table(rows); err != nil {
				return err
			}
			if *watch <= 0 {
				if len(rows) > 0 && !slices.ContainsFunc(rows, func(r admin.QueueStats) bool { return r.Err == nil }) {
					return errors.New("no queue has answered")
				}
				return nil
			}
			select {
			case <-time.After(*watch):
			case <-ctx.Done():
				return nil
			}
		}
	}}
}

func (t *tool) table(rows []admin.QueueStats) error {
	if t.json {
		for _, r := range rows {
			if err := t.print(r); err != nil {
				return err
			}
		}
		return nil
	}
	width := len("queue")
	for _, r := range rows {
		width = max(width, len(r.Queue))
	}
	const columns = "%-*s  %8s  %9s  %8s  %8s  %9s  %8s  %s\n"
	t.printf(columns, width, "queue", "ready", "in flight", "delayed", "total", "oldest", "as of", "from")
	for _, r := range rows {
		if errors.Is(r.Err, queue.ErrQueueNotFound) {
			t.printf("%-*s  missing: see plan and ensure\n", width, r.Queue)
			continue
		}
		if r.Err != nil {
			t.printf("%-*s  %v\n", width, r.Queue, r.Err)
			continue
		}
		age := "?"
		if r.OldestAge != nil {
			age = r.OldestAge.Round(time.Second).String()
		}
		from := r.Source
		if r.Approximate {
			from += ", about"
		}
		t.printf(columns, width, r.Queue, count(r.Ready), count(r.InFlight), count(r.Delayed), count(r.Total), age, r.AsOf.Format(time.TimeOnly), from)
	}
	return nil
}

// count tells what's unknown from nothing.
func count(n *int64) string {
	if n == nil {
		return "?"
	}
	return fmt.Sprint(*n)
}

func (t *tool) peek(flags *flag.FlagSet) command {
	n := flags.Int("n", 0, "at most so many messages. Default 10, and 500 for -groups")
	groups := flags.Bool("groups", false, "only tell how many of those failed alike")
	confirm := flags.Bool("confirm", false, "also where it has consequences: on SQS it counts as a receive, and hides the messages for a moment")
	return command{args: 1, run: func(ctx context.Context, a *admin.Admin, args []string) error {
		peek := a.Peek
		if *confirm {
			peek = a.PeekConfirmed
		}
		if *n == 0 {
			if *n = 10; *groups {
				*n = 500
			}
		}
		ds, err := peek(ctx, args[0], *n)
		if err != nil {
			return err
		}
		if *groups {
			if err := t.groups(admin.Group(ds)); err != nil || t.json {
				return err
			}
			t.printf("of %s\n", plural(len(ds), "message"))
			return nil
		}
		for _, d := range ds {
			if err := t.message(d); err != nil {
				return err
			}
		}
		if !t.json {
			t.printf("%s\n", plural(len(ds), "message"))
		}
		return nil
	}}
}

func (t *tool) groups(groups []admin.FailureGroup) error {
	for _, g := range groups {
		if t.json {
			if err := t.print(g); err != nil {
				return err
			}
			continue
		}
		sources := g.Sources
		if more := len(sources) - 3; more > 0 {
			sources = append(slices.Clone(sources[:3]), fmt.Sprintf("%d more", more))
		}
		t.printf("%6d  %-16s  %s  %s: %s\n", g.Count, g.Fingerprint, g.Last.Format(time.DateTime), strings.Join(sources, ", "), firstLine(g.Error))
	}
	return nil
}

// view is a message as JSON.
type view struct {
	ID          string                `json:"id"`
	Body        *string               `json:"body,omitempty"`        // when it's text
	Bytes       []byte                `json:"body_base64,omitempty"` // when it isn't
	Attributes  map[string]string     `json:"attributes,omitempty"`
	OrderingKey string                `json:"ordering_key,omitempty"`
	EnqueuedAt  time.Time             `json:"enqueued_at,omitzero"`
	Attempt     int                   `json:"attempt,omitempty"`
	Failures    int                   `json:"failures,omitempty"`
	DeadLetter  *queue.DeadLetterInfo `json:"dead_letter,omitempty"`
}

func (t *tool) message(d *queue.Delivery) error {
	v := view{
		ID: d.ID, Attributes: d.Attributes, OrderingKey: d.OrderingKey, EnqueuedAt: d.EnqueuedAt,
		Attempt: d.Attempt, Failures: d.Failures, DeadLetter: d.DeadLetter,
	}
	text := string(d.Body)
	if utf8.Valid(d.Body) {
		v.Body = &text
	} else {
		v.Bytes = d.Body
	}
	if t.json {
		return t.print(v)
	}
	t.printf("%s  enqueued %s", d.ID, d.EnqueuedAt.Format(time.DateTime))
	if d.OrderingKey != "" {
		t.printf("  key %s", d.OrderingKey)
	}
	t.printf("\n")
	if dl := d.DeadLetter; dl != nil {
		t.printf("  failed in %s at %s, %s after %d failures: %s\n", dl.Source.Name, dl.LastAt.Format(time.DateTime), dl.Reason, dl.Failures, firstLine(dl.Error))
	}
	if len(d.Attributes) > 0 {
		attributes, err := json.Marshal(d.Attributes)
		if err != nil {
			return err
		}
		t.printf("  %s\n", attributes)
	}
	if v.Body == nil {
		text = fmt.Sprintf("%x", d.Body)
	}
	t.printf("  %s\n", shorten(text, 400))
	return nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return shorten(line, 120)
}

func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

func (t *tool) purge(flags *flag.FlagSet) command {
	name := flags.String("yes", "", "the queue's name again, for programs that can't be asked")
	reason := flags.String("reason", "", "why, for the log")
	return command{args: 1, run: func(ctx context.Context, a *admin.Admin, args []string) error {
		given := *name
		if given == "" {
			if rows, err := a.Stats(ctx, args[0]); err == nil {
				shown := &tool{out: t.errs} // what's asked isn't the answer
				if err := shown.table(rows); err != nil {
					return err
				}
			}
			fmt.Fprintf(t.errs, "This removes every message of %s, for good. The queue's name, to go on: ", args[0])
			line, err := bufio.NewReader(t.in).ReadString('\n')
			if err != nil && line == "" {
				return fmt.Errorf("nothing was removed: %w", err)
			}
			given = strings.TrimSpace(line)
		}
		if given != args[0] {
			return fmt.Errorf("nothing was removed: %q isn't %s", given, args[0])
		}
		if err := a.Purge(ctx, args[0], by(*reason)); err != nil {
			return err
		}
		if t.json {
			return t.print(map[string]string{"purged": args[0]})
		}
		t.printf("%s is purged\n", args[0])
		return nil
	}}
}

func (t *tool) publish(flags *flag.FlagSet) command {
	var attributes list
	flags.Var(&attributes, "attr", "an attribute, NAME=VALUE; may be repeated")
	m := &queue.Message{}
	flags.StringVar(&m.OrderingKey, "key", "", "the ordering key")
	flags.StringVar(&m.ID, "id", "", "the message's id")
	delay := flags.Duration("delay", 0, "not to be handled before")
	reason := flags.String("reason", "", "why, for the log")
	return command{args: 1, run: func(ctx context.Context, a *admin.Admin, args []string) error {
		var err error
		if m.Attributes, err = attributes.pairs(); err != nil {
			return err
		}
		m.Delay = *delay
		switch len(args) {
		case 1:
			body, err := io.ReadAll(t.in)
			if err != nil {
				return err
			}
			m.Body = body
		case 2:
			m.Body = []byte(args[1])
		default:
			return fmt.Errorf("one body, not %d", len(args)-1)
		}
		if err := a.Publish(ctx, args[0], by(*reason), m); err != nil {
			return err
		}
		if t.json {
			return t.print(map[string]any{"published": args[0], "bytes": len(m.Body)})
		}
		t.printf("published %s to %s\n", plural(len(m.Body), "byte"), args[0])
		return nil
	}}
}
