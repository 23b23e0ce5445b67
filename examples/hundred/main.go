// Command hundred runs a company's hundred and twenty queues in one process, with
// realistic traffic: some fast, some slow, some in order, some delayed, some idle, and
// some that fail in all ways.
//
//	go run ./examples/hundred
//
// publishes for ten seconds, waits until every message was handled or lies in a
// dead-letter queue, and collects those. The last line is the result; the exit code is 0
// only when nothing was lost, came early, or was overtaken by a later one of its key.
//
//	go run ./examples/hundred -for 0 -http 127.0.0.1:8080
//
// stays up until it's interrupted, and tells about itself at /live and /ready.
//
//	-rate 500            messages a second over all queues
//	-only 'blast-*,crm-*'
//	                     publish to and consume only these
//	-role publish|work   only one half, on a backend that processes can share
//	-keep                leave the dead letters where they are, for examples/admin
//
// QUEUE_BACKEND chooses the backend: memory, sqs or pubsub. The queues are those of
// traffic/queues.yaml, which examples/admin can operate with -f.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/anyqueue/anyqueue/examples/hundred/traffic"
	"github.com/anyqueue/anyqueue/examples/internal/backends"
	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second one ends the process at once
	p := &program{
		backends: backends.All(memory.New(&memory.Options{Create: true}), os.LookupEnv), lookup: os.LookupEnv,
		out: os.Stdout, errs: os.Stderr,
	}
	switch err := p.run(ctx, os.Args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "hundred:", err)
		os.Exit(1)
	}
}

// program is the command, with what it has of the world.
type program struct {
	backends  config.Backends
	lookup    func(string) (string, bool)
	out, errs io.Writer

	rate     float64
	lasts    time.Duration
	patience time.Duration
	only     []string
	role     string
	http     string
	logLevel string
	keep     bool
}

// result is the last line.
type result struct {
	Queues int `json:"queues"` // that were consumed
	traffic.Counts
	Lost    int     `json:"lost"` // confirmed, and found nowhere
	Seconds float64 `json:"seconds"`
}

func (p *program) parse(args []string) error {
	f := flag.NewFlagSet("hundred", flag.ContinueOnError)
	f.SetOutput(p.errs)
	f.Float64Var(&p.rate, "rate", 500, "messages a second over all queues")
	f.DurationVar(&p.lasts, "for", 10*time.Second, "how long to publish; 0: until interrupted")
	f.DurationVar(&p.patience, "patience", time.Minute, "how long to wait afterwards for what's under way")
	only := f.String("only", "", "publish to and consume only the queues of these patterns, comma-separated")
	f.StringVar(&p.role, "role", "all", "all, publish or work")
	f.StringVar(&p.http, "http", "", "where to listen for /live and /ready, such as 127.0.0.1:8080")
	f.BoolVar(&p.keep, "keep", false, "leave the dead letters where they are, without looking whether all of them are there")
	f.StringVar(&p.logLevel, "log", "off", "log from this level on: debug, info, warn, error or off")
	if err := f.Parse(args); err != nil {
		return flag.ErrHelp // it has been said
	}
	if *only != "" {
		p.only = strings.Split(*only, ",")
	}
	switch {
	case f.NArg() > 0:
		return fmt.Errorf("what's %q?", f.Arg(0))
	case !(p.rate > 0) || p.rate > 1e6:
		return errors.New("-rate must be over 0, up to 1000000")
	case p.lasts < 0 || p.patience < 0:
		return errors.New("times can't be negative")
	case p.role != "all" && p.role != "publish" && p.role != "work":
		return fmt.Errorf("there's no role %q: all, publish or work", p.role)
	}
	return nil
}

