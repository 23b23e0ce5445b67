package main

import (
	"context"
	"errors"
	"sync"

	gcp "cloud.google.com/go/pubsub/v2"
	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-googlecloud/v2/pkg/googlecloud"
	"github.com/ThreeDotsLabs/watermill/message"
)

// Watermill's package for Pub/Sub, which is made of the high-level client, with its
// defaults, but for as many streams as highlevel-10 has.

const watermillStreams = 10

type watermillCloudPublisher struct {
	p     *googlecloud.Publisher
	topic string
}

func watermillPubSubPublisher(q *pubsubQueue) (cloudPublisher, error) {
	p, err := googlecloud.NewPublisher(googlecloud.PublisherConfig{
		ProjectID: pubsubProject, DoNotCheckTopicExistence: true, ClientOptions: q.options(),
	}, watermill.NopLogger{})
	return watermillCloudPublisher{p, q.name}, err
}

func (p watermillCloudPublisher) publish(body []byte) error { return p.publishMany([][]byte{body}) }

// publishMany hands all over at once; Watermill sends one after the other.
func (p watermillCloudPublisher) publishMany(bodies [][]byte) error {
	ms := make([]*message.Message, len(bodies))
	for i, body := range bodies {
		ms[i] = message.NewMessage("", body)
		ms[i].Metadata = newAttributes()
	}
	return p.p.Publish(p.topic, ms...)
}

func (p watermillCloudPublisher) stop() error { return p.p.Close() }

type watermillCloudConsumer struct {
	s        *googlecloud.Subscriber
	handlers sync.WaitGroup
}

func watermillPubSubConsumer(q *pubsubQueue, co pubsubConsumerOptions, h cloudHandler) (pubsubConsumer, error) {
	s, err := googlecloud.NewSubscriber(googlecloud.SubscriberConfig{
		ProjectID: pubsubProject, ClientOptions: q.options(), ReceiveSettings: gcp.ReceiveSettings{NumGoroutines: watermillStreams},
	}, watermill.NopLogger{})
	if err != nil {
		return nil, err
	}
	messages, err := s.Subscribe(context.Background(), q.name)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	c := &watermillCloudConsumer{s: s}
	for range co.handlers {
		c.handlers.Go(func() {
			for m := range messages {
				h(numberOf(m.Payload, ofOurs(m.Metadata)))
				m.Ack()
			}
		})
	}
	return c, nil
}

// ofOurs is how many of our attributes a message has: Watermill adds some.
func ofOurs(md message.Metadata) int {
	n := 0
	for k, v := range newAttributes() {
		if md[k] == v {
			n++
		}
	}
	return n
}

// stop gives back what's handled at this moment.
func (c *watermillCloudConsumer) stop() error {
	err := c.s.Close()
	c.handlers.Wait()
	return err
}
