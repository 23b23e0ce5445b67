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

	"github.com/anyqueue/anyqueue/examples/internal/backends"
	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue/config"
)

//go:embed queues.yaml
var queuesYAML []byte

// Names of the queues in queues.yaml.
const (
	crmLeads    = "crm-leads"
	crmLeadsDLQ = "crm-leads-dlq"
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
	if a.role == "all" || a.role == "fake" || a.file.Queue(crmLeads).Backend != memory.System {
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
		return true, a.runWorker(ctx, a.crmURL, nil)
	case "rejected":
		return true, a.listRejected(ctx)
	case "fake":
		return a.runFake(ctx)
	}
	if a.serve {
		return true, a.runServe(ctx)
	}
	return a.runDemo(ctx)
}

// runWeb serves the form until ctx ends, and then answers what was under way.
func (a *app) runWeb(ctx context.Context) error {
	// Publishing nothing opens the queue: one that's missing should be known
	// before somebody has filled in the form.
	if err := a.bus.Publisher(crmLeads).Publish(ctx); err != nil {
		return fmt.Errorf("queue %s: %w", crmLeads, err)
	}
	server, err := a.net.serve(ctx, a.addr, newWeb(a.bus.Publisher(crmLeads), a.budget, a.log), a.log)
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

// runWorker writes leads to the CRM until ctx ends, and then finishes what it
// has begun. While the CRM is down it isn't called, but for a probe every other
// second; leads then wait in the queue, where it costs nothing.
func (a *app) runWorker(ctx context.Context, crmURL string, onChange func(middleware.BreakerChange)) error {
	client := &crm{
		loginURL: crmURL, clientID: a.clientID, clientSecret: a.clientSecret,
		client: &http.Client{Transport: a.net.transport(), Timeout: 10 * time.Second},
	}
	breaker := middleware.CircuitBreaker(middleware.CircuitBreakerOptions{
		Name: "crm", Failures: 8, OpenFor: 500 * time.Millisecond, MaxOpenFor: 2 * time.Second, Probes: 2,
		If: isDown, OnChange: onChange, Logger: a.log,
	})
	a.bus.Handle(crmLeads, updateLead(client, a.limitPause), breaker)
	return a.bus.Run(ctx)
}

// listRejected prints what somebody has to look at.
func (a *app) listRejected(ctx context.Context) error {
	q, err := a.bus.Queue(ctx, crmLeadsDLQ)
	if err != nil {
		return err
	}
	const most = 1000
	letters, err := backends.Look(ctx, q, most)
	if err != nil {
		return err
	}
	for _, d := range letters {
		var s submission
		if err := json.Unmarshal(d.Body, &s); err != nil {
			fmt.Fprintf(a.stdout, "%s\t%v\n", d.ID, err)
			continue
		}
		reason := ""
		if d.DeadLetter != nil {
			reason = d.DeadLetter.Error
		}
		fmt.Fprintf(a.stdout, "%s\t%s\t%s\t%s\n", d.ID, s.Email, d.EnqueuedAt.Format(time.RFC3339), reason)
	}
	return nil
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
