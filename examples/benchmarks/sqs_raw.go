package main

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// rawSQS is what an application writes by hand on the AWS SDK, and well: requests
// of ten, as many at once as it takes. It keeps no lease, counts no attempt,
// tries nothing again and loses what its deletes lose. It's the floor.
type rawSQS struct {
	linger time.Duration // for a request that isn't full
}

const (
	rawLinger    = 5 * time.Millisecond
	rawAckLinger = 50 * time.Millisecond
	rawReceivers = 32
	rawSenders   = 8
)

func (r rawSQS) publisher(q *sqsQueue) (cloudPublisher, error) {
	g := gathering{size: sqsBatch, senders: rawSenders, linger: r.linger}
	return newGatherer(g, func(bodies [][]byte) error {
		entries := make([]types.SendMessageBatchRequestEntry, len(bodies))
		for i, body := range bodies {
			entries[i] = entryOf(i, body)
		}
		return sendAll(q.client, q.url, entries)
	}), nil
}

// singleSQS publishes as one does who has a message: SendMessage. It isn't for a
// crowd.
type singleSQS struct{ rawSQS }

type singlePublisher struct{ q *sqsQueue }

func (singleSQS) publisher(q *sqsQueue) (cloudPublisher, error) { return singlePublisher{q}, nil }

func (p singlePublisher) publish(body []byte) error {
	_, err := p.q.client.SendMessage(context.Background(), &awssqs.SendMessageInput{
		QueueUrl: &p.q.url, MessageBody: aws.String(string(body)), MessageAttributes: rawAttributes(),
	})
	return err
}

func (singlePublisher) stop() error { return nil }

type rawConsumer struct {
	cancel    context.CancelFunc
	receivers sync.WaitGroup
	handlers  sync.WaitGroup
	deleted   chan struct{}
	messages  chan types.Message
	handled   chan *string // receipt handles

	mu  sync.Mutex
	cut int
	err error
}

func (rawSQS) consumer(q *sqsQueue, co sqsConsumerOptions, h cloudHandler) (sqsConsumer, error) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &rawConsumer{cancel: cancel, deleted: make(chan struct{}), messages: make(chan types.Message), handled: make(chan *string, co.handlers)}
	receivers := 1
	if co.wide {
		receivers = rawReceivers
	}
	for range receivers {
		s.receivers.Go(func() { s.receive(ctx, q) })
	}
	for range co.handlers {
		s.handlers.Go(func() {
			for m := range s.messages {
				h(numberOf(aws.ToString(m.Body), len(m.MessageAttributes)))
				s.handled <- m.ReceiptHandle
			}
		})
	}
	go func() {
		defer close(s.deleted)
		gather(s.handled, gathering{size: sqsBatch, linger: rawAckLinger}, func(handles []*string) { s.failed(deleteAll(q, handles)) })
	}()
	return s, nil
}

func (s *rawConsumer) receive(ctx context.Context, q *sqsQueue) {
	for {
		out, err := q.client.ReceiveMessage(ctx, &awssqs.ReceiveMessageInput{
			QueueUrl: &q.url, MaxNumberOfMessages: sqsBatch, WaitTimeSeconds: 20,
			MessageAttributeNames:       []string{"All"},
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
		})
		if err != nil {
			if ctx.Err() == nil {
				s.failed(err)
			}
			s.mu.Lock()
			s.cut++
			s.mu.Unlock()
			return
		}
		for _, m := range out.Messages {
			s.messages <- m
		}
	}
}

func deleteAll(q *sqsQueue, handles []*string) error {
	entries := make([]types.DeleteMessageBatchRequestEntry, len(handles))
	for i, r := range handles {
		entries[i] = types.DeleteMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), ReceiptHandle: r}
	}
	out, err := q.client.DeleteMessageBatch(context.Background(), &awssqs.DeleteMessageBatchInput{QueueUrl: &q.url, Entries: entries})
	if err == nil && len(out.Failed) > 0 {
		err = errors.New(aws.ToString(out.Failed[0].Message))
	}
	return err
}

func (s *rawConsumer) failed(err error) {
	if err == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = errors.Join(s.err, err)
}

func (s *rawConsumer) stop() (int, error) {
	s.cancel()
	s.receivers.Wait()
	close(s.messages)
	s.handlers.Wait()
	close(s.handled)
	<-s.deleted
	return s.cut, s.err
}
