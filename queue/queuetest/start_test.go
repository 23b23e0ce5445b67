package queuetest_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/queuetest"
)

// fakeT is a test that may fail without failing this one.
type fakeT struct {
	testing.TB
	ctx      context.Context
	mu       sync.Mutex
	errs     []string
	cleanups []func()
}

func (t *fakeT) Helper()                  {}
func (t *fakeT) Context() context.Context { return t.ctx }
func (t *fakeT) Cleanup(f func())         { t.cleanups = append(t.cleanups, f) }
func (t *fakeT) Errorf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.errs = append(t.errs, fmt.Sprintf(format, args...))
}

func (t *fakeT) failures() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.errs, "\n")
}

// end does what the end of a test does.
func (t *fakeT) end() {
	for len(t.cleanups) > 0 {
		last := len(t.cleanups) - 1
		f := t.cleanups[last]
		t.cleanups = t.cleanups[:last]
		f()
	}
}

func openMemory(t testing.TB, ctx context.Context) queue.Queue {
	t.Helper()
	q, err := memory.New(&memory.Options{Create: true}).Open(ctx, "orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func consumer(t testing.TB, sub queue.Subscriber, h queue.Handler) *queue.Consumer {
	t.Helper()
	c, err := queue.NewConsumer(sub, h, &queue.ConsumerOptions{DrainTimeout: time.Second, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestStartRunsTheConsumerUntilTheEndOfTheTest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := &fakeT{ctx: t.Context()}
		q := openMemory(t, t.Context())
		handled := make(chan string, 1)
		c := consumer(t, q, func(_ context.Context, d *queue.Delivery) error {
			handled <- string(d.Body)
			return nil
		})
		queuetest.Start(fake, c)
		if err := q.Publish(t.Context(), &queue.Message{Body: []byte("m")}); err != nil {
			t.Fatal(err)
		}
		if got := <-handled; got != "m" {
			t.Errorf("handled %q", got)
		}
		fake.end()
		if c.Stats().Running {
			t.Error("the consumer still runs after the end of the test")
		}
		if got := fake.failures(); got != "" {
			t.Errorf("the test failed: %s", got)
		}
	})
}

func TestStopOfStartWaitsAndMayBeRepeated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := &fakeT{ctx: t.Context()}
		q := openMemory(t, t.Context())
		started, returned := make(chan struct{}), false
		c := consumer(t, q, func(ctx context.Context, _ *queue.Delivery) error {
			close(started)
			time.Sleep(500 * time.Millisecond)
			returned = true
			return nil
		})
		stop := queuetest.Start(fake, c)
		if err := q.Publish(t.Context(), &queue.Message{}); err != nil {
			t.Fatal(err)
		}
		<-started
		stop()
		if !returned || c.Stats().Running {
			t.Error("stop returned before the drain had ended")
		}
		stop()
		fake.end()
		if got := fake.failures(); got != "" {
			t.Errorf("the test failed: %s", got)
		}
	})
}

func TestStartFailsTheTestWhenRunDoes(t *testing.T) {
	t.Parallel()
	broken := errors.New("no such thing")
	for name, c := range map[string]struct {
		sub     func(queue.Queue) queue.Subscriber
		handler queue.Handler
		want    string
	}{
		"a final error": {
			sub: func(q queue.Queue) queue.Subscriber {
				return &flawed{Queue: q, receive: func(context.Context, queue.Queue, int) ([]*queue.Delivery, error) {
					return nil, fmt.Errorf("%w: %w", queue.ErrQueueNotFound, broken)
				}}
			},
			want: "no such thing",
		},
		"a handler that ignores its context": {
			sub:     func(q queue.Queue) queue.Subscriber { return q },
			handler: func(context.Context, *queue.Delivery) error { time.Sleep(time.Hour); return nil },
			want:    "ignored",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				fake := &fakeT{ctx: t.Context()}
				q := openMemory(t, t.Context())
				if err := q.Publish(t.Context(), &queue.Message{}); err != nil {
					t.Fatal(err)
				}
				h := c.handler
				if h == nil {
					h = func(context.Context, *queue.Delivery) error { return nil }
				}
				queuetest.Start(fake, consumer(t, c.sub(q), h))
				synctest.Wait()
				fake.end()
				if got := fake.failures(); !strings.Contains(got, c.want) {
					t.Errorf("the test failed with %q, want %q in it", got, c.want)
				}
				time.Sleep(2 * time.Hour) // the handler returns
			})
		})
	}
}

func TestStartOutlivesTheContextOfTheTest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		fake := &fakeT{ctx: ctx}
		c := consumer(t, openMemory(t, t.Context()), func(context.Context, *queue.Delivery) error { return nil })
		queuetest.Start(fake, c)
		cancel() // as it is just before the cleanups
		synctest.Wait()
		if !c.Stats().Running {
			t.Error("the consumer ended with the context of the test, before its cleanups")
		}
		fake.end()
		if got := fake.failures(); got != "" {
			t.Errorf("the test failed: %s", got)
		}
	})
}

// A unit test of a handler, on virtual time: what would take seconds takes none.
func ExampleStart() {
	t := &fakeT{ctx: context.Background()} // in a test: its *testing.T
	ctx := t.Context()

	q, err := memory.New(&memory.Options{Create: true}).Open(ctx, "orders", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	handled := make(chan string)
	c, err := queue.NewConsumer(q, func(_ context.Context, d *queue.Delivery) error {
		handled <- string(d.Body)
		return nil
	}, &queue.ConsumerOptions{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println(err)
		return
	}

	stop := queuetest.Start(t, c) // ends with the test at the latest
	err = q.Publish(ctx, &queue.Message{Body: []byte("hello")})
	fmt.Println(<-handled, err)
	stop()
	// Output: hello <nil>
}
