package main

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
)

// finishTime is how long the demonstration waits, after everything was sent,
// for everything to arrive.
const finishTime = 15 * time.Second

// newParty returns the fake analytics service, which fails as the real one may.
func (a *app) newParty(b *board, outages ...thirdparty.Window) *thirdparty.Party {
	const body = `{"success": false}`
	return thirdparty.New(newFakeAnalytics(a.writeKey), thirdparty.Faults{
		Seed:      1,
		LostOneIn: 100,
		Outages:   outages,
		Rules: []thirdparty.Rule{
			{Fault: "error", OneIn: 70, Answer: thirdparty.Status(http.StatusInternalServerError, body)},
			{Fault: "throttled", OneIn: 200, Answer: thirdparty.TooManyRequests(time.Second)},
		},
		Observe: func(r thirdparty.Request) {
			if t, ok := r.Note.(tracked); ok && r.Handled() {
				b.took(t.id)
			}
		},
		OnOutage: func(e thirdparty.OutageEvent) {
			if e.Began {
				a.out.say("analytics: outage begins; the worker backs off")
				return
			}
			a.out.say("analytics: back, after refusing %d calls", e.Refused)
		},
	})
}

// newLoad returns the senders. Between them and the web part, one answer in a
// hundred is lost.
func (a *app) newLoad(webURL string, b *board) *load {
	client := newHTTPClient(&lossy{next: a.net.transport(), oneIn: 100})
	keys := a.partnerKeys
	return &load{
		mailgun: &fakeMailgun{
			sender: sender{client: client, onAnswer: b.answered},
			key:    a.mailgunKey, url: webURL, minute: 50 * time.Millisecond,
		},
		partner: &fakePartner{
			sender: sender{client: client, onAnswer: b.answered},
			url:    webURL, retry: 300 * time.Millisecond,
		},
		keys: keys, events: a.events, messages: a.messages, over: a.over,
	}
}

// runDemo plays all parts and reports whether what was promised was kept.
func (a *app) runDemo(ctx context.Context) (ok bool, err error) {
	board := newBoard()
	party := a.newParty(board, thirdparty.Window{After: a.over / 5, For: a.over / 5})
	analyticsServer, err := a.net.serve(ctx, "", party, a.log)
	if err != nil {
		return false, err
	}
	web, err := a.net.serve(ctx, "", a.newWeb(), a.log)
	if err != nil {
		return false, errors.Join(err, a.closeServer(ctx, analyticsServer))
	}

	// The worker outlives ctx: it ends when nothing can come any more.
	var fixed atomic.Bool
	working, stopWorking := context.WithCancel(context.WithoutCancel(ctx))
	worked := make(chan error, 1)
	go func() {
		worked <- a.runWorker(working, analyticsServer.url, func(e mailgunEvent) (string, map[string]any) {
			if fixed.Load() {
				return describe(e)
			}
			return describeWithBug(e)
		})
	}()

	load := a.newLoad(web.url, board)
	redriven, err := a.play(ctx, load, board, &fixed)

	err = errors.Join(err, a.closeServer(ctx, web))
	stopWorking()
	err = errors.Join(err, <-worked, a.closeServer(ctx, analyticsServer))
	r := judge(append(load.mailgun.sentLog(), load.partner.sentLog()...), party.Log())
	r.DeadLettered, r.Seconds = redriven, seconds(a.out)
	interrupted := ctx.Err() != nil
	return r.ok() && (r.Unaccepted == 0 || interrupted), errors.Join(err, a.report(r))
}

