package config

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
)

// openTimeout is how long opening a queue may take, as a backend's own attempts
// needn't end.
const openTimeout = 30 * time.Second

// A Bus publishes to the queues of a File and consumes them. It opens each when
// it's first used and closes them all in Close. Its methods may be called
// concurrently, but for Run, which runs once at a time.
type Bus struct {
	file     *File
	queues   map[string]*Queue
	targets  map[string]bool // queues that others dead-letter to
	backends Backends
	opts     Options
	selected map[string]bool // queues that Run consumes; nil: all
	limits   map[string][]queue.Middleware

	mu         sync.Mutex
	publishers map[string]queue.Publisher
	shared     map[sharedKey]*shared
	workers    map[string]*worker
	mistakes   []error         // of Handle, for Run to return
	warned     map[string]bool // lines of Ensure's reports that were logged
	closed     bool
	stop       context.CancelFunc // ends the Run that's under way
	running    context.Context    //nolint:containedctx // of that Run
	done       chan struct{}      // closed when it has returned; nil: none is under way
}

type sharedKey struct {
	queue string
	mode  queue.OpenMode
}

// worker is what Handle was given, and what has become of it.
type worker struct {
	queue      *Queue
	handler    queue.Handler
	middleware []queue.Middleware // complete, the outermost first

	// Of Bus.mu.
	consumer *queue.Consumer     // while it runs
	before   queue.ConsumerStats // of the last one, when it had ended
	status   Status
	since    time.Time // of status
	err      error     // why it isn't running
	failures int       // starts in a row that have failed
	again    time.Time // when it's started again
	control  control
}

// OpenFile returns a Bus for a File, which must not be changed afterwards.
// Nothing is connected yet. It fails with an *Error when the file contradicts
// itself or names a backend that isn't in backends, and with a
// *queue.InvalidError when options are wrong.
func OpenFile(f *File, backends Backends, opts *Options) (*Bus, error) {
	if f == nil {
		return nil, &queue.InvalidError{Field: "File", Reason: "nil"}
	}
	if err := newError(slices.Concat(f.validate(), f.checkBackends(backends))); err != nil {
		return nil, err
	}
	if opts == nil {
		opts = &Options{}
	}
	if slices.Contains(opts.Middleware, nil) {
		return nil, &queue.InvalidError{Field: "Options.Middleware", Reason: "has a nil"}
	}
	for _, mw := range opts.PublisherMiddleware {
		if mw == nil {
			return nil, &queue.InvalidError{Field: "Options.PublisherMiddleware", Reason: "has a nil"}
		}
	}
	if opts.DrainTimeout < 0 {
		return nil, &queue.InvalidError{Field: "Options.DrainTimeout", Reason: "negative"}
	}
	b := &Bus{
		file: f, queues: f.names(), targets: map[string]bool{}, backends: backends, opts: *opts,
		limits:     map[string][]queue.Middleware{},
		publishers: map[string]queue.Publisher{}, shared: map[sharedKey]*shared{}, workers: map[string]*worker{},
		warned: map[string]bool{},
	}
	for _, q := range f.Queues {
		if q.DeadLetter != nil {
			b.targets[q.DeadLetter.Queue] = true
		}
	}
	var err error
	if b.selected, err = b.choose("Options.Only", opts.Only); err != nil {
		return nil, err
	}
	for _, l := range f.Limits {
		b.limits[l.Name] = l.gates()
	}
	return b, nil
}

// Publisher returns the publisher of a queue, with the queue's default delay, and in
// Options.PublisherMiddleware.
// The queue is opened by the first Publish, which also is where a name that
// isn't in the file, or a queue that can't be opened, becomes an error; a queue
// that couldn't be opened is tried again by the next Publish.
func (b *Bus) Publisher(name string) queue.Publisher {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p, ok := b.publishers[name]; ok {
		return p
	}
	q, err := b.find("Publisher", name)
	if err != nil {
		return queue.PublisherFunc(func(_ context.Context, msgs ...*queue.Message) error { return refuse(err, len(msgs)) })
	}
	p := newPublisher(b.sharedLocked(q, queue.ForPublish), append(slices.Clone(b.opts.PublisherMiddleware), middleware.Delay(q.Delay))...)
	b.publishers[name] = p
	return p
}

// Handle says which handler processes the deliveries of a queue. The settings of
// the file are applied to it; more middleware goes inside of them, next to the
// handler. It's called before Run, which returns what was wrong: a queue that
// isn't in the file, one that has a handler already, a nil.
func (b *Bus) Handle(name string, h queue.Handler, mw ...queue.Middleware) {
	b.mu.Lock()
	err := b.handleLocked(name, h, mw)
	if err != nil {
		b.mistakes = append(b.mistakes, err)
	}
	running := b.done != nil
	b.mu.Unlock()
	if err != nil && running { // else Run says it
		b.log().Error("handler refused", "queue", name, "err", err)
	}
}

