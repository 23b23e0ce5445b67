package config_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/config"
)

// quiet is a log that nobody reads.
var quiet = slog.New(slog.DiscardHandler)

// untouchable fails the test when anything is done with it, but for asking which system
// it is, if it has one.
type untouchable struct {
	t      *testing.T
	system string
}

func (u untouchable) System() string {
	if u.system == "" {
		u.t.Error("a backend that no queue names was asked for its system")
	}
	return u.system
}

func (u untouchable) Open(context.Context, string, *queue.OpenOptions) (queue.Queue, error) {
	u.t.Error("an unused backend was opened")
	return nil, errors.New("unused")
}

func (u untouchable) Ensure(context.Context, string, *queue.QueueSpec) (*queue.EnsureReport, error) {
	u.t.Error("an unused backend was asked to create something")
	return nil, errors.New("unused")
}

// spy is a backend that records how it's used.
type spy struct {
	queue.Backend
	mu      sync.Mutex
	opened  []opened
	ensured []string
	specs   map[string]queue.QueueSpec
	fail    error         // of Open
	gate    chan struct{} // Open waits for it, if set
}

type opened struct {
	name string
	opts queue.OpenOptions
}

func (s *spy) Open(ctx context.Context, name string, opts *queue.OpenOptions) (queue.Queue, error) {
	s.mu.Lock()
	s.opened = append(s.opened, opened{name, *opts})
	fail, gate := s.fail, s.gate
	s.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if fail != nil {
		return nil, fail
	}
	return s.Backend.Open(ctx, name, opts)
}

func (s *spy) Ensure(ctx context.Context, name string, spec *queue.QueueSpec) (*queue.EnsureReport, error) {
	s.mu.Lock()
	s.ensured = append(s.ensured, name)
	if s.specs == nil {
		s.specs = map[string]queue.QueueSpec{}
	}
	s.specs[name] = *spec
	s.mu.Unlock()
	e, ok := queue.As[queue.Ensurer](s.Backend)
	if !ok {
		return nil, errors.New("spy: the backend can't create queues")
	}
	return e.Ensure(ctx, name, spec)
}

func (s *spy) calls() []opened {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]opened(nil), s.opened...)
}

func openBus(t *testing.T, text string, backends config.Backends) *config.Bus {
	t.Helper()
	b, err := config.OpenFile(parse(t, text), backends, &config.Options{Logger: quiet})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, b.Close(context.Background())) })
	return b
}

func TestUnusedBackendsAndQueuesAreNeverOpened(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		used := &spy{Backend: memory.New(nil)}
		b := openBus(t, `
backend: memory
ensure: true
queues:
  orders: {}
  mails: {}
  cloudy: {backend: sqs}
`, config.Backends{"memory": used, "sqs": untouchable{t, "aws_sqs"}, "pubsub": untouchable{t, ""}})
		var r recorder
		b.Handle("orders", r.handle)
		b.Publisher("cloudy")
		b.Publisher("mails")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ran := make(chan error)
		go func() { ran <- b.Run(ctx) }()
		require.NoError(t, b.Publisher("orders").Publish(t.Context(), &queue.Message{Body: []byte("x")}))
		synctest.Wait()
		assert.Equal(t, []string{"x"}, r.got())
		cancel()
		require.NoError(t, <-ran)
		assert.NotContains(t, used.ensured, "mails")
	})
}

func TestPublisherOfAnUnknownQueueNamesTheNearest(t *testing.T) {
	t.Parallel()
	b := setup(t, "queues: {crm-leads: {}, mails: {}}")
	pub := b.Publisher("crm-lead")
	err := pub.Publish(t.Context(), &queue.Message{}, &queue.Message{})
	assert.ErrorIs(t, err, queue.ErrInvalid)
	assert.ErrorContains(t, err, `queues.yaml has no queue "crm-lead"; did you mean "crm-leads"?`)
	failed, ok := errors.AsType[*queue.PublishError](err)
	require.True(t, ok)
	assert.Len(t, failed.Failed, 2, "every message is named")
	assert.ErrorIs(t, pub.Publish(t.Context()), queue.ErrInvalid)
	_, err = b.Queue(t.Context(), "mail")
	assert.ErrorContains(t, err, `did you mean "mails"?`)
}

