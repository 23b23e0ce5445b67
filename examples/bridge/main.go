// Command bridge moves a queue to another backend, while producers and consumers move
// there: an example of queue.Bridge.
//
//	bridge [-f FILE] [-rate 100] [-parallel 4] FROM TO                      until Ctrl-C
//	bridge [-f FILE] [-rate 100] [-parallel 4] -until-empty [-quiet 15s] FROM TO
//
// FROM and TO are queues of the configuration file (default $QUEUES_FILE, else
// queues.yaml), on two backends. What TO can't carry goes to FROM's dead_letter, if it
// has one, and stays otherwise.
//
// To move without losing a message or stopping anybody:
//
//  1. start consumers of TO, and the bridge;
//  2. let the producers publish to TO, one after the other;
//  3. end the consumers of FROM (they may have gone on until now);
//  4. when the last producer has moved, end the bridge and run it with -until-empty. It
//     exits with 0 when FROM is empty, and with 1 when something stays.
//
// A bridge that's killed loses nothing: start it again. What it had in hand is copied a
// second time, with the same ID. Several may run at a time, except on a queue of Pub/Sub
// that keeps an order.
//
// The last line of the output is the result in JSON: how many were moved, dead-lettered
// instead, published but not removed (repeated), and stay (left); remaining is what the
// broker says that FROM still holds. Pub/Sub only shows whether there's one.
//
// Whether the queue is empty is judged by its broker's counts, which SQS brings up to
// date within a minute or so. Pub/Sub doesn't count: -quiet must be longer there than a
// lease, so that what others have in hand has come back.
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
	"syscall"
	"time"

	"github.com/anyqueue/anyqueue/examples/internal/backends"
	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	t := &tool{
		backends: backends.All(memory.New(&memory.Options{Create: true}), os.LookupEnv), lookup: os.LookupEnv,
		out: os.Stdout, errs: os.Stderr,
	}
	switch err := t.run(ctx, os.Args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bridge:", err)
		os.Exit(1)
	}
}

// tool is the program, with what it has of the world.
type tool struct {
	backends  config.Backends
	lookup    func(string) (string, bool)
	out, errs io.Writer

	file       string
	rate       float64
	parallel   int
	untilEmpty bool
	quiet      time.Duration
}

func (t *tool) run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bridge", flag.ContinueOnError)
	flags.SetOutput(t.errs)
	file, ok := t.lookup("QUEUES_FILE")
	if !ok || file == "" {
		file = "queues.yaml"
	}
	flags.StringVar(&t.file, "f", file, "the configuration file")
	flags.Float64Var(&t.rate, "rate", 0, "most messages a second (0: no limit)")
	flags.IntVar(&t.parallel, "parallel", 0, "batches on their way at a time (0: the default)")
	flags.BoolVar(&t.untilEmpty, "until-empty", false, "end when the queue is empty, and not at an interrupt only")
	flags.DurationVar(&t.quiet, "quiet", 0, "with -until-empty: for how long nothing must have come (0: the queue's lease and 5 s)")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp // it has been said
	}
	if flags.NArg() != 2 {
		flags.Usage()
		return errors.New("it needs the names of two queues")
	}
	return t.withBus(ctx, func(bus *config.Bus, file *config.File) error {
		m, err := t.open(ctx, bus, file, flags.Arg(0), flags.Arg(1))
		if err != nil {
			return err
		}
		return m.run(ctx)
	})
}

// withBus opens the file, and closes what was opened.
func (t *tool) withBus(ctx context.Context, use func(*config.Bus, *config.File) error) (err error) {
	data, err := os.ReadFile(t.file)
	if err != nil {
		return err
	}
	file, err := config.Parse(t.file, data, t.lookup)
	if err != nil {
		return err
	}
	bus, err := config.OpenFile(file, t.backends, &config.Options{Logger: t.log()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bus.Close(context.WithoutCancel(ctx))) }()
	return use(bus, file)
}

func (t *tool) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(t.errs, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// open opens the queues of a move.
func (t *tool) open(ctx context.Context, bus *config.Bus, file *config.File, from, to string) (*move, error) {
	m := &move{tool: t, name: from, to: to, log: t.log()}
	var err error
	if m.from, err = bus.Queue(ctx, from); err != nil {
		return nil, err
	}
	if m.target, err = bus.Queue(ctx, to); err != nil {
		return nil, err
	}
	if d := file.Queue(from).DeadLetter; d != nil {
		if m.dead, err = bus.Queue(ctx, d.Queue); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// result is the last line.
type result struct {
	Moved        int     `json:"moved"`
	DeadLettered int     `json:"dead_lettered"`
	Repeated     int     `json:"repeated"`
	Left         int     `json:"left"`
	Remaining    *int64  `json:"remaining,omitempty"`
	Seconds      float64 `json:"seconds"`
}

func (t *tool) print(r result) error { return json.NewEncoder(t.out).Encode(r) }
