package main

import (
	"context"

	"gocloud.dev/pubsub/awssnssqs"
)

// gocloudSQS is gocloud.dev's awssnssqs with its defaults, but that it doesn't try
// to read bodies as notifications of SNS.
type gocloudSQS struct{}

func (gocloudSQS) publisher(q *sqsQueue) (cloudPublisher, error) {
	return gocloudPublisher{awssnssqs.OpenSQSTopic(context.Background(), q.client, q.url, nil)}, nil
}

type gocloudSQSConsumer struct{ *gocloudConsumer }

func (gocloudSQS) consumer(q *sqsQueue, co sqsConsumerOptions, h cloudHandler) (sqsConsumer, error) {
	sub := awssnssqs.OpenSubscription(context.Background(), q.client, q.url, &awssnssqs.SubscriptionOptions{Raw: true})
	return gocloudSQSConsumer{newGocloudConsumer(sub, co.handlers, h)}, nil
}

func (s gocloudSQSConsumer) stop() (int, error) { return -1, s.gocloudConsumer.stop() }
