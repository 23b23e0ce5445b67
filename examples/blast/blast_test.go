package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/examples/blast/parties"
	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/config"
)

// output collects the timeline and calls a function for each line.
type output struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	onLine func(line string)
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	o.buf.Write(b)
	o.mu.Unlock()
	if o.onLine != nil {
		o.onLine(string(b))
	}
	return len(b), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// blastRun is a run of the program with its own broker.
type blastRun struct {
	*program
	broker *memory.Broker
	out    *output
}

func newRun(t *testing.T, broker *memory.Broker, args ...string) *blastRun {
	t.Helper()
	opts, err := parseOptions(append([]string{"-outage", "400ms"}, args...), io.Discard)
	require.NoError(t, err)
	r := &blastRun{broker: broker, out: &output{}}
	r.program = &program{
		opts: opts, backends: config.Backends{"here": broker}, log: slog.New(slog.DiscardHandler), time: newTimeline(r.out),
		env: func(name string) (string, bool) { return "here", name == "QUEUE_BACKEND" },
	}
	return r
}

// finish runs it and returns its result.
func (r *blastRun) finish(t *testing.T) parties.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	lost, err := r.run(ctx)
	t.Log(r.out.String())
	require.NoError(t, err)
	assert.False(t, lost)
	require.NoError(t, r.broker.WaitIdle(ctx, listQueue, mailQueue))
	return lastLine(t, r.out.String())
}

func lastLine(t *testing.T, out string) parties.Result {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	var r parties.Result
	dec := json.NewDecoder(strings.NewReader(lines[len(lines)-1]))
	dec.DisallowUnknownFields()
	require.NoError(t, dec.Decode(&r))
	return r
}

// mailLog is what the mail API's log says, computed apart from the judge.
type mailLog struct {
	accepted, answered map[string]int
	lost               int
	refused            map[string]bool
}

func readMailLog(t *testing.T, log []thirdparty.Request) mailLog {
	t.Helper()
	m := mailLog{accepted: map[string]int{}, answered: map[string]int{}, refused: map[string]bool{}}
	for _, r := range log {
		form, err := url.ParseQuery(string(r.Body))
		require.NoError(t, err)
		customer := form.Get("v:customer")
		switch {
		case r.Status == 400:
			m.refused[customer] = true
		case r.Handled():
			m.accepted[customer]++
			if r.Answered {
				m.answered[customer]++
			} else {
				m.lost++
			}
		}
	}
	return m
}

func checkSum(t *testing.T, r parties.Result) {
	t.Helper()
	assert.Equal(t, r.Unique, r.Sent+r.Skipped+r.DeadLettered+r.InDoubt)
	assert.Zero(t, r.Lost)
}

func TestBlastReachesEveryCustomerOnce(t *testing.T) {
	t.Parallel()
	// Long enough for the breaker to see that it's one, also where little is done in a second.
	run := newRun(t, memory.New(nil), "-n", "350", "-outage", "1200ms")
	r := run.finish(t)
	checkSum(t, r)
	assert.Equal(t, 350, r.Customers)
	assert.Equal(t, 343, r.Unique)
	assert.Zero(t, r.DuplicateMails)
	assert.Positive(t, r.Retried)

	mails := readMailLog(t, run.fakes.Mails())
	require.Positive(t, mails.lost, "some answers were lost")
	assert.Equal(t, mails.lost, r.InDoubt, "each of them is held, and nothing else")
	assert.Len(t, mails.answered, r.Sent)
	for customer, n := range mails.accepted {
		assert.Equal(t, 1, n, "mails to %s", customer)
	}

	dead := map[string]bool{} // a message that's rejected may be there twice, as its repeat was rejected too
	for _, d := range run.broker.Messages(mailDeadLetters) {
		var m CustomerMail
		require.NoError(t, json.Unmarshal(d.Body, &m))
		assert.True(t, mails.refused[m.Customer], "%s is there because the mail API refused it", m.Customer)
		assert.Equal(t, queue.ReasonRejected, d.DeadLetter.Reason)
		dead[d.ID] = true
	}
	assert.Len(t, dead, r.DeadLettered)
	assert.Positive(t, r.DeadLettered)
	assert.Equal(t, r.Unique-r.DeadLettered, run.fakes.Activities(mailSent, mailSkipped, mailInDoubt), "one activity per customer")
	assert.Equal(t, r.Sent, run.fakes.Activities(mailSent))
	assert.Equal(t, r.InDoubt, run.fakes.Activities(mailInDoubt))

	out := run.out.String()
	events := []string{"list sender: dies after 171 messages", "list sender: runs again", "an outage begins", "sender: backs off", "mail API: back after", "sender: goes on", "done"}
	for _, event := range events {
		assert.Contains(t, out, event)
	}
	assert.Less(t, strings.Index(out, "outage begins"), strings.Index(out, "back after"))
}

