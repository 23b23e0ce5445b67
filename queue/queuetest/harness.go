package queuetest

import (
	"context"
	"testing"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// A Harness describes a backend to the suite. Name and New are required.
type Harness struct {
	// Name identifies the backend in the suite's tables of what isn't
	// supported: "memory", "sqs-fifo".
	Name string

	// New returns the backend. It's called for each test, with Virtual inside
	// its bubble, and by Bench and FuzzRoundTrip once, outside of any. What it
	// starts it ends with t.Cleanup. It may return the same backend every time,
	// but not when Virtual.
	New func(t testing.TB) Instance

	// Virtual runs each test on virtual time. It needs a backend that does no
	// input or output outside of the process.
	Virtual bool

	// Brief makes a suite on virtual time wait no longer than on a real server, and
	// leave out what takes hours there: for a server that forgets messages after
	// minutes, or can't sleep without work.
	Brief bool

	// Ordered makes every queue of the suite an ordered one. Otherwise only the
	// tests about order use ordered queues.
	Ordered bool

	// Server names the server behind the backend, where it isn't the service
	// itself: its own faults are in the suite's table.
	Server string

	// Core runs only the tests that a first prototype needs: deliver, fail,
	// delay, order, lease, drain.
	Core bool

	// Lease is the length of the leases in the suite. Default: 30 s with
	// Virtual (and not Brief), else 2 s.
	Lease time.Duration

	// Parallel is how many tests run at once. Default: 4 with Virtual, else 32.
	Parallel int

	// Unit is the shortest delay that the backend tells apart; the suite's
	// delays are multiples of it. Default: 10 s with Virtual (and not
	// Brief), else 1 s.
	Unit time.Duration
}

// An Instance is a backend that's ready for one test.
type Instance struct {
	// Backend opens the queues. Required.
	Backend queue.Backend

	// Create makes a queue exist. Default: the Ensurer of Backend.
	Create func(ctx context.Context, name string, spec *queue.QueueSpec) error

	// PublishRaw sends what a foreign program might, without package queue: the
	// bytes and attributes as they are. Nil: the suite's table must say so.
	PublishRaw func(ctx context.Context, q queue.Queue, body []byte, attributes map[string]string) error
}

func (h *Harness) validate(t testing.TB) {
	t.Helper()
	if h.Name == "" || h.New == nil {
		t.Fatal("queuetest: Harness needs Name and New")
	}
	if h.Lease < 0 || h.Unit < 0 || h.Parallel < 0 {
		t.Fatal("queuetest: negative Lease, Unit or Parallel")
	}
	if h.Parallel == 0 {
		h.Parallel = pick(h.Virtual, 4, 32)
	}
	if h.Lease == 0 {
		h.Lease = pick(h.long(), 30*time.Second, 2*time.Second)
	}
	if h.Unit == 0 {
		h.Unit = pick(h.long(), 10*time.Second, time.Second)
	}
}

// long reports whether hours cost nothing.
func (h *Harness) long() bool { return h.Virtual && !h.Brief }

func pick[T any](first bool, a, b T) T {
	if first {
		return a
	}
	return b
}
