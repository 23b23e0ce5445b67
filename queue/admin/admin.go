package admin

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/config"
)

// Options are the settings of New. Nil and the zero value are usable.
type Options struct {
	// Parallel is how many queues of a backend Stats asks at a time. Default 16.
	Parallel int

	// Timeout is how long a queue may take to open, and as long again to answer Stats.
	// Peek, Purge and Publish take the time that their context gives them. Default 10 s.
	Timeout time.Duration

	// Store keeps redrive operations. Default: none, so that they end with the process.
	// With a SharedStore, such as FileStore, several processes can operate the same queues.
	Store Store

	// Logger gets a line for everything that's changed, or was to be, with who did it and
	// why; never a message's content. Default: slog.Default().
	Logger *slog.Logger
}

// Admin operates the queues of a Bus. It's made by New.
type Admin struct {
	bus  *config.Bus
	file *config.File
	opts Options

	shared SharedStore // Options.Store, if it's one

	mu         sync.Mutex
	ops        map[string]*operation
	unreadable map[string]bool // operations of which that was logged
	closed     bool
}

// New returns an Admin for the queues of a Bus, with the operations that the Store has:
// those that were under way, and aren't in another process, are Interrupted now, until
// ResumeRedrive. It fails when the Store can't be read; what's wrong with a single
// operation is logged, and the operation left out.
func New(ctx context.Context, bus *config.Bus, opts *Options) (*Admin, error) {
	if bus == nil {
		return nil, &queue.InvalidError{Field: "Bus", Reason: "nil"}
	}
	if opts == nil {
		opts = &Options{}
	}
	a := &Admin{bus: bus, file: bus.File(), opts: *opts, ops: map[string]*operation{}, unreadable: map[string]bool{}}
	switch {
	case a.opts.Parallel < 0:
		return nil, &queue.InvalidError{Field: "Options.Parallel", Reason: "negative"}
	case a.opts.Timeout < 0:
		return nil, &queue.InvalidError{Field: "Options.Timeout", Reason: "negative"}
	}
	if a.opts.Parallel == 0 {
		a.opts.Parallel = 16
	}
	if a.opts.Timeout == 0 {
		a.opts.Timeout = 10 * time.Second
	}
	if a.opts.Store == nil {
		a.opts.Store = nowhere{}
	}
	if a.opts.Logger == nil {
		a.opts.Logger = slog.Default()
	}
	a.shared, _ = a.opts.Store.(SharedStore)
	if err := a.load(ctx); err != nil {
		return nil, err
	}
	return a, nil
}

// Plan tells what Ensure would do, without changing anything.
func (a *Admin) Plan(ctx context.Context, opts *config.EnsureOptions) ([]config.Ensured, error) {
	var o config.EnsureOptions
	if opts != nil {
		o = *opts
	}
	o.DryRun = true
	return a.bus.Ensure(ctx, &o)
}

// Ensure makes the queues of the file exist: see config.Bus.Ensure.
func (a *Admin) Ensure(ctx context.Context, opts *config.EnsureOptions, by By) ([]config.Ensured, error) {
	done, err := a.bus.Ensure(ctx, opts)
	if err != nil || opts != nil && opts.DryRun {
		return done, err
	}
	for _, e := range done {
		if len(e.Report.Created) > 0 {
			a.opts.Logger.Info("created", "queue", e.Queue, "what", e.Report.Created, "actor", by.Actor, "reason", by.Reason)
		}
		if len(e.Report.Changed) > 0 {
			a.opts.Logger.Info("changed", "queue", e.Queue, "what", e.Report.Changed, "actor", by.Actor, "reason", by.Reason)
		}
		if e.Err != nil {
			a.opts.Logger.Warn("not ensured", "queue", e.Queue, "actor", by.Actor, "reason", by.Reason, "err", e.Err)
		}
	}
	return done, nil
}

// open opens a queue; what's open stays so until the Bus is closed.
func (a *Admin) open(ctx context.Context, name string, mode queue.OpenMode) (queue.Queue, error) {
	ctx, cancel := context.WithTimeout(ctx, a.opts.Timeout)
	defer cancel()
	return a.bus.QueueFor(ctx, name, mode)
}

// Close interrupts the operations that are under way, as a crash would, but for the
// batch on its way, which is finished; until ctx ends. The Bus stays open.
func (a *Admin) Close(ctx context.Context) error {
	a.mu.Lock()
	a.closed = true
	var wait []<-chan struct{}
	for _, o := range a.ops {
		if o.done != nil {
			o.stop(errInterrupted)
			wait = append(wait, o.done)
		}
	}
	a.mu.Unlock()
	for _, done := range wait {
		select {
		case <-done:
		case <-ctx.Done():
			return fmt.Errorf("admin: close: a redrive is still under way: %w", context.Cause(ctx))
		}
	}
	return nil
}