func (p *program) run(ctx context.Context, args []string) (err error) {
	if err := p.parse(args); err != nil {
		return err
	}
	file, err := traffic.File(p.lookup)
	if err != nil {
		return err
	}
	if p.role != "all" && file.Queues[0].Backend == memory.System {
		return errors.New("queues in memory can't be shared by processes: set QUEUE_BACKEND, or leave out -role")
	}
	ledger := traffic.NewLedger()
	log := slog.New(slog.DiscardHandler)
	if p.logLevel != "off" {
		var level slog.Level
		if err := level.UnmarshalText([]byte(p.logLevel)); err != nil {
			return fmt.Errorf("-log: %w", err)
		}
		log = slog.New(slog.NewTextHandler(p.errs, &slog.HandlerOptions{Level: level}))
	}
	bus, err := config.OpenFile(file, p.backends, &config.Options{Only: p.only, Hooks: ledger.Hooks(), Logger: log})
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, bus.Close(closing))
	}()
	t, err := traffic.New(bus, ledger, traffic.Options{Rate: p.rate, Only: p.only})
	if err != nil {
		return err
	}
	if p.role != "publish" {
		t.Handle()
	}
	stop, err := p.listen(bus)
	if err != nil {
		return err
	}
	defer stop()
	return p.operate(ctx, bus, t, ledger)
}

// listen answers how the process is, until it's stopped.
func (p *program) listen(bus *config.Bus) (stop func(), err error) {
	if p.http == "" {
		return func() {}, nil
	}
	l, err := net.Listen("tcp", p.http)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/live", bus.Live())
	mux.Handle("/ready", bus.Ready())
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(l) }() // until it's closed
	fmt.Fprintf(p.out, "listening on http://%s\n", l.Addr())
	return func() { _ = server.Close() }, nil // nobody waits for its answers any more
}

// operate publishes and works, then judges.
func (p *program) operate(ctx context.Context, bus *config.Bus, t *traffic.Traffic, ledger *traffic.Ledger) error {
	began := time.Now()
	working, stopWorking := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWorking()
	worked := make(chan error, 1)
	go func() {
		if p.role == "publish" {
			worked <- nil
			return
		}
		worked <- bus.Run(working)
	}()
	reporting, stopReporting := context.WithCancel(ctx)
	reported := make(chan struct{})
	go func() {
		defer close(reported)
		p.report(reporting, began, bus, ledger)
	}()

	publishErr := p.publish(ctx, t)
	if publishErr == nil && p.role == "all" {
		waiting, cancel := context.WithTimeout(ctx, p.patience)
		_ = ledger.Wait(waiting) // what's open then is in the result
		cancel()
	}
	stopReporting()
	<-reported
	stopWorking()
	workErr := <-worked
	if err := errors.Join(publishErr, workErr); err != nil {
		return err
	}
	r := result{Counts: ledger.Counts(), Seconds: time.Since(began).Round(100 * time.Millisecond).Seconds()}
	for _, s := range bus.States() {
		if s.Handled && s.Selected {
			r.Queues++
		}
	}
	if p.role == "all" && ctx.Err() == nil { // else what's open is left for the next run
		r.Lost = r.Open
		if !p.keep {
			missing, err := t.Collect(ctx)
			if err != nil {
				return err
			}
			r.Lost += len(missing)
			for id, queue := range missing {
				fmt.Fprintf(p.errs, "%s isn't in %s\n", id, queue)
			}
		}
	}
	if err := json.NewEncoder(p.out).Encode(r); err != nil {
		return err
	}
	if r.Lost+r.Early+r.Overtaken > 0 {
		return fmt.Errorf("%d messages are lost, %d came early, %d were overtaken", r.Lost, r.Early, r.Overtaken)
	}
	return nil
}

// publish publishes for as long as asked.
func (p *program) publish(ctx context.Context, t *traffic.Traffic) error {
	if p.lasts > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.lasts)
		defer cancel()
	}
	if p.role == "work" {
		<-ctx.Done()
		return nil
	}
	return t.Publish(ctx)
}

// report says each second how it goes.
func (p *program) report(ctx context.Context, began time.Time, bus *config.Bus, ledger *traffic.Ledger) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		running, failing := 0, 0
		for _, s := range bus.States() {
			switch s.Status { //nolint:exhaustive // of no interest
			case config.Running:
				running++
			case config.Failing:
				failing++
			}
		}
		c := ledger.Counts()
		fmt.Fprintf(p.out, "%6.1fs  %d queues run, %d fail; %d published, %d handled, %d tries failed, %d dead-lettered, %d open\n",
			time.Since(began).Seconds(), running, failing, c.Published, c.Handled, c.Failures, c.DeadLettered, c.Open)
	}
}
