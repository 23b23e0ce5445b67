package sqstest_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs"
	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// check stops an example that has gone wrong.
func check[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A program that uses the AWS SDK is tested with a client of the server.
func Example() {
	ctx := context.Background()
	server := sqstest.New(nil)
	defer server.Close()
	client := server.Client()

	orders := check(client.CreateQueue(ctx, &awssqs.CreateQueueInput{QueueName: new("orders")}))
	check(client.SendMessage(ctx, &awssqs.SendMessageInput{QueueUrl: orders.QueueUrl, MessageBody: new("order 1")}))
	got := check(client.ReceiveMessage(ctx, &awssqs.ReceiveMessageInput{QueueUrl: orders.QueueUrl, WaitTimeSeconds: 20}))

	fmt.Println(*got.Messages[0].Body)
	fmt.Println(server.Messages("orders")[0].State)
	fmt.Println(server.Requests())
	// Output:
	// order 1
	// in flight
	// map[CreateQueue:1 ReceiveMessage:1 SendMessage:1]
}

// A program that uses package sqs gets a backend on that client.
func ExampleServer_Client() {
	ctx := context.Background()
	server := sqstest.New(nil)
	defer server.Close()
	backend := sqs.New(server.Client(), nil)
	check(server.Client().CreateQueue(ctx, &awssqs.CreateQueueInput{QueueName: new("orders")}))

	orders := check(backend.Open(ctx, "orders", nil))
	if err := orders.Publish(ctx, &queue.Message{Body: []byte("order 1"), Attributes: map[string]string{"shop": "A"}}); err != nil {
		panic(err)
	}
	m := server.Messages("orders")[0]
	fmt.Println(m.Body, m.Attributes["shop"].Type, m.Attributes["shop"].Value)
	if err := orders.Close(ctx); err != nil {
		panic(err)
	}
	// Output: order 1 String A
}

// An answer is lost: the SDK sends the message again, so that it's there twice.
func ExampleServer_Fail() {
	ctx := context.Background()
	server := sqstest.New(nil)
	defer server.Close()
	client := server.Client()
	orders := check(client.CreateQueue(ctx, &awssqs.CreateQueueInput{QueueName: new("orders")}))

	server.Fail(sqstest.Fault{Action: "SendMessage", Effect: sqstest.Unanswered, Times: 1})
	check(client.SendMessage(ctx, &awssqs.SendMessageInput{QueueUrl: orders.QueueUrl, MessageBody: new("order 1")}))
	fmt.Println(len(server.Messages("orders")), "messages")

	heal := server.Fail(sqstest.Fault{Queue: "orders", Code: "QueueDoesNotExist"})
	_, err := client.ReceiveMessage(ctx, &awssqs.ReceiveMessageInput{QueueUrl: orders.QueueUrl})
	var missing *types.QueueDoesNotExist
	fmt.Println(errors.As(err, &missing))
	heal()
	// Output:
	// 2 messages
	// true
}

// One entry of a batch fails, and the others don't.
func ExampleFault() {
	ctx := context.Background()
	server := sqstest.New(nil)
	defer server.Close()
	client := server.Client()
	orders := check(client.CreateQueue(ctx, &awssqs.CreateQueueInput{QueueName: new("orders")}))

	server.Fail(sqstest.Fault{Effect: sqstest.RefuseEntry, Code: "InternalError", Match: func(body string) bool { return body == "order 2" }})
	out := check(client.SendMessageBatch(ctx, &awssqs.SendMessageBatchInput{QueueUrl: orders.QueueUrl, Entries: []types.SendMessageBatchRequestEntry{
		{Id: new("1"), MessageBody: new("order 1")}, {Id: new("2"), MessageBody: new("order 2")},
	}}))
	fmt.Println(len(out.Successful), "sent,", *out.Failed[0].Id, "failed:", *out.Failed[0].Code)
	fmt.Println(server.Entries()["SendMessageBatch"])
	// Output:
	// 1 sent, 2 failed: InternalError
	// 1
}

// Over HTTP, the server has an address for programs in any language.
func ExampleServer_Start() {
	server := sqstest.New(&sqstest.Options{Region: "eu-west-1", Account: "123456789012"})
	defer server.Close()
	endpoint := check(server.Start("")) // a free port of 127.0.0.1
	client := server.Client(func(o *awssqs.Options) { o.BaseEndpoint, o.HTTPClient = &endpoint, http.DefaultClient })
	orders := check(client.CreateQueue(context.Background(), &awssqs.CreateQueueInput{QueueName: new("orders")}))
	fmt.Println(*orders.QueueUrl == endpoint+"/123456789012/orders")
	http.DefaultClient.CloseIdleConnections()
	// Output: true
}

// Real connections on virtual time.
func ExampleServer_Pipe() {
	server := sqstest.New(nil)
	defer server.Close()
	client := server.Client(func(o *awssqs.Options) { o.HTTPClient = server.Pipe() })
	fmt.Println(len(check(client.ListQueues(context.Background(), &awssqs.ListQueuesInput{})).QueueUrls))
	// Output: 0
}
