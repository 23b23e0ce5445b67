package sqstest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

func roundTrip(t *testing.T, c *awssqs.Client) {
	ctx := t.Context()
	q, err := c.CreateQueue(ctx, &awssqs.CreateQueueInput{QueueName: aws.String("orders")})
	require.NoError(t, err)
	go func() {
		time.Sleep(5 * time.Second)
		_, err := c.SendMessage(ctx, &awssqs.SendMessageInput{QueueUrl: q.QueueUrl, MessageBody: aws.String("hello \"ü\"\n")})
		assert.NoError(t, err)
	}()
	started := time.Now()
	got, err := c.ReceiveMessage(ctx, &awssqs.ReceiveMessageInput{QueueUrl: q.QueueUrl, WaitTimeSeconds: 20, VisibilityTimeout: 10})
	require.NoError(t, err)
	require.Len(t, got.Messages, 1)
	assert.Equal(t, "hello \"ü\"\n", *got.Messages[0].Body)
	assert.Equal(t, 5*time.Second, time.Since(started))
	_, err = c.DeleteMessage(ctx, &awssqs.DeleteMessageInput{QueueUrl: q.QueueUrl, ReceiptHandle: got.Messages[0].ReceiptHandle})
	require.NoError(t, err)
}

func TestSmoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sqstest.New(nil)
		defer s.Close()
		roundTrip(t, s.Client())
		assert.Empty(t, s.Messages("orders"))
		assert.Equal(t, map[string]int{"CreateQueue": 1, "SendMessage": 1, "ReceiveMessage": 1, "DeleteMessage": 1}, s.Requests())
	})
}

func TestSmokePipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sqstest.New(nil)
		defer s.Close()
		roundTrip(t, s.Client(func(o *awssqs.Options) { o.HTTPClient = s.Pipe() }))
	})
}
