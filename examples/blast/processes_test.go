//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/examples/blast/parties"
	"github.com/anyqueue/anyqueue/examples/internal/testbed"
	"github.com/anyqueue/anyqueue/queue/config"
)

// The blast as several processes on one broker, of which the list sender and
// both senders are killed with SIGKILL at what they're doing, and started again.
// Who judges, the third parties, survives in this process.
func TestProcessesThatAreKilledLoseNobody(t *testing.T) {
	t.Parallel()
	testbed.OnEach(t, queuesFile, func(t *testing.T, connect func(*testing.T) *testbed.Broker) {
		for _, policy := range []string{"hold", "resend"} {
			t.Run(policy, func(t *testing.T) {
				t.Parallel()
				killed(t, connect(t), policy)
			})
		}
	})
}

// worker is a part of the program in a process of its own, with its way to the
// third parties.
type worker struct {
	*testbed.Process
	door *door
}

const (
	killedCustomers = 1000
	killedSender    = 32 // handlers: what queues.yaml says
)

// killed runs a blast whose processes are killed, and judges it.
func killed(t *testing.T, broker *testbed.Broker, policy string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()

	watch := newWatch()
	urls := make(chan string, 1)
	out := &output{}
	at := regexp.MustCompile(`third parties at (http://\S+)`)
	out.onLine = func(line string) {
		if m := at.FindStringSubmatch(line); m != nil {
			urls <- m[1]
		}
	}
	opts, err := parseOptions([]string{
		"-role", roleParties, "-listen", "127.0.0.1:0", "-n", fmt.Sprint(killedCustomers), "-outage", "400ms", "-in-doubt", policy,
		"-timeout", "2m",
	}, io.Discard)
	require.NoError(t, err)
	conductor := &program{
		opts: opts, log: slog.New(slog.DiscardHandler), time: newTimeline(out), onMail: watch.mail, onChange: watch.change,
		backends: config.Backends{"here": broker.Backend},
		env:      func(name string) (string, bool) { return "here", name == "QUEUE_BACKEND" },
	}
	type verdict struct {
		lost bool
		err  error
	}
	judged := make(chan verdict, 1)
	go func() {
		lost, err := conductor.run(ctx)
		judged <- verdict{lost, err}
	}()

	var partiesURL string
	select {
	case partiesURL = <-urls:
	case v := <-judged:
		t.Fatalf("the third parties have ended: %v\n%s", v.err, out)
	}
	var all []worker
	start := func(role, url string) worker {
		d := newDoor(t, partiesURL)
		w := worker{broker.Start(t, url, "-role", role, "-parties", d.url, "-in-doubt", policy), d}
		all = append(all, w)
		return w
	}
	// In the middle of its fan-out the list sender's requests stop.
	gate := testbed.NewGate(t, broker, broker.Publishes, killedCustomers/2/min(fanOut, broker.PerPublish))
	lists := start(roleListSender, gate.URL)
	senders := []worker{start(roleSender, broker.URL), start(roleSender, broker.URL)}
	logger := start(roleLogger, broker.URL)

	wait := func(what string, event <-chan struct{}) {
		t.Helper()
		select {
		case <-event:
		case v := <-judged:
			t.Fatalf("it was over before %s: %+v\n%s", what, v, out)
		case <-ctx.Done():
			t.Fatalf("waiting for %s: %v\n%s", what, ctx.Err(), out)
		}
	}
	wait("the middle of the fan-out", gate.Reached)
	lists.Kill(t)
	lists = start(roleListSender, broker.URL)
	for i := range senders {
		// While the mail API answers nobody, both senders get to more mails than
		// one of them can have: each is at some when it dies.
		stopped := watch.stopAfter(50 + 100*i)
		wait("mails", stopped)
		wait("mails under way", watch.underWay(killedSender+1))
		senders[i].Kill(t)
		watch.killed()
		watch.goOn()
		senders[i].door.close(t) // the last that it has asked for is done
		watch.killed()
		senders[i] = start(roleSender, broker.URL)
	}

	var v verdict
	select {
	case v = <-judged:
	case <-ctx.Done():
		t.Fatalf("no verdict: %v\n%s", ctx.Err(), out)
	}
	t.Log(out.String())
	last := []*testbed.Process{senders[0].Process, senders[1].Process, lists.Process, logger.Process}
	testbed.Drain(t, last...)
	for _, p := range last {
		assert.Contains(t, p.Out.String(), "drained")
	}
	require.NoError(t, v.err)
	assert.False(t, v.lost)
	r := lastLine(t, out.String())
	checkSum(t, r)
	lost := lostLeases(all)
	watch.check(t, r, policy == "resend", lost)
	checkOutcomes(t, conductor.fakes)
	told := conductor.fakes.Activities(mailSent, mailSkipped, mailInDoubt)
	assert.GreaterOrEqual(t, told, r.Unique-r.DeadLettered, "an activity for each customer")
	assert.LessOrEqual(t, told, r.Unique-r.DeadLettered+len(lost), "and another one only where two senders had the same mail")
}

// checkOutcomes compares what became of each customer with what the list says
// should.
func checkOutcomes(t *testing.T, fakes *parties.Parties) {
	t.Helper()
	in := parties.Generate(killedCustomers)
	outcomes := fakes.Judge.Outcomes()
	assert.Len(t, outcomes, in.Unique())
	for _, o := range outcomes {
		c := in.Customers[o.Customer]
		switch {
		case c == nil || c.OptedOut || strings.Contains(c.Email, "+"): // unknown, or a bad address
			assert.Equal(t, parties.Outcome{Customer: o.Customer, Fate: "skipped"}, o)
		case strings.Contains(c.Email, ".."):
			// In doubt when its sender has died before it could note the refusal: watch.check
			// has asked for the reason.
			assert.Contains(t, []string{"dead_lettered", "in_doubt"}, o.Fate, o.Customer)
			assert.Zero(t, o.Mails, o.Customer)
		default:
			assert.Contains(t, []string{"sent", "in_doubt"}, o.Fate, o.Customer)
		}
	}
}

// lostLeases are the messages, by id, of which a process says that it lost their
// lease: on a machine that's too busy for it to renew them in time.
func lostLeases(ps []worker) map[string]bool {
	lost := map[string]bool{}
	line := regexp.MustCompile(`msg="lease lost" queue=\S+ id=(\S+)`)
	for _, p := range ps {
		for _, m := range line.FindAllStringSubmatch(p.Out.String(), -1) {
			lost[m[1]] = true
		}
	}
	return lost
}
