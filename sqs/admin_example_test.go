package sqs_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs"
	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// A program may ensure its queues at every start: what's there is left as it is.
func ExampleBackend_Ensure() {
	ctx := context.Background()
	server := sqstest.New(nil)
	defer server.Close()
	backend := sqs.New(server.Client(), nil)

	spec := &queue.QueueSpec{Lease: time.Minute, DeadLetter: "orders-dlq", BrokerMaxAttempts: 100}
	for range 2 {
		report, err := backend.Ensure(ctx, "orders", spec)
		fmt.Println(report.Created, err)
	}
	spec.Lease = 2 * time.Minute
	report, err := backend.Ensure(ctx, "orders", spec)
	fmt.Println(report.Differences, err)
	// Output:
	// [queue orders-dlq queue orders] <nil>
	// [] <nil>
	// [queue orders: lease is 1m0s, not 2m0s] <nil>
}

// What's unknown is nil, not 0; looking is a receive, so that it's refused where a
// redrive policy counts those.
func Example_looking() {
	ctx := context.Background()
	server := sqstest.New(nil)
	defer server.Close()
	backend := sqs.New(server.Client(), nil)
	if _, err := backend.Ensure(ctx, "orders", &queue.QueueSpec{DeadLetter: "orders-dlq", BrokerMaxAttempts: 100}); err != nil {
		log.Fatal(err)
	}
	q, err := backend.Open(ctx, "orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := q.Publish(ctx, &queue.Message{Body: []byte("hello")}); err != nil {
		log.Fatal(err)
	}

	in, _ := queue.As[queue.Inspector](q)
	stats, err := in.Stats(ctx)
	fmt.Println(*stats.Ready, stats.OldestAge == nil, err)
	_, err = in.Peek(ctx, 1)
	fmt.Println(err)
	confirmed, _ := queue.As[queue.PeekConfirmer](q)
	ds, err := confirmed.PeekConfirmed(ctx, 1)
	fmt.Println(string(ds[0].Body), err)
	// Output:
	// 1 true <nil>
	// sqs: peek into orders: queue: a Peek without confirmation, as it counts as a receive and SQS itself dead-letters to orders-dlq after 100 receives is not supported on aws_sqs
	// hello <nil>
}

// Purge removes everything, also what's in flight and delayed. SQS takes up to a
// minute for it, and refuses a second one meanwhile.
func Example_purging() {
	ctx := context.Background()
	q, end, err := exampleQueue(ctx, &queue.QueueSpec{})
	if err != nil {
		log.Fatal(err)
	}
	defer end()
	now, later := &queue.Message{Body: []byte("now")}, &queue.Message{Body: []byte("later"), Delay: time.Minute}
	if err := q.Publish(ctx, now, later); err != nil {
		log.Fatal(err)
	}

	purger, _ := queue.As[queue.Purger](q)
	fmt.Println(purger.Purge(ctx))
	in, _ := queue.As[queue.Inspector](q)
	stats, err := in.Stats(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(*stats.Ready, *stats.Delayed)
	fmt.Println(errors.Is(purger.Purge(ctx), queue.ErrThrottled))
	// Output:
	// <nil>
	// 0 0
	// true
}

// A move task of SQS takes back what SQS itself has dead-lettered, while this
// program may end.
func ExampleMover() {
	ctx := context.Background()
	server := sqstest.New(nil)
	defer server.Close()
	backend := sqs.New(server.Client(), nil)
	if _, err := backend.Ensure(ctx, "orders", &queue.QueueSpec{DeadLetter: "orders-dlq", BrokerMaxAttempts: 100}); err != nil {
		log.Fatal(err)
	}
	dead, err := backend.Open(ctx, "orders-dlq", nil)
	if err != nil {
		log.Fatal(err)
	}

	mover, _ := queue.As[sqs.Mover](dead)
	if _, err := mover.StartMove(ctx, &sqs.MoveOptions{Rate: 100}); err != nil {
		log.Fatal(err)
	}
	for {
		moves, err := mover.Moves(ctx)
		if err != nil {
			log.Fatal(err)
		}
		if !moves[0].Running() {
			fmt.Println(moves[0].State, moves[0].Moved)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	// Output:
	// COMPLETED 0
}
