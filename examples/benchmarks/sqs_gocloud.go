package main

import (
	"context"
	"errors"
	"sync"

	"gocloud.dev/pubsub"
	"gocloud.dev/pubsub/awssnssqs"
)

// gocloudSQS is gocloud.dev's awssnssqs with its defaults, but that it doesn't try
// to read bodies as notifications of SNS.
type gocloudSQS struct{}

type gocloudSQSPublisher struct{ topic *pubsub.Topic }

func (gocloudSQS) publisher(q *sqsQueue) (cloudPublisher, error) {
	return gocloudSQSPublisher{awssnssqs.OpenSQSTopic(context.Background(), q.client, q.url, nil)}, nil
}

func (p gocloudSQSPublisher) publish(body []byte) error {
	return p.topic.Send(context.Background(), &pubsub.Message{Body: body, Metadata: newAttributes()})
}

func (p gocloudSQSPublisher) stop() error { return p.topic.Shutdown(context.Background()) }

type gocloudSQSConsumer struct {
	sub      *pubsub.Subscription
	cancel   context.CancelFunc
	handlers sync.WaitGroup

	mu  sync.Mutex
	err error
}

func (gocloudSQS) consumer(q *sqsQueue, co sqsConsumerOptions, h cloudHandler) (sqsConsumer, error) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &gocloudSQSConsumer{
		sub:    awssnssqs.OpenSubscription(ctx, q.client, q.url, &awssnssqs.SubscriptionOptions{Raw: true}),
		cancel: cancel,
	}
	for range co.handlers {
		s.handlers.Go(func() {
			for {
				m, err := s.sub.Receive(ctx)
				if err != nil {
					if ctx.Err() == nil {
						s.mu.Lock()
						s.err = errors.Join(s.err, err)
						s.mu.Unlock()
					}
					return
				}
				h(numberOf(m.Body, len(m.Metadata)))
				m.Ack()
			}
		})
	}
	return s, nil
}

func (s *gocloudSQSConsumer) stop() (int, error) {
	s.cancel()
	s.handlers.Wait()
	s.mu.Lock()
	err := s.err
	s.mu.Unlock()
	return -1, errors.Join(err, s.sub.Shutdown(context.Background()))
}
