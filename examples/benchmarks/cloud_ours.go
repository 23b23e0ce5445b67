package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// ourCloudPublisher is a queue of ours that's published to.
type ourCloudPublisher struct{ q queue.Queue }

func (p ourCloudPublisher) publish(body []byte) error {
	return p.q.Publish(context.Background(), ourMessage(body))
}

func (p ourCloudPublisher) publishMany(bodies [][]byte) error {
	ms := make([]*queue.Message, len(bodies))
	for i, body := range bodies {
		ms[i] = ourMessage(body)
	}
	return p.q.Publish(context.Background(), ms...)
}

func ourMessage(body []byte) *queue.Message {
	return &queue.Message{Body: body, Attributes: newAttributes()}
}

func (p ourCloudPublisher) stop() error { return p.q.Close(context.Background()) }

// ourCloudConsumer is a queue.Consumer with its defaults.
type ourCloudConsumer struct {
	q      queue.Queue
	c      *queue.Consumer
	cancel context.CancelFunc
	ended  chan error
}

func newOurCloudConsumer(q queue.Queue, handlers int, grace time.Duration, h cloudHandler) (*ourCloudConsumer, error) {
	c, err := queue.NewConsumer(q, func(_ context.Context, d *queue.Delivery) error {
		h(numberOf(d.Body, len(d.Attributes)))
		return nil
	}, &queue.ConsumerOptions{Concurrency: handlers, ReceiveGrace: grace, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &ourCloudConsumer{q: q, c: c, cancel: cancel, ended: make(chan error, 1)}
	go func() { s.ended <- c.Run(ctx) }()
	return s, nil
}

func (s *ourCloudConsumer) stop() error {
	s.cancel()
	err := <-s.ended
	// A poll that goes on after its receive is waited for by Close, up to 20 s: not
	// here, where the queue ends too.
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	return errorsFirst(err, s.q.Close(ctx))
}
