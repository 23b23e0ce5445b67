package config

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
)

// brokerNet is how many times the file's own limit the broker is given, which
// knows nothing of snoozes and shutdowns and keeps no history.
const brokerNet = 10

// ensuring is how many queues Bus.Ensure works on at a time.
const ensuring = 16

// EnsureOptions are the settings of Bus.Ensure. Nil and the zero value are usable.
type EnsureOptions struct {
	// Only are patterns of path.Match, such as blast-*, for the queues to ensure; their
	// dead-letter queues come along. One that matches no queue is refused. Default: all.
	Only []string

	// DryRun changes nothing: the reports say what would be done.
	DryRun bool

	// Update changes queues that differ from the file, as far as the broker can.
	// Otherwise the reports only say how.
	Update bool
}

// Ensured says what was done about one queue, or would be.
type Ensured struct {
	Queue   string
	Backend string // as the file calls it
	Report  queue.EnsureReport
	// Skipped says why nothing was looked at: the queue has an address, so that it's
	// somebody else's.
	Skipped string
	Err     error
}

// Ensure makes the queues of the file exist, whatever the file's own ensure says, or
// tells what's missing: dead-letter queues before those that dead-letter to them,
// sixteen at a time. It never deletes. The reports are in the order of the file. One
// queue's failure doesn't keep the others from being ensured; those that dead-letter
// to it fail, too.
func (b *Bus) Ensure(ctx context.Context, opts *EnsureOptions) ([]Ensured, error) {
	if opts == nil {
		opts = &EnsureOptions{}
	}
	chosen, err := b.choose("EnsureOptions.Only", opts.Only)
	if err != nil {
		return nil, err
	}
	if chosen != nil {
		for _, q := range b.file.Queues {
			for at := q; chosen[q.Name] && at.DeadLetter != nil; {
				at = b.queues[at.DeadLetter.Queue]
				chosen[at.Name] = true
			}
		}
	}
	run := &ensureRun{bus: b, opts: *opts, slots: make(chan struct{}, ensuring), done: map[string]chan struct{}{}, made: map[string]*Ensured{}}
	var out []Ensured
	for _, q := range b.file.Queues {
		if chosen == nil || chosen[q.Name] {
			out = append(out, Ensured{Queue: q.Name, Backend: q.Backend})
			run.done[q.Name] = make(chan struct{})
		}
	}
	var wg sync.WaitGroup
	for i := range out {
		wg.Go(func() { run.one(ctx, &out[i]) })
	}
	wg.Wait()
	return out, nil
}

// ensureRun is one call of Ensure.
type ensureRun struct {
	bus   *Bus
	opts  EnsureOptions
	slots chan struct{}
	done  map[string]chan struct{} // by queue; closed when it's ensured or isn't

	mu   sync.Mutex
	made map[string]*Ensured
}

// one ensures a queue once its dead-letter queue is there.
func (r *ensureRun) one(ctx context.Context, e *Ensured) {
	q := r.bus.queues[e.Queue]
	defer func() {
		r.mu.Lock()
		r.made[q.Name] = e
		r.mu.Unlock()
		close(r.done[q.Name])
	}()
	dead := &Ensured{}
	if dl := q.DeadLetter; dl != nil {
		<-r.done[dl.Queue]
		r.mu.Lock()
		dead = r.made[dl.Queue]
		r.mu.Unlock()
		if dead.Err != nil {
			e.Err = fmt.Errorf("its dead-letter queue %s: %w", dl.Queue, dead.Err)
			return
		}
	}
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		e.Err = fmt.Errorf("config: ensure: %w", context.Cause(ctx))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	spec := r.bus.spec(q)
	spec.DryRun, spec.Update = r.opts.DryRun, r.opts.Update
	report, skipped, err := r.bus.ensureOne(ctx, q, spec)
	e.Report, e.Skipped, e.Err = without(report, &dead.Report), skipped, err
}

// without leaves out what was said about the dead-letter queue already, which backends
// ensure along with a queue.
func without(r queue.EnsureReport, said *queue.EnsureReport) queue.EnsureReport {
	return queue.EnsureReport{
		Created: missing(r.Created, said.Created), Changed: missing(r.Changed, said.Changed),
		Differences: missing(r.Differences, said.Differences), Warnings: missing(r.Warnings, said.Warnings),
	}
}

func missing(lines, said []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return slices.Contains(said, line) })
}

// ensureOne ensures a queue, but not its dead-letter queue. A queue with an address is
// somebody else's to create.
func (b *Bus) ensureOne(ctx context.Context, q *Queue, spec *queue.QueueSpec) (report queue.EnsureReport, skipped string, err error) {
	if q.Address != "" {
		return report, "it has an address: " + q.Address, nil
	}
	backend := b.backends[q.Backend]
	e, ok := queue.As[queue.Ensurer](backend)
	if !ok {
		return report, "", fmt.Errorf("ensure: %w", &queue.UnsupportedError{Feature: "creating queues", System: backend.System()})
	}
	r, err := e.Ensure(ctx, q.Name, spec)
	if r != nil {
		report = *r
	}
	return report, "", err
}

// ensure creates a queue that doesn't exist, after the ones that it dead-letters
// to; those don't lead back, or the file would have been refused.
func (b *Bus) ensure(ctx context.Context, q *Queue) error {
	if q.DeadLetter != nil {
		if err := b.ensure(ctx, b.queues[q.DeadLetter.Queue]); err != nil {
			return fmt.Errorf("its dead-letter queue: %w", err)
		}
	}
	report, skipped, err := b.ensureOne(ctx, q, b.spec(q))
	if err != nil {
		return err
	}
	if skipped != "" {
		b.log().Debug("not created", "queue", q.Name, "what", skipped)
	}
	if len(report.Created) > 0 {
		b.log().Info("created", "queue", q.Name, "what", report.Created)
	}
	if len(report.Changed) > 0 {
		b.log().Info("changed", "queue", q.Name, "what", report.Changed)
	}
	b.warn("differs from the file", q, report.Differences)
	b.warn("needs somebody else", q, report.Warnings)
	return nil
}

// warn logs what wasn't said before: a dead-letter queue is ensured as often as those
// that need it are opened.
func (b *Bus) warn(text string, q *Queue, lines []string) {
	for _, line := range lines {
		b.mu.Lock()
		said := b.warned[line]
		b.warned[line] = true
		b.mu.Unlock()
		if !said {
			b.log().Warn(text, "queue", q.Name, "what", line)
		}
	}
}

func (b *Bus) spec(q *Queue) *queue.QueueSpec {
	spec := &queue.QueueSpec{Ordered: q.Ordered, Lease: q.Lease, Retention: q.Retention, IsDeadLetter: b.targets[q.Name], Tags: q.Tags}
	if dl := q.DeadLetter; dl != nil {
		// The broker can only move messages to a queue of its own, and knows
		// nothing of keys that are to wait.
		to := b.queues[dl.Queue]
		if to.Backend == q.Backend && to.Address == "" && dl.MaxFailures > 0 && dl.OnExhausted != middleware.Block {
			spec.DeadLetter, spec.DeadLetterSpec = dl.Queue, &queue.QueueSpec{Lease: to.Lease, Retention: to.Retention, Tags: to.Tags}
			spec.BrokerMaxAttempts = brokerNet * dl.MaxFailures
		}
	}
	return spec
}
