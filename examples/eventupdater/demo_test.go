package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/config"
)

// virtual is a network for virtual time: who calls a server calls its handler.
type virtual struct {
	hosts thirdparty.Network
	count int
	// late says that servers may be called after they were closed, as by another
	// process that doesn't know: there's no answer then.
	late bool
}

func newVirtual() *virtual { return &virtual{hosts: thirdparty.Network{}} }

func (v *virtual) transport() http.RoundTripper { return v.hosts }

// serve must not be called while others call servers. What calls a server that
// was closed gets a panic, so that the test fails.
func (v *virtual) serve(_ context.Context, addr string, h http.Handler, _ *slog.Logger) (*server, error) {
	if addr == "" {
		v.count++
		addr = "host-" + string(rune('a'+v.count))
	}
	var inFlight sync.WaitGroup
	var mu sync.Mutex
	closed := false
	v.hosts[addr] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		if closed {
			mu.Unlock()
			if v.late {
				panic(http.ErrAbortHandler)
			}
			panic("a call of the closed server " + addr)
		}
		inFlight.Add(1)
		mu.Unlock()
		defer inFlight.Done()
		h.ServeHTTP(w, r)
	})
	return &server{url: "http://" + addr, failed: make(chan struct{}), close: func(context.Context) error {
		mu.Lock()
		closed = true
		mu.Unlock()
		inFlight.Wait()
		return nil
	}}, nil
}

// play runs the program on virtual time and returns its result, the last line,
// and all that it printed.
func play(ctx context.Context, t *testing.T, n network, b queue.Backend, args ...string) (ok bool, r result, out string) {
	t.Helper()
	ok, r, out, err := tryPlay(ctx, t, n, b, args...)
	require.NoError(t, err)
	return ok, r, out
}

// here is an environment in which QUEUE_BACKEND is the test's own backend.
func here(name string) (string, bool) { return "here", name == "QUEUE_BACKEND" }

// tryPlay is play for other goroutines than the test's.
func tryPlay(ctx context.Context, t *testing.T, n network, b queue.Backend, args ...string) (ok bool, r result, out string, err error) {
	t.Helper()
	s, err := parse(args, func(string) string { return "" }, io.Discard)
	if err != nil {
		return false, r, "", err
	}
	var text bytes.Buffer
	a, err := newApp(s, &text, t.Output(), n, config.Backends{"here": b}, here)
	if err != nil {
		return false, r, "", err
	}
	if ok, err = a.run(ctx); err != nil {
		return false, r, text.String(), err
	}
	if s.role == "all" || s.role == "fake" {
		lines := strings.Split(strings.TrimSpace(text.String()), "\n")
		err = json.Unmarshal([]byte(lines[len(lines)-1]), &r)
	}
	return ok, r, text.String(), err
}

func TestDemonstrationMakesOneRecordForEachSubmission(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		ok, r, out := play(t.Context(), t, newVirtual(), memory.New(nil), "-submissions", "400")
		assert.True(t, ok, "%+v", r)
		assert.Less(t, time.Since(begin), 30*time.Second)
		// It must have been hard, or it proves nothing.
		assert.Equal(t, 392, r.Submissions)
		assert.Equal(t, r.Submissions, r.Accepted)
		assert.Equal(t, r.Submissions, r.Records+r.DeadLettered)
		assert.Equal(t, 8, r.Invalid)
		assert.Positive(t, r.DeadLettered)
		assert.Positive(t, r.LostAnswers)
		assert.Positive(t, r.Unavailable)
		assert.Positive(t, r.OverLimit)
		assert.Positive(t, r.Races)
		assert.Positive(t, r.Expired)
		// A visitor who didn't get the answer sends the form again, and then two
		// messages may race each other, too.
		assert.Positive(t, r.UpdatedRivals)
		assert.GreaterOrEqual(t, r.Races, r.UpdatedRivals)
		assert.LessOrEqual(t, r.Logins, r.Expired+1, "whoever finds the session expired doesn't log in alone")
		for _, event := range []string{"outage begins", "stops calling", "crm: back", "goes on", "REQUIRED_FIELD_MISSING"} {
			assert.Contains(t, out, event, "a person must see it")
		}
	})
}

func TestInterruptedDemonstrationWorksOffWhatItHasAccepted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(2*time.Second, cancel) // in the middle of the outage
		ok, r, _ := play(ctx, t, newVirtual(), memory.New(nil), "-submissions", "400")
		assert.True(t, ok, "%+v", r)
		assert.Positive(t, r.Accepted)
		assert.Less(t, r.Submissions, 200, "nobody new comes after a signal")
		assert.GreaterOrEqual(t, r.Records+r.DeadLettered, r.Accepted)
	})
}

