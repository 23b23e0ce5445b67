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

// gather calls do with up to ten of what comes in. With a linger a request that
// isn't full waits that long for more; there may be any number of them at once.
// Without one there are at most rawSenders, and what comes meanwhile goes out
// together. It ends with in, and when all calls have returned.
func gather[T any](in <-chan T, linger time.Duration, do func([]T)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	free := make(chan struct{}, rawSenders)
	for first := range in {
		batch := append(make([]T, 0, sqsBatch), first)
		if linger > 0 {
			batch = lingering(in, batch, time.After(linger))
			wg.Go(func() { do(batch) })
			continue
		}
		free <- struct{}{}
		batch = waiting(in, batch)
		wg.Go(func() {
			do(batch)
			<-free
		})
	}
}

func lingering[T any](in <-chan T, batch []T, end <-chan time.Time) []T {
	for len(batch) < sqsBatch {
		select {
		case more, ok := <-in:
			if !ok {
				return batch
			}
			batch = append(batch, more)
		case <-end:
			return batch
		}
	}
	return batch
}

func waiting[T any](in <-chan T, batch []T) []T {
	for len(batch) < sqsBatch {
		select {
		case more, ok := <-in:
			if !ok {
				return batch
			}
			batch = append(batch, more)
		default:
			return batch
		}
	}
	return batch
}

type rawPublisher struct {
	in    chan rawSend
	ended chan struct{}
}

type rawSend struct {
	body []byte
	done chan error
}

func (r rawSQS) publisher(q *sqsQueue) (sqsPublisher, error) {
	p := &rawPublisher{in: make(chan rawSend), ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		gather(p.in, r.linger, func(batch []rawSend) {
			entries := make([]types.SendMessageBatchRequestEntry, len(batch))
			for i := range batch {
				entries[i] = entryOf(i, batch[i].body)
			}
			err := sendAll(q.client, q.url, entries)
			for i := range batch {
				batch[i].done <- err
			}
		})
	}()
	return p, nil
}

func (p *rawPublisher) publish(body []byte) error {
	s := rawSend{body, make(chan error, 1)}
	p.in <- s
	return <-s.done
}

func (p *rawPublisher) stop() error {
	close(p.in)
	<-p.ended
	return nil
}

// singleSQS publishes as one does who has a message: SendMessage. It isn't for a
// crowd.
type singleSQS struct{ rawSQS }

type singlePublisher struct{ q *sqsQueue }

func (singleSQS) publisher(q *sqsQueue) (sqsPublisher, error) { return singlePublisher{q}, nil }

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

func (rawSQS) consumer(q *sqsQueue, co sqsConsumerOptions, h sqsHandler) (sqsConsumer, error) {
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
				i := numberOf(aws.ToString(m.Body))
				if len(m.MessageAttributes) != attributes {
					i = -1
				}
				h(i)
				s.handled <- m.ReceiptHandle
			}
		})
	}
	go func() {
		defer close(s.deleted)
		gather(s.handled, rawAckLinger, func(handles []*string) { s.failed(deleteAll(q, handles)) })
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
