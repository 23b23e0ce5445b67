package main

import (
	"context"
	"errors"

	"gocloud.dev/pubsub/gcppubsub"
	"google.golang.org/grpc"
)

// gocloud.dev's gcppubsub with its defaults: it pulls, and gathers what's sent.
// (Its gcppubsubv2 is a shell around the high-level client.)

type gocloudPubSubTopic struct {
	gocloudPublisher
	conn *grpc.ClientConn
}

func gocloudPubSubPublisher(q *pubsubQueue) (cloudPublisher, error) {
	conn, err := grpc.NewClient(q.address, dialOptions(q.meter)...)
	if err != nil {
		return nil, err
	}
	c, err := gcppubsub.PublisherClient(context.Background(), conn)
	if err != nil {
		return nil, err
	}
	topic, err := gcppubsub.OpenTopicByPath(c, q.topic, nil)
	return gocloudPubSubTopic{gocloudPublisher{topic}, conn}, err
}

func (t gocloudPubSubTopic) stop() error {
	return errors.Join(t.gocloudPublisher.stop(), t.conn.Close())
}

type gocloudPubSubSubscription struct {
	*gocloudConsumer
	conn *grpc.ClientConn
}

func gocloudPubSubConsumer(q *pubsubQueue, co pubsubConsumerOptions, h cloudHandler) (pubsubConsumer, error) {
	conn, err := grpc.NewClient(q.address, dialOptions(q.meter)...)
	if err != nil {
		return nil, err
	}
	c, err := gcppubsub.SubscriberClient(context.Background(), conn)
	if err != nil {
		return nil, err
	}
	sub, err := gcppubsub.OpenSubscriptionByPath(c, q.subscription, nil)
	if err != nil {
		return nil, err
	}
	return gocloudPubSubSubscription{newGocloudConsumer(sub, co.handlers, h), conn}, nil
}

func (s gocloudPubSubSubscription) stop() error {
	return errors.Join(s.gocloudConsumer.stop(), s.conn.Close())
}
