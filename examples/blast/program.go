package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/anyqueue/anyqueue/examples/blast/parties"
	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue/config"
)

// A program is one process: all of the blast or a part of it.
type program struct {
	opts     *options
	env      func(string) (string, bool)
	backends config.Backends
	log      *slog.Logger
	time     *timeline

	// For tests: see parties.Options.
	onMail   func(thirdparty.Request)
	onChange func(key, value string)

	bus   *config.Bus
	file  *config.File
	fakes *parties.Parties // in the roles all and parties
}

// run plays the roles that the options ask for, until the blast is over or ctx
// ends. It reports whether customers were lost.
func (p *program) run(ctx context.Context) (lost bool, err error) {
	bus, file, err := openBus(p.env, p.backends, p.log)
	if err != nil {
		return false, err
	}
	p.bus, p.file = bus, file
	defer func() {
		quick, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err = errors.Join(err, bus.Close(quick))
	}()
	backend := file.Queue(mailQueue).Backend
	if p.opts.role != roleAll && backend == memory.System {
		return false, errors.New("queues in memory can't be shared by processes: set QUEUE_BACKEND, or leave out -role")
	}
	if p.opts.has(roleParties) {
		return p.conduct(ctx, backend)
	}
	p.handle(newServices(p.opts.parties, transport()), 0)
	p.time.tell("%s: works until it's told to stop", p.opts.role)
	err = bus.Run(ctx)
	p.time.tell("%s: drained", p.opts.role)
	return false, err
}

// transport keeps as many connections as there are handlers.
func transport() *http.Transport {
	return &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute}
}

// handle gives the bus the handlers of this process's roles. The list sender
// dies after so many messages, unless that's 0.
func (p *program) handle(s *services, dieAfter int) {
	if p.opts.has(roleListSender) {
		mails := p.bus.Publisher(mailQueue)
		if dieAfter > 0 {
			mails = &crashing{Publisher: mails, after: dieAfter, tell: p.time.tell}
		}
		handleLists(p.bus, p.file, s, mails)
	}
	if p.opts.has(roleSender) {
		handleMails(p.bus, p.file, s, p.opts.resend, p.onBreak, p.log)
	}
	if p.opts.has(roleLogger) {
		handleActivities(p.bus, s)
	}
}

func (p *program) onBreak(c middleware.BreakerChange) {
	switch c.To {
	case middleware.BreakerOpen:
		p.time.tell("sender: backs off for %v: %v", time.Until(c.Until).Round(10*time.Millisecond), c.Err)
	case middleware.BreakerHalfOpen:
	case middleware.BreakerClosed:
		p.time.tell("sender: goes on, the mail API answers again")
	}
}

// conduct runs the third parties, orders a blast, and tells what becomes of it.
func (p *program) conduct(ctx context.Context, backend string) (lost bool, err error) {
	in, err := p.opts.input()
	if err != nil {
		return false, err
	}
	blast := Blast{ID: uuid.New(), Account: parties.Account, List: parties.List, Template: "newsletter", Subject: "first look"}
	p.fakes = parties.New(in, parties.Options{
		Resend: p.opts.resend, Outage: p.opts.outage, Calm: p.opts.calm, ActivityTakes: p.opts.activityTakes,
		MailID: func(customer string) string { return CustomerMail{Blast: blast, Customer: customer}.ID() },
		Event:  func(text string) { p.time.tell("%s", text) },
		Mail:   p.onMail,
		Change: p.onChange,
	})
	addr := ""
	if p.opts.role == roleParties {
		addr = p.opts.listen
	}
	server, err := thirdparty.Serve(addr, p.fakes)
	if err != nil {
		return false, err
	}
	connections := transport()
	defer func() {
		connections.CloseIdleConnections()
		quick, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err = errors.Join(err, server.Close(quick))
	}()

	s := newServices(server.URL, connections)
	s.db = p.fakes.Database
	dieAfter := 0
	if p.opts.die {
		dieAfter = in.Unique() / 2
	}
	p.handle(s, dieAfter)
	p.time.tell("blast to %s customers (%s different ones), queues: %s, third parties at %s", count(len(in.List)), count(in.Unique()), backend, server.URL)
	c := &conductor{program: p, blast: blast}
	return c.conduct(ctx)
}