func TestQueueIsOpenedForWhatItIsUsedForOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		used := &spy{Backend: memory.New(&memory.Options{Create: true})}
		b := openBus(t, `
backend: memory
queues:
  orders: {ordered: true, lease: 45s, dead_letter: {queue: dead}}
  dead: {ordered: true}
  placed: {address: "memory:elsewhere"}
`, config.Backends{"memory": used})
		var r recorder
		b.Handle("orders", r.handle)
		b.Handle("placed", r.handle)
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error)
		go func() { ran <- b.Run(ctx) }()
		for range 2 {
			require.NoError(t, b.Publisher("orders").Publish(t.Context(), &queue.Message{Body: []byte("x"), OrderingKey: "k"}))
		}
		for range 2 {
			q, err := b.Queue(t.Context(), "orders")
			require.NoError(t, err)
			_, ok := queue.As[queue.Inspector](q)
			assert.True(t, ok)
		}
		synctest.Wait()
		cancel()
		require.NoError(t, <-ran)
		assert.ElementsMatch(t, []opened{
			{"dead", queue.OpenOptions{Logger: quiet, Mode: queue.ForPublish, Ordered: true}},
			{"orders", queue.OpenOptions{Logger: quiet, Mode: queue.ForConsume, Ordered: true, Lease: 45 * time.Second}},
			{"placed", queue.OpenOptions{Logger: quiet, Mode: queue.ForConsume, Address: "memory:elsewhere"}},
			{"orders", queue.OpenOptions{Logger: quiet, Mode: queue.ForPublish, Ordered: true, Lease: 45 * time.Second}},
			{"orders", queue.OpenOptions{Logger: quiet, Mode: queue.ForBoth, Ordered: true, Lease: 45 * time.Second}},
		}, used.calls())
	})
}

func TestManyPublishersOpenTheirQueueOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		used := &spy{Backend: memory.New(&memory.Options{Create: true}), gate: make(chan struct{})}
		b := openBus(t, "backend: memory\nqueues: {orders: {}}", config.Backends{"memory": used})
		hasty, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		errs := make(chan error, 10)
		go func() { errs <- b.Publisher("orders").Publish(hasty, &queue.Message{Body: []byte("x")}) }()
		synctest.Wait()
		for range 9 {
			go func() { errs <- b.Publisher("orders").Publish(t.Context(), &queue.Message{Body: []byte("x")}) }()
		}
		assert.ErrorIs(t, <-errs, context.DeadlineExceeded, "the first one's impatience is its own")
		close(used.gate)
		for range 9 {
			assert.NoError(t, <-errs)
		}
		assert.Len(t, used.calls(), 1)
	})
}

func TestQueueThatCouldNotBeOpenedIsTriedAgainByTheNextPublish(t *testing.T) {
	t.Parallel()
	used := &spy{Backend: memory.New(&memory.Options{Create: true}), fail: queue.ErrPermission}
	b := openBus(t, "backend: memory\nqueues: {orders: {}}", config.Backends{"memory": used})
	pub := b.Publisher("orders")
	_, ok := queue.As[queue.Queue](pub)
	assert.False(t, ok, "not open yet")
	err := pub.Publish(t.Context(), &queue.Message{Body: []byte("x")})
	assert.ErrorIs(t, err, queue.ErrPermission)
	assert.ErrorContains(t, err, "config: queue orders: ")
	used.mu.Lock()
	used.fail = nil
	used.mu.Unlock()
	require.NoError(t, pub.Publish(t.Context(), &queue.Message{Body: []byte("x")}))
	assert.Len(t, used.calls(), 2)
	_, ok = queue.As[queue.Queue](pub)
	assert.True(t, ok, "what the queue can do is found through its publisher")
}

func TestCloseEndsAnOpeningThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		used := &spy{Backend: memory.New(&memory.Options{Create: true}), gate: make(chan struct{})}
		b, err := config.OpenFile(parse(t, "backend: memory\nqueues: {orders: {}}"), config.Backends{"memory": used}, nil)
		require.NoError(t, err)
		published := make(chan error)
		go func() { published <- b.Publisher("orders").Publish(t.Context(), &queue.Message{Body: []byte("x")}) }()
		synctest.Wait()
		assert.NoError(t, b.Close(t.Context()))
		assert.ErrorIs(t, <-published, context.Canceled)
	})
}

// deaf opens its queues although nobody waits for them any more.
type deaf struct {
	queue.Backend
	gate  chan struct{}
	opens chan queue.Queue
}

func (d deaf) Open(ctx context.Context, name string, opts *queue.OpenOptions) (queue.Queue, error) {
	<-d.gate
	q, err := d.Backend.Open(context.WithoutCancel(ctx), name, opts)
	d.opens <- q
	return q, err
}

func TestQueueThatIsOpenedAfterCloseIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		backend := deaf{memory.New(&memory.Options{Create: true}), make(chan struct{}), make(chan queue.Queue, 1)}
		b, err := config.OpenFile(parse(t, "backend: memory\nqueues: {orders: {}}"), config.Backends{"memory": backend}, nil)
		require.NoError(t, err)
		published := make(chan error)
		go func() { published <- b.Publisher("orders").Publish(t.Context(), &queue.Message{Body: []byte("x")}) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.ErrorIs(t, b.Close(ctx), context.DeadlineExceeded)
		close(backend.gate)
		assert.ErrorIs(t, <-published, queue.ErrClosed)
		q := <-backend.opens
		assert.ErrorIs(t, q.Publish(t.Context(), &queue.Message{Body: []byte("x")}), queue.ErrClosed)
	})
}

func TestHangingOpenEndsByItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		used := &spy{Backend: memory.New(&memory.Options{Create: true}), gate: make(chan struct{})}
		b := openBus(t, "backend: memory\nqueues: {orders: {}}", config.Backends{"memory": used})
		begun := time.Now()
		_, err := b.Queue(t.Context(), "orders")
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 30*time.Second, time.Since(begun))
	})
}

func TestDefaultDelayIsForMessagesWithoutTheirOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, "ensure: true\nqueues: {orders: {delay: 5s}}")
		var at list[string]
		begun := time.Now()
		b.Handle("orders", func(_ context.Context, d *queue.Delivery) error {
			at.add(string(d.Body) + " after " + time.Since(begun).String())
			return nil
		})
		b.run()
		pub := b.Publisher("orders")
		require.NoError(t, pub.Publish(t.Context(),
			&queue.Message{Body: []byte("default")},
			&queue.Message{Body: []byte("own"), Delay: 9 * time.Second},
			&queue.Message{Body: []byte("past"), DeliverAt: begun.Add(-time.Hour)},
		))
		time.Sleep(time.Minute)
		require.NoError(t, b.finish())
		assert.Equal(t, []string{"past after 0s", "default after 5s", "own after 9s"}, at.got())
	})
}

func TestEnsureCreatesDeadLetterQueuesFirst(t *testing.T) {
	t.Parallel()
	used := &spy{Backend: memory.New(nil)}
	other := &spy{Backend: memory.New(nil)}
	b := openBus(t, `
backend: memory
ensure: true
queues:
  orders: {ordered: true, lease: 45s, dead_letter: {queue: first-dlq, max_failures: 3}}
  first-dlq: {ordered: true, dead_letter: {queue: last-dlq}}
  last-dlq: {ordered: true}
  mails: {dead_letter: {queue: far-dlq, max_failures: 3}}
  far-dlq: {backend: other}
  placed: {address: "memory:orders", ordered: true}
`, config.Backends{"memory": used, "other": other})
	for _, name := range []string{"orders", "mails", "placed"} {
		_, err := b.Queue(t.Context(), name)
		require.NoError(t, err)
	}
	assert.Equal(t, []string{"last-dlq", "first-dlq", "orders", "mails"}, used.ensured, "one with an address isn't ours to create")
	assert.Equal(t, []string{"far-dlq"}, other.ensured)
	assert.Equal(t, map[string]queue.QueueSpec{
		"orders":    {Ordered: true, Lease: 45 * time.Second, DeadLetter: "first-dlq", BrokerMaxAttempts: 30, DeadLetterSpec: &queue.QueueSpec{}},
		"first-dlq": {Ordered: true, IsDeadLetter: true},
		"last-dlq":  {Ordered: true, IsDeadLetter: true},
		"mails":     {},
	}, used.specs)
}

// plain is a backend that can't create queues.
type plain struct{ queue.Backend }

func TestEnsureIsRefusedWhereTheBackendCannot(t *testing.T) {
	t.Parallel()
	backend := plain{memory.New(&memory.Options{Create: true})}
	b := openBus(t, "backend: memory\nensure: true\nqueues: {orders: {}}", config.Backends{"memory": backend})
	_, err := b.Queue(t.Context(), "orders")
	assert.ErrorIs(t, err, queue.ErrUnsupported)
	assert.ErrorContains(t, err, "creating queues")
}

// reporter is a backend whose Ensure has something to say.
type reporter struct {
	queue.Backend
	report queue.EnsureReport
	err    error
}

func (r reporter) Ensure(context.Context, string, *queue.QueueSpec) (*queue.EnsureReport, error) {
	return &r.report, r.err
}

