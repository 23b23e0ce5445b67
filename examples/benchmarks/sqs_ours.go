package main

import (
	"context"
	"log/slog"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs"
)

// ourSQS is this library: package sqs and queue.Consumer with their defaults.
type ourSQS struct{}

func (ourSQS) open(q *sqsQueue) (queue.Queue, error) {
	return sqs.New(q.client, nil).Open(context.Background(), q.name, &queue.OpenOptions{Logger: slog.New(slog.DiscardHandler)})
}

func (o ourSQS) publisher(q *sqsQueue) (cloudPublisher, error) {
	opened, err := o.open(q)
	return ourCloudPublisher{opened}, err
}

type ourSQSConsumer struct{ *ourCloudConsumer }

func (o ourSQS) consumer(q *sqsQueue, co sqsConsumerOptions, h cloudHandler) (sqsConsumer, error) {
	opened, err := o.open(q)
	if err != nil {
		return nil, err
	}
	c, err := newOurCloudConsumer(opened, co.handlers, co.grace, h)
	return ourSQSConsumer{c}, err
}

func (s ourSQSConsumer) stop() (int, error) {
	err := s.ourCloudConsumer.stop()
	return int(s.c.Stats().CutReceives), err //nolint:gosec // a few
}
