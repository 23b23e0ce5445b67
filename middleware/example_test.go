package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
)

// A consumer with the usual policies: what fails is retried with a growing
// backoff, and what can't be helped ends in the dead-letter queue.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	broker := memory.New(&memory.Options{Create: true})
	leads, _ := broker.Open(ctx, "leads", nil)
	dlq, _ := broker.Open(ctx, "leads-dlq", nil)

	tries := 0
	handler := func(_ context.Context, d *queue.Delivery) error {
		if string(d.Body) == "no email" {
			return queue.Reject(errors.New("a lead needs an email"))
		}
		if tries++; tries < 3 {
			return errors.New("503")
		}
		fmt.Printf("stored %s at try %d\n", d.Body, tries)
		return nil
	}
	c, err := queue.NewConsumer(leads, handler, &queue.ConsumerOptions{
		Logger: slog.New(slog.DiscardHandler),
		Middleware: []queue.Middleware{
			middleware.DeadLetter(dlq, middleware.DeadLetterOptions{MaxAge: 12 * time.Hour}),
			middleware.Retry(middleware.RetryOptions{Backoff: queue.Backoff{Min: time.Millisecond}}),
			middleware.Idempotent(middleware.NewMemoryStore(0), middleware.IdempotentOptions{}),
			middleware.Timeout(30 * time.Second),
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = leads.Publish(ctx, &queue.Message{ID: "1", Body: []byte("ann@example.com")}, &queue.Message{ID: "2", Body: []byte("no email")})

	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	_ = broker.WaitIdle(ctx)
	cancel()
	fmt.Println("run:", <-ended)
	for _, d := range broker.Messages("leads-dlq") {
		fmt.Printf("dead letter %s: %s, %s\n", d.ID, d.DeadLetter.Reason, d.DeadLetter.Error)
	}
	// Output:
	// stored ann@example.com at try 3
	// run: <nil>
	// dead letter 2: rejected, a lead needs an email
}

func ExampleRetry() {
	post := func(context.Context, *queue.Delivery) error { return errors.New("503") }
	h := queue.Chain(post, middleware.Retry(middleware.RetryOptions{
		Backoff: queue.Backoff{Min: 2 * time.Second, Max: time.Minute, Jitter: -1},
	}))
	for failures := range 7 {
		err := h(context.Background(), &queue.Delivery{Failures: failures})
		fmt.Print(queue.OutcomeOf(err).Delay, " ")
	}
	// Output: 2s 4s 8s 16s 32s 1m0s 1m0s
}

// Some tries in place save a round trip through the broker when failures pass
// within moments; what can't be helped is rejected.
func ExampleRetry_inPlace() {
	errBadRequest := errors.New("400")
	results := []error{errors.New("503"), errors.New("503"), nil, errBadRequest}
	post := func(context.Context, *queue.Delivery) error {
		err := results[0]
		results = results[1:]
		fmt.Print("post ")
		return err
	}
	h := queue.Chain(post, middleware.Retry(middleware.RetryOptions{
		InPlace: 3,
		Pause:   queue.Backoff{Min: time.Millisecond},
		If:      func(err error) bool { return !errors.Is(err, errBadRequest) },
	}))
	fmt.Println(queue.OutcomeOf(h(context.Background(), &queue.Delivery{})).Kind)
	fmt.Println(queue.OutcomeOf(h(context.Background(), &queue.Delivery{})).Kind)
	// Output:
	// post post post success
	// post rejected
}

func ExampleDeadLetter() {
	ctx := context.Background()
	broker := memory.New(&memory.Options{Create: true})
	dlq, _ := broker.Open(ctx, "orders-dlq", nil)

	charge := func(context.Context, *queue.Delivery) error { return errors.New("card declined") }
	h := queue.Chain(charge, middleware.DeadLetter(dlq, middleware.DeadLetterOptions{MaxFailures: 3}))
	for failures := range 3 {
		err := h(ctx, &queue.Delivery{Message: queue.Message{ID: "42", Body: []byte("order 42")}, Failures: failures})
		fmt.Println(queue.OutcomeOf(err).Kind)
	}
	for _, d := range broker.Messages("orders-dlq") {
		fmt.Printf("%s: %s after %d failures: %s\n", d.Body, d.DeadLetter.Reason, d.DeadLetter.Failures, d.DeadLetter.Error)
	}
	// Output:
	// failed
	// failed
	// dead_lettered
	// order 42: failures after 3 failures: card declined
}

// Two consumers share four slots, whatever their own concurrency.
func ExampleLimit() {
	ctx := context.Background()
	broker := memory.New(&memory.Options{Create: true})
	database := middleware.Limit(4, middleware.LimitOptions{})
	for _, name := range []string{"orders", "invoices"} {
		q, _ := broker.Open(ctx, name, nil)
		_, err := queue.NewConsumer(q, handle, &queue.ConsumerOptions{Middleware: []queue.Middleware{database}})
		fmt.Println(name, err)
	}
	fmt.Println("raised:", database.SetMax(8))
	// Output:
	// orders <nil>
	// invoices <nil>
	// raised: <nil>
}

// Each tenant gets two slots, and a big one ten. What a tenant has too much waits
// without holding back others.
func ExampleLimit_byTenant() {
	limit := middleware.Limit(2, middleware.LimitOptions{
		Key:    func(d *queue.Delivery) string { return d.Attributes["tenant"] },
		KeyMax: map[string]int{"acme": 10},
	})
	q, _ := memory.New(&memory.Options{Create: true}).Open(context.Background(), "orders", nil)
	_, err := queue.NewConsumer(q, handle, &queue.ConsumerOptions{Middleware: []queue.Middleware{limit}})
	fmt.Println(err)
	// Output: <nil>
}

func handle(context.Context, *queue.Delivery) error { return nil }

func ExampleRateLimit() {
	api := middleware.RateLimit(100, middleware.RateLimitOptions{Burst: 3})
	h := queue.Chain(handle, api)
	start := time.Now()
	for range 6 {
		_ = h(context.Background(), &queue.Delivery{})
	}
	fmt.Println("three at once, three at 10 ms each:", time.Since(start) >= 29*time.Millisecond)
	fmt.Println(api.SetRate(0, 0))
	// Output:
	// three at once, three at 10 ms each: true
	// queue: invalid RateLimit: 0 per second isn't between 0 and 1e+06
}

func ExampleCircuitBreaker() {
	crm := middleware.CircuitBreaker(middleware.CircuitBreakerOptions{
		Name:     "crm",
		Failures: 3,
		OpenFor:  time.Minute,
		Logger:   slog.New(slog.DiscardHandler),
	})
	down := func(context.Context, *queue.Delivery) error { return errors.New("connection refused") }
	h := queue.Chain(down, crm)
	for range 4 {
		err := h(context.Background(), &queue.Delivery{})
		fmt.Println(queue.OutcomeOf(err).Kind, crm.State())
	}
	crm.Reset()
	fmt.Println(crm.State())
	// Output:
	// failed closed
	// failed closed
	// failed open
	// snoozed open
	// closed
}

func ExampleDelay() {
	ctx := context.Background()
	broker := memory.New(&memory.Options{Create: true})
	q, _ := broker.Open(ctx, "reminders", nil)
	reminders := queue.WrapPublisher(q, middleware.Delay(time.Hour))
	_ = reminders.Publish(ctx, &queue.Message{Body: []byte("later")}, &queue.Message{Body: []byte("now"), DeliverAt: time.Unix(0, 0)})
	ds, _ := q.Receive(ctx, 10)
	for _, d := range ds {
		fmt.Printf("%s\n", d.Body)
	}
	// Output: now
}

func ExampleTimeout() {
	slow := func(ctx context.Context, _ *queue.Delivery) error {
		<-ctx.Done()
		return fmt.Errorf("render: %w", ctx.Err())
	}
	h := queue.Chain(slow, middleware.Timeout(time.Millisecond))
	fmt.Println(h(context.Background(), &queue.Delivery{}))
	// Output: middleware: handler timed out after 1ms: render: context deadline exceeded
}

func ExampleRecover() {
	count := func(next queue.Handler) queue.Handler {
		return func(ctx context.Context, d *queue.Delivery) error {
			err := next(ctx, d)
			var pe *queue.PanicError
			fmt.Println("a panic:", errors.As(err, &pe), err)
			return err
		}
	}
	h := queue.Chain(func(context.Context, *queue.Delivery) error { panic("no such template") },
		queue.MiddlewareFunc(count), middleware.Recover())
	_ = h(context.Background(), &queue.Delivery{})
	// Output: a panic: true panic: no such template
}

func ExampleIdempotent() {
	send := func(_ context.Context, d *queue.Delivery) error {
		fmt.Println("sending", d.ID)
		return nil
	}
	h := queue.Chain(send, middleware.Idempotent(middleware.NewMemoryStore(10_000), middleware.IdempotentOptions{Remember: 48 * time.Hour}))
	for _, id := range []string{"welcome-1", "welcome-2", "welcome-1"} {
		fmt.Println(h(context.Background(), &queue.Delivery{Message: queue.Message{ID: id}}))
	}
	// Output:
	// sending welcome-1
	// <nil>
	// sending welcome-2
	// <nil>
	// <nil>
}

func ExampleNewMemoryStore() {
	ctx := context.Background()
	store := middleware.NewMemoryStore(0)
	mark, _ := store.Begin(ctx, "orders/42", "worker 1", time.Minute)
	fmt.Println(mark == middleware.MarkStarted)
	mark, _ = store.Begin(ctx, "orders/42", "worker 2", time.Minute)
	fmt.Println(mark == middleware.MarkInProgress)
	_ = store.Done(ctx, "orders/42", time.Hour)
	mark, _ = store.Begin(ctx, "orders/42", "worker 2", time.Minute)
	fmt.Println(mark == middleware.MarkDone)
	// Output:
	// true
	// true
	// true
}

func ExampleLog() {
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "took" { // differ each time
				return slog.Attr{}
			}
			return a
		},
	}))
	h := queue.Chain(func(context.Context, *queue.Delivery) error {
		return queue.RetryAfter(41*time.Second, errors.New("503"))
	},
		middleware.Log(middleware.LogOptions{Logger: logger}))
	_ = h(context.Background(), &queue.Delivery{
		Message: queue.Message{ID: "lead-7"}, Source: queue.Endpoint{Name: "crm-leads"}, Attempt: 4, Failures: 3,
	})
	// Output: level=WARN msg=retry id=lead-7 queue=crm-leads attempt=4 failures=4 in=41s err=503
}
