package main

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"gocloud.dev/pubsub"
	"gocloud.dev/pubsub/mempubsub"
)

// gocloud is gocloud.dev's mempubsub. Whenever it finds nothing to receive it sleeps
// for 250 ms, so that its throughput grows with the window (see -window) and
// its latency is what it is. It shares body and metadata between the
// publisher, the queue and every delivery: so both are copied here, on both
// sides.
type gocloud struct{}

func newGocloud() system { return gocloud{} }

type gocloudSession struct {
	topic    *pubsub.Topic
	sub      *pubsub.Subscription
	cancel   context.CancelFunc
	handlers sync.WaitGroup

	mu  sync.Mutex
	err error
}

func (gocloud) start(_ string, n int, h handler) (session, error) {
	ctx, cancel := context.WithCancel(context.Background())
	topic := mempubsub.NewTopic()
	s := &gocloudSession{topic: topic, sub: mempubsub.NewSubscription(topic, 30*time.Second), cancel: cancel}
	for range n {
		s.handlers.Go(func() {
			for {
				m, err := s.sub.Receive(ctx)
				if err != nil {
					s.failed(ctx, err)
					return
				}
				if h(bytes.Clone(m.Body), maps.Clone(m.Metadata)) == nil {
					m.Ack()
				} else {
					m.Nack()
				}
			}
		})
	}
	return s, nil
}

func (s *gocloudSession) failed(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return // it was ended
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = errors.Join(s.err, err)
}

func (s *gocloudSession) publisher(attrs map[string]string) func([]byte) error {
	ctx := context.Background()
	return func(body []byte) error {
		return s.topic.Send(ctx, &pubsub.Message{Body: bytes.Clone(body), Metadata: maps.Clone(attrs)})
	}
}

// stop sends the acknowledgements that are still on their way.
func (s *gocloudSession) stop() error {
	s.cancel()
	s.handlers.Wait()
	ctx := context.Background()
	return errors.Join(s.sub.Shutdown(ctx), s.topic.Shutdown(ctx), s.err)
}
