package sqs_test

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs"
)

// There's no request before a queue is opened, so a server that isn't there is
// only found then.
func Example() {
	client := awssqs.New(awssqs.Options{
		Region:       "us-east-1",
		BaseEndpoint: aws.String("http://127.0.0.1:4566"), // of a server on this machine; leave it out for AWS
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, nil
		}),
	})
	backend := sqs.New(client, nil)
	fmt.Println(backend.System())

	_, err := backend.Open(context.Background(), "a queue", nil)
	fmt.Println(err)

	handle := func(_ context.Context, d *queue.Delivery) error {
		if info, ok := sqs.InfoOf(d); ok {
			fmt.Println(info.MessageID, info.GroupID)
		}
		return nil
	}
	fmt.Println(handle(context.Background(), &queue.Delivery{})) // not from SQS
	// Output:
	// aws_sqs
	// sqs: open a queue: queue: invalid queue name: "a queue" isn't 3 to 75 letters, digits, - and _, beginning with a letter
	// <nil>
}
