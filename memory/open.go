package memory

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// Open opens a queue. It fails with queue.ErrQueueNotFound when there's none of
// that name, unless Options.Create is set; then the queue is created as opts say.
// OpenOptions.Address may be "memory:" and a name, which then needn't be a
// portable one.
func (b *Broker) Open(ctx context.Context, name string, opts *queue.OpenOptions) (queue.Queue, error) {
	if opts == nil {
		opts = &queue.OpenOptions{}
	}
	h, err := b.open(ctx, name, opts)
	if err != nil {
		return nil, fmt.Errorf("memory: open %s: %w", name, err)
	}
	return h, nil
}

func (b *Broker) open(ctx context.Context, name string, opts *queue.OpenOptions) (*handle, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if b.err != nil {
		return nil, b.err
	}
	if _, err := b.group.Clock.Now(); err != nil {
		return nil, translate(err)
	}
	name, err := nameOf(name, opts)
	if err != nil {
		return nil, err
	}
	if err := b.like.checkLease(opts.Lease); err != nil {
		return nil, err
	}
	if opts.Ordered && b.like.neverOrdered {
		return nil, &queue.UnsupportedError{Feature: "an ordered queue", System: "memory like " + b.like.name}
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.cores[name]
	if c == nil {
		if !b.opts.Create {
			return nil, fmt.Errorf("%w (Ensure makes queues; with Options.Create, Open does)", queue.ErrQueueNotFound)
		}
		c = b.create(name, settings{ordered: opts.Ordered || b.like.alwaysOrdered, lease: b.lease(), retention: b.retention()})
		b.applyPolicy(c)
	}
	if err := b.checkOrdered(c, opts.Ordered); err != nil {
		return nil, err
	}

	lease := c.spec.lease
	if opts.Lease > 0 {
		lease = opts.Lease
	}
	h := &handle{
		core: c, lease: lease,
		caps: b.capabilities(c),
		stop: make(chan struct{}), drained: make(chan struct{}),
	}
	h.caps.Lease = lease
	h.prep = h.caps
	h.prep.Source.System = b.like.system
	return h, nil
}

// checkOrdered refuses to open a queue in another way than it was made, where
// that would be another queue in the cloud.
func (b *Broker) checkOrdered(c *core, ordered bool) error {
	switch {
	case b.like.alwaysOrdered || ordered == c.spec.ordered:
		return nil
	case ordered:
		return &queue.InvalidError{Field: "Ordered", Reason: "the queue was made without it"}
	case b.like.looseOrdered:
		return nil
	}
	return &queue.InvalidError{Field: "Ordered", Reason: "the queue was made with it; on SQS one opened without it would be another queue"}
}

// handle is an opened queue.
type handle struct {
	core  *core
	lease time.Duration
	caps  queue.Capabilities
	prep  queue.Capabilities // caps, with the system whose options are taken

	// calls counts the calls in flight; closed is added to it by Close.
	calls    atomic.Int64
	stop     chan struct{} // closed by Close
	drained  chan struct{} // closed when calls has come down to closed
	drain    sync.Once
	consumer atomic.Bool // it has received
}

const closed = -1 << 62

// Capabilities tells what the queue can do.
func (h *handle) Capabilities() queue.Capabilities { return h.caps }

func (h *handle) begin() error {
	if h.calls.Add(1) < 0 {
		h.end()
		return queue.ErrClosed
	}
	return nil
}

func (h *handle) end() {
	if h.calls.Add(-1) == closed {
		h.drain.Do(func() { close(h.drained) })
	}
}

// Close ends waiting receives with queue.ErrClosed and waits for calls in
// flight. Messages stay in the queue.
func (h *handle) Close(ctx context.Context) error {
	if _, err := h.core.broker.group.Clock.Now(); err != nil {
		return h.fail("close", err)
	}
	for {
		n := h.calls.Load()
		if n < 0 {
			break
		}
		if h.calls.CompareAndSwap(n, n+closed) {
			close(h.stop)
			if h.consumer.Load() {
				h.core.q.AddConsumer(-1)
			}
			if n == 0 {
				h.drain.Do(func() { close(h.drained) })
			}
			break
		}
	}
	select {
	case <-h.drained:
		return nil
	case <-ctx.Done():
		return h.fail("close", ctx.Err())
	}
}
