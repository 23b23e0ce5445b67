package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// sqsEndpoint is that of a server in this process.
func sqsEndpoint(t *testing.T) string {
	t.Helper()
	s := sqstest.New(nil)
	t.Cleanup(s.Close)
	endpoint, err := s.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return endpoint
}

func TestEveryMeasurementOnSQSGivesFigures(t *testing.T) {
	t.Parallel()
	o := brief()
	o.only = "sqs"
	o.server = &sqsServer{endpoint: sqsEndpoint(t)}
	r, err := measure(o, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	positive := map[string][]string{
		"sqs-publish": {"messages/s", "requests/message", "allocs/message", "p50 ms"},
		"sqs-consume": {"messages/s", "requests/message", "allocs/message"},
		"sqs-lone":    {"p50 ms", "p99 ms"},
		"sqs-trickle": {"requests/message", "p50 ms"},
		"sqs-idle":    {"requests/minute", "worst ms"},
	}
	tables := map[string]int{}
	for table, fs := range r.Figures {
		m, _, _ := strings.Cut(table, ",")
		tables[m]++
		for _, c := range sqsContenders {
			if c.name == lingerName && m != "sqs-publish" {
				continue
			}
			for _, f := range positive[m] {
				if v := fs[c.name][f]; v <= 0 {
					t.Errorf("%s of %s: %s is %v", table, c.name, f, v)
				}
			}
		}
	}
	for m := range positive {
		if want := map[string]int{"sqs-consume": 3}[m]; tables[m] != max(want, 1) {
			t.Errorf("%d tables of %s", tables[m], m)
		}
	}
	var out strings.Builder
	r.print(&out)
	if len(r.Targets) != 16 {
		t.Errorf("%d targets are reported, not 16", len(r.Targets))
	}
	for _, tg := range r.Targets {
		if !strings.Contains(out.String(), tg.Name) {
			t.Errorf("the report says nothing about %q", tg.Name)
		}
	}
}

func TestAPartOfTheMeasurementsCanBeChosen(t *testing.T) {
	t.Parallel()
	o := brief()
	o.only, o.systems = "sqs-lone,sqs-trickle", rawName+","+oursName
	o.server = &sqsServer{endpoint: sqsEndpoint(t)}
	r, err := measure(o, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.order) != 2 || !strings.HasPrefix(r.order[0], "sqs-lone") || !strings.HasPrefix(r.order[1], "sqs-trickle") {
		t.Errorf("measured %q", r.order)
	}
	for name, fs := range r.Figures {
		if len(fs) != 2 || fs[rawName] == nil || fs[oursName] == nil {
			t.Errorf("%s has figures of others: %v", name, fs)
		}
	}
}

// TestMain makes this program what it starts: the server of sqsServer, a round
// of throughputApart, or a hundred and twenty idle queues.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == serveArg || os.Args[1] == roundArg || os.Args[1] == hundredArg) {
		if err := run(os.Args[1:], os.Stdout); err != nil {
			panic(err)
		}
		return
	}
	m.Run()
}

func TestOneServerIsStartedForAllThatNeedOne(t *testing.T) {
	t.Parallel()
	s := &sqsServer{}
	var (
		wg        sync.WaitGroup
		endpoints [8]string
		errs      [8]error
	)
	for i := range endpoints {
		wg.Go(func() { endpoints[i], errs[i] = s.url() })
	}
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	if len(slices.Compact(endpoints[:])) != 1 {
		t.Errorf("started at %q", endpoints)
	}
	o := brief()
	o.server = s
	q, err := openSQS(o, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(q.fill(25), q.close(), s.stop()); err != nil {
		t.Error(err)
	}
	if err := s.stop(); err != nil {
		t.Errorf("stopping it again: %v", err)
	}
}

// server answers as the link's other end.
type server func(*http.Request) (string, error)

func (s server) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := s(r)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(answer)), Request: r}, nil
}

func call(t *testing.T, l *link, action, body string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://sqs", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Amz-Target", "AmazonSQS."+action)
	res, err := l.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestALinkCountsMessagesAndPassesThemOnUnchanged(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		action, request, answer string
		entries                 int
	}{
		"one sent":            {actionSend, `{"MessageBody":"a"}`, `{}`, 1},
		"two sent":            {actionSends, `{"Entries":[{"Id":"0","MessageBody":"a"},{"Id":"1","MessageBody":"b"}]}`, `{}`, 2},
		"a body that quotes":  {actionSend, `{"MessageBody":"{\"MessageBody\":\"a\"}"}`, `{}`, 1},
		"three received":      {actionReceive, `{}`, `{"Messages":[{"ReceiptHandle":"a"},{"ReceiptHandle": "b"},{"ReceiptHandle":"c"}]}`, 3},
		"none received":       {actionReceive, `{}`, `{}`, 0},
		"two deleted":         {actionDeletes, `{"Entries":[{"ReceiptHandle":"a"},{"ReceiptHandle":"b"}]}`, `{}`, 2},
		"something different": {"GetQueueUrl", `{}`, `{}`, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var sent string
			l := newLink(0)
			l.base = server(func(r *http.Request) (string, error) {
				b, err := io.ReadAll(r.Body)
				sent = string(b)
				return c.answer, err
			})
			if got := call(t, l, c.action, c.request); got != c.answer || sent != c.request {
				t.Errorf("sent %s, answered %s", sent, got)
			}
			if got, want := l.sum(c.action), (calls{1, c.entries}); got != want || l.sum() != want {
				t.Errorf("counted %+v, in all %+v, not %+v", got, l.sum(), want)
			}
		})
	}
}

