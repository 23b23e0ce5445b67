package main

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// link is the way from a client to the SQS server. It counts what goes over it,
// so that the counts are nobody's own, and makes it longer: half of the latency
// on the way there, half of it on the way back. The server doesn't know.
type link struct {
	base    http.RoundTripper
	latency time.Duration

	mu      sync.Mutex
	calls   map[string]calls // by action
	open    int              // receives that aren't answered
	sent    []sentCall       // in this order
	arrived []time.Time      // by the number of a message: when it came last; nil: nobody wants to know
}

type sentCall struct {
	action string
	at     time.Time
}

const (
	actionSend    = "SendMessage"
	actionSends   = "SendMessageBatch"
	actionReceive = "ReceiveMessage"
	actionDelete  = "DeleteMessage"
	actionDeletes = "DeleteMessageBatch"
)

func newLink(latency time.Duration) *link {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil // the server is near
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 0, 1024
	return &link{base: t, latency: latency, calls: map[string]calls{}}
}

// RoundTrip makes link an http.RoundTripper.
func (l *link) RoundTrip(req *http.Request) (*http.Response, error) {
	_, action, _ := strings.Cut(req.Header.Get("X-Amz-Target"), ".")
	if action == actionReceive {
		l.mu.Lock()
		l.open++
		l.mu.Unlock()
		defer func() {
			l.mu.Lock()
			l.open--
			l.mu.Unlock()
		}()
	}
	entries := 0
	if req.Body != nil {
		b, err := io.ReadAll(req.Body)
		if err = errorsFirst(err, req.Body.Close()); err != nil {
			return nil, err
		}
		entries = sentEntries(action, b)
		req = req.Clone(req.Context())
		req.Body = io.NopCloser(bytes.NewReader(b))
	}
	l.count(action, calls{requests: 1, entries: entries})
	if err := pause(req.Context(), l.latency/2); err != nil {
		return nil, err
	}
	res, err := l.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(res.Body)
	if err = errorsFirst(err, res.Body.Close()); err != nil {
		return nil, err
	}
	if action == actionReceive {
		l.note(b)
	}
	if err := pause(req.Context(), l.latency-l.latency/2); err != nil {
		return nil, err
	}
	res.Body = io.NopCloser(bytes.NewReader(b))
	return res, nil
}

// sentEntries counts the messages in a request. Within a JSON string a quote has
// a backslash before it, so that no body can look like one of these names.
func sentEntries(action string, b []byte) int {
	switch action {
	case actionSend, actionSends:
		return bytes.Count(b, []byte(`"MessageBody"`))
	case actionReceive:
		return 0 // those of the answer count
	}
	return bytes.Count(b, []byte(`"ReceiptHandle"`))
}

// note counts the messages that have come, and remembers when.
func (l *link) note(answer []byte) {
	now := time.Now()
	n := bytes.Count(answer, []byte(`"ReceiptHandle"`))
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.calls[actionReceive]
	c.entries += n
	l.calls[actionReceive] = c
	if l.arrived == nil {
		return
	}
	for ok := true; ok; {
		if _, answer, ok = bytes.Cut(answer, []byte(`"Body"`)); !ok {
			return
		}
		body := bytes.TrimLeft(answer, `: "`)
		if len(body) < numberWidth {
			return
		}
		if i, err := strconv.Atoi(string(body[:numberWidth])); err == nil && i < len(l.arrived) {
			l.arrived[i] = now
		}
	}
}

// watch remembers, from now on, when each of n numbered messages comes.
func (l *link) watch(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.arrived = make([]time.Time, n)
}

// arrival is when a message came last.
func (l *link) arrival(i int) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.arrived[i]
}

func (l *link) count(action string, more calls) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.calls[action]
	l.calls[action] = calls{c.requests + more.requests, c.entries + more.entries}
	l.sent = append(l.sent, sentCall{action, time.Now()})
}

// sum is what went over the link in these actions; none: in all.
func (l *link) sum(actions ...string) calls {
	l.mu.Lock()
	defer l.mu.Unlock()
	var s calls
	if len(actions) == 0 {
		for _, c := range l.calls {
			s.requests, s.entries = s.requests+c.requests, s.entries+c.entries
		}
	}
	for _, a := range actions {
		c := l.calls[a]
		s.requests, s.entries = s.requests+c.requests, s.entries+c.entries
	}
	return s
}

// firstSent is when the first request of an action was sent.
func (l *link) firstSent(action string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.sent {
		if c.action == action {
			return c.at
		}
	}
	return time.Time{}
}

// polls is how many receives are open.
func (l *link) polls() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// perMinute is how many requests an idle consumer makes. Long polls are so rare
// that a minute has three or four of them, as it falls: so it's taken from the
// start of the first to the start of the last; of a single one, until now.
func (l *link) perMinute() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var begin, end time.Time
	for _, c := range l.sent {
		if c.action != actionReceive {
			continue
		}
		if begin.IsZero() {
			begin = c.at
		}
		end = c.at
	}
	if begin.IsZero() {
		return 0
	}
	if begin.Equal(end) {
		end = time.Now()
	}
	n := 0
	for _, c := range l.sent {
		if !c.at.Before(begin) && c.at.Before(end) {
			n++
		}
	}
	return float64(n) / end.Sub(begin).Minutes()
}

// close drops the connections.
func (l *link) close() { l.base.(*http.Transport).CloseIdleConnections() }
