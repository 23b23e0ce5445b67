package awsclient_test

import (
	"context"
	"fmt"
	"log"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs/awsclient"
	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// The environment usually says everything; here the program names a server of its
// own, as AWS_ENDPOINT_URL_SQS would.
func ExampleBackend() {
	ctx := context.Background()
	server := sqstest.New(nil)
	defer server.Close()
	endpoint, err := server.Start("127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}

	backend := awsclient.Backend(&awsclient.Options{Endpoint: endpoint})
	report, err := backend.Ensure(ctx, "orders", &queue.QueueSpec{DeadLetter: "orders-dlq"})
	fmt.Println(report.Created, err)
	q, err := backend.Open(ctx, "orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(q.Publish(ctx, &queue.Message{Body: []byte("hello")}))
	fmt.Println(q.Close(ctx))
	// Output:
	// [queue orders-dlq queue orders] <nil>
	// <nil>
	// <nil>
}

// A client without a backend, for requests that this module doesn't make.
func ExampleNew() {
	client, err := awsclient.New(context.Background(), &awsclient.Options{Endpoint: "http://127.0.0.1:4566"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(*client.Options().BaseEndpoint)
	// Output:
	// http://127.0.0.1:4566
}