func TestWhatEnsureDidIsLogged(t *testing.T) {
	t.Parallel()
	log := &lines{}
	backend := reporter{memory.New(&memory.Options{Create: true}), queue.EnsureReport{
		Created: []string{"queue orders"}, Changed: []string{"lease from 1m to 2m"}, Differences: []string{"not ordered"},
		Warnings: []string{"a grant is missing"},
	}, nil}
	b, err := config.OpenFile(parse(t, "backend: it\nensure: true\nqueues: {orders: {}}"), config.Backends{"it": backend},
		&config.Options{Logger: slog.New(slog.NewTextHandler(log, nil))})
	require.NoError(t, err)
	_, err = b.Queue(t.Context(), "orders")
	require.NoError(t, err)
	assert.Len(t, log.with("level=INFO", "created", "queue=orders", "queue orders"), 1)
	assert.Len(t, log.with("level=INFO", "changed", "queue=orders", "lease from 1m to 2m"), 1)
	assert.Len(t, log.with("level=WARN", "differs from the file", "queue=orders", "not ordered"), 1)
	assert.Len(t, log.with("level=WARN", "queue=orders", "a grant is missing"), 1)
	require.NoError(t, b.Close(t.Context()))
}

func TestQueueWhoseDeadLetterQueueCannotBeCreatedIsNotOpened(t *testing.T) {
	t.Parallel()
	good := &spy{Backend: memory.New(nil)}
	b := openBus(t, `
backend: good
ensure: true
queues:
  orders: {dead_letter: {queue: dead}}
  dead: {backend: bad}
`, config.Backends{"good": good, "bad": reporter{Backend: memory.New(nil), err: queue.ErrPermission}})
	_, err := b.Queue(t.Context(), "orders")
	assert.ErrorIs(t, err, queue.ErrPermission)
	assert.ErrorContains(t, err, "config: queue orders: its dead-letter queue: ")
	assert.Empty(t, good.calls())
}

// wrapped is a publisher around another one.
type wrapped struct {
	next queue.Publisher
	queue.PublisherFunc
}

func (w wrapped) Unwrap() queue.Publisher { return w.next }

// Middleware around a publisher may depend on what the queue can do.
func TestPublisherMiddlewareIsAppliedWhenTheQueueIsOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log list[string]
		logged := func(name string) queue.PublisherMiddleware {
			return func(next queue.Publisher) queue.Publisher {
				q, ok := queue.As[queue.Queue](next)
				if !assert.True(t, ok, "the queue is open") {
					return next
				}
				log.add(name + " wraps " + q.Capabilities().Source.Name)
				return wrapped{next, func(ctx context.Context, msgs ...*queue.Message) error {
					for _, m := range msgs {
						log.add(fmt.Sprint(name, " sees a delay of ", m.Delay))
					}
					return next.Publish(ctx, msgs...)
				}}
			}
		}
		own := func(next queue.Publisher) queue.Publisher {
			return wrapped{next, func(ctx context.Context, msgs ...*queue.Message) error {
				m := *msgs[0]
				m.Delay = time.Hour
				return next.Publish(ctx, &m)
			}}
		}
		broker := memory.New(&memory.Options{Create: true})
		used := &spy{Backend: broker, fail: queue.ErrPermission}
		b, err := config.OpenFile(parse(t, "backend: memory\nqueues: {orders: {delay: 5s, dead_letter: {queue: dead}}, dead: {}}"), config.Backends{"memory": used},
			&config.Options{Logger: quiet, PublisherMiddleware: []queue.PublisherMiddleware{logged("outer"), own, logged("inner")}})
		require.NoError(t, err)
		pub := b.Publisher("orders")
		require.ErrorIs(t, pub.Publish(t.Context(), &queue.Message{Body: []byte("x")}), queue.ErrPermission)
		assert.Empty(t, log.got())
		used.mu.Lock()
		used.fail, used.gate = nil, make(chan struct{})
		used.mu.Unlock()
		errs := make(chan error)
		for range 5 {
			go func() { errs <- b.Publisher("orders").Publish(t.Context(), &queue.Message{Body: []byte("x")}) }()
		}
		synctest.Wait()
		close(used.gate)
		for range 5 {
			require.NoError(t, <-errs)
		}
		got := log.got()
		assert.Len(t, got, 2+2*5, "they are applied once")
		assert.Equal(t, []string{"inner wraps orders", "outer wraps orders"}, got[:2])
		assert.Contains(t, got, "outer sees a delay of 0s")
		assert.Contains(t, got, "inner sees a delay of 1h0m0s")
		for _, m := range broker.Messages("orders") {
			info, _ := memory.InfoOf(m)
			assert.Equal(t, time.Hour, time.Until(info.Until), "the file's delay is for messages without their own")
		}

		b.Handle("orders", func(context.Context, *queue.Delivery) error { return queue.Reject(errors.New("no")) })
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error)
		go func() { ran <- b.Run(ctx) }()
		time.Sleep(2 * time.Hour)
		cancel()
		require.NoError(t, <-ran)
		assert.Len(t, broker.Messages("dead"), 5)
		assert.Len(t, log.got(), len(got), "a dead letter is what it was")
		require.NoError(t, b.Close(t.Context()))
	})
}
