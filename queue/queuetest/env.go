package queuetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// env is what one test works with: a backend of its own and helpers.
type env struct {
	*testing.T
	h           *Harness
	in          Instance
	ctx         context.Context
	lease, unit time.Duration

	// slack is how much later than promised something may happen.
	slack time.Duration
	// patience is how long something that must happen is waited for.
	patience time.Duration

	log  *logBuffer
	poke *signal

	mu      sync.Mutex
	latches []*latch
	running []*consumer
	opened  []queue.Queue
	names   map[queue.Queue]opening // to open again
}

type opening struct {
	name string
	opts queue.OpenOptions
}

func newEnv(t *testing.T, h *Harness, r rule) *env {
	e := &env{
		T: t, h: h, ctx: t.Context(), lease: h.Lease, unit: h.Unit,
		log: &logBuffer{}, poke: newSignal(), names: map[queue.Queue]opening{},
	}
	e.slack = pick(h.long(), 5*time.Second, 10*time.Second)
	e.patience = pick(h.long(), 2*time.Hour, max(30*time.Second, 6*h.Lease))
	if h.Virtual && h.Brief {
		e.patience *= 5 // it costs next to nothing
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("why: %s", r.why)
			t.Logf("the consumers logged:\n%s", e.log.String())
		}
	})
	e.in = h.New(t)
	if e.in.Backend == nil {
		t.Fatal("queuetest: Instance needs Backend")
	}
	t.Cleanup(e.end)
	return e
}

// end lets everything go that a test has started, in the order in which it can
// end: first what handlers wait for, then consumers, then queues.
func (e *env) end() {
	e.mu.Lock()
	latches, running, opened := e.latches, e.running, e.opened
	e.mu.Unlock()
	for _, l := range latches {
		l.open()
	}
	for _, c := range running {
		c.cancel()
	}
	for _, c := range running {
		if !c.ended(e.patience) {
			e.Errorf("Run hasn't returned %v after its context ended", e.patience)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), e.patience)
	defer cancel()
	for _, q := range opened {
		if err := q.Close(ctx); err != nil {
			e.Errorf("Close: %v", err)
		}
	}
}

// ---- queues

// open creates a queue and opens it. The suite's lease length applies unless
// spec says otherwise.
func (e *env) open(specs ...queue.QueueSpec) queue.Queue {
	e.Helper()
	q, err := e.tryOpen(specs...)
	if err != nil {
		e.Fatalf("opening a queue: %v", err)
	}
	return q
}

func (e *env) tryOpen(specs ...queue.QueueSpec) (queue.Queue, error) {
	e.Helper()
	spec := queue.QueueSpec{}
	if len(specs) > 0 {
		spec = specs[0]
	}
	if spec.Lease == 0 {
		spec.Lease = e.lease
	}
	spec.Ordered = spec.Ordered || e.h.Ordered
	name := uniqueName()
	if err := e.create(name, &spec); err != nil {
		return nil, err
	}
	return e.openNamed(opening{name, queue.OpenOptions{Ordered: spec.Ordered, Lease: spec.Lease, Logger: e.log.logger()}})
}

func (e *env) create(name string, spec *queue.QueueSpec) error {
	if e.in.Create != nil {
		return e.in.Create(e.ctx, name, spec)
	}
	en, ok := queue.As[queue.Ensurer](e.in.Backend)
	if !ok {
		return errors.New("the backend is no Ensurer, and the harness has no Create")
	}
	_, err := en.Ensure(e.ctx, name, spec)
	return err
}

func (e *env) openNamed(o opening) (queue.Queue, error) {
	q, err := e.in.Backend.Open(e.ctx, o.name, &o.opts)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.opened = append(e.opened, q)
	e.names[q] = o
	return q, nil
}

// again opens the same queue once more, as another process would.
func (e *env) again(q queue.Queue) queue.Queue {
	e.Helper()
	e.mu.Lock()
	o, ok := e.names[q]
	e.mu.Unlock()
	if !ok {
		e.Fatal("queuetest: opened again what wasn't opened")
	}
	q, err := e.openNamed(o)
	if err != nil {
		e.Fatalf("opening %q again: %v", o.name, err)
	}
	return q
}

// name is the portable name of a queue that open has created.
func (e *env) name(q queue.Queue) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.names[q].name
}

// openPair opens a queue and its dead-letter queue.
func (e *env) openPair(spec queue.QueueSpec) (q, dead queue.Queue) {
	e.Helper()
	dead = e.open(queue.QueueSpec{IsDeadLetter: true, Ordered: spec.Ordered})
	q = e.open(spec)
	return q, dead
}

// ordered opens an ordered queue. Where there are none it asserts that they are
// refused, and reports false.
func (e *env) ordered() (queue.Queue, bool) {
	e.Helper()
	return e.orderedSpec(queue.QueueSpec{Ordered: true})
}

func (e *env) orderedSpec(spec queue.QueueSpec) (queue.Queue, bool) {
	e.Helper()
	q, err := e.tryOpen(spec)
	if err == nil && q.Capabilities().Ordering {
		return q, true
	}
	if !e.lacks(featureOrdering) {
		e.Fatalf("no ordered queue: %v", err)
	}
	if err != nil {
		e.wantErr(err, queue.ErrUnsupported, "opening an ordered queue")
		return nil, false
	}
	m := text("keyed")
	m.OrderingKey = "k"
	e.wantErr(q.Publish(e.ctx, m), queue.ErrUnsupported, "publishing an OrderingKey to a queue that isn't ordered")
	return nil, false
}

