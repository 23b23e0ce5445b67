package main

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/anyqueue/anyqueue/examples/internal/backends"
	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
)

// finishTime is how long the demonstration waits, after the last visitor and
// the outage, for everything to arrive. It's longer than a broker hides a message
// whose receiver has died.
const finishTime = 40 * time.Second

// overLimit names the fault of a CRM that was called too often.
const overLimit thirdparty.Fault = "over_limit"

// newFakeParty returns the CRM, which fails as the real one may. It tells
// observe about each call, before it's answered.
func (a *app) newFakeParty(observe func(thirdparty.Request)) (*fakeCRM, *thirdparty.Party) {
	fake := newFakeCRM(a.clientID, a.clientSecret)
	fake.sessionCalls = max(20, a.submissions/5)
	var created atomic.Int64
	fake.rival = func(string) bool { return created.Add(1)%25 == 0 }
	unavailable := refusal(http.StatusServiceUnavailable, "SERVER_UNAVAILABLE", "The server is unavailable to handle the request")
	tooMany := refusal(http.StatusForbidden, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
	party := thirdparty.New(fake.handler(), thirdparty.Faults{
		Seed:      1,
		LostOneIn: 100,
		Outages:   []thirdparty.Window{{After: a.outageAfter, For: a.outage, Answer: unavailable}},
		Rules: []thirdparty.Rule{
			{Fault: "unavailable", OneIn: 60, Answer: unavailable},
			{Fault: overLimit, OneIn: 80, Answer: tooMany},
		},
		Observe: observe,
		OnOutage: func(e thirdparty.OutageEvent) {
			if e.Began {
				a.out.say("crm: outage begins, for %v", a.outage)
				return
			}
			a.out.say("crm: back; it refused %d calls meanwhile", e.Refused)
		},
	})
	return fake, party
}

// tellBreaker says what the worker makes of it.
func (a *app) tellBreaker(c middleware.BreakerChange) {
	switch c.To {
	case middleware.BreakerOpen:
		a.out.say("worker: stops calling the crm for %v", time.Until(c.Until).Round(100*time.Millisecond))
	case middleware.BreakerHalfOpen:
		a.out.say("worker: tries whether the crm is back")
	case middleware.BreakerClosed:
		a.out.say("worker: goes on")
	}
}

// runDemo plays all parts and reports whether there's one record for each
// submission.
func (a *app) runDemo(ctx context.Context) (ok bool, err error) {
	board := newBoard()
	fake, party := a.newFakeParty(board.called)
	crmServer, err := a.net.serve(ctx, "", party, a.log)
	if err != nil {
		return false, err
	}
	fake.url = crmServer.url
	// One answer in a hundred never reaches the visitor.
	form := thirdparty.New(newWeb(a.bus.Publisher(crmLeads), a.budget, a.log), thirdparty.Faults{Seed: 2, LostOneIn: 100})
	web, err := a.net.serve(ctx, "", form, a.log)
	if err != nil {
		return false, errors.Join(err, a.closeServer(ctx, crmServer))
	}

	// The worker outlives ctx: it ends when nothing can come any more.
	working, stopWorking := context.WithCancel(context.WithoutCancel(ctx))
	worked := make(chan error, 1)
	go func() { worked <- a.runWorker(working, crmServer.url, a.tellBreaker) }()

	visitors := newVisitors(a.net.transport(), web.url, a.submissions, a.over, board)
	a.out.say("%d visitors fill in the form at %s", a.submissions, web.url)
	a.follow(ctx, visitors, board)
	deadLetters, err := a.waitForDeadLetters(ctx, party)

	err = errors.Join(err, a.closeServer(ctx, web))
	stopWorking()
	err = errors.Join(err, <-worked, a.closeServer(ctx, crmServer))
	r := judge(visitors.log(), fake.records(), party.Log(), deadLetters)
	r.Seconds = seconds(a.out)
	interrupted := ctx.Err() != nil
	return r.ok() && (r.Unaccepted == 0 || interrupted), errors.Join(err, a.report(r))
}

// follow lets the visitors come, and waits until all their leads are settled. A
// signal ends the coming; what was accepted is still worked off.
func (a *app) follow(ctx context.Context, v *visitors, b *board) {
	progress, stopProgress := context.WithCancel(context.WithoutCancel(ctx))
	told := make(chan struct{})
	go func() {
		defer close(told)
		for pause(progress, time.Second) {
			accepted, settled, refused := b.counts()
			a.out.say("%d leads accepted, %d settled; %d calls failed", accepted, settled, refused)
		}
	}()
	v.come(ctx)
	if ctx.Err() != nil {
		a.out.say("interrupted: nobody more comes; what was accepted is worked off")
	} else {
		a.out.say("the last visitor has gone; the worker goes on")
	}
	finishing, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.outageAfter+a.outage+finishTime)
	defer cancel()
	if b.until(finishing, b.settledAll) {
		a.out.say("every lead is settled")
	} else {
		a.out.say("still not every lead is settled")
	}
	stopProgress()
	<-told
}