// The parts as they run in processes of their own, with a queue that they share.
// The worker is replaced in the middle.
func TestPartsWorkSeparately(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mem, net := memory.New(nil), newVirtual()
		net.late = true
		start := func(args ...string) (stop func()) {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				ok, _, _, err := tryPlay(ctx, t, net, mem, append(args, "-log", "off")...)
				assert.NoError(t, err)
				assert.True(t, ok)
			}()
			synctest.Wait()
			return func() { cancel(); <-done }
		}
		stopWeb := start("-role", "web", "-addr", "web")
		judged := make(chan struct{})
		var ok bool
		var r result
		var err error
		go func() {
			defer close(judged)
			ok, r, _, err = tryPlay(t.Context(), t, net, mem, "-role", "fake", "-crm-addr", "crm", "-web-url", "http://web", "-submissions", "150", "-outage", "4s")
		}()
		synctest.Wait()
		stopWorker := start("-role", "worker", "-crm-url", "http://crm")
		time.Sleep(3 * time.Second)
		stopWorker()
		stopWorker = start("-role", "worker", "-crm-url", "http://crm")
		<-judged
		stopWorker()
		stopWeb()
		require.NoError(t, err)
		assert.True(t, ok, "%+v", r)
		assert.Equal(t, r.Submissions, r.Records+r.DeadLettered)

		_, _, listed := play(t.Context(), t, net, mem, "-role", "rejected")
		assert.Equal(t, r.DeadLettered, strings.Count(listed, "REQUIRED_FIELD_MISSING"))
		assert.Contains(t, listed, "visitor-5@example.com")
	})
}

// The form with a real queue: 503 as long as it's down, and a publish whose
// answer was lost isn't two records.
func TestFormWithTheQueueDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mem := memory.New(nil)
		s, err := parse([]string{"-log", "off"}, func(string) string { return "" }, io.Discard)
		require.NoError(t, err)
		client, fake, party := newTestCRM(thirdparty.Faults{})
		net := newVirtual()
		net.hosts["crm.example"] = party
		s.clientID, s.clientSecret = client.clientID, client.clientSecret
		a, err := newApp(s, io.Discard, t.Output(), net, config.Backends{"here": mem}, here)
		require.NoError(t, err)
		web := newWeb(a.bus.Publisher(crmLeads), a.budget, a.log)

		heal := mem.Fail(memory.Fault{Call: memory.OnPublish})
		assert.Equal(t, http.StatusServiceUnavailable, submit(t, web, filledIn()).Code)
		heal()
		assert.Empty(t, mem.Messages(crmLeads))
		mem.Fail(memory.Fault{Call: memory.OnPublish, Effect: memory.Unanswered, Times: 1})
		assert.Equal(t, http.StatusSeeOther, submit(t, web, filledIn()).Code)
		assert.Len(t, mem.Messages(crmLeads), 2)

		working, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.runWorker(working, "http://crm.example", nil) }()
		synctest.Wait()
		require.NoError(t, mem.WaitIdle(t.Context()))
		stop()
		require.NoError(t, <-done)
		require.NoError(t, a.bus.Close(t.Context()))
		assert.Len(t, fake.records(), 1)
	})
}

func TestWholeProgramOverLoopback(t *testing.T) {
	t.Parallel()
	var out, logs bytes.Buffer
	args := []string{"-submissions", "40", "-over", "100ms", "-outage", "300ms", "-outage-after", "50ms", "-limit-pause", "100ms"}
	code := run(t.Context(), args, func(string) string { return "" }, &out, &logs)
	require.Equal(t, 0, code, "%s\n%s", out.String(), logs.String())
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var r result
	require.NoError(t, json.Unmarshal([]byte(lines[len(lines)-1]), &r))
	assert.True(t, r.ok())
	assert.Equal(t, r.Submissions, r.Records+r.DeadLettered)
	assert.Empty(t, logs.String(), "a person sees the timeline only")
}

func TestCommandLineIsChecked(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args []string
		code int
		says string
	}{
		"a role that isn't there": {args: []string{"-role", "wep"}, code: 2, says: "web"},
		"a flag that isn't there": {args: []string{"-rolle", "web"}, code: 2, says: "-rolle"},
		"a negative time":         {args: []string{"-outage", "-1s"}, code: 2, says: "negative"},
		"a level that isn't one":  {args: []string{"-log", "loud"}, code: 1, says: "-log"},
		"help":                    {args: []string{"-h"}, code: 0, says: "-role"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stderr bytes.Buffer
			code := run(t.Context(), tc.args, func(string) string { return "" }, io.Discard, &stderr)
			assert.Equal(t, tc.code, code)
			assert.Contains(t, stderr.String(), tc.says)
		})
	}
}
