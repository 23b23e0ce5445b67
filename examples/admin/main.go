// Command admin operates the queues of a configuration file, on whatever backends they
// are: an operator's tool in a terminal, and an example of package queue/admin.
//
//	admin check  [FILE...]                 is the file right? All that's wrong, by line
//	admin plan   [PATTERN...]              what ensure would do
//	admin ensure [-update] [PATTERN...]    create what's missing; nothing is deleted
//	admin stats  [-watch 2s] [PATTERN...]  how many messages, how old, from where, of when;
//	                                       fails when no queue has answered
//	admin peek   [-n 10] [-groups] [-confirm] QUEUE
//	                                       look into a queue, or group its dead letters
//	admin redrive [-to QUEUE] [-try 10] [-rate 100] [-fingerprint F] [-attr K=V]
//	              [-after T] [-before T] [...] DEAD-LETTER-QUEUE
//	                                       move dead letters back; Ctrl-C pauses
//	admin redrive -list | -pause ID | -resume ID | -cancel ID | -forget ID
//	                                       what's under way, also in another terminal
//	admin purge  QUEUE                     remove everything; asks for the queue's name
//	admin publish [-attr K=V] [-key K] [-id ID] [-delay D] QUEUE [BODY]
//	                                       one message; without BODY that of the input
//
// Every command takes -f FILE (default $QUEUES_FILE, else queues.yaml) and -json. A
// pattern is one of path.Match, such as 'blast-*'. Redrives are kept in -state DIR
// (default $QUEUES_STATE, else .redrives), so that they go on after a crash.
//
// The backends memory, sqs and pubsub find their credentials in the environment, as
// their own tools do. What Pub/Sub has is asked of Google Cloud Monitoring, which is
// minutes late and needs roles/monitoring.viewer; on the emulator it's unknown.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"os/user"
	"strings"
	"syscall"
	"time"

	"github.com/anyqueue/anyqueue/examples/internal/backends"
	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue/admin"
	"github.com/anyqueue/anyqueue/queue/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	t := &tool{
		backends: backends.AllCounted(memory.New(&memory.Options{Create: true}), os.LookupEnv), lookup: os.LookupEnv,
		in: os.Stdin, out: os.Stdout, errs: os.Stderr, terminal: isTerminal(os.Stdout),
	}
	switch err := t.run(ctx, os.Args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "admin:", err)
		os.Exit(1)
	}
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// tool is the program, with what it has of the world.
type tool struct {
	backends  config.Backends
	lookup    func(string) (string, bool)
	in        io.Reader
	out, errs io.Writer
	terminal  bool // out is one: what was written can be written over

	file  string
	json  bool
	state string
}

// command is one of those in usage.
type command struct {
	args int // at least so many
	run  func(ctx context.Context, a *admin.Admin, args []string) error
	// bare needs neither queues nor a right file.
	bare func(args []string) error
}

const usage = `usage: admin COMMAND [flags] [arguments]

commands: check, plan, ensure, stats, peek, redrive, purge, publish
admin COMMAND -h tells its flags`

func (t *tool) run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		fmt.Fprintln(t.errs, usage)
		return flag.ErrHelp
	}
	flags := flag.NewFlagSet("admin "+args[0], flag.ContinueOnError)
	flags.SetOutput(t.errs)
	flags.StringVar(&t.file, "f", t.env("QUEUES_FILE", "queues.yaml"), "the configuration file")
	flags.BoolVar(&t.json, "json", false, "answer in JSON")
	var c command
	switch args[0] {
	case "check":
		c = t.check()
	case "plan":
		c = t.plan()
	case "ensure":
		c = t.ensure(flags)
	case "stats":
		c = t.stats(flags)
	case "peek":
		c = t.peek(flags)
	case "redrive":
		c = t.redrive(flags)
	case "purge":
		c = t.purge(flags)
	case "publish":
		c = t.publish(flags)
	default:
		fmt.Fprintln(t.errs, usage)
		return fmt.Errorf("there's no command %q", args[0])
	}
	if err := flags.Parse(args[1:]); err != nil {
		return flag.ErrHelp // it has been said
	}
	if flags.NArg() < c.args {
		flags.Usage()
		return fmt.Errorf("%s needs the name of a queue", args[0])
	}
	if c.bare != nil {
		return c.bare(flags.Args())
	}
	return t.withAdmin(ctx, func(a *admin.Admin) error { return c.run(ctx, a, flags.Args()) })
}

func (t *tool) env(name, otherwise string) string {
	if v, ok := t.lookup(name); ok && v != "" {
		return v
	}
	return otherwise
}

// withAdmin opens the file, and closes what was opened.
func (t *tool) withAdmin(ctx context.Context, use func(*admin.Admin) error) (err error) {
	data, err := os.ReadFile(t.file)
	if err != nil {
		return err
	}
	if err := config.Check(t.file, data, t.lookup, t.backends); err != nil {
		return err
	}
	file, err := config.Parse(t.file, data, t.lookup)
	if err != nil {
		return err
	}
	file.Ensure = false // who looks creates nothing
	log := slog.New(slog.NewTextHandler(t.errs, &slog.HandlerOptions{Level: slog.LevelWarn}))
	bus, err := config.OpenFile(file, t.backends, &config.Options{Logger: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bus.Close(context.WithoutCancel(ctx))) }()
	opts := &admin.Options{Logger: log}
	if t.state != "" {
		opts.Store = admin.FileStore(t.state)
	}
	a, err := admin.New(ctx, bus, opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close(context.WithoutCancel(ctx))) }()
	return use(a)
}

// by says who's at the keyboard.
func by(reason string) admin.By {
	u, err := user.Current()
	if err != nil {
		return admin.By{Actor: "unknown", Reason: reason}
	}
	return admin.By{Actor: u.Username, Reason: reason}
}

func (t *tool) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(t.out, format, args...) // who closes the output has seen enough
}

// print answers in JSON, on a line.
func (t *tool) print(v any) error { return json.NewEncoder(t.out).Encode(v) }

// plural is "1 queue" and "2 queues".
func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// pairs reads NAME=VALUE.
func (l *list) pairs() (map[string]string, error) {
	var out map[string]string
	for _, text := range *l {
		k, v, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("the attribute %q isn't NAME=VALUE", text)
		}
		if out == nil {
			out = map[string]string{}
		}
		out[k] = v
	}
	return out, nil
}

// moment is a flag for a time: a date, a time by the local clock or with a zone, or how
// long ago.
type moment struct{ time.Time }

func (m *moment) String() string { return m.Format(time.RFC3339) }

func (m *moment) Set(s string) error {
	if ago, err := time.ParseDuration(s); err == nil {
		m.Time = time.Now().Add(-ago)
		return nil
	}
	for _, layout := range []string{time.DateOnly, time.DateTime, "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02T15:04", time.RFC3339Nano} {
		if at, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			m.Time = at
			return nil
		}
	}
	return errors.New("neither a time such as 2026-11-27, 2026-11-27T14:30 or 2026-11-27T14:30:00Z, nor how long ago, such as 2h")
}
