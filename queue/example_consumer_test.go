package queue_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

var discard = slog.New(slog.DiscardHandler)

func ExampleNewConsumer() {
	q := open("orders")
	ctx, stop := context.WithCancel(context.Background())
	c, err := queue.NewConsumer(q, func(_ context.Context, d *queue.Delivery) error {
		fmt.Printf("%s, attempt %d\n", d.Body, d.Attempt)
		stop() // usually signal.NotifyContext does, at SIGTERM
		return nil
	}, &queue.ConsumerOptions{Concurrency: 4, Logger: discard})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := q.Publish(ctx, &queue.Message{Body: []byte("a book")}); err != nil {
		fmt.Println(err)
	}
	fmt.Println(c.Run(ctx)) // drains before it returns
	// Output:
	// a book, attempt 1
	// <nil>
}

func ExampleReject() {
	handler := func(_ context.Context, d *queue.Delivery) error {
		switch {
		case len(d.Body) == 0:
			return queue.Reject(errors.New("no body")) // to the dead-letter queue, now
		case d.Attributes["kind"] == "test":
			return queue.Drop(errors.New("a test message")) // removed, logged, counted
		}
		return nil
	}
	err := handler(context.Background(), &queue.Delivery{})
	fmt.Println(queue.OutcomeOf(err).Kind)
	// Output: rejected
}

func ExampleRetryAfter() {
	q := open("calls")
	begun := time.Now()
	tries := 0
	if err := q.Publish(context.Background(), &queue.Message{Body: []byte("call")}); err != nil {
		fmt.Println(err)
	}
	consume(q, 2, func(context.Context, *queue.Delivery) error {
		if tries++; tries == 1 {
			return queue.RetryAfter(20*time.Millisecond, errors.New("429 too many requests"))
		}
		fmt.Println("again, not early:", time.Since(begun) >= 20*time.Millisecond)
		return nil
	})
	// Output: again, not early: true
}

func ExampleSnooze() {
	q := open("reports")
	if err := q.Publish(context.Background(), &queue.Message{Body: []byte("report")}); err != nil {
		fmt.Println(err)
	}
	consume(q, 2, func(_ context.Context, d *queue.Delivery) error {
		if d.Attempt == 1 {
			return queue.Snooze(time.Millisecond) // its input isn't there yet
		}
		fmt.Printf("attempt %d, failures %d\n", d.Attempt, d.Failures)
		return nil
	})
	// Output: attempt 2, failures 0
}

func ExampleConsumer_SetConcurrency() {
	q := open("mails")
	c, err := queue.NewConsumer(q, func(context.Context, *queue.Delivery) error { return nil }, &queue.ConsumerOptions{Logger: discard})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c.Stats().Concurrency)
	fmt.Println(c.SetConcurrency(40), c.Stats().Concurrency)
	c.Pause() // no new receives; running handlers go on
	fmt.Println(c.Stats().Paused)
	c.Resume()
	// Output:
	// 16
	// <nil> 40
	// true
}

func ExampleExtendLease() {
	q := open("videos")
	if err := q.Publish(context.Background(), &queue.Message{Body: []byte("film")}); err != nil {
		fmt.Println(err)
	}
	consume(q, 1, func(ctx context.Context, _ *queue.Delivery) error {
		// Leases are kept by themselves for MaxExtension; this takes longer.
		until, err := queue.ExtendLease(ctx, 3*time.Hour)
		live, _ := queue.LeaseDeadline(ctx)
		fmt.Println(err, until.Equal(live), time.Until(until) > 2*time.Hour)
		return nil
	})
	// Output: <nil> true true
}

func ExampleHooks() {
	q := open("bills")
	if err := q.Publish(context.Background(), &queue.Message{ID: "bill-1"}); err != nil {
		fmt.Println(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	c, err := queue.NewConsumer(q, func(context.Context, *queue.Delivery) error { return nil }, &queue.ConsumerOptions{
		Logger: discard,
		Hooks: &queue.Hooks{Settled: func(s queue.Settled) {
			fmt.Println(s.Delivery.ID, s.Outcome.Kind)
			stop()
		}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c.Run(ctx))
	// Output:
	// bill-1 success
	// <nil>
}

// businessHours is a Gate: nothing starts while it's shut.
type businessHours struct{ isOpen atomic.Bool }

func (g *businessHours) Wrap(next queue.Handler) queue.Handler { return next }
func (g *businessHours) Attach(func()) (detach func())         { return func() {} }
func (g *businessHours) Leave(any, queue.GateResult)           {}

func (g *businessHours) Room() queue.Room {
	if g.isOpen.Load() {
		return queue.Unlimited
	}
	return queue.Room{Until: time.Now().Add(time.Minute)} // ask again then
}

func (g *businessHours) Enter(*queue.Delivery) queue.Entry {
	return queue.Entry{OK: g.isOpen.Load(), Until: time.Now().Add(time.Minute)}
}

func ExampleGate() {
	gate := &businessHours{}
	fmt.Println(gate.Room().N, gate.Enter(&queue.Delivery{}).OK)
	gate.isOpen.Store(true)
	fmt.Println(gate.Room().N, gate.Enter(&queue.Delivery{}).OK)
	// Given to a consumer, it stops fetching while it's shut:
	_, err := queue.NewConsumer(open("letters"), func(context.Context, *queue.Delivery) error { return nil },
		&queue.ConsumerOptions{Middleware: []queue.Middleware{gate}})
	fmt.Println(err)
	// Output:
	// 0 false
	// -1 true
	// <nil>
}
