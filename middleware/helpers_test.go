package middleware_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/queue"
)

var errDown = errors.New("503 service unavailable")

func ok(context.Context, *queue.Delivery) error     { return nil }
func fails(context.Context, *queue.Delivery) error  { return errDown }
func panics(context.Context, *queue.Delivery) error { panic("index out of range") }

func returns(err error) queue.Handler {
	return func(context.Context, *queue.Delivery) error { return err }
}

// delivery is one that has failed some times before.
func delivery(id string, failures int) *queue.Delivery {
	return &queue.Delivery{
		Message:    queue.Message{ID: id, Body: []byte("body of " + id), Attributes: map[string]string{"tenant": "acme"}},
		Source:     queue.Endpoint{System: "memory", Name: "orders"},
		Attempt:    failures + 1,
		Failures:   failures,
		EnqueuedAt: time.Now(),
	}
}

// bind does what NewConsumer does with middleware.
func bind(t *testing.T, m queue.Middleware, info queue.ConsumerInfo) queue.Middleware {
	t.Helper()
	b, ok := m.(queue.Binder)
	require.True(t, ok, "%T has nothing to bind", m)
	m, err := b.Bind(info)
	require.NoError(t, err)
	return m
}

func info() queue.ConsumerInfo {
	return queue.ConsumerInfo{
		Name:         "orders",
		Capabilities: queue.Capabilities{Source: queue.Endpoint{System: "memory", Name: "orders"}, Attempts: queue.AttemptsExact},
		Backoff:      queue.Backoff{Min: time.Second, Max: time.Minute, Factor: 2, Jitter: -1},
	}
}

// interruptedBy returns a context that ended as a consumer's do.
func interruptedBy(cause error) context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	return ctx
}

// target is a Publisher that keeps what it's given.
type target struct {
	caps queue.Capabilities

	mu   sync.Mutex
	err  error
	got  []*queue.Message
	ctxs []error // the state of each call's context
}

func (p *target) Publish(ctx context.Context, msgs ...*queue.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ctxs = append(p.ctxs, ctx.Err())
	if p.err != nil {
		return p.err
	}
	p.got = append(p.got, msgs...)
	return nil
}

func (p *target) Capabilities() queue.Capabilities { return p.caps }

func (p *target) messages() []*queue.Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got)
}

// gate is a bound gate with a count of its wakes.
type gate struct {
	queue.Gate
	mu     sync.Mutex
	wakes  int
	detach func()
}

func newGate(t *testing.T, m queue.Middleware) *gate {
	t.Helper()
	b, ok := bind(t, m, info()).(queue.Gate)
	require.True(t, ok, "%T isn't a gate in a consumer", m)
	g := &gate{Gate: b}
	g.detach = b.Attach(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.wakes++
	})
	return g
}

func (g *gate) woken() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.wakes
	g.wakes = 0
	return n
}

// start enters and fails the test when the gate is closed.
func (g *gate) start(t *testing.T, d *queue.Delivery) any {
	t.Helper()
	e := g.Enter(d)
	require.True(t, e.OK, "the gate holds %s back", d.ID)
	return e.Ticket
}

func (g *gate) held(t *testing.T, d *queue.Delivery) queue.Entry {
	t.Helper()
	e := g.Enter(d)
	require.False(t, e.OK, "the gate lets %s pass", d.ID)
	return e
}

var started = queue.GateResult{Started: true}

func failed(err error) queue.GateResult { return queue.GateResult{Started: true, Err: err} }
