package config_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/config"
)

// bench is a Bus on a broker of its own.
type bench struct {
	*config.Bus
	t      *testing.T
	broker *memory.Broker
	log    *lines
	stop   context.CancelFunc
	ran    chan error
}

// setup makes a Bus for the queues of text; inside of a synctest bubble it lives
// on virtual time.
func setup(t *testing.T, text string, more ...queue.Middleware) *bench {
	t.Helper()
	b := &bench{t: t, broker: memory.New(nil), log: &lines{}}
	var err error
	b.Bus, err = config.OpenFile(parse(t, "backend: memory\n"+text), config.Backends{"memory": b.broker}, &config.Options{
		Logger: slog.New(slog.NewTextHandler(b.log, nil)), Middleware: more,
	})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, b.Close(context.Background())) })
	return b
}

// run begins Run; finish ends it.
func (b *bench) run() {
	ctx, cancel := context.WithCancel(b.t.Context())
	b.stop, b.ran = cancel, make(chan error, 1)
	go func() { b.ran <- b.Run(ctx) }()
}

func (b *bench) finish() error {
	b.t.Helper()
	b.stop()
	return <-b.ran
}

func (b *bench) ensure(names ...string) {
	b.t.Helper()
	for _, n := range names {
		_, err := b.broker.Ensure(b.t.Context(), n, nil)
		require.NoError(b.t, err)
	}
}

func (b *bench) publish(name string, bodies ...string) {
	b.t.Helper()
	for _, body := range bodies {
		require.NoError(b.t, b.Publisher(name).Publish(b.t.Context(), &queue.Message{Body: []byte(body)}))
	}
}

// lines is a log that may be read while it's written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// with returns the lines that have all the words.
func (l *lines) with(words ...string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for line := range strings.Lines(l.buf.String()) {
		ok := true
		for _, w := range words {
			ok = ok && strings.Contains(line, w)
		}
		if ok {
			out = append(out, line)
		}
	}
	return out
}

// list gathers what handlers see.
type list[T any] struct {
	mu  sync.Mutex
	all []T
}

func (l *list[T]) add(v T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, v)
}

func (l *list[T]) got() []T {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]T{}, l.all...)
}

// recorder is a handler that remembers what it was given.
type recorder struct{ list[string] }

func (r *recorder) handle(_ context.Context, d *queue.Delivery) error {
	r.add(string(d.Body))
	return nil
}

func TestFailingDeliveryIsRetriedDeadLetteredAndRedriven(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, `
ensure: true
queues:
  crm-leads:
    delay: 5s
    retry: {min: 2s, max: 8s}
    dead_letter: {queue: crm-leads-dlq, max_failures: 4}
  crm-leads-dlq: {}
`)
		var at list[time.Time]
		var broken atomic.Bool
		broken.Store(true)
		var handled recorder
		b.Handle("crm-leads", func(ctx context.Context, d *queue.Delivery) error {
			at.add(time.Now())
			if broken.Load() {
				return errors.New("503")
			}
			return handled.handle(ctx, d)
		})
		b.run()
		published := time.Now()
		require.NoError(t, b.Publisher("crm-leads").Publish(t.Context(), &queue.Message{ID: "lead-1", Body: []byte("Ada")}))
		time.Sleep(time.Minute)

		tries := at.got()
		require.Len(t, tries, 4, "max_failures")
		assert.Equal(t, 5*time.Second, tries[0].Sub(published), "delay")
		for i, most := range []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second} {
			wait := tries[i+1].Sub(tries[i])
			// The delay begins when the release is sent, which may be a little later.
			assert.True(t, most/2 <= wait && wait <= most+100*time.Millisecond, "retry %d after %v, not %v to %v", i+1, wait, most/2, most)
		}
		assert.Empty(t, b.broker.Messages("crm-leads"))
		dead := b.broker.Messages("crm-leads-dlq")
		require.Len(t, dead, 1)
		assert.Equal(t, "lead-1", dead[0].ID)
		assert.Equal(t, queue.ReasonFailures, dead[0].DeadLetter.Reason)
		assert.Equal(t, 4, dead[0].DeadLetter.Failures)

		broken.Store(false)
		dlq, err := b.Queue(t.Context(), "crm-leads-dlq")
		require.NoError(t, err)
		back, err := b.Queue(t.Context(), "crm-leads")
		require.NoError(t, err)
		result, err := queue.Redrive(t.Context(), dlq, back, nil)
		require.NoError(t, err)
		assert.Equal(t, 1, result.Moved)
		synctest.Wait()
		assert.Equal(t, []string{"Ada"}, handled.got(), "at once: the default delay isn't for redrive")
		assert.NoError(t, b.finish())
		assert.Empty(t, b.broker.Messages("crm-leads-dlq"))
		assert.Empty(t, b.broker.Messages("crm-leads"))
	})
}

