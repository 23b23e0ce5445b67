package queuetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// consumer is a queue.Consumer that a test runs.
type consumer struct {
	*queue.Consumer
	e      *env
	cancel context.CancelFunc
	done   chan struct{}
	err    error // of Run; after done

	mu      sync.Mutex
	settled []queue.Settled
}

// consume runs a consumer until the end of the test at the latest. Its backoff
// is one unit, without chance, unless a change says otherwise.
func (e *env) consume(sub queue.Subscriber, h queue.Handler, changes ...func(*queue.ConsumerOptions)) *consumer {
	e.Helper()
	c := e.consumer(sub, h, changes...)
	c.run()
	return c
}

// consumer makes a consumer without running it.
func (e *env) consumer(sub queue.Subscriber, h queue.Handler, changes ...func(*queue.ConsumerOptions)) *consumer {
	e.Helper()
	c := &consumer{e: e}
	o := &queue.ConsumerOptions{
		Concurrency: 8, Backoff: queue.Backoff{Min: e.unit, Max: e.unit, Jitter: -1},
		DrainTimeout: e.patience / 2, Logger: e.log.logger(),
		Hooks: &queue.Hooks{Settled: c.note},
	}
	for _, change := range changes {
		change(o)
	}
	var err error
	if c.Consumer, err = queue.NewConsumer(sub, h, o); err != nil {
		e.Fatalf("NewConsumer: %v", err)
	}
	return c
}

// run begins Run. It may be called again after stop.
func (c *consumer) run() {
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel, c.done, c.err = cancel, make(chan struct{}), nil
	c.e.mu.Lock()
	if !slices.Contains(c.e.running, c) {
		c.e.running = append(c.e.running, c)
	}
	c.e.mu.Unlock()
	done := c.done
	go func() {
		defer close(done)
		c.err = c.Run(ctx)
		c.e.poke.tell()
	}()
}

func (c *consumer) note(s queue.Settled) {
	// What it's given is only lent.
	d := *s.Delivery
	d.Body, d.Attributes = slices.Clone(d.Body), maps.Clone(d.Attributes)
	s.Delivery = &d
	c.mu.Lock()
	c.settled = append(c.settled, s)
	c.mu.Unlock()
	c.e.poke.tell()
}

// outcomes returns what became of the deliveries so far.
func (c *consumer) outcomes() []queue.Settled {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.settled)
}

// ended waits for the end of Run.
func (c *consumer) ended(limit time.Duration) bool {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-c.done:
		return true
	case <-t.C:
		return false
	}
}

// stop ends Run as a shutdown does, and fails unless it drains cleanly.
func (c *consumer) stop() {
	c.e.Helper()
	if err := c.stopErr(); err != nil {
		c.e.Errorf("Run: %v", err)
	}
}

func (c *consumer) stopErr() error {
	c.e.Helper()
	c.cancel()
	if !c.ended(c.e.patience) {
		c.e.Fatalf("Run hasn't returned %v after its context ended", c.e.patience)
	}
	return c.err
}

// ---- recording what handlers see

// call is one call of a handler.
type call struct {
	name  string // the body: what tests tell messages by
	nth   int    // of this name, from 1
	d     queue.Delivery
	start time.Time
	end   time.Time // zero: still running
	err   error     // what the handler returned
}

var errNotReturned = errors.New("queuetest: the handler hasn't returned")

// recorder remembers the calls of handlers.
type recorder struct {
	e       *env
	mu      sync.Mutex
	calls   []*call
	count   map[string]int
	running int
	peak    int
}

func (e *env) recorder() *recorder { return &recorder{e: e, count: map[string]int{}} }

// handle returns a handler that records and then calls fn with the number of
// times that this message has come, from 1. A nil fn succeeds.
//
// It also holds every delivery to what is promised for all of them: no handler
// starts when its lease is already over.
func (r *recorder) handle(fn func(ctx context.Context, d *queue.Delivery, nth int) error) queue.Handler {
	return func(ctx context.Context, d *queue.Delivery) (err error) {
		c := r.begin(d)
		err = errNotReturned // a panic doesn't set it
		defer func() { r.finish(c, err) }()
		if !d.Deadline.IsZero() && !c.start.Before(d.Deadline) {
			r.e.Errorf("%q: its handler started at %v, when its lease had ended at %v", c.name, c.start, d.Deadline)
		}
		if fn == nil {
			return nil
		}
		err = fn(ctx, d, c.nth)
		return err
	}
}