// waitForDeadLetters returns the ids of the dead letters, when there are as many
// as the CRM has refused for good. They get there a moment after its answer.
func (a *app) waitForDeadLetters(ctx context.Context, party *thirdparty.Party) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTime)
	defer cancel()
	q, err := a.bus.Queue(ctx, crmLeadsDLQ)
	if err != nil {
		return nil, err
	}
	var ids []string
	var reason string
	_, err = backends.Gather(ctx, q, func(seen map[string]*queue.Delivery) bool {
		refused := map[string]bool{} // the others are of another time
		for _, q := range party.Log() {
			if note, ok := q.Note.(crmNote); ok && note.code == "REQUIRED_FIELD_MISSING" {
				refused[note.externalID] = true
			}
		}
		ids = ids[:0]
		for id := range refused {
			d := seen[id]
			if d == nil {
				continue
			}
			ids = append(ids, id)
			if d.DeadLetter != nil {
				reason = d.DeadLetter.Error
			}
		}
		return len(ids) == len(refused)
	})
	if err != nil {
		return nil, err
	}
	a.out.say("%d leads are in the dead-letter queue: %s", len(ids), reason)
	return ids, nil
}

// runFake plays the CRM and the visitors against a web part and a worker that
// run elsewhere, and judges them.
func (a *app) runFake(ctx context.Context) (ok bool, err error) {
	board := newBoard()
	fake, party := a.newFakeParty(board.called)
	server, err := a.net.serve(ctx, a.crmAddr, party, a.log)
	if err != nil {
		return false, err
	}
	fake.url = server.url
	a.out.say("the crm listens on %s; %d visitors go to %s", server.url, a.submissions, a.webURL)
	visitors := newVisitors(a.net.transport(), a.webURL, a.submissions, a.over, board)
	a.follow(ctx, visitors, board)
	deadLetters, err := a.waitForDeadLetters(ctx, party)
	err = errors.Join(err, a.closeServer(ctx, server))
	r := judge(visitors.log(), fake.records(), party.Log(), deadLetters)
	r.Seconds = seconds(a.out)
	return r.ok() && r.Unaccepted == 0, errors.Join(err, a.report(r))
}

// runServe plays the web part, the worker and the CRM, and waits for visitors.
func (a *app) runServe(ctx context.Context) error {
	fake, party := a.newFakeParty(func(r thirdparty.Request) { a.out.say("crm: %s %s: %d %s", r.Method, r.Path, r.Status, r.Fault) })
	server, err := a.net.serve(ctx, "", party, a.log)
	if err != nil {
		return err
	}
	fake.url = server.url
	working, stopWorking := context.WithCancel(context.WithoutCancel(ctx))
	worked := make(chan error, 1)
	go func() { worked <- a.runWorker(working, server.url, a.tellBreaker) }()
	err = a.runWeb(ctx)
	stopWorking()
	return errors.Join(err, <-worked, a.closeServer(ctx, server))
}

func seconds(t *timeline) float64 { return float64(int(t.seconds()*10)) / 10 }
