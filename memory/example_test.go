package memory_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
)

func Example() {
	ctx := context.Background()
	broker := memory.New(&memory.Options{Create: true})
	q, err := broker.Open(ctx, "orders", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	consumer, err := queue.NewConsumer(q, func(_ context.Context, d *queue.Delivery) error {
		fmt.Printf("%s for %s\n", d.Body, d.Attributes["customer"])
		return nil
	}, &queue.ConsumerOptions{Concurrency: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error)
	go func() { ended <- consumer.Run(running) }()

	err = q.Publish(ctx,
		&queue.Message{Body: []byte("a book"), Attributes: map[string]string{"customer": "Ada"}},
		&queue.Message{Body: []byte("a lamp"), Attributes: map[string]string{"customer": "Grace"}, Delay: 10 * time.Millisecond},
	)
	if err != nil {
		fmt.Println(err)
	}
	if err := broker.WaitIdle(ctx); err != nil {
		fmt.Println(err)
	}
	stop()
	fmt.Println(<-ended, q.Close(ctx))
	// Output:
	// a book for Ada
	// a lamp for Grace
	// <nil> <nil>
}

func ExampleNew() {
	ctx := context.Background()
	_, err := memory.New(nil).Open(ctx, "orders", nil)
	fmt.Println(errors.Is(err, queue.ErrQueueNotFound))

	_, err = memory.New(&memory.Options{Create: true}).Open(ctx, "orders", nil)
	fmt.Println(err)
	// Output:
	// true
	// <nil>
}

func ExampleOptions_like() {
	ctx := context.Background()
	message := &queue.Message{Body: []byte("a book"), Attributes: map[string]string{}}
	for i := range 11 {
		message.Attributes[fmt.Sprint("a", i)] = "x"
	}
	for _, like := range []memory.Like{memory.SQSStandard, memory.PubSub} {
		broker := memory.New(&memory.Options{Like: like, Create: true})
		q, err := broker.Open(ctx, "orders", nil)
		if err != nil {
			fmt.Println(err)
			return
		}
		err = q.Publish(ctx, message)
		if limit, ok := errors.AsType[*queue.LimitError](err); ok {
			fmt.Printf("%v: %d %s, at most %d\n", like, limit.Got, limit.Field, limit.Max)
		} else {
			fmt.Printf("%v: %v\n", like, err)
		}
	}
	// Output:
	// SQSStandard: 11 attributes, at most 10
	// PubSub: <nil>
}

func ExampleBroker_Ensure() {
	ctx := context.Background()
	broker := memory.New(nil)
	report, err := broker.Ensure(ctx, "orders", &queue.QueueSpec{Ordered: true, DeadLetter: "orders-dead"})
	fmt.Println(report.Created, err)
	report, err = broker.Ensure(ctx, "orders", &queue.QueueSpec{Ordered: true, DeadLetter: "orders-dead", Lease: time.Minute, Update: true})
	fmt.Println(report.Changed, err)
	fmt.Println(broker.Queues())
	// Output:
	// [queue orders-dead queue orders] <nil>
	// [queue orders: lease from 30s to 1m0s] <nil>
	// [orders orders-dead]
}

func ExampleBroker_Fail() {
	ctx := context.Background()
	broker := memory.New(&memory.Options{Create: true})
	q, err := broker.Open(ctx, "orders", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	broker.Fail(memory.Fault{Times: 1, Err: errors.New("no route to host")})
	broker.Fail(memory.Fault{Times: 1, Effect: memory.Unanswered})

	order := &queue.Message{Body: []byte("a book")}
	for range 3 {
		err := q.Publish(ctx, order)
		fmt.Println("failed:", err != nil, "but may have arrived:", errors.Is(err, queue.ErrUnknownOutcome))
	}
	fmt.Println("in the queue:", len(broker.Messages("orders")))
	// Output:
	// failed: true but may have arrived: false
	// failed: true but may have arrived: true
	// failed: false but may have arrived: false
	// in the queue: 2
}

func ExampleBroker_Messages() {
	ctx := context.Background()
	broker := memory.New(&memory.Options{Create: true})
	q, err := broker.Open(ctx, "orders", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	err = q.Publish(ctx, &queue.Message{Body: []byte("now")}, &queue.Message{Body: []byte("later"), Delay: time.Hour})
	if err != nil {
		fmt.Println(err)
	}
	for _, d := range broker.Messages("orders") {
		info, _ := memory.InfoOf(d)
		fmt.Printf("%s: %s\n", d.Body, info.State)
	}
	// Output:
	// now: ready
	// later: delayed
}

func ExampleBroker_LoseLeases() {
	ctx := context.Background()
	broker := memory.New(&memory.Options{Create: true})
	q, err := broker.Open(ctx, "orders", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := q.Publish(ctx, &queue.Message{Body: []byte("a book")}); err != nil {
		fmt.Println(err)
	}
	ds, err := q.Receive(ctx, 1)
	fmt.Println(len(ds), err)
	fmt.Println(broker.LoseLeases("orders"))
	err = q.Settle(ctx, queue.Settlement{Delivery: ds[0], Kind: queue.Ack})
	fmt.Println(errors.Is(err, queue.ErrLeaseLost))
	// Output:
	// 1 <nil>
	// 1
	// true
}
