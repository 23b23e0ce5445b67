package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	gcp "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/googleapis/gax-go/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/internal/pubsubtest"
	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
)

// rig is a queue on Google's emulator, behind a network that goes wrong as a test
// wants. The names of its tests begin with TestServer, by which CI runs them.
type rig struct {
	t       *testing.T
	net     *proxy
	direct  *gcp.Client     // past the proxy
	through *gcp.Client     // behind it
	backend *pubsub.Backend // through it
	aside   *pubsub.Backend // past it, as of another machine
	name    string
	spec    queue.QueueSpec
	q       queue.Queue
	ledger  *ledger

	mu       sync.Mutex
	handled  map[string]int // by body
	order    []string
	said     map[string]error // of what was published, by body
	consumed []*running
}

func newRig(t *testing.T) *rig {
	return &rig{t: t, ledger: newLedger(), handled: map[string]int{}, said: map[string]error{}}
}

// faulty returns a rig with a queue of its own.
func faulty(t *testing.T, spec *queue.QueueSpec) *rig {
	t.Helper()
	t.Parallel()
	r := newRig(t)
	r.direct = pubsubtest.Dial(t, emulatorAddress(t), r.ledger.intercept)
	r.net = newProxy(t, emulatorAddress(t))
	r.through = pubsubtest.Dial(t, r.net.address, r.ledger.intercept)
	opts := &pubsub.Options{Wait: pullWait}
	r.backend, r.aside = pubsub.New(r.through, opts), pubsub.New(r.direct, opts)
	r.name = unique("fault")
	if spec != nil {
		r.spec = *spec
	}
	if r.spec.DeadLetter != "" {
		r.spec.DeadLetter = r.name + "-dlq"
	}
	_, err := r.aside.Ensure(t.Context(), r.name, &r.spec)
	require.NoError(t, err)
	r.q = r.open(r.backend)
	return r
}

// open opens the queue once more.
func (r *rig) open(b *pubsub.Backend) queue.Queue {
	r.t.Helper()
	q, err := b.Open(r.t.Context(), r.name, &queue.OpenOptions{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(r.t, err)
	r.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		assert.NoError(r.t, q.Close(ctx))
	})
	return q
}

// publish publishes messages and notes what's said of each. Each body is published
// once.
func (r *rig) publish(ctx context.Context, q queue.Queue, msgs ...*queue.Message) []error {
	errs := queue.PublishErrors(q.Publish(ctx, msgs...), len(msgs))
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, m := range msgs {
		r.said[string(m.Body)] = errs[i]
	}
	return errs
}

// put publishes messages, which must succeed.
func (r *rig) put(msgs ...*queue.Message) {
	r.t.Helper()
	for _, err := range r.publish(r.t.Context(), r.q, msgs...) {
		require.NoError(r.t, err)
	}
}

// running is a consumer that was started.
type running struct {
	*queue.Consumer
	r     *rig
	stop  context.CancelFunc
	done  chan error
	ended bool
}

// consume starts a consumer that notes what it handles, and does work if that's not
// nil.
func (r *rig) consume(q queue.Queue, opts queue.ConsumerOptions, work queue.Handler) *running {
	r.t.Helper()
	opts.Logger, opts.Hooks = slog.New(slog.DiscardHandler), r.ledger.hooks()
	c, err := queue.NewConsumer(q, queue.Handler(func(ctx context.Context, d *queue.Delivery) error {
		r.note(string(d.Body))
		if work == nil {
			return nil
		}
		return work(ctx, d)
	}), &opts)
	require.NoError(r.t, err)
	ctx, stop := context.WithCancel(context.Background())
	run := &running{c, r, stop, make(chan error, 1), false}
	go func() { run.done <- c.Run(ctx) }()
	r.consumed = append(r.consumed, run)
	r.t.Cleanup(func() {
		if !run.ended {
			stop()
			<-run.done
		}
	})
	return run
}

func (r *rig) note(body string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handled[body]++
	r.order = append(r.order, body)
}

