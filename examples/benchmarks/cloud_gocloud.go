package main

import (
	"context"
	"errors"
	"sync"

	"gocloud.dev/pubsub"
)

type gocloudPublisher struct{ topic *pubsub.Topic }

func (p gocloudPublisher) publish(body []byte) error {
	return p.topic.Send(context.Background(), &pubsub.Message{Body: body, Metadata: newAttributes()})
}

// publishMany sends all at once, each for itself: gocloud.dev has no other way.
func (p gocloudPublisher) publishMany(bodies [][]byte) error {
	var wg sync.WaitGroup
	errs := make([]error, len(bodies))
	for i, body := range bodies {
		wg.Go(func() { errs[i] = p.publish(body) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (p gocloudPublisher) stop() error { return p.topic.Shutdown(context.Background()) }

type gocloudConsumer struct {
	sub      *pubsub.Subscription
	cancel   context.CancelFunc
	handlers sync.WaitGroup

	mu  sync.Mutex
	err error
}

func newGocloudConsumer(sub *pubsub.Subscription, handlers int, h cloudHandler) *gocloudConsumer {
	ctx, cancel := context.WithCancel(context.Background())
	s := &gocloudConsumer{sub: sub, cancel: cancel}
	for range handlers {
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
	return s
}

func (s *gocloudConsumer) stop() error {
	s.cancel()
	s.handlers.Wait()
	s.mu.Lock()
	err := s.err
	s.mu.Unlock()
	return errors.Join(err, s.sub.Shutdown(context.Background()))
}
