package sqs_test

import (
	"context"
	"fmt"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs"
	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// exampleQueue opens a queue on a server in the process.
func exampleQueue(ctx context.Context, spec *queue.QueueSpec) (q queue.Queue, end func(), err error) {
	server := sqstest.New(nil)
	backend := sqs.New(server.Client(), nil)
	if _, err := backend.Ensure(ctx, "orders", spec); err != nil {
		return nil, nil, err
	}
	q, err = backend.Open(ctx, "orders", &queue.OpenOptions{Ordered: spec.Ordered})
	return q, server.Close, err
}

// One tenant's backlog doesn't delay the others.
func ExampleTenantID() {
	ctx := context.Background()
	q, end, err := exampleQueue(ctx, &queue.QueueSpec{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer end()

	err = q.Publish(ctx, &queue.Message{Body: []byte("hello"), Options: []queue.MessageOption{sqs.TenantID("acme")}})
	fmt.Println(err)
	ds, err := q.Receive(ctx, 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	info, _ := sqs.InfoOf(ds[0])
	fmt.Println(info.GroupID)
	// Output:
	// <nil>
	// acme
}

// A FIFO queue has groups for its order, and no tenants. Where a message may go
// anywhere, the option is a hint to those systems that know it.
func ExampleTenantID_refused() {
	ctx := context.Background()
	q, end, err := exampleQueue(ctx, &queue.QueueSpec{Ordered: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer end()

	err = q.Publish(ctx, &queue.Message{Body: []byte("hello"), Options: []queue.MessageOption{sqs.TenantID("acme")}})
	fmt.Println(err)
	// Output:
	// sqs: publish to orders: queue: a TenantID is not supported on aws_sqs for a FIFO queue
}

func ExampleTraceHeader() {
	ctx := context.Background()
	q, end, err := exampleQueue(ctx, &queue.QueueSpec{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer end()

	trace := sqs.TraceHeader("Root=1-5759e988-bd862e3fe1be46a994272793")
	if err := q.Publish(ctx, &queue.Message{Body: []byte("hello"), Options: []queue.MessageOption{trace}}); err != nil {
		fmt.Println(err)
		return
	}
	ds, err := q.Receive(ctx, 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	info, _ := sqs.InfoOf(ds[0])
	fmt.Println(info.TraceHeader)
	// Output:
	// Root=1-5759e988-bd862e3fe1be46a994272793
}

// What a bill will say.
func ExampleCountsOf() {
	ctx := context.Background()
	q, end, err := exampleQueue(ctx, &queue.QueueSpec{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer end()

	msgs := make([]*queue.Message, 25)
	for i := range msgs {
		msgs[i] = &queue.Message{Body: []byte("hello")}
	}
	if err := q.Publish(ctx, msgs...); err != nil {
		fmt.Println(err)
		return
	}
	counts, _ := sqs.CountsOf(q)
	fmt.Println(counts.Sends, "requests for", len(msgs), "messages;", counts.Retried, "sent again")
	// Output:
	// 3 requests for 25 messages; 0 sent again
}
