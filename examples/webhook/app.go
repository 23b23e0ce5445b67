package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/anyqueue/anyqueue/examples/internal/database"
	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/config"
)

//go:embed queues.yaml
var queuesYAML []byte

// Names of the queues in queues.yaml.
const (
	mailgunEvents    = "mailgun-events"
	mailgunEventsDLQ = "mailgun-events-dlq"
	integrations     = "integrations"
	integrationsDLQ  = "integrations-dlq"
)

// shutdownTime is how long requests in flight may take when the program ends.
// It's longer than the budget of a request, and shorter than what is usual
// before a process is killed.
const shutdownTime = 15 * time.Second

// app is the program: its settings, its queues and how it reaches others.
type app struct {
	settings
	out    *timeline
	stdout io.Writer
	log    *slog.Logger
	net    network
	file   *config.File
	bus    *config.Bus
}

// newApp returns the program, with every backend that it knows: QUEUE_BACKEND
// chooses among them, and the others are never touched.
func newApp(s settings, stdout, stderr io.Writer, n network, b config.Backends, lookup func(string) (string, bool)) (*app, error) {
	log, err := newLogger(s.logLevel, stderr)
	if err != nil {
		return nil, err
	}
	a := &app{settings: s, out: newTimeline(stdout), stdout: stdout, log: log, net: n}
	if a.file, err = config.Parse("queues.yaml", queuesYAML, lookup); err != nil {
		return nil, err
	}
	a.bus, err = config.OpenFile(a.file, b, &config.Options{Logger: log})
	return a, err
}

// shareable fails when a part would run alone beside queues that no other
// process can reach.
func (a *app) shareable() error {
	if a.role == "all" || a.role == "parties" || a.role == "database" || !a.onMemory() {
		return nil
	}
	return errors.New("queues in memory can't be shared by processes: set QUEUE_BACKEND, or leave out -role")
}

// run plays the role. It reports whether all went well, as far as that's known.
func (a *app) run(ctx context.Context) (ok bool, err error) {
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
		defer cancel()
		err = errors.Join(err, a.bus.Close(closing))
	}()
	switch a.role {
	case "web":
		return true, a.runWeb(ctx)
	case "worker":
		d := describe
		if a.bug {
			d = describeWithBug
		}
		db := &database.Client{URL: a.databaseURL, HTTP: newHTTPClient(a.net.transport())}
		return true, a.runWorker(ctx, a.analyticsURL, db, d)
	case "redrive":
		n, err := a.redrive(ctx, nil)
		a.out.say("moved %d dead letters back", n)
		return true, err
	case "parties":
		return a.runParties(ctx)
	case "database":
		return true, a.serveUntil(ctx, a.databaseAddr, database.NewMemory(nil).Handler())
	}
	if a.serve {
		return true, a.runServe(ctx)
	}
	return a.runDemo(ctx)
}

func (a *app) onMemory() bool { return a.file.Queue(mailgunEvents).Backend == memory.System }

// newWeb returns the web part. Events is the publisher of mailgun-events.
func (a *app) newWeb(events queue.Publisher) http.Handler {
	return newWeb(webConfig{
		mailgunKey: a.mailgunKey, partnerKeys: a.partnerKeys,
		mailgun: events, integrations: a.bus.Publisher(integrations),
		budget: a.budget, log: a.log,
	})
}

// runWeb serves until ctx ends, and then answers what was under way.
func (a *app) runWeb(ctx context.Context) error {
	// Publishing nothing opens the queue: one that's missing should be known
	// before somebody has an event for it.
	for _, name := range []string{mailgunEvents, integrations} {
		if err := a.bus.Publisher(name).Publish(ctx); err != nil {
			return fmt.Errorf("queue %s: %w", name, err)
		}
	}
	return a.serveUntil(ctx, a.addr, a.newWeb(a.bus.Publisher(mailgunEvents)))
}

// serveUntil serves until ctx ends, and then answers what was under way.
func (a *app) serveUntil(ctx context.Context, addr string, h http.Handler) error {
	server, err := a.net.serve(ctx, addr, h, a.log)
	if err != nil {
		return err
	}
	a.out.say("listening on %s", server.url)
	select {
	case <-ctx.Done():
	case <-server.failed:
	}
	return a.closeServer(ctx, server)
}

// closeServer waits for the requests in flight.
func (a *app) closeServer(ctx context.Context, s *server) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	return s.close(ctx)
}

// runWorker handles the queues until ctx ends, and then finishes what it has
// begun. There may be many workers, as long as they have one database.
func (a *app) runWorker(ctx context.Context, analyticsURL string, db database.Database, d describer) error {
	client := &analytics{url: analyticsURL, writeKey: a.writeKey, client: newHTTPClient(a.net.transport())}
	// Mailgun and partners send things twice, and so does a queue. What was
	// handled is known to all workers, as the repeat may come to another one.
	// What gets past that, as a worker died between the call and the note, carries
	// its id to the analytics service.
	once := middleware.Idempotent(database.Repeats{DB: db}, middleware.IdempotentOptions{Hold: 10 * time.Second, AskAgain: time.Second})
	// While the service is down it isn't called, but for a probe from time to
	// time: events wait in the queue, and no tries are used up.
	breaker := middleware.CircuitBreaker(middleware.CircuitBreakerOptions{
		Name: "analytics", Failures: 10, OpenFor: 250 * time.Millisecond, MaxOpenFor: 30 * time.Second, Probes: 2,
		If:     func(err error) bool { return errors.Is(err, errUnavailable) },
		Logger: a.log,
	})
	a.bus.Handle(mailgunEvents, handleMailgun(client, d), breaker, once)
	a.bus.Handle(integrations, handleIntegration(client), breaker, once)
	return a.bus.Run(ctx)
}

// redrive moves all dead letters back to where they failed.
func (a *app) redrive(ctx context.Context, opts *queue.RedriveOptions) (moved int, err error) {
	for _, q := range []struct{ from, to string }{{mailgunEventsDLQ, mailgunEvents}, {integrationsDLQ, integrations}} {
		from, err := a.bus.Queue(ctx, q.from)
		if err != nil {
			return moved, err
		}
		to, err := a.bus.Queue(ctx, q.to)
		if err != nil {
			return moved, err
		}
		result, err := queue.Redrive(ctx, from, to, opts)
		moved += result.Moved
		if err != nil {
			return moved, fmt.Errorf("redrive %s: %w", q.from, err)
		}
	}
	return moved, nil
}

// report prints the result: the program's last line.
func (a *app) report(r result) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "%s\n", line)
	return err
}
