package main

import (
	"context"
	"errors"
	"time"

	gcp "cloud.google.com/go/pubsub/v2"
)

// highLevel is Google's high-level client with its defaults, but for these.
type highLevel struct {
	delay   time.Duration // DelayThreshold
	streams int           // NumGoroutines
}

type highLevelPublisher struct{ p *gcp.Publisher }

func (s highLevel) publisher(q *pubsubQueue) (cloudPublisher, error) {
	p := q.client.Publisher(q.name)
	if s.delay > 0 {
		p.PublishSettings.DelayThreshold = s.delay
	}
	return highLevelPublisher{p}, nil
}

func (p highLevelPublisher) publish(body []byte) error { return p.publishMany([][]byte{body}) }

func (p highLevelPublisher) publishMany(bodies [][]byte) error {
	ctx := context.Background()
	results := make([]*gcp.PublishResult, len(bodies))
	for i, body := range bodies {
		results[i] = p.p.Publish(ctx, &gcp.Message{Data: body, Attributes: newAttributes()})
	}
	var all error
	for _, r := range results {
		if _, err := r.Get(ctx); err != nil {
			all = errors.Join(all, err)
		}
	}
	return all
}

func (p highLevelPublisher) stop() error {
	p.p.Stop()
	return nil
}

type highLevelConsumer struct {
	cancel context.CancelFunc
	ended  chan error
}

func (s highLevel) consumer(q *pubsubQueue, co pubsubConsumerOptions, h cloudHandler) (pubsubConsumer, error) {
	ctx, cancel := context.WithCancel(context.Background())
	sub := q.client.Subscriber(q.name)
	if s.streams > 0 {
		sub.ReceiveSettings.NumGoroutines = s.streams
	}
	// It calls as many at once as it fetches: MaxOutstandingMessages for both would
	// leave slots empty.
	slots := make(chan struct{}, co.handlers)
	c := &highLevelConsumer{cancel: cancel, ended: make(chan error, 1)}
	go func() {
		c.ended <- sub.Receive(ctx, func(_ context.Context, m *gcp.Message) {
			slots <- struct{}{}
			h(numberOf(m.Data, len(m.Attributes)))
			<-slots
			m.Ack()
		})
	}()
	return c, nil
}

func (c *highLevelConsumer) stop() error {
	c.cancel()
	return <-c.ended
}
