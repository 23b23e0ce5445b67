package main

import (
	"context"
	"log/slog"

	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
)

// ourPubSub is this library: package pubsub with its defaults.
func ourPubSub(q *pubsubQueue) (queue.Queue, error) {
	return pubsub.New(q.client, nil).Open(context.Background(), q.name, &queue.OpenOptions{Logger: slog.New(slog.DiscardHandler)})
}

func ourPubSubPublisher(q *pubsubQueue) (cloudPublisher, error) {
	opened, err := ourPubSub(q)
	return ourCloudPublisher{opened}, err
}

// ourPubSubConsumer is queue.Consumer with its defaults, but that it doesn't wait
// for more messages when it's ended.
func ourPubSubConsumer(q *pubsubQueue, co pubsubConsumerOptions, h cloudHandler) (pubsubConsumer, error) {
	opened, err := ourPubSub(q)
	if err != nil {
		return nil, err
	}
	return newOurCloudConsumer(opened, co.handlers, -1, h)
}