func TestALinkRemembersWhenANumberedMessageCame(t *testing.T) {
	t.Parallel()
	l := newLink(0)
	l.base = server(func(*http.Request) (string, error) {
		return fmt.Sprintf(`{"Messages":[{"MD5OfBody":"00000000","Body":"%sabc"},{"Body": "%s"},{"Body":"short"}]}`, number(1), number(2)), nil
	})
	l.watch(3)
	before := time.Now()
	call(t, l, actionReceive, `{}`)
	for i, came := range []bool{false, true, true} {
		if got := l.arrival(i); got.IsZero() == came || came && got.Before(before) {
			t.Errorf("message %d came at %v", i, got)
		}
	}
}

func TestALinkAddsItsLatencyHalfOfItOnEachWay(t *testing.T) {
	t.Parallel()
	const latency = 4 * time.Millisecond
	var there time.Time
	l := newLink(latency)
	l.base = server(func(*http.Request) (string, error) { there = time.Now(); return "{}", nil })
	before := time.Now()
	call(t, l, actionSend, `{}`)
	if way := there.Sub(before); way < latency/2 {
		t.Errorf("the request took %v", way)
	}
	if way := time.Since(there); way < latency/2 {
		t.Errorf("the answer took %v", way)
	}
}

func TestALinkDoesNotDeliverWhatWasCancelledOnItsWay(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	l := newLink(time.Millisecond)
	l.base = server(func(*http.Request) (string, error) { cancel(); return "{}", nil })
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://sqs", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := l.RoundTrip(r)
	if err == nil {
		res.Body.Close()
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestWorkIsCountedOnceAndChecked(t *testing.T) {
	t.Parallel()
	l := newLink(0)
	l.watch(2)
	l.arrived[0], l.arrived[1] = time.Now(), time.Now().Add(-sqsLease-time.Millisecond)
	l.count(actionReceive, calls{requests: 1})
	w := newSQSWork(l, 2)
	w.started(0)
	w.started(0) // once more
	if w.left.Load() != 1 {
		t.Errorf("%d are left, not 1", w.left.Load())
	}
	w.started(1)
	if err := w.wait(); err != nil {
		t.Error(err)
	}
	if n := w.expired.Load(); n != 1 {
		t.Errorf("%d started on an expired lease, not 1", n)
	}
	if w.receives.requests != 1 || w.lasted() <= 0 {
		t.Errorf("took %v and %d receives", w.lasted(), w.receives.requests)
	}
	w.started(-1)
	if err := w.wait(); !errors.Is(err, errDamaged) {
		t.Errorf("got %v for a damaged message", err)
	}
}

func TestADamagedBodyHasNoNumber(t *testing.T) {
	t.Parallel()
	for name, body := range map[string][]byte{"too short": numbered(1)[1:], "no number": newBody(), "none": nil} {
		if i := numberOf(body, attributes); i != -1 {
			t.Errorf("%s: %d", name, i)
		}
	}
	if i := numberOf(string(numbered(42)), attributes); i != 42 {
		t.Errorf("%d, not 42", i)
	}
}

func TestRequestsAMinute(t *testing.T) {
	t.Parallel()
	t0 := time.Now().Add(-time.Minute)
	at := func(action string, s float64) sentCall {
		return sentCall{action, t0.Add(time.Duration(s * float64(time.Second)))}
	}
	for name, c := range map[string]struct {
		sent []sentCall
		want float64
	}{
		"long polls of 20 s":          {[]sentCall{at(actionReceive, 0), at(actionReceive, 20), at(actionReceive, 40), at(actionReceive, 60)}, 3},
		"what came before the first":  {[]sentCall{at("GetQueueUrl", -1), at(actionReceive, 0), at(actionReceive, 20)}, 3},
		"a single poll, a minute ago": {[]sentCall{at("GetQueueUrl", -1), at(actionReceive, 0)}, 1},
		"no poll":                     {[]sentCall{at("GetQueueUrl", -1)}, 0},
		"others count too":            {[]sentCall{at(actionReceive, 0), at("GetQueueUrl", 5), at(actionReceive, 20)}, 6},
	} {
		if got := (&link{sent: c.sent}).perMinute(); got < 0.9*c.want || got > 1.1*c.want {
			t.Errorf("%s: %v, not %v", name, got, c.want)
		}
	}
}

func TestTheRawLoopFillsItsRequests(t *testing.T) {
	t.Parallel()
	for name, linger := range map[string]time.Duration{"with linger": time.Hour, "without": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 4 * sqsBatch
			in := make(chan int, n)
			for i := range n {
				in <- i
			}
			close(in)
			var (
				mu  sync.Mutex
				got []int
			)
			gather(in, gathering{size: sqsBatch, senders: rawSenders, linger: linger}, func(batch []int) {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, batch...)
				if len(batch) != sqsBatch {
					t.Errorf("a request with %d", len(batch))
				}
			})
			slices.Sort(got)
			if len(slices.Compact(got)) != n {
				t.Errorf("gathered %v", got)
			}
		})
	}
}
