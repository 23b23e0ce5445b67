package main

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/anyqueue/anyqueue/examples/internal/backends"
	"github.com/anyqueue/anyqueue/examples/internal/database"
	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
	"github.com/anyqueue/anyqueue/queue"
)

// finishTime is how long the demonstration waits, after everything was sent,
// for everything to arrive. It's longer than a broker hides a message whose
// receiver has died.
const finishTime = 40 * time.Second

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
	events := &breakable{Publisher: a.bus.Publisher(mailgunEvents)}
	web, err := a.net.serve(ctx, "", a.newWeb(events), a.log)
	if err != nil {
		return false, errors.Join(err, a.closeServer(ctx, analyticsServer))
	}

	// The worker outlives ctx: it ends when nothing can come any more.
	var fixed atomic.Bool
	working, stopWorking := context.WithCancel(context.WithoutCancel(ctx))
	worked := make(chan error, 1)
	go func() {
		worked <- a.runWorker(working, analyticsServer.url, database.NewMemory(nil), func(e mailgunEvent) (string, map[string]any) {
			if fixed.Load() {
				return describe(e)
			}
			return describeWithBug(e)
		})
	}()

	load := a.newLoad(web.url, board)
	redriven, err := a.play(ctx, load, board, events, &fixed)

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
func (a *app) play(ctx context.Context, load *load, board *board, events *breakable, fixed *atomic.Bool) (redriven int, err error) {
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
		a.queueOutage(progress, events)
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
	dead, err := a.bus.Queue(finishing, mailgunEventsDLQ)
	if err != nil {
		return 0, err
	}
	// Those that can't be handled: all of them are there a moment later.
	seen, err := backends.Gather(finishing, dead, func(seen map[string]*queue.Delivery) bool {
		return !slices.ContainsFunc(board.complaints(), func(id string) bool { return seen[id] == nil })
	})
	if err != nil {
		return 0, err
	}
	a.out.say("%d of them are in the dead-letter queue", len(seen))
	fixed.Store(true)
	a.out.say("the bug is fixed; moving the dead letters back")
	moved := map[string]bool{} // an event may be there twice, as its repeat failed too
	for {
		// What gets there meanwhile is for the next round.
		_, err := a.redrive(finishing, &queue.RedriveOptions{
			Quiet:  300 * time.Millisecond,
			Filter: func(d *queue.Delivery) bool { moved[d.ID] = true; return true },
		})
		if err != nil && finishing.Err() == nil {
			return len(moved), err
		}
		some, cancelSome := context.WithTimeout(finishing, 500*time.Millisecond)
		done := board.until(some, func() bool { complaints, others := board.notRecorded(); return complaints+others == 0 })
		cancelSome()
		left, err := backends.Waiting(context.WithoutCancel(finishing), dead)
		if err != nil {
			return len(moved), err
		}
		if done && left == 0 {
			a.out.say("everything has arrived; %d dead letters were moved back", len(moved))
			return len(moved), nil
		}
		if finishing.Err() != nil {
			complaints, others := board.notRecorded()
			a.out.say("gave up waiting for %d events", complaints+others)
			return len(moved), nil
		}
	}
}

// queueOutage takes the queue away from the web part for a while.
func (a *app) queueOutage(ctx context.Context, events *breakable) {
	if !pause(ctx, a.over*2/5) {
		return
	}
	events.down.Store(true)
	a.out.say("queue: outage begins; webhooks are tried for %v, then answered 503", a.budget)
	pause(ctx, a.over/2)
	events.down.Store(false)
	a.out.say("queue: back")
}

// breakable is a publisher whose queue can be out of reach. Few brokers have an
// outage on demand.
type breakable struct {
	queue.Publisher
	down atomic.Bool
}

var errOutage = errors.New("the queue can't be reached")

// Publish implements queue.Publisher.
func (b *breakable) Publish(ctx context.Context, msgs ...*queue.Message) error {
	if b.down.Load() {
		return errOutage
	}
	return b.Publisher.Publish(ctx, msgs...)
}

// Unwrap lets queue.As look through.
func (b *breakable) Unwrap() queue.Publisher { return b.Publisher }

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
	go func() { worked <- a.runWorker(working, server.url, database.NewMemory(nil), describe) }()
	a.out.say(`try: curl -i -H "Authorization: Bearer %s" -d '{"type":"hello"}' http://%s/integrations/acme`, a.partnerKeys["acme"], a.addr)
	err = a.runWeb(ctx)
	stopWorking()
	return errors.Join(err, <-worked, a.closeServer(ctx, server))
}

func seconds(t *timeline) float64 { return float64(int(t.seconds()*10)) / 10 }