func TestMissingQueueStopsNoOtherAndComesBackByItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, `
queues:
  here: {}
  missing: {}
  without-dlq: {dead_letter: {queue: missing-dlq}}
  missing-dlq: {}
`)
		b.ensure("here", "without-dlq")
		var here, missing, without recorder
		b.Handle("here", here.handle)
		b.Handle("missing", missing.handle)
		b.Handle("without-dlq", without.handle)
		b.run()
		b.publish("here", "1")
		b.publish("without-dlq", "held")
		time.Sleep(time.Hour)
		assert.Equal(t, []string{"1"}, here.got())
		assert.Empty(t, without.got(), "nothing is handled that couldn't be dead-lettered")
		stopped := b.log.with("consumer stopped", "queue=missing ")
		assert.InDelta(t, 60*60/45, len(stopped), 30, "tried again after up to a minute")
		assert.Contains(t, stopped[0], queue.ErrQueueNotFound.Error())
		assert.Contains(t, stopped[0], " in=")

		b.ensure("missing", "missing-dlq")
		b.publish("missing", "2")
		time.Sleep(time.Minute)
		assert.Equal(t, []string{"2"}, missing.got())
		assert.Equal(t, []string{"held"}, without.got())
		b.publish("here", "3")
		synctest.Wait()
		assert.Equal(t, []string{"1", "3"}, here.got())
		assert.NoError(t, b.finish())
	})
}

func TestConsumerThatLosesItsQueueIsOpenedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, "ensure: true\nqueues: {orders: {}}")
		var orders recorder
		b.Handle("orders", orders.handle)
		heal := b.broker.Fail(memory.Fault{Call: memory.OnReceive, Err: queue.ErrPermission})
		b.run()
		b.publish("orders", "1")
		time.Sleep(10 * time.Minute)
		assert.Empty(t, orders.got())
		assert.NotEmpty(t, b.log.with("consumer stopped", queue.ErrPermission.Error()))
		heal()
		time.Sleep(time.Minute)
		assert.Equal(t, []string{"1"}, orders.got())
		assert.NoError(t, b.finish())
	})
}

func TestOldFailuresOfAConsumerAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, "ensure: true\nqueues: {orders: {}}")
		b.Handle("orders", new(recorder).handle)
		b.broker.Fail(memory.Fault{Call: memory.OnReceive, Err: queue.ErrPermission, Times: 3})
		b.run()
		time.Sleep(time.Hour)
		assert.Len(t, b.log.with("consumer stopped", "failures=3"), 1)
		b.broker.Fail(memory.Fault{Call: memory.OnReceive, Err: queue.ErrPermission, Times: 1})
		b.publish("orders", "wakes the receive that waits", "meets the fault")
		time.Sleep(time.Hour)
		assert.Len(t, b.log.with("consumer stopped", "failures=1"), 2)
		assert.NoError(t, b.finish())
	})
}

func TestWhatWasWrongWithHandleIsSaidByRun(t *testing.T) {
	t.Parallel()
	b := setup(t, "queues: {orders: {}, mails: {}}")
	var r recorder
	b.Handle("order", r.handle)
	b.Handle("orders", r.handle)
	b.Handle("orders", r.handle)
	b.Handle("mails", nil)
	b.Handle("mails", r.handle, nil)
	err := b.Run(t.Context())
	require.ErrorIs(t, err, queue.ErrInvalid)
	assert.EqualError(t, err, strings.Join([]string{
		`queue: invalid Handle: queues.yaml has no queue "order"; did you mean "orders"?`,
		`queue: invalid Handle: orders has a handler already`,
		`queue: invalid Handle: the handler of mails is nil`,
		`queue: invalid Handle: the middleware of mails has a nil`,
	}, "\n"))
}

func TestRunWithoutAHandlerIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t, "queues: {orders: {}}")
	assert.ErrorIs(t, b.Run(t.Context()), queue.ErrInvalid)
}

func TestRunIsOneAtATimeAndMayBeRepeated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, "ensure: true\nqueues: {orders: {}, mails: {}}")
		var orders recorder
		b.Handle("orders", orders.handle)
		for i := range 2 {
			b.run()
			synctest.Wait()
			require.ErrorContains(t, b.Run(t.Context()), "already running")
			b.publish("orders", strconv.Itoa(i))
			synctest.Wait()
			require.NoError(t, b.finish())
		}
		assert.Equal(t, []string{"0", "1"}, orders.got())

		b.run()
		synctest.Wait()
		b.Handle("mails", orders.handle)
		require.NoError(t, b.finish())
		assert.ErrorContains(t, b.Run(t.Context()), "mails was given its handler after Run had begun", "it isn't ignored")
		assert.Len(t, b.log.with("handler refused", "queue=mails"), 1)
	})
}

