package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
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

	"github.com/anyqueue/anyqueue/examples/internal/database"
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

// play runs the program on virtual time and returns its result, the last line.
func play(ctx context.Context, t *testing.T, n network, b queue.Backend, args ...string) (ok bool, r result) {
	t.Helper()
	ok, r, err := tryPlay(ctx, t, n, b, args...)
	require.NoError(t, err)
	return ok, r
}

// here is an environment in which QUEUE_BACKEND is the test's own backend.
func here(name string) (string, bool) { return "here", name == "QUEUE_BACKEND" }

// tryPlay is play for other goroutines than the test's.
func tryPlay(ctx context.Context, t *testing.T, n network, b queue.Backend, args ...string) (ok bool, r result, err error) {
	t.Helper()
	s, err := parse(args, func(string) string { return "" }, io.Discard)
	if err != nil {
		return false, r, err
	}
	var out bytes.Buffer
	a, err := newApp(s, &out, t.Output(), n, config.Backends{"here": b}, here)
	if err != nil {
		return false, r, err
	}
	if ok, err = a.run(ctx); err != nil {
		return false, r, err
	}
	if s.role == "all" || s.role == "parties" {
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		err = json.Unmarshal([]byte(lines[len(lines)-1]), &r)
	}
	return ok, r, err
}

func TestDemonstrationLosesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		ok, r := play(t.Context(), t, newVirtual(), memory.New(nil), "-events", "420", "-messages", "100")
		assert.True(t, ok, "%+v", r)
		assert.Less(t, time.Since(begin), 30*time.Second)
		// It must have been hard, or it proves nothing.
		assert.Greater(t, r.Sent, 480)
		assert.Equal(t, r.Sent, r.Accepted+r.Unknown)
		assert.GreaterOrEqual(t, r.Recorded, r.Accepted)
		assert.Positive(t, r.Refused, "forged and broken requests")
		assert.Positive(t, r.Unavailable, "the queue's outage outlasts some requests")
		assert.Positive(t, r.NoAnswer, "answers lost on the way to the senders")
		assert.Positive(t, r.LostAnswers, "answers lost on the way to the worker")
		assert.Equal(t, r.LostAnswers, r.Repeats, "nothing is called again for another reason")
		assert.GreaterOrEqual(t, r.DeadLettered, 45, "every complaint but the repeats")
	})
}

func TestInterruptedDemonstrationWorksOffWhatItHasAccepted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(1500*time.Millisecond, cancel)
		ok, r := play(ctx, t, newVirtual(), memory.New(nil), "-events", "420", "-messages", "100")
		assert.True(t, ok, "%+v", r)
		assert.Positive(t, r.Accepted)
		assert.Less(t, r.Sent, 250, "nothing new is sent after a signal")
		assert.Zero(t, r.Lost)
	})
}

// The parts as they run in processes of their own, with a queue that they share:
// first the worker with the bug, then the repaired one and a redrive.
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
				ok, _, err := tryPlay(ctx, t, net, mem, append(args, "-log", "off")...)
				assert.NoError(t, err)
				assert.True(t, ok)
			}()
			synctest.Wait()
			return func() { cancel(); <-done }
		}
		stopDatabase := start("-role", "database", "-database-addr", "db")
		stopWeb := start("-role", "web", "-addr", "web")
		judged := make(chan struct{})
		var ok bool
		var r result
		var err error
		go func() {
			defer close(judged)
			ok, r, err = tryPlay(t.Context(), t, net, mem, "-role", "parties", "-parties-addr", "analytics", "-web-url", "http://web", "-events", "140", "-messages", "40")
		}()
		synctest.Wait()
		stopWorker := start("-role", "worker", "-bug", "-analytics-url", "http://analytics", "-database-url", "http://db")
		time.Sleep(20 * time.Second)
		assert.NotEmpty(t, mem.Messages(mailgunEventsDLQ), "complaints are where somebody finds them")
		stopWorker()
		select {
		case <-judged:
			t.Fatal("the parties must miss the complaints as long as the bug is there")
		default:
		}

		// Two of them: what one has handled the other one must know.
		stopWorker = start("-role", "worker", "-analytics-url", "http://analytics", "-database-url", "http://db")
		stopSecond := start("-role", "worker", "-analytics-url", "http://analytics", "-database-url", "http://db")
		moved, _ := play(t.Context(), t, net, mem, "-role", "redrive", "-log", "off")
		assert.True(t, moved)
		<-judged
		stopWorker()
		stopSecond()
		stopWeb()
		stopDatabase()
		require.NoError(t, err)
		assert.True(t, ok, "%+v", r)
		assert.Zero(t, r.Unaccepted)
		assert.Empty(t, mem.Messages(mailgunEventsDLQ))
	})
}

