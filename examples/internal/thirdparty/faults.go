package thirdparty

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// A Fault names what was done to a request. The examples may add their own
// names with a Rule.
type Fault string

// What can go wrong with a request.
const (
	None   Fault = ""       // the fake itself answered
	Outage Fault = "outage" // refused during a Window
	Slow   Fault = "slow"   // handled; the answer came late
	Lost   Fault = "lost"   // handled with success; the connection was cut instead of an answer
)

// Faults are the ways in which a Party fails. The zero value never fails.
//
// Where something happens to one request in N, each block of N requests has
// exactly one, at a place that the seed decides: the kinds and numbers of the
// faults are the same in each run, whatever the order of the requests.
type Faults struct {
	Seed uint64

	Outages []Window
	Rules   []Rule // the first that applies answers

	// LostOneIn loses the answer of one success (2xx) in so many: the handler
	// ran, then the connection is cut. 0: none.
	LostOneIn int

	// SlowOneIn delays one answer in so many by SlowFor, after the handler ran:
	// a caller that doesn't wait can't know whether it did. 0: none.
	SlowOneIn int
	SlowFor   time.Duration

	// Observe is called for each request, one at a time and in the order of the
	// log, before the answer is sent. It must not block. Default: none.
	Observe func(Request)

	// OnOutage is called, one at a time, when a Window begins, and with the
	// first request after it has ended. Default: none.
	OnOutage func(OutageEvent)
}

// A Rule refuses one request in OneIn without handling it.
type Rule struct {
	Fault  Fault
	OneIn  int
	Answer http.HandlerFunc
	// Match limits the rule to some requests. Default: all.
	Match func(*http.Request) bool
}

// A Window is a time in which every request is refused. It begins with the
// first request for which After has passed since the party's first request and
// AfterRequests have come before. It ends when For has passed since then and
// ForRequests have been refused.
type Window struct {
	After         time.Duration
	AfterRequests int
	For           time.Duration
	ForRequests   int
	// Answer is what the requests get. Default: 503.
	Answer http.HandlerFunc
}

// OutageEvent tells that an outage began or ended.
type OutageEvent struct {
	Began   bool // false: it has ended
	At      time.Time
	Refused int // so far
}

// Status answers with a status code and a body in JSON.
func Status(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body)) // a caller that has gone doesn't matter to a fake
	}
}

// TooManyRequests answers 429 with a Retry-After in whole seconds, at least 1.
func TooManyRequests(after time.Duration) http.HandlerFunc {
	seconds := max(1, int((after+time.Second-1)/time.Second))
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", strconv.Itoa(seconds))
		Status(http.StatusTooManyRequests, `{"message":"Too many requests"}`)(w, r)
	}
}

// oneIn picks one event of each block of n.
type oneIn struct {
	n    int
	rng  *rand.Rand
	seen int
	pick int
}

func newOneIn(n int, seed, stream uint64) *oneIn {
	return &oneIn{n: n, rng: rand.New(rand.NewPCG(seed, stream))} //nolint:gosec // must be repeatable; nothing secret
}

func (o *oneIn) next() bool {
	if o.n <= 0 {
		return false
	}
	if o.seen%o.n == 0 {
		o.pick = o.seen + o.rng.IntN(o.n)
	}
	o.seen++
	return o.seen-1 == o.pick
}

// window is the state of a Window.
type window struct {
	Window
	began   time.Time
	refused int
	ended   bool
}

// refuses reports whether the request, which came after so many others, falls
// into the window, and whether that began or ended the window.
func (w *window) refuses(now, first time.Time, before int) (refused, began, ended bool) {
	if w.ended || (w.For <= 0 && w.ForRequests <= 0) {
		return false, false, false
	}
	if w.began.IsZero() {
		if now.Sub(first) < w.After || before < w.AfterRequests {
			return false, false, false
		}
		w.began, w.refused = now, 1
		return true, true, false
	}
	if now.Sub(w.began) >= w.For && w.refused >= w.ForRequests {
		w.ended = true
		return false, false, true
	}
	w.refused++
	return true, false, false
}