func TestQueuesWithoutAHandlerAreSaidOnceAtTheStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, "ensure: true\nqueues: {orders: {dead_letter: {queue: dead}}, mails: {}, reports: {}, dead: {}}")
		var r recorder
		b.Handle("orders", r.handle)
		b.run()
		synctest.Wait()
		require.NoError(t, b.finish())
		said := b.log.with("without a handler")
		require.Len(t, said, 1)
		assert.Contains(t, said[0], `queues="[mails reports]"`, "a dead-letter queue needs none")
		assert.NotContains(t, b.broker.Queues(), "mails", "what isn't used isn't opened")
	})
}

func TestAllQueuesAreDrainedTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, `
ensure: true
defaults: {drain_timeout: 15s}
queues: {one: {}, two: {}, stuck: {}, cut: {drain_timeout: 0s}}
`)
		var done atomic.Int64
		slow := func(context.Context, *queue.Delivery) error {
			time.Sleep(10 * time.Second)
			done.Add(1)
			return nil
		}
		cause := make(chan error, 1)
		var begun time.Time
		b.Handle("one", slow)
		b.Handle("two", slow)
		b.Handle("stuck", func(context.Context, *queue.Delivery) error { time.Sleep(time.Minute); return nil })
		b.Handle("cut", func(ctx context.Context, _ *queue.Delivery) error {
			<-ctx.Done()
			assert.Equal(t, begun, time.Now(), "drain_timeout: 0s")
			cause <- context.Cause(ctx)
			return ctx.Err()
		})
		b.run()
		for _, name := range []string{"one", "two", "stuck", "cut"} {
			b.publish(name, name)
		}
		synctest.Wait()
		begun = time.Now()
		err := b.finish()
		assert.Equal(t, int64(2), done.Load(), "handlers go on undisturbed")
		took := time.Since(begun)
		assert.True(t, 15*time.Second <= took && took < 20*time.Second, "one deadline for all: %v", took)
		abandoned, ok := errors.AsType[*queue.AbandonedError](err)
		require.True(t, ok, "%v", err)
		assert.Len(t, abandoned.IDs, 1)
		assert.ErrorContains(t, err, "config: queue stuck: ")
		assert.ErrorIs(t, <-cause, queue.ErrDraining)
		time.Sleep(time.Minute) // the handler that ignores its context ends
	})
}

func TestCloseEndsRunAndWhatWasOpened(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, "ensure: true\nqueues: {orders: {}, mails: {}}")
		var handled atomic.Bool
		b.Handle("orders", func(context.Context, *queue.Delivery) error {
			time.Sleep(5 * time.Second)
			handled.Store(true)
			return nil
		})
		b.run()
		pub := b.Publisher("orders")
		require.NoError(t, pub.Publish(t.Context(), &queue.Message{Body: []byte("x")}))
		admin, err := b.Queue(t.Context(), "orders")
		require.NoError(t, err)
		synctest.Wait()
		require.NoError(t, b.Close(t.Context()))
		assert.True(t, handled.Load(), "drained")
		assert.NoError(t, <-b.ran)
		assert.Empty(t, b.broker.Messages("orders"))
		for what, err := range map[string]error{
			"an open publisher": pub.Publish(t.Context(), &queue.Message{Body: []byte("x")}),
			"a new publisher":   b.Publisher("mails").Publish(t.Context(), &queue.Message{Body: []byte("x")}),
			"an open queue":     admin.Publish(t.Context(), &queue.Message{Body: []byte("x")}),
			"run":               b.Run(t.Context()),
		} {
			assert.ErrorIs(t, err, queue.ErrClosed, what)
		}
		_, err = b.Queue(t.Context(), "mails")
		assert.ErrorIs(t, err, queue.ErrClosed)
		assert.NoError(t, b.Close(t.Context()), "twice is harmless")
	})
}

func TestCloseEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, "ensure: true\nqueues: {orders: {}}")
		b.Handle("orders", func(context.Context, *queue.Delivery) error { time.Sleep(10 * time.Second); return nil })
		b.run()
		b.publish("orders", "x")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		begun := time.Now()
		err := b.Close(ctx)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 2*time.Second, time.Since(begun))
		assert.NoError(t, <-b.ran)
	})
}
