// Command webhook takes webhooks from Mailgun and messages from partners,
// answers only for what is safely queued, and passes everything on to an
// analytics service.
//
//	go run ./examples/webhook
//
// plays all parts, third parties included, for some seconds: answers are lost,
// events come twice or forged, the queue and the analytics service have outages,
// and the worker has a bug. The last line is the result, computed from what the
// third parties sent and got; the exit code is 0 only when nothing was lost.
//
//	go run ./examples/webhook -serve
//
// stays up and waits for your own requests. Each part can also be a process of
// its own, when QUEUE_BACKEND names a backend that they can share: sqs (with
// AWS_ENDPOINT_URL_SQS=http://127.0.0.1:4566 that's LocalStack) or pubsub (with
// PUBSUB_EMULATOR_HOST=127.0.0.1:8085 that's Google's emulator). QUEUE_PREFIX
// begins the names of the queues:
//
//	-role web       the HTTP server
//	-role worker    what handles the queues (-bug: the version with the bug)
//	-role redrive   moves the dead letters back, once the bug is fixed
//	-role parties   the third parties, who also judge in the end
//	-role database  what stands for the database that the workers share
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
	"strings"
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
	role         string
	serve        bool
	addr         string // of the web part
	partiesAddr  string // of the fake analytics service
	databaseAddr string
	webURL       string // where the parties find the web part
	analyticsURL string // where the worker finds the analytics service
	databaseURL  string // and the database that the workers share
	events       int
	messages     int
	over         time.Duration
	wait         time.Duration
	budget       time.Duration
	bug          bool
	logLevel     string

	mailgunKey  string
	writeKey    string
	partnerKeys map[string]string
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
		fmt.Fprintln(stderr, "webhook:", err)
		return 1
	}
	return 0
}

func parse(args []string, getenv func(string) string, stderr io.Writer) (settings, error) {
	s := settings{partnerKeys: map[string]string{}}
	f := flag.NewFlagSet("webhook", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&s.role, "role", "all", "the part to play: all, web, worker, redrive, parties or database")
	f.BoolVar(&s.serve, "serve", false, "stay up and wait for requests instead of playing the demonstration")
	f.StringVar(&s.addr, "addr", "127.0.0.1:8080", "where the web part listens")
	f.StringVar(&s.partiesAddr, "parties-addr", "127.0.0.1:8081", "where the fake analytics service listens")
	f.StringVar(&s.databaseAddr, "database-addr", "127.0.0.1:8082", "where the workers' database listens")
	f.StringVar(&s.webURL, "web-url", "http://127.0.0.1:8080", "where the third parties find the web part")
	f.StringVar(&s.analyticsURL, "analytics-url", "http://127.0.0.1:8081", "where the worker finds the analytics service")
	f.StringVar(&s.databaseURL, "database-url", "http://127.0.0.1:8082", "where the workers find the database in which they note what was handled")
	f.IntVar(&s.events, "events", 1400, "how many events Mailgun sends")
	f.IntVar(&s.messages, "messages", 300, "how many messages the partners send")
	f.DurationVar(&s.over, "over", 5*time.Second, "how long they take for it")
	f.DurationVar(&s.wait, "wait", 10*time.Minute, "how long the role parties waits, after the last event, for everything to arrive")
	f.DurationVar(&s.budget, "publish-budget", 2*time.Second, "how long a request may try to publish")
	f.BoolVar(&s.bug, "bug", false, "run the version of the worker that has the bug")
	f.StringVar(&s.logLevel, "log", "", "log from this level on: debug, info, warn, error or off (default: off for the demonstration, otherwise info)")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	complain := func(format string, a ...any) (settings, error) {
		err := fmt.Errorf(format, a...)
		fmt.Fprintln(stderr, "webhook:", err)
		return s, err
	}
	switch s.role {
	case "all", "web", "worker", "redrive", "parties", "database":
	default:
		return complain("there is no role %q: all, web, worker, redrive, parties or database", s.role)
	}
	if s.events < 0 || s.messages < 0 || s.over < 0 || s.wait < 0 || s.budget <= 0 {
		return complain("numbers and times can't be negative")
	}
	if s.logLevel == "" {
		s.logLevel = "info"
		if s.role == "all" && !s.serve || s.role == "parties" || s.role == "database" {
			s.logLevel = "off"
		}
	}
	// The demonstration's own keys are no secrets.
	s.mailgunKey = orElse(getenv("MAILGUN_SIGNING_KEY"), "key-for-the-demo-only")
	s.writeKey = orElse(getenv("SEGMENT_WRITE_KEY"), "write-key-for-the-demo-only")
	for pair := range strings.SplitSeq(orElse(getenv("PARTNER_KEYS"), "acme=demo-acme,globex=demo-globex"), ",") {
		partner, key, ok := strings.Cut(pair, "=")
		if !ok || checkID(partner) != nil || len(partner) > 32 || key == "" {
			return complain("PARTNER_KEYS: want partner=key,partner=key")
		}
		s.partnerKeys[partner] = key
	}
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
