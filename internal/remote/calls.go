package remote

import (
	"context"
	"sync"

	"github.com/anyqueue/anyqueue/queue"
)

// Calls keeps count of the calls in flight. The zero value is ready; its methods
// may be called concurrently.
type Calls struct {
	mu     sync.Mutex
	open   map[*call]struct{}
	inside int // between Enter and Leave
	closed bool
	idle   chan struct{} // made by Close, closed when nothing is open
}

type call struct{ cancel context.CancelFunc }

// Begin registers a call, which ends with the function it returns. The context
// for the call also ends when Close gives up waiting. After Close it fails with
// queue.ErrClosed.
func (c *Calls) Begin(ctx context.Context) (context.Context, func(), error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil, queue.ErrClosed
	}
	ctx, cancel := context.WithCancel(ctx)
	k := &call{cancel}
	if c.open == nil {
		c.open = map[*call]struct{}{}
	}
	c.open[k] = struct{}{}
	return ctx, func() { c.end(k) }, nil
}

func (c *Calls) end(k *call) {
	k.cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, k)
	c.endedLocked()
}

func (c *Calls) endedLocked() {
	if c.closed && len(c.open) == 0 && c.inside == 0 {
		close(c.idle)
	}
}

// Enter registers a call that somebody else cuts off when Close gives up
// waiting. It ends with Leave. After Close it fails with queue.ErrClosed.
func (c *Calls) Enter() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return queue.ErrClosed
	}
	c.inside++
	return nil
}

// Leave ends what Enter has begun.
func (c *Calls) Leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inside--
	c.endedLocked()
}

// Close waits for the calls in flight. Those that are still open when ctx ends
// are cut off, and it returns the error of ctx. Closing twice is harmless.
func (c *Calls) Close(ctx context.Context) error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		c.idle = make(chan struct{})
		c.endedLocked()
	}
	c.mu.Unlock()
	select {
	case <-c.idle:
		return nil
	default:
	}
	select {
	case <-c.idle:
		return nil
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.open {
		k.cancel()
	}
	return ctx.Err()
}