// end stops the consumer, which must still run, and returns what Run says.
func (c *running) end() error {
	c.r.t.Helper()
	select {
	case err := <-c.done:
		c.ended = true
		c.r.t.Errorf("the consumer has ended before: %v", err)
		return err
	default:
	}
	c.stop()
	c.ended = true
	return <-c.done
}

// await waits until ok says so, which is asked again and again: the counts of a
// consumer tell nobody when they change.
func (r *rig) await(what string, ok func() bool) {
	r.t.Helper()
	fine := func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return ok()
	}
	for until := time.Now().Add(2 * patience); !fine(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			r.t.Fatalf("waited too long for %s: %d different messages were handled", what, len(r.handled))
		}
	}
}

// awaitAll waits until everything whose publish was confirmed is handled.
func (r *rig) awaitAll() {
	r.t.Helper()
	r.await("all that was confirmed", func() bool {
		for body, err := range r.said {
			if err == nil && r.handled[body] == 0 {
				return false
			}
		}
		return true
	})
}

// confirmed counts what was said of publishes: confirmed, unknown, refused.
func (r *rig) confirmed() (confirmed, unknown, refused int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, err := range r.said {
		switch {
		case err == nil:
			confirmed++
		case errors.Is(err, queue.ErrUnknownOutcome):
			unknown++
		default:
			refused++
		}
	}
	return confirmed, unknown, refused
}

// judge checks what was handled: see ledger.judge.
func (r *rig) judge() (repeated int) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ledger.judge(r.t, r.handled, r.said)
}

// empty checks that the server has no message of the queue left, but for second copies:
// what was sent to be published again, as nobody knew whether it had arrived, may come
// after everything was handled.
func (r *rig) empty() {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	var lost []string
	copies := map[string]int{} // of those that are left, with what was handled
	for _, suffix := range []string{"", ".return"} {
		//lint:ignore SA1019 a pull that doesn't wait is what's needed to see what's left
		out, err := r.direct.SubscriptionAdminClient.Pull(r.t.Context(), &pubsubpb.PullRequest{Subscription: subscriptionName(r.name + suffix), MaxMessages: 1000, ReturnImmediately: true})
		require.NoError(r.t, err)
		for _, m := range out.GetReceivedMessages() {
			body := string(m.GetMessage().GetData())
			copies[body] = max(copies[body], r.handled[body]) + 1
			if r.handled[body] == 0 && !errors.Is(r.said[body], queue.ErrUnknownOutcome) {
				lost = append(lost, body)
			}
		}
	}
	assert.Empty(r.t, lost, "messages that are left, and weren't handled")
	assert.Empty(r.t, r.ledger.unexplained(copies), "messages that are left without a cause")
}

// first returns the bodies that were handled with this prefix, each when it came first.
func (r *rig) first(prefix string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, b := range r.order {
		if strings.HasPrefix(b, prefix) && !slices.Contains(out, b) {
			out = append(out, b)
		}
	}
	return out
}

// unreachable makes the network refuse connections, and waits until the publishers'
// client knows of each that it had that it's gone: what it still sends over one is in
// doubt.
func (r *rig) unreachable() {
	r.t.Helper()
	r.net.refuse()
	get := &pubsubpb.GetTopicRequest{Topic: topicName(r.name)}
	once := gax.WithRetry(func() gax.Retryer { return nil })
	until := time.Now().Add(patience)
	for refused := 0; refused < 2*maxConnections; { // it takes them in turn
		_, err := r.through.TopicAdminClient.GetTopic(r.t.Context(), get, once)
		if refused++; err == nil || !strings.Contains(err.Error(), syscall.ECONNREFUSED.Error()) {
			refused = 0
		}
		require.True(r.t, time.Now().Before(until), "the client doesn't notice that its connections are gone: %v", err)
	}
}

// maxConnections is how many Google's client has at most, to publish.
const maxConnections = 4

// numbered returns n messages with the prefix and a number.
func numbered(prefix string, n int) []*queue.Message {
	msgs := make([]*queue.Message, n)
	for i := range msgs {
		msgs[i] = message(fmt.Sprint(prefix, i))
	}
	return msgs
}

var errWork = errors.New("the work failed")
