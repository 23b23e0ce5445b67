package thirdparty

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// A Request is an entry of a Party's log.
type Request struct {
	N      int // from 0, in the order of the log
	At     time.Time
	Method string
	Path   string // with its query
	Body   []byte
	Status int // what was answered, or would have been
	Fault  Fault
	// Answered says that the caller was sent the answer: false when it was lost
	// or the caller had gone.
	Answered bool
	// Note is what the fake's handler said about the request; see Annotate.
	Note any
}

// Handled reports whether the fake's handler ran and succeeded: the party has
// done what it was asked, whatever the caller knows about it.
func (r Request) Handled() bool {
	return r.Status/100 == 2 && (r.Fault == None || r.Fault == Slow || r.Fault == Lost)
}

// A Party is a fake third party: an http.Handler that fails by its Faults and
// keeps a log. It may be used concurrently.
type Party struct {
	next   http.Handler
	faults Faults

	mu      sync.Mutex
	first   time.Time
	count   int
	outages []*window
	rules   []*oneIn
	lost    *oneIn
	slow    *oneIn
	log     []Request
}

// New returns a Party that answers with next.
func New(next http.Handler, f Faults) *Party {
	p := &Party{next: next, faults: f, lost: newOneIn(f.LostOneIn, f.Seed, 1), slow: newOneIn(f.SlowOneIn, f.Seed, 2)}
	for _, w := range f.Outages {
		p.outages = append(p.outages, &window{Window: w})
	}
	for i, r := range f.Rules {
		p.rules = append(p.rules, newOneIn(r.OneIn, f.Seed, uint64(3+i)))
	}
	return p
}

// Log returns a copy of the log so far. The bodies are shared: only to be read.
func (p *Party) Log() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.log)
}

// ServeHTTP implements http.Handler.
func (p *Party) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 32<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	entry := Request{At: time.Now(), Method: r.Method, Path: r.URL.RequestURI(), Body: body}
	if fault, answer := p.refuse(r, entry.At); answer != nil {
		rec := &recorder{header: http.Header{}}
		answer(rec, r)
		entry.Fault, entry.Status, entry.Answered = fault, rec.code(), true
		p.record(entry)
		rec.send(w)
		return
	}

	r.Body = io.NopCloser(bytes.NewReader(body))
	rec := &recorder{header: http.Header{}}
	p.next.ServeHTTP(rec, r)
	entry.Status, entry.Note = rec.code(), rec.note

	entry.Fault = p.spoil(entry.Status)
	if entry.Fault == Slow {
		select {
		case <-time.After(p.faults.SlowFor):
		case <-r.Context().Done():
		}
	}
	entry.Answered = entry.Fault != Lost && r.Context().Err() == nil
	p.record(entry)
	if entry.Fault == Lost {
		panic(http.ErrAbortHandler) // cuts the connection
	}
	rec.send(w)
}

// refuse decides whether a request isn't handled at all.
func (p *Party) refuse(r *http.Request, now time.Time) (Fault, http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count == 0 {
		p.first = now
	}
	before := p.count
	p.count++
	for _, w := range p.outages {
		refused, began, ended := w.refuses(now, p.first, before)
		if (began || ended) && p.faults.OnOutage != nil {
			p.faults.OnOutage(OutageEvent{Began: began, At: now, Refused: w.refused})
		}
		if refused {
			if w.Answer != nil {
				return Outage, w.Answer
			}
			return Outage, Status(http.StatusServiceUnavailable, `{"message":"Service unavailable"}`)
		}
	}
	for i, rule := range p.faults.Rules {
		if (rule.Match == nil || rule.Match(r)) && p.rules[i].next() {
			return rule.Fault, rule.Answer
		}
	}
	return None, nil
}

// spoil decides what becomes of the answer to a handled request.
func (p *Party) spoil(status int) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case status/100 == 2 && p.lost.next():
		return Lost
	case p.slow.next():
		return Slow
	}
	return None
}

func (p *Party) record(r Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r.N = len(p.log)
	p.log = append(p.log, r)
	if p.faults.Observe != nil {
		p.faults.Observe(r)
	}
}

// Annotate puts a note for the judge into the log entry of the request that w
// answers. It does nothing outside of a Party.
func Annotate(w http.ResponseWriter, note any) {
	if rec, ok := w.(*recorder); ok {
		rec.note = note
	}
}

// recorder holds back an answer until it's decided whether it's sent.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
	note   any
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(code int) {
	if r.status == 0 {
		r.status = code
	}
}

func (r *recorder) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(b)
}

func (r *recorder) code() int {
	if r.status == 0 {
		return http.StatusOK
	}
	return r.status
}

func (r *recorder) send(w http.ResponseWriter) {
	for k, v := range r.header {
		w.Header()[k] = v
	}
	w.WriteHeader(r.code())
	_, _ = w.Write(r.body.Bytes()) // a caller that has gone doesn't matter to a fake
}