func TestBlastSendsAgainWhatIsInDoubt(t *testing.T) {
	t.Parallel()
	run := newRun(t, memory.New(nil), "-n", "350", "-in-doubt", "resend")
	r := run.finish(t)
	checkSum(t, r)
	assert.Zero(t, r.InDoubt)
	mails := readMailLog(t, run.fakes.Mails())
	require.Positive(t, mails.lost)
	assert.Equal(t, mails.lost, r.DuplicateMails, "the price of it: these got two")
	assert.Len(t, mails.accepted, r.Sent)
}

func TestFloodOfActivitiesDoesNotHoldUpTheBlast(t *testing.T) {
	t.Parallel()
	run := newRun(t, memory.New(nil), "-n", "200", "-flood", "-outage", "0")
	run.opts.flood, run.opts.activityTakes = 15_000, 5*time.Millisecond // two at a time: more than half a minute's work
	r := run.finish(t)
	checkSum(t, r)
	waiting := len(run.broker.Messages(activityQueue))
	assert.Greater(t, waiting, 5_000, "the blast was over long before the flood")
	all := 15_000 + r.Unique - r.DeadLettered
	logged := run.fakes.Activities(floodEvent) + run.fakes.Activities(mailSent, mailSkipped, mailInDoubt)
	assert.GreaterOrEqual(t, waiting+logged, all, "and no activity is lost")
}

