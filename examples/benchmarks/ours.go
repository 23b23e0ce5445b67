package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
)

// ours is this library: queue.Consumer on package memory, as an application uses
// them. Both sides are isolated by the library itself.
type ours struct{ broker *memory.Broker }

func newOurs() system { return ours{memory.New(&memory.Options{Create: true})} }

type ourSession struct {
	q      queue.Queue
	cancel context.CancelFunc
	ended  chan error // of the consumer; nil: there's none
}

func (o ours) start(name string, n int, h handler) (session, error) {
	q, err := o.broker.Open(context.Background(), name, nil)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &ourSession{q: q, cancel: cancel}
	if n == 0 {
		return s, nil
	}
	c, err := queue.NewConsumer(q, func(_ context.Context, d *queue.Delivery) error {
		if err := h(d.Body, d.Attributes); err != nil {
			return queue.RetryAfter(time.Microsecond, err)
		}
		return nil
	}, consumerOptions(n))
	if err != nil {
		cancel()
		return nil, err
	}
	s.ended = make(chan error, 1)
	go func() { s.ended <- c.Run(ctx) }()
	return s, nil
}

// consumerOptions are the defaults, but that a consumer which is ended doesn't
// wait for more messages: there are none, and it would be a second of waiting
// in every round.
func consumerOptions(n int) *queue.ConsumerOptions {
	return &queue.ConsumerOptions{Concurrency: n, ReceiveGrace: -1, Logger: slog.New(slog.DiscardHandler)}
}

func (s *ourSession) publisher(attrs map[string]string) func([]byte) error {
	ctx := context.Background()
	m := &queue.Message{Attributes: attrs}
	return func(body []byte) error {
		m.Body = body
		return s.q.Publish(ctx, m)
	}
}

// stop ends the consumer, which sends its last acknowledgements, and looks
// whether they have all arrived.
func (s *ourSession) stop() error {
	ctx := context.Background()
	s.cancel()
	if s.ended == nil {
		return s.q.Close(ctx)
	}
	if err := <-s.ended; err != nil {
		return err
	}
	in, ok := queue.As[queue.Inspector](s.q)
	if !ok {
		return errors.New("the queue can't be inspected")
	}
	st, err := in.Stats(ctx)
	if err != nil {
		return err
	}
	if n := *st.Ready + *st.InFlight + *st.Delayed; n != 0 {
		return fmt.Errorf("%d messages are left", n)
	}
	return s.q.Close(ctx)
}
