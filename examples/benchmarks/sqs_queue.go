package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// sqsQueue is a queue of one contender for one round, with a client whose every
// request goes over a link of its own.
type sqsQueue struct {
	name, url string
	client    *awssqs.Client
	link      *link

	direct *awssqs.Client // past the link: for what isn't measured
}

// sqsLease is short, so that what's fetched long before it's handled shows.
const sqsLease = 2 * time.Second

func sqsClient(endpoint string, l *link) *awssqs.Client {
	return awssqs.New(awssqs.Options{
		BaseEndpoint: &endpoint, Region: "us-east-1", HTTPClient: &http.Client{Transport: l},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "benchmarks", SecretAccessKey: "benchmarks"}, nil
		}),
	})
}

// openSQS makes a queue. Each call over its link takes latency longer.
func openSQS(o options, latency time.Duration) (*sqsQueue, error) {
	endpoint, err := o.server.url()
	if err != nil {
		return nil, err
	}
	q := &sqsQueue{name: "bench-" + strconv.FormatInt(time.Now().UnixNano(), 36), link: newLink(latency)}
	q.client, q.direct = sqsClient(endpoint, q.link), sqsClient(endpoint, newLink(0))
	out, err := q.direct.CreateQueue(context.Background(), &awssqs.CreateQueueInput{
		QueueName:  &q.name,
		Attributes: map[string]string{"VisibilityTimeout": strconv.Itoa(int(sqsLease / time.Second))},
	})
	if err != nil {
		return nil, err
	}
	q.url = *out.QueueUrl
	return q, nil
}

// close removes the queue.
func (q *sqsQueue) close() error {
	_, err := q.direct.DeleteQueue(context.Background(), &awssqs.DeleteQueueInput{QueueUrl: &q.url})
	q.link.close()
	return err
}

// fill sends n messages whose bodies begin with their numbers.
func (q *sqsQueue) fill(n int) error {
	const senders = 8
	var (
		next atomic.Int64
		wg   sync.WaitGroup
		errs [senders]error
	)
	for s := range senders {
		wg.Go(func() {
			for errs[s] == nil {
				from := int(next.Add(sqsBatch)) - sqsBatch
				if from >= n {
					return
				}
				entries := make([]types.SendMessageBatchRequestEntry, 0, sqsBatch)
				for i := from; i < min(from+sqsBatch, n); i++ {
					entries = append(entries, entryOf(i-from, numbered(i)))
				}
				errs[s] = sendAll(q.direct, q.url, entries)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs[:]...)
}

// left is how many messages the queue has, visible or not.
func (q *sqsQueue) left() (int, error) {
	out, err := q.direct.GetQueueAttributes(context.Background(), &awssqs.GetQueueAttributesInput{
		QueueUrl: &q.url, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll},
	})
	if err != nil {
		return 0, err
	}
	n := 0
	for _, a := range []types.QueueAttributeName{
		types.QueueAttributeNameApproximateNumberOfMessages, types.QueueAttributeNameApproximateNumberOfMessagesNotVisible,
	} {
		v, err := strconv.Atoi(out.Attributes[string(a)])
		if err != nil {
			return 0, fmt.Errorf("%s: %w", a, err)
		}
		n += v
	}
	return n, nil
}

const sqsBatch = 10 // messages in a request, at most

func entryOf(id int, body []byte) types.SendMessageBatchRequestEntry {
	return types.SendMessageBatchRequestEntry{
		Id: aws.String(strconv.Itoa(id)), MessageBody: aws.String(string(body)), MessageAttributes: rawAttributes(),
	}
}

func rawAttributes() map[string]types.MessageAttributeValue {
	m := make(map[string]types.MessageAttributeValue, attributes)
	for k, v := range newAttributes() {
		m[k] = types.MessageAttributeValue{DataType: aws.String("String"), StringValue: &v}
	}
	return m
}

// sendAll sends a request, and fails when any of its messages does.
func sendAll(c *awssqs.Client, url string, entries []types.SendMessageBatchRequestEntry) error {
	out, err := c.SendMessageBatch(context.Background(), &awssqs.SendMessageBatchInput{QueueUrl: &url, Entries: entries})
	if err != nil {
		return err
	}
	if len(out.Failed) > 0 || len(out.Successful) != len(entries) {
		return fmt.Errorf("%d of %d messages weren't taken", len(entries)-len(out.Successful), len(entries))
	}
	return nil
}
