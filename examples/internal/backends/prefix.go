package backends

import (
	"context"

	"github.com/anyqueue/anyqueue/queue"
)

// Prefixed is b with longer names on the broker than in the program: each begins
// with prefix.
func Prefixed(b queue.Backend, prefix string) queue.Backend {
	if prefix == "" {
		return b
	}
	return &longNames{Backend: b, prefix: prefix}
}

type longNames struct {
	queue.Backend
	prefix string
}

// Open implements queue.Backend.
func (l *longNames) Open(ctx context.Context, name string, opts *queue.OpenOptions) (queue.Queue, error) {
	return l.Backend.Open(ctx, l.prefix+name, opts)
}

// Ensure implements queue.Ensurer, as far as the backend does.
func (l *longNames) Ensure(ctx context.Context, name string, spec *queue.QueueSpec) (*queue.EnsureReport, error) {
	e, ok := queue.As[queue.Ensurer](l.Backend)
	if !ok {
		return nil, &queue.UnsupportedError{Feature: "creating queues", System: l.System()}
	}
	if spec != nil && spec.DeadLetter != "" {
		long := *spec
		long.DeadLetter = l.prefix + spec.DeadLetter
		spec = &long
	}
	return e.Ensure(ctx, l.prefix+name, spec)
}

// Unwrap lets queue.As look through.
func (l *longNames) Unwrap() queue.Backend { return l.Backend }
