package main

import (
	"bytes"
	"context"
	"sync"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
)

// watermillSystem is Watermill's gochannel. It copies a message's metadata when
// it's published and for each delivery, but shares the payload: so the payload
// is copied here, on both sides.
type watermillSystem struct{ pubsub *gochannel.GoChannel }

// watermillBuffer is that of the channel which its handlers read from. Without
// one it's slower.
const watermillBuffer = 1024

func newWatermill() system {
	return watermillSystem{gochannel.NewGoChannel(gochannel.Config{OutputChannelBuffer: watermillBuffer}, watermill.NopLogger{})}
}

type watermillSession struct {
	pubsub   *gochannel.GoChannel
	topic    string
	cancel   context.CancelFunc
	handlers sync.WaitGroup
}

func (w watermillSystem) start(name string, n int, h handler) (session, error) {
	ctx, cancel := context.WithCancel(context.Background())
	// One subscription that all handlers read from: each further one would get a
	// copy of every message.
	msgs, err := w.pubsub.Subscribe(ctx, name)
	if err != nil {
		cancel()
		return nil, err
	}
	s := &watermillSession{pubsub: w.pubsub, topic: name, cancel: cancel}
	for range n {
		s.handlers.Go(func() {
			for m := range msgs {
				if h(bytes.Clone(m.Payload), m.Metadata) == nil {
					m.Ack()
				} else {
					m.Nack()
				}
			}
		})
	}
	return s, nil
}

// publisher leaves the UUID empty, which is allowed, and saves its cost.
func (s *watermillSession) publisher(attrs map[string]string) func([]byte) error {
	return func(body []byte) error {
		m := message.NewMessage("", bytes.Clone(body))
		m.Metadata = attrs
		return s.pubsub.Publish(s.topic, m)
	}
}

func (s *watermillSession) stop() error {
	s.cancel()
	s.handlers.Wait()
	return nil
}