// play is what happens between start and end. A signal ends the sending; what
// was accepted is still worked off.
func (a *app) play(ctx context.Context, load *load, board *board, fixed *atomic.Bool) (redriven int, err error) {
	a.out.say("mailgun sends %d events and two partners %d messages; some of them twice, some forged or broken", load.events, load.messages)
	a.out.say("the worker that runs has a bug: it panics on complaints")
	progress, stopProgress := context.WithCancel(ctx)
	told := make(chan struct{})
	go func() {
		defer close(told)
		a.tellProgress(progress, board)
	}()
	outage := make(chan struct{})
	go func() {
		defer close(outage)
		a.queueOutage(progress)
	}()
	err = load.send(ctx)
	stopProgress()
	<-told
	<-outage
	if err != nil {
		return 0, err
	}

	finishing, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTime)
	defer cancel()
	if ctx.Err() != nil {
		a.out.say("interrupted: nothing more is sent; what was accepted is worked off")
	} else {
		a.out.say("everything is sent; waiting for the worker")
	}
	if !board.until(finishing, func() bool { _, others := board.notRecorded(); return others == 0 }) {
		a.out.say("still not everything has arrived")
	}
	complaints, _ := board.notRecorded()
	a.out.say("all has arrived but %d complaints: those panic, and are given up after some tries", complaints)
	for {
		n, err := a.deadLetters(finishing)
		if err != nil {
			return 0, err
		}
		if n >= complaints || !pause(finishing, 100*time.Millisecond) {
			a.out.say("%d messages are in the dead-letter queue", n)
			break
		}
	}
	fixed.Store(true)
	a.out.say("the bug is fixed; moving the dead letters back")
	for {
		// What gets there meanwhile is for the next round.
		n, err := a.redrive(finishing, &queue.RedriveOptions{Quiet: 300 * time.Millisecond})
		redriven += n
		if err != nil && finishing.Err() == nil {
			return redriven, err
		}
		some, cancelSome := context.WithTimeout(finishing, 500*time.Millisecond)
		done := board.until(some, func() bool { complaints, others := board.notRecorded(); return complaints+others == 0 })
		cancelSome()
		if done {
			a.out.say("everything has arrived; %d dead letters were moved back", redriven)
			return redriven, nil
		}
		if finishing.Err() != nil {
			complaints, others := board.notRecorded()
			a.out.say("gave up waiting for %d events", complaints+others)
			return redriven, nil
		}
	}
}

// queueOutage takes the queue away for a while. That's only possible with the
// one in memory.
func (a *app) queueOutage(ctx context.Context) {
	if !a.onMemory() || !pause(ctx, a.over*2/5) {
		return
	}
	heal := a.mem.Fail(memory.Fault{Call: memory.OnPublish, Queue: mailgunEvents})
	a.out.say("queue: outage begins; webhooks are tried for %v, then answered 503", a.budget)
	pause(ctx, a.over/2)
	heal()
	a.out.say("queue: back")
}

func (a *app) tellProgress(ctx context.Context, b *board) {
	for pause(ctx, time.Second) {
		tries, accepted, recorded := b.counts()
		a.out.say("%d requests sent, %d events and messages accepted, %d recorded", tries, accepted, recorded)
	}
}

// runParties plays the third parties against a web part and a worker that run
// elsewhere, and judges them.
func (a *app) runParties(ctx context.Context) (ok bool, err error) {
	board := newBoard()
	party := a.newParty(board)
	server, err := a.net.serve(ctx, a.partiesAddr, party, a.log)
	if err != nil {
		return false, err
	}
	a.out.say("the analytics service listens on %s; sending to %s", server.url, a.webURL)
	load := a.newLoad(a.webURL, board)
	progress, stopProgress := context.WithCancel(ctx)
	told := make(chan struct{})
	go func() {
		defer close(told)
		a.tellProgress(progress, board)
	}()
	err = load.send(ctx)
	a.out.say("everything is sent; waiting until it has arrived (interrupt to stop)")
	waiting, cancel := context.WithTimeout(ctx, a.wait)
	defer cancel()
	board.until(waiting, func() bool { complaints, others := board.notRecorded(); return complaints+others == 0 })
	stopProgress()
	<-told
	err = errors.Join(err, a.closeServer(ctx, server))
	r := judge(append(load.mailgun.sentLog(), load.partner.sentLog()...), party.Log())
	r.Seconds = seconds(a.out)
	return r.ok() && r.Unaccepted == 0, errors.Join(err, a.report(r))
}

// runServe plays the web part, the worker and the analytics service, and waits
// for requests.
func (a *app) runServe(ctx context.Context) error {
	server, err := a.net.serve(ctx, "", a.newParty(newBoard()), a.log)
	if err != nil {
		return err
	}
	working, stopWorking := context.WithCancel(context.WithoutCancel(ctx))
	worked := make(chan error, 1)
	go func() { worked <- a.runWorker(working, server.url, describe) }()
	a.out.say(`try: curl -i -H "Authorization: Bearer %s" -d '{"type":"hello"}' http://%s/integrations/acme`, a.partnerKeys["acme"], a.addr)
	err = a.runWeb(ctx)
	stopWorking()
	return errors.Join(err, <-worked, a.closeServer(ctx, server))
}

func seconds(t *timeline) float64 { return float64(int(t.seconds()*10)) / 10 }
