// Command eventupdater takes leads from a web form and writes them to a CRM that
// is slow, limited and sometimes down, exactly one record for each.
//
//	go run ./examples/eventupdater
//
// plays all parts, the visitors and the CRM included, for some seconds. In the
// first of them the CRM goes down for longer than a call is tried; later it
// refuses calls over its limit, ends sessions, creates records under our hands
// and loses answers. The last line is the result, computed from the CRM's
// records and log against what the visitors sent; the exit code is 0 only when
// nothing was lost.
//
//	go run ./examples/eventupdater -serve
//
// stays up: fill in the form in a browser. Each part can also be a process of
// its own, when QUEUE_BACKEND names a backend that they can share: sqs (with
// AWS_ENDPOINT_URL_SQS=http://127.0.0.1:4566 that's LocalStack) or pubsub (with
// PUBSUB_EMULATOR_HOST=127.0.0.1:8085 that's Google's emulator). QUEUE_PREFIX
// begins the names of the queues:
//
//	-role web       the form
//	-role worker    what writes to the CRM
//	-role fake      the CRM and the visitors, who also judge in the end
//	-role rejected  lists what the CRM refused for good
package main

import (
	"context"
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
)

func main() {
	// The first signal drains; a second one ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// settings is what the command line and the environment say.
type settings struct {
	role        string
	serve       bool
	addr        string // of the web part
	crmAddr     string // of the fake CRM
	webURL      string // where the visitors find the web part
	crmURL      string // where the worker finds the CRM
	submissions int
	over        time.Duration
	outage      time.Duration
	outageAfter time.Duration
	budget      time.Duration
	limitPause  time.Duration
	logLevel    string

	clientID     string
	clientSecret string
}

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	s, err := parse(args, getenv, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2 // it was said already
	}
	a, err := newApp(s, stdout, stderr, newLoopback(), backends.All(memory.New(nil), os.LookupEnv), os.LookupEnv)
	if err == nil {
		err = a.shareable()
	}
	if err == nil {
		var ok bool
		if ok, err = a.run(ctx); err == nil && !ok {
			return 1
		}
	}
	if err != nil {
		fmt.Fprintln(stderr, "eventupdater:", err)
		return 1
	}
	return 0
}

func parse(args []string, getenv func(string) string, stderr io.Writer) (settings, error) {
	var s settings
	f := flag.NewFlagSet("eventupdater", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&s.role, "role", "all", "the part to play: all, web, worker, fake or rejected")
	f.BoolVar(&s.serve, "serve", false, "stay up and wait for visitors instead of playing the demonstration")
	f.StringVar(&s.addr, "addr", "127.0.0.1:8080", "where the web part listens")
	f.StringVar(&s.crmAddr, "crm-addr", "127.0.0.1:8082", "where the fake CRM listens")
	f.StringVar(&s.webURL, "web-url", "http://127.0.0.1:8080", "where the visitors find the web part")
	f.StringVar(&s.crmURL, "crm-url", "http://127.0.0.1:8082", "where the worker finds the CRM")
	f.IntVar(&s.submissions, "submissions", 600, "how many visitors fill in the form")
	f.DurationVar(&s.over, "over", 6*time.Second, "how long they take for it")
	f.DurationVar(&s.outage, "outage", 5*time.Second, "how long the CRM is down")
	f.DurationVar(&s.outageAfter, "outage-after", time.Second, "when it goes down, from the first call")
	f.DurationVar(&s.budget, "publish-budget", 4*time.Second, "how long a request may try to publish")
	f.DurationVar(&s.limitPause, "limit-pause", time.Second, "how long a lead waits when the CRM says that it was called too often")
	f.StringVar(&s.logLevel, "log", "", "log from this level on: debug, info, warn, error or off (default: off for the demonstration, warn for fake and rejected, otherwise info)")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	complain := func(format string, a ...any) (settings, error) {
		err := fmt.Errorf(format, a...)
		fmt.Fprintln(stderr, "eventupdater:", err)
		return s, err
	}
	switch s.role {
	case "all", "web", "worker", "fake", "rejected":
	default:
		return complain("there is no role %q: all, web, worker, fake or rejected", s.role)
	}
	if s.submissions < 0 || s.over < 0 || s.outage < 0 || s.outageAfter < 0 || s.budget <= 0 || s.limitPause < 0 {
		return complain("numbers and times can't be negative")
	}
	if s.logLevel == "" {
		switch {
		case s.role == "all" && !s.serve:
			s.logLevel = "off"
		case s.role == "fake", s.role == "rejected":
			s.logLevel = "warn"
		default:
			s.logLevel = "info"
		}
	}
	// The demonstration's own credentials are no secrets.
	s.clientID = orElse(getenv("CRM_CLIENT_ID"), "client-for-the-demo-only")
	s.clientSecret = orElse(getenv("CRM_CLIENT_SECRET"), "secret-for-the-demo-only")
	return s, nil
}

func orElse(v, fallback string) string {
	if v == "" {
		return fallback
	}
	return v
}

// newLogger returns a logger for people.
func newLogger(level string, w io.Writer) (*slog.Logger, error) {
	if level == "off" {
		return slog.New(slog.DiscardHandler), nil
	}
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("-log: %w", err)
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l})), nil
}