// ok succeeds at once.
func (r *recorder) ok() queue.Handler { return r.handle(nil) }

func (r *recorder) begin(d *queue.Delivery) *call {
	c := &call{name: string(d.Body), d: *d, start: time.Now()}
	c.d.Body, c.d.Attributes = slices.Clone(d.Body), maps.Clone(d.Attributes)
	if d.DeadLetter != nil {
		dl := *d.DeadLetter
		c.d.DeadLetter = &dl
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count[c.name]++
	c.nth = r.count[c.name]
	r.calls = append(r.calls, c)
	r.running++
	r.peak = max(r.peak, r.running)
	r.e.poke.tell()
	return c
}

func (r *recorder) finish(c *call, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.end, c.err = time.Now(), err
	r.running--
	r.e.poke.tell()
}

// started tells how many calls there were, of the name or, for "", of all.
func (r *recorder) started(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if name == "" {
		return len(r.calls)
	}
	return r.count[name]
}

// finished tells how many calls have returned.
func (r *recorder) finished() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, c := range r.calls {
		if !c.end.IsZero() {
			n++
		}
	}
	return n
}

func (r *recorder) inUse() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.running
}

// highest is the most calls that ran at once since the last time it was asked.
func (r *recorder) highest() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.peak
	r.peak = r.running
	return n
}

// all returns the calls so far, in the order of their starts.
func (r *recorder) all() []call {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]call, len(r.calls))
	for i, c := range r.calls {
		out[i] = *c
	}
	return out
}

// of returns the calls for one message.
func (r *recorder) of(name string) []call {
	return slices.DeleteFunc(r.all(), func(c call) bool { return c.name != name })
}

// awaitEnds waits until the first n calls for a message have returned, and returns them.
func (r *recorder) awaitEnds(name string, n int) []call {
	r.e.Helper()
	var got []call
	r.e.await(fmt.Sprintf("%d calls for %q to return", n, name), func() bool {
		got = r.of(name)
		return len(got) >= n && !slices.ContainsFunc(got[:n], func(c call) bool { return c.end.IsZero() })
	})
	return got
}

// awaitStarts waits for n calls in all, or for one message.
func (r *recorder) awaitStarts(name string, n int) {
	r.e.Helper()
	r.e.await(fmt.Sprintf("%d calls for %q to start", n, name), func() bool { return r.started(name) >= n })
}

// awaitAll waits until each of prefix0 ... prefix(n-1) has been handled.
func (r *recorder) awaitAll(prefix string, n int) {
	r.e.Helper()
	r.e.await(fmt.Sprintf("%s0 to %s%d to be handled", prefix, prefix, n-1), func() bool { return len(r.missing(prefix, n)) == 0 })
}

func (r *recorder) missing(prefix string, n int) []string {
	done := map[string]bool{}
	for _, c := range r.all() {
		done[c.name] = done[c.name] || !c.end.IsZero()
	}
	var out []string
	for i := range n {
		if name := fmt.Sprint(prefix, i); !done[name] {
			out = append(out, name)
		}
	}
	return out
}

// expect fails unless a message was handled exactly n times.
func (r *recorder) expect(name string, n int) {
	r.e.Helper()
	if got := r.started(name); got != n {
		r.e.Errorf("%q was handled %d times, want %d", name, got, n)
	}
}

// expectGone fails when anything comes out of q within a while in which leases
// would have ended.
func (e *env) expectGone(q queue.Queue) {
	e.Helper()
	r := e.recorder()
	c := e.consume(q, r.ok())
	e.quiet(e.longer(time.Hour, e.lease+2*e.unit))
	c.stop()
	for _, c := range r.all() {
		e.Errorf("%q is still in the queue (attempt %d)", c.name, c.d.Attempt)
	}
}