// lacks reports whether the suite's table allows the backend to be without a
// feature, and fails when the table names what isn't known.
func (e *env) lacks(f feature) bool {
	_, ok := lacking[e.h.Name][f]
	return ok
}

func uniqueName() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return "qt-" + hex.EncodeToString(b[:])
}

// ---- messages

func text(body string) *queue.Message { return &queue.Message{Body: []byte(body)} }

// texts returns n messages named prefix0, prefix1, ...
func texts(prefix string, n int) []*queue.Message {
	out := make([]*queue.Message, n)
	for i := range out {
		out[i] = text(fmt.Sprint(prefix, i))
	}
	return out
}

// keyed returns a message with an ordering key.
func keyed(key, body string) *queue.Message {
	m := text(body)
	m.OrderingKey = key
	return m
}

func (e *env) publish(p queue.Publisher, msgs ...*queue.Message) {
	e.Helper()
	if err := p.Publish(e.ctx, msgs...); err != nil {
		e.Fatalf("Publish: %v", err)
	}
}

// publishCount publishes n messages named prefix0, prefix1, ... in one call.
func (e *env) publishCount(p queue.Publisher, prefix string, n int) {
	e.Helper()
	e.publish(p, texts(prefix, n)...)
}

// ---- assertions

func (e *env) wantErr(err, want error, doing string) {
	e.Helper()
	if !errors.Is(err, want) {
		e.Errorf("%s: got error %v, want one that is %v", doing, err, want)
	}
}

// wantLimit fails unless err holds a *queue.LimitError with these values.
func (e *env) wantLimit(err error, field string, got, limit int) {
	e.Helper()
	var le *queue.LimitError
	if !errors.As(err, &le) {
		e.Errorf("%s of %d, with a limit of %d: got error %v, want a *LimitError", field, got, limit, err)
		return
	}
	if !strings.Contains(le.Field, field) || le.Max != int64(limit) || le.Got < int64(got) || le.System == "" {
		e.Errorf("%s of %d, with a limit of %d: got %+v", field, got, limit, *le)
	}
}

func equal[T comparable](e *env, what string, got, want T) {
	e.Helper()
	if got != want {
		e.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// between fails unless got lies from low to high plus the slack.
func (e *env) between(what string, got, low, high time.Duration) {
	e.Helper()
	if got < low || got > high+e.slack {
		e.Errorf("%s: took %v, want %v to %v", what, got, low, high+e.slack)
	}
}

// await waits until ok. It's looked at whenever something has happened in the
// test, and now and then for what happens elsewhere.
func (e *env) await(what string, ok func() bool) {
	e.Helper()
	if !e.eventually(e.patience, ok) {
		e.Fatalf("waited %v for: %s", e.patience, what)
	}
}

func (e *env) eventually(limit time.Duration, ok func() bool) bool {
	end := time.NewTimer(limit)
	defer end.Stop()
	tick := time.NewTicker(pick(e.h.long(), max(time.Second, limit/5000), 20*time.Millisecond))
	defer tick.Stop()
	for {
		changed := e.poke.wait()
		if ok() {
			return true
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-end.C:
			return ok()
		}
	}
}

// quiet lets time pass in which something must not happen: an absence has no
// event to wait for.
func (e *env) quiet(d time.Duration) { time.Sleep(d) }

// longer picks the length for virtual time, or the one for a real server.
func (e *env) longer(virtual, server time.Duration) time.Duration {
	return pick(e.h.long(), virtual, server)
}

// ---- things to wait for

// signal tells its waiters that something has changed.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

func newSignal() *signal { return &signal{ch: make(chan struct{})} }

func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ch
}

func (s *signal) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.ch)
	s.ch = make(chan struct{})
}

// latch holds handlers until it's opened, which happens at the end of the test
// at the latest.
type latch struct {
	once sync.Once
	ch   chan struct{}
}

func (e *env) latch() *latch {
	l := &latch{ch: make(chan struct{})}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.latches = append(e.latches, l)
	return l
}

func (l *latch) open() { l.once.Do(func() { close(l.ch) }) }

// wait ignores every context.
func (l *latch) wait() { <-l.ch }

// obey waits for the latch or for the end of ctx, and tells why it ended.
func (l *latch) obey(ctx context.Context) error {
	select {
	case <-l.ch:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// linger waits for d or for the end of ctx, and tells why it ended.
func linger(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// logBuffer keeps what was logged, a line per Write, to be shown when the test
// fails: the beginning and the end.
type logBuffer struct {
	mu    sync.Mutex
	lines int
	head  bytes.Buffer
	tail  []string
}

const logHead, logTail = 15, 15

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lines++; l.lines <= logHead {
		l.head.Write(p)
		return len(p), nil
	}
	if len(l.tail) == logTail {
		l.tail = l.tail[1:]
	}
	l.tail = append(l.tail, string(p))
	return len(p), nil
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.head.String()
	if cut := l.lines - logHead - len(l.tail); cut > 0 {
		out += fmt.Sprintf("... %d more lines ...\n", cut)
	}
	return out + strings.Join(l.tail, "")
}

func (l *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