// The parts as they run in processes of their own: all that they share are the
// queues and the third parties.
func TestBlastOfSeparateRoles(t *testing.T) {
	t.Parallel()
	broker := memory.New(nil)
	urls := make(chan string, 1)
	conductor := newRun(t, broker, "-role", roleParties, "-listen", "127.0.0.1:0", "-n", "200")
	at := regexp.MustCompile(`http://\S+`)
	conductor.out.onLine = func(line string) {
		if u := at.FindString(line); u != "" {
			urls <- u
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	workers := make(chan error, 3)
	go func() {
		u := <-urls
		for _, role := range []string{roleListSender, roleSender, roleLogger} {
			worker := newRun(t, broker, "-role", role, "-parties", u)
			go func() {
				_, err := worker.run(ctx)
				workers <- err
			}()
		}
	}()
	r := conductor.finish(t)
	checkSum(t, r)
	assert.Equal(t, readMailLog(t, conductor.fakes.Mails()).lost, r.InDoubt)
	stop()
	for range 3 {
		assert.NoError(t, <-workers)
	}
}

func TestBlastDrainsWhenToldToStop(t *testing.T) {
	t.Parallel()
	run := newRun(t, memory.New(nil), "-n", "5000")
	ctx, cancel := context.WithCancel(t.Context())
	run.out.onLine = func(line string) {
		if strings.Contains(line, "dies after") {
			cancel()
		}
	}
	lost, err := run.run(ctx)
	require.NoError(t, err)
	assert.True(t, lost, "the others weren't reached")
	r := lastLine(t, run.out.String())
	assert.Positive(t, r.Lost)
	assert.Equal(t, r.Unique, r.Sent+r.Skipped+r.DeadLettered+r.InDoubt+r.Lost)
	mails := readMailLog(t, run.fakes.Mails())
	for customer, n := range mails.accepted {
		was, err := run.fakes.Database.Swap(t.Context(), parties.MailPrefix+mailOf(t, run, customer), "?", "", 0)
		require.NoError(t, err)
		assert.NotEqual(t, sendBegun, was, "handlers have finished what they were at")
		assert.Equal(t, 1, n)
	}
}

// mailOf finds the id of a customer's mail in the mail API's log.
func mailOf(t *testing.T, run *blastRun, customer string) string {
	t.Helper()
	for _, r := range run.fakes.Mails() {
		form, err := url.ParseQuery(string(r.Body))
		require.NoError(t, err)
		if form.Get("v:customer") == customer {
			return form.Get("v:mail-id")
		}
	}
	t.Fatalf("no mail to %s", customer)
	return ""
}

func TestCommandWithAFileOfCustomers(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "customers.csv")
	require.NoError(t, os.WriteFile(file, []byte("id,email,name,city\n7,ada@example.com,Ada,London\n8,bo@example.com,,Rome\n7,ada@example.com,Ada,London\n9,,Cy,\n"), 0o600))
	var out, complaints bytes.Buffer
	code := run(t.Context(), []string{"-customers", file, "-outage", "0", "-die=false"}, &out, &complaints)
	assert.Zero(t, code, complaints.String())
	assert.Empty(t, complaints.String())
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	assert.Regexp(t, `^\{"customers":4,"unique":3,"skipped":1,"sent":\d,"retried":\d+,"dead_lettered":0,"in_doubt":\d,"lost":0,"duplicate_mails":0,"seconds":[\d.]+\}$`, lines[len(lines)-1])
	checkSum(t, lastLine(t, out.String()))
}

func TestCommandFailsWhenACustomerIsLost(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	out := &output{onLine: func(line string) {
		if strings.Contains(line, "dies after") { // told to stop in the middle
			cancel()
		}
	}}
	var complaints bytes.Buffer
	code := run(ctx, []string{"-n", "5000", "-outage", "0"}, out, &complaints)
	assert.Equal(t, exitLost, code)
	assert.Positive(t, lastLine(t, out.String()).Lost)
}

func TestCommandSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	bad := filepath.Join(t.TempDir(), "bad.csv")
	require.NoError(t, os.WriteFile(bad, []byte("name\nAda\n"), 0o600))
	for name, tc := range map[string]struct {
		args []string
		code int
		want string
	}{
		"unknown flag":       {[]string{"-x"}, exitUsage, "flag provided but not defined: -x"},
		"argument":           {[]string{"now"}, exitUsage, "no arguments besides flags: now"},
		"unknown role":       {[]string{"-role", "boss"}, exitUsage, "-role boss isn't one of all, list-sender"},
		"unknown policy":     {[]string{"-in-doubt", "drop"}, exitUsage, "neither hold nor resend"},
		"no customers":       {[]string{"-n", "0"}, exitUsage, "-n must be at least 1"},
		"negative outage":    {[]string{"-outage", "-1s"}, exitUsage, "can't be negative"},
		"missing file":       {[]string{"-customers", "no-such.csv"}, exitLost, "no-such.csv"},
		"file without ids":   {[]string{"-customers", bad}, exitLost, `bad.csv: line 1: there is no column "id"`},
		"roles need a queue": {[]string{"-role", roleSender}, exitLost, "queues in memory can't be shared by processes"},
		"help":               {[]string{"-h"}, exitOK, "-in-doubt"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out, complaints bytes.Buffer
			assert.Equal(t, tc.code, run(t.Context(), tc.args, &out, &complaints))
			assert.Contains(t, complaints.String(), tc.want)
			assert.Empty(t, out.String())
		})
	}
}
