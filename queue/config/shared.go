package config

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/anyqueue/anyqueue/queue"
)

// shared is a queue that's opened when it's first needed, once for all who use
// it. A failure is told to those who waited for it, and the next one tries again.
type shared struct {
	name string
	open func(context.Context) (queue.Queue, error)
	// opened is set once; reading it needs no lock, as it's on the way of every
	// publish.
	opened atomic.Pointer[queue.Queue]

	mu      sync.Mutex
	pending *opening // under way
	closed  bool
}

// opening is one attempt to open the queue. It's not tied to the context of the
// one who began it, as others wait for it too.
type opening struct {
	done   chan struct{}
	cancel context.CancelFunc
	err    error
}

func newShared(name string, open func(context.Context) (queue.Queue, error)) *shared {
	return &shared{name: name, open: open}
}

// get returns the queue, waiting until it's open or ctx ends.
func (s *shared) get(ctx context.Context) (queue.Queue, error) {
	if q := s.opened.Load(); q != nil {
		return *q, nil
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, queue.ErrClosed
	}
	o := s.pending
	if o == nil && s.opened.Load() == nil {
		o = s.beginLocked(ctx)
	}
	s.mu.Unlock()
	if o != nil {
		select {
		case <-o.done:
		case <-ctx.Done():
			return nil, fmt.Errorf("config: opening queue %s, which takes longer: %w", s.name, context.Cause(ctx))
		}
		if o.err != nil {
			return nil, o.err
		}
	}
	return *s.opened.Load(), nil
}

func (s *shared) beginLocked(ctx context.Context) *opening {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	o := &opening{done: make(chan struct{}), cancel: cancel}
	s.pending = o
	go func() {
		defer cancel()
		q, err := s.open(ctx)
		s.mu.Lock()
		s.pending = nil
		closed := s.closed
		if err == nil && !closed {
			s.opened.Store(&q)
		}
		s.mu.Unlock()
		if err == nil && closed { // nobody else will close it
			cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
			defer cancel()
			err = errors.Join(queue.ErrClosed, q.Close(cctx))
		}
		o.err = err
		close(o.done)
	}()
	return o
}

// Publish opens the queue, if need be, and publishes to it.
func (s *shared) Publish(ctx context.Context, msgs ...*queue.Message) error {
	if q := s.opened.Load(); q != nil {
		return (*q).Publish(ctx, msgs...)
	}
	ctx, cancel := queue.PublishContext(ctx)
	defer cancel()
	q, err := s.get(ctx)
	if err != nil {
		return refuse(err, len(msgs))
	}
	return q.Publish(ctx, msgs...)
}

// Unwrap lets queue.As find what the queue can do, once it's open.
func (s *shared) Unwrap() queue.Publisher {
	if q := s.opened.Load(); q != nil {
		return *q
	}
	return nil
}

// publisher is what a Bus gives out: a shared queue in middleware that's applied once
// it's open.
type publisher struct {
	shared  *shared
	wrapped func() queue.Publisher // asks for the open queue
}

func newPublisher(s *shared, mw ...queue.PublisherMiddleware) *publisher {
	return &publisher{s, sync.OnceValue(func() queue.Publisher { return queue.WrapPublisher(*s.opened.Load(), mw...) })}
}

// Publish opens the queue, if need be, and publishes to it.
func (p *publisher) Publish(ctx context.Context, msgs ...*queue.Message) error {
	if p.shared.opened.Load() != nil {
		return p.wrapped().Publish(ctx, msgs...)
	}
	ctx, cancel := queue.PublishContext(ctx)
	defer cancel()
	if _, err := p.shared.get(ctx); err != nil {
		return refuse(err, len(msgs))
	}
	return p.wrapped().Publish(ctx, msgs...)
}

// Unwrap lets queue.As find what the queue can do, once it's open.
func (p *publisher) Unwrap() queue.Publisher {
	if p.shared.opened.Load() == nil {
		return nil
	}
	return p.wrapped()
}

// close ends an attempt to open the queue, and closes it if it's open.
func (s *shared) close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	o := s.pending
	s.mu.Unlock()
	if o != nil {
		o.cancel()
		select {
		case <-o.done:
		case <-ctx.Done():
			return fmt.Errorf("config: close: a queue is still being opened: %w", context.Cause(ctx))
		}
	}
	if q := s.opened.Load(); q != nil {
		return (*q).Close(ctx)
	}
	return nil
}

// refuse is the error of a Publish of n messages that fails as a whole.
func refuse(err error, n int) error {
	if n == 0 {
		return err
	}
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return queue.NewPublishError(errs)
}