// The web part with a real queue: 503 as long as it's down, 200 afterwards, and
// a publish whose answer was lost isn't two events.
func TestAnswersWithTheQueueDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mem, net := memory.New(nil), newVirtual()
		s, err := parse([]string{"-log", "off"}, func(string) string { return "" }, io.Discard)
		require.NoError(t, err)
		a, err := newApp(s, io.Discard, t.Output(), net, config.Backends{"here": mem}, here)
		require.NoError(t, err)
		web := a.newWeb(a.bus.Publisher(mailgunEvents))
		send := func(id string) int {
			return postTo(t, web, "/webhooks/mailgun", signedAt(time.Now(), s.mailgunKey, id)).Code
		}
		partner := func(key string) int {
			return postTo(t, web, "/integrations/acme", `{"type":"x"}`, "Authorization", "Bearer demo-acme", "Idempotency-Key", key).Code
		}

		heal := mem.Fail(memory.Fault{Call: memory.OnPublish, Err: errors.New("down")})
		assert.Equal(t, http.StatusServiceUnavailable, send("ev-1"))
		assert.Equal(t, http.StatusServiceUnavailable, partner("k-1"))
		heal()
		assert.Empty(t, mem.Messages(mailgunEvents), "what was answered with 503 needn't be there; here it isn't")
		assert.Equal(t, http.StatusOK, send("ev-1"))
		assert.Equal(t, http.StatusAccepted, partner("k-1"))

		mem.Fail(memory.Fault{Call: memory.OnPublish, Effect: memory.Unanswered, Times: 1})
		assert.Equal(t, http.StatusOK, send("ev-2"))
		assert.Len(t, mem.Messages(mailgunEvents), 3, "once for ev-1, twice for ev-2")

		var c trackedBy
		var mu sync.Mutex
		working, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		net.hosts["analytics"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			var e trackedEvent
			assert.NoError(t, json.NewDecoder(r.Body).Decode(&e))
			assert.NoError(t, c.track(r.Context(), e))
			writeJSON(w, http.StatusOK, map[string]bool{"success": true})
		})
		go func() { done <- a.runWorker(working, "http://analytics", database.NewMemory(nil), describe) }()
		synctest.Wait()
		require.NoError(t, mem.WaitIdle(t.Context()))
		stop()
		require.NoError(t, <-done)
		require.NoError(t, a.bus.Close(t.Context()))
		var ids []string
		for _, e := range c.events {
			ids = append(ids, e.MessageID)
		}
		assert.ElementsMatch(t, []string{"ev-1", "ev-2", "acme:k-1"}, ids)
	})
}

func TestMailgunRetriesByTheAnswer(t *testing.T) {
	t.Parallel()
	whole := len(mailgunSchedule) + 1
	tests := map[string]struct {
		answers []int // the last one is repeated
		tries   int
		minutes int // of Mailgun's
	}{
		"200":                     {answers: []int{200}, tries: 1},
		"406":                     {answers: []int{406}, tries: 1},
		"202 isn't 200":           {answers: []int{202}, tries: whole, minutes: 450},
		"404":                     {answers: []int{404}, tries: whole, minutes: 450},
		"503 for ever":            {answers: []int{503}, tries: whole, minutes: 450},
		"503 twice":               {answers: []int{503, 503, 200}, tries: 3, minutes: 15},
		"no answer, then refused": {answers: []int{0, 406}, tries: 2, minutes: 5},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := 0
				m := &fakeMailgun{url: "http://web", minute: time.Minute, sender: sender{client: &http.Client{
					Transport: thirdparty.Network{"web": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
						status := tc.answers[min(n, len(tc.answers)-1)]
						n++
						if status == 0 {
							panic(http.ErrAbortHandler)
						}
						w.WriteHeader(status)
					})},
				}}}
				begin := time.Now()
				m.send(t.Context(), sent{id: "ev-1", want: 200}, []byte("{}"))
				assert.Len(t, m.sentLog(), tc.tries)
				assert.Equal(t, time.Duration(tc.minutes)*time.Minute, time.Since(begin))
				for i, s := range m.sentLog() {
					assert.Equal(t, i+1, s.try)
					assert.Equal(t, tc.answers[min(i, len(tc.answers)-1)], s.status)
				}
			})
		})
	}
}

