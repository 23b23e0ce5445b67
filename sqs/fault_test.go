package sqs_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs"
	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// rig is a queue on a server that goes wrong as a test wants, on virtual time.
type rig struct {
	t      *testing.T
	server *sqstest.Server
	down   atomic.Bool // the endpoint is gone
	gate   *gate
	q      queue.Queue
	fifo   bool

	mu      sync.Mutex
	handled map[string]int // by body
	order   []string
}

// faulty runs a test on a rig of its own.
func faulty(t *testing.T, spec queue.QueueSpec, test func(t *testing.T, r *rig)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, server: sqstest.New(nil), fifo: spec.Ordered, handled: map[string]int{}}
		t.Cleanup(r.server.Close)
		r.gate = &gate{down: &r.down, next: r.server.Transport(), seen: map[string]int{}}
		_, err := r.backend().Ensure(t.Context(), "orders", &spec)
		require.NoError(t, err)
		r.q = r.open()
		r.server.ResetCounts()
		r.gate.reset()
		test(t, r)
	})
}

func (r *rig) backend() *sqs.Backend {
	return sqs.New(r.server.Client(func(o *awssqs.Options) {
		o.HTTPClient = &http.Client{Transport: r.gate}
	}), nil)
}

// open opens the queue once more, as another process would.
func (r *rig) open() queue.Queue {
	r.t.Helper()
	q, err := r.backend().Open(r.t.Context(), "orders", &queue.OpenOptions{Ordered: r.fifo})
	require.NoError(r.t, err)
	r.t.Cleanup(func() { assert.NoError(r.t, q.Close(context.Background())) })
	return q
}

// gate is a network that can be gone, and the proxy that counts what goes into it,
// also when it's gone.
type gate struct {
	down *atomic.Bool
	next http.RoundTripper

	mu   sync.Mutex
	seen map[string]int // requests, by action
}

func (g *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	_, action, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	g.mu.Lock()
	g.seen[action]++
	g.mu.Unlock()
	if g.down.Load() {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	return g.next.RoundTrip(r)
}

func (g *gate) reset() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen = map[string]int{}
}

func (g *gate) counts() map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.seen)
}

// name is what the server calls the queue.
func (r *rig) name() string {
	if r.fifo {
		return "orders.fifo"
	}
	return "orders"
}

// fail injects a fault.
func (r *rig) fail(f sqstest.Fault) { r.server.Fail(f) }

// publish publishes n messages in one call, of the key "k" on a FIFO queue.
func (r *rig) publish(prefix string, n int) {
	r.t.Helper()
	require.NoError(r.t, r.q.Publish(r.t.Context(), r.messages(prefix, n)...))
}

func (r *rig) messages(prefix string, n int) []*queue.Message {
	msgs := make([]*queue.Message, n)
	for i := range msgs {
		msgs[i] = message(fmt.Sprint(prefix, i))
		if r.fifo {
			msgs[i].OrderingKey = "k"
		}
	}
	return msgs
}

// running is a consumer that was started.
type running struct {
	*queue.Consumer
	r    *rig
	stop context.CancelFunc
	done chan error
}

// consume starts a consumer that notes what it handles, and does work if that's
// not nil.
func (r *rig) consume(q queue.Queue, concurrency int, work queue.Handler) *running {
	r.t.Helper()
	c, err := queue.NewConsumer(q, queue.Handler(func(ctx context.Context, d *queue.Delivery) error {
		if d.Deadline.Before(time.Now()) {
			r.t.Errorf("%s was started on an expired lease", d.Body)
		}
		r.mu.Lock()
		r.handled[string(d.Body)]++
		r.order = append(r.order, string(d.Body))
		r.mu.Unlock()
		if work == nil {
			return nil
		}
		return work(ctx, d)
	}), &queue.ConsumerOptions{Concurrency: concurrency, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(r.t, err)
	ctx, stop := context.WithCancel(r.t.Context())
	run := &running{c, r, stop, make(chan error, 1)}
	go func() { run.done <- c.Run(ctx) }()
	return run
}

// end stops the consumer and checks that it ends well.
func (c *running) end() {
	c.r.t.Helper()
	c.stop()
	assert.NoError(c.r.t, <-c.done)
}

// await waits until n different messages were handled, and then whether more
// comes of them.
func (r *rig) await(n int) {
	r.t.Helper()
	begun := time.Now()
	for r.different() < n {
		if time.Since(begun) > time.Hour {
			r.t.Fatalf("after an hour %d of %d messages were handled", r.different(), n)
		}
		time.Sleep(100 * time.Millisecond)
	}
	time.Sleep(2 * time.Minute) // longer than any lease here
}

func (r *rig) different() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.handled)
}

// duplicates returns how often messages were handled beyond once.
func (r *rig) duplicates() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.order) - len(r.handled)
}

// same checks that the network has seen the requests that the queues say they
// made, together, and that the first of them has no message left. It returns the
// sums.
func (r *rig) same(qs ...queue.Queue) sqs.Counts {
	r.t.Helper()
	synctest.Wait()
	var sum sqs.Counts
	for _, q := range qs {
		c, ok := sqs.CountsOf(q)
		require.True(r.t, ok)
		sum.Sends += c.Sends
		sum.Receives += c.Receives
		sum.Deletes += c.Deletes
		sum.Changes += c.Changes
		sum.Retried += c.Retried
		sum.Throttled += c.Throttled
		sum.Unread += c.Unread
	}
	seen := r.gate.counts()
	for action, n := range map[string]uint64{sendBatch: sum.Sends, receiving: sum.Receives, deleteBatch: sum.Deletes, changeBatch: sum.Changes} {
		assert.EqualValues(r.t, seen[action], n, "requests of %s", action)
	}
	in, ok := queue.As[queue.Inspector](qs[0])
	require.True(r.t, ok)
	s, err := in.Stats(r.t.Context())
	require.NoError(r.t, err)
	assert.Zero(r.t, *s.Ready+*s.InFlight+*s.Delayed, "messages that are left")
	return sum
}

var errWork = errors.New("the work failed")
