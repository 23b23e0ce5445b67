package awsclient

import (
	"context"
	"sync"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs"
)

// LazyBackend is a backend of package sqs whose client is made when something is
// first opened or ensured, and then kept: a program that's configured for another
// backend needs no AWS environment. While making it fails, each call tries again.
// The zero value is that of Backend(nil). It may be used concurrently.
type LazyBackend struct {
	opts  Options
	begin sync.Once
	turn  chan struct{} // made by begin; full while somebody makes the client
	made  *sqs.Backend  // guarded by turn
}

var (
	_ queue.Backend = (*LazyBackend)(nil)
	_ queue.Ensurer = (*LazyBackend)(nil)
)

// Backend returns a backend for what the environment says. Nil options are the
// defaults. Nothing is read before it's used.
func Backend(opts *Options) *LazyBackend {
	if opts == nil {
		opts = &Options{}
	}
	return &LazyBackend{opts: *opts}
}

// System returns "aws_sqs".
func (b *LazyBackend) System() string { return (*sqs.Backend)(nil).System() }

// Open opens a queue, as sqs.Backend does. It fails as New does where the
// environment lacks something.
func (b *LazyBackend) Open(ctx context.Context, name string, opts *queue.OpenOptions) (queue.Queue, error) {
	s, err := b.backend(ctx)
	if err != nil {
		return nil, err
	}
	return s.Open(ctx, name, opts)
}

// Ensure creates a queue, as sqs.Backend does.
func (b *LazyBackend) Ensure(ctx context.Context, name string, spec *queue.QueueSpec) (*queue.EnsureReport, error) {
	s, err := b.backend(ctx)
	if err != nil {
		return nil, err
	}
	return s.Ensure(ctx, name, spec)
}

func (b *LazyBackend) backend(ctx context.Context) (*sqs.Backend, error) {
	b.begin.Do(func() { b.turn = make(chan struct{}, 1) })
	select {
	case b.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-b.turn }()
	if b.made == nil {
		client, err := New(ctx, &b.opts)
		if err != nil {
			return nil, err
		}
		b.made = sqs.New(client, b.opts.SQS)
	}
	return b.made, nil
}
