package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs"
)

// ourSQS is this library: package sqs and queue.Consumer with their defaults.
type ourSQS struct{}

func (ourSQS) open(q *sqsQueue) (queue.Queue, error) {
	return sqs.New(q.client, nil).Open(context.Background(), q.name, &queue.OpenOptions{Logger: slog.New(slog.DiscardHandler)})
}

type ourSQSPublisher struct{ q queue.Queue }

func (o ourSQS) publisher(q *sqsQueue) (cloudPublisher, error) {
	opened, err := o.open(q)
	return ourSQSPublisher{opened}, err
}

func (p ourSQSPublisher) publish(body []byte) error {
	return p.q.Publish(context.Background(), &queue.Message{Body: body, Attributes: newAttributes()})
}

func (p ourSQSPublisher) stop() error { return p.q.Close(context.Background()) }

type ourSQSConsumer struct {
	q      queue.Queue
	c      *queue.Consumer
	cancel context.CancelFunc
	ended  chan error
}

func (o ourSQS) consumer(q *sqsQueue, co sqsConsumerOptions, h cloudHandler) (sqsConsumer, error) {
	opened, err := o.open(q)
	if err != nil {
		return nil, err
	}
	c, err := queue.NewConsumer(opened, func(_ context.Context, d *queue.Delivery) error {
		h(numberOf(d.Body, len(d.Attributes)))
		return nil
	}, &queue.ConsumerOptions{Concurrency: co.handlers, ReceiveGrace: co.grace, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &ourSQSConsumer{q: opened, c: c, cancel: cancel, ended: make(chan error, 1)}
	go func() { s.ended <- c.Run(ctx) }()
	return s, nil
}

func (s *ourSQSConsumer) stop() (int, error) {
	s.cancel()
	err := <-s.ended
	// A poll that goes on after its receive is waited for by Close, up to 20 s: not
	// here, where the queue ends too.
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	return int(s.c.Stats().CutReceives), errorsFirst(err, s.q.Close(ctx)) //nolint:gosec // a few
}