func (b *Bus) handleLocked(name string, h queue.Handler, mw []queue.Middleware) error {
	q, err := b.find("Handle", name)
	switch {
	case err != nil:
		return err
	case h == nil:
		return &queue.InvalidError{Field: "Handle", Reason: "the handler of " + name + " is nil"}
	case slices.Contains(mw, nil):
		return &queue.InvalidError{Field: "Handle", Reason: "the middleware of " + name + " has a nil"}
	case b.workers[name] != nil:
		return &queue.InvalidError{Field: "Handle", Reason: name + " has a handler already"}
	case b.done != nil:
		return &queue.InvalidError{Field: "Handle", Reason: name + " was given its handler after Run had begun"}
	}
	b.workers[name] = &worker{queue: q, handler: h, middleware: b.composeLocked(q, mw), since: time.Now()}
	return nil
}

// File returns what the Bus was made from. It must not be changed.
func (b *Bus) File() *File { return b.file }

// Queue opens a queue for everything that can be done with it, such as looking
// into it with queue.Inspector or emptying a dead-letter queue with
// queue.Redrive. It's opened once, without the default delay of the file, and
// belongs to the Bus: don't close it.
func (b *Bus) Queue(ctx context.Context, name string) (queue.Queue, error) {
	return b.QueueFor(ctx, name, queue.ForBoth)
}

// QueueFor is Queue for no more than one purpose, where the permissions may allow no
// more. To look into a queue, and to empty it, queue.ForConsume is enough.
func (b *Bus) QueueFor(ctx context.Context, name string, mode queue.OpenMode) (queue.Queue, error) {
	b.mu.Lock()
	q, err := b.find("Queue", name)
	if err != nil {
		b.mu.Unlock()
		return nil, err
	}
	s := b.sharedLocked(q, mode)
	b.mu.Unlock()
	return s.get(ctx)
}

// Close ends Run, as if its context had ended, waits for it, and closes what the
// Bus has opened; until ctx ends. Closing twice is harmless.
func (b *Bus) Close(ctx context.Context) error {
	b.mu.Lock()
	b.closed = true
	stop, done := b.stop, b.done
	b.mu.Unlock()
	var errs []error
	if done != nil {
		stop()
		select {
		case <-done:
		case <-ctx.Done():
			errs = append(errs, fmt.Errorf("config: close: consumers are still running: %w", context.Cause(ctx)))
		}
	}
	b.mu.Lock()
	for _, w := range b.workers {
		w.control.paused.clear()
		w.control.limit.clear()
	}
	open := make([]*shared, 0, len(b.shared))
	for _, s := range b.shared {
		open = append(open, s)
	}
	b.mu.Unlock()
	results := make(chan error, len(open))
	for _, s := range open {
		go func() { results <- s.close(ctx) }()
	}
	for range open {
		errs = append(errs, <-results)
	}
	return errors.Join(errs...)
}

// find returns the queue of that name.
func (b *Bus) find(field, name string) (*Queue, error) {
	if q, ok := b.queues[name]; ok {
		return q, nil
	}
	return nil, b.file.noQueue(field, name)
}

// sharedLocked returns the queue as it's used for one purpose by all who need
// it: opened for no more than that, as the permissions may allow no more.
func (b *Bus) sharedLocked(q *Queue, mode queue.OpenMode) *shared {
	key := sharedKey{q.Name, mode}
	if s, ok := b.shared[key]; ok {
		return s
	}
	s := newShared(q.Name, func(ctx context.Context) (queue.Queue, error) { return b.open(ctx, q, mode) })
	if b.closed {
		s.closed = true
	}
	b.shared[key] = s
	return s
}

// open opens a queue, and creates it before if the file says so.
func (b *Bus) open(ctx context.Context, q *Queue, mode queue.OpenMode) (queue.Queue, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if b.file.Ensure {
		if err := b.ensure(ctx, q); err != nil {
			return nil, fmt.Errorf("config: queue %s: %w", q.Name, err)
		}
	}
	opened, err := b.backends[q.Backend].Open(ctx, q.Name, &queue.OpenOptions{
		Mode: mode, Ordered: q.Ordered, Address: q.Address, Lease: q.Lease, Logger: b.opts.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("config: queue %s: %w", q.Name, err)
	}
	return opened, nil
}

func (b *Bus) log() *slog.Logger {
	if b.opts.Logger != nil {
		return b.opts.Logger
	}
	return slog.Default()
}