func TestLossyNetworkLosesOneAnswerInAHundred(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		handled, lost := 0, 0
		var mu sync.Mutex
		c := &http.Client{Transport: &lossy{oneIn: 100, next: thirdparty.Network{"web": http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			handled++
		})}}}
		s := sender{client: c}
		for range 1000 {
			if status, _ := s.post(t.Context(), "http://web/", nil, nil); status == 0 {
				lost++
			}
		}
		synctest.Wait()
		assert.Equal(t, 1000, handled)
		assert.Equal(t, 20, lost, "ten after a success, and ten hung up on")
	})
}

func TestRealServerAnswersWhatWasUnderWayBeforeItEnds(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}), make(chan struct{})
	pub := queue.PublisherFunc(func(context.Context, ...*queue.Message) error {
		close(begun)
		<-release
		return nil
	})
	n := newLoopback()
	srv, err := n.serve(t.Context(), "", testWeb(t, pub), slog.New(slog.DiscardHandler))
	require.NoError(t, err)

	status := make(chan int, 1)
	go func() {
		s := sender{client: newHTTPClient(n.transport())}
		code, _ := s.post(context.Background(), srv.url+"/webhooks/mailgun", []byte(signedAt(time.Now(), testKey, "ev-1")), nil)
		status <- code
	}()
	<-begun
	closed := make(chan error, 1)
	go func() { closed <- srv.close(context.Background()) }()
	<-refusesConnections(t, srv.url)
	close(release)
	assert.Equal(t, http.StatusOK, <-status)
	require.NoError(t, <-closed)
	<-srv.failed
}

// refusesConnections is closed when a server listens no more.
func refusesConnections(t *testing.T, url string) <-chan struct{} {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		for {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/healthz", nil)
			if err != nil {
				t.Error(err)
				return
			}
			resp, err := c.Do(req)
			if err != nil {
				return
			}
			if err := resp.Body.Close(); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	return done
}

func TestWholeProgramOverLoopback(t *testing.T) {
	t.Parallel()
	var out, logs bytes.Buffer
	code := run(t.Context(), []string{"-events", "4", "-messages", "40", "-over", "10ms"}, func(string) string { return "" }, &out, &logs)
	require.Equal(t, 0, code, "%s\n%s", out.String(), logs.String())
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var r result
	require.NoError(t, json.Unmarshal([]byte(lines[len(lines)-1]), &r))
	assert.True(t, r.ok())
	assert.Greater(t, r.Accepted, 30)
	assert.Empty(t, logs.String(), "a person sees the timeline only")
}

func TestCommandLineIsChecked(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args []string
		env  map[string]string
		code int
		says string
	}{
		"a role that isn't there": {args: []string{"-role", "wep"}, code: 2, says: "web"},
		"a flag that isn't there": {args: []string{"-rolle", "web"}, code: 2, says: "-rolle"},
		"a negative number":       {args: []string{"-events", "-1"}, code: 2, says: "negative"},
		"keys without a partner":  {env: map[string]string{"PARTNER_KEYS": "acme"}, code: 2, says: "PARTNER_KEYS"},
		"a level that isn't one":  {args: []string{"-log", "loud"}, code: 1, says: "-log"},
		"help":                    {args: []string{"-h"}, code: 0, says: "-role"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stderr bytes.Buffer
			code := run(t.Context(), tc.args, func(k string) string { return tc.env[k] }, io.Discard, &stderr)
			assert.Equal(t, tc.code, code)
			assert.Contains(t, stderr.String(), tc.says)
		})
	}
}
