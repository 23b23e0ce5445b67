package main

import (
	"slices"
	"strings"
	"time"
)

// pubsubContender is what's compared on Pub/Sub.
type pubsubContender struct {
	name string
	peer bool     // all others: what one writes by hand counts too
	in   []string // the measurements that it takes part in

	// floorOf are those in which it's a floor and no peer: it keeps no lease, fetches
	// far ahead, and loses what its acknowledgements lose.
	floorOf []string

	publisher func(q *pubsubQueue) (cloudPublisher, error)

	// consumer handles what's in the queue.
	consumer func(q *pubsubQueue, c pubsubConsumerOptions, h cloudHandler) (pubsubConsumer, error)
}

type pubsubConsumerOptions struct {
	handlers int // at most so many at once

	pulls, streams int // of what's written by hand
}

type pubsubConsumer interface {
	// stop ends it: no handler runs any more, and what was handled is acknowledged.
	stop() error
}

// manyPublisher can be given many messages in one call.
type manyPublisher interface {
	publishMany(bodies [][]byte) error
}

func (c pubsubContender) called() string { return c.name }
func (c pubsubContender) isPeer() bool   { return c.peer }

const (
	pubsubPublishName = "pubsub-publish"
	pubsubConsumeName = "pubsub-consume"
	pubsubLoneName    = "pubsub-lone"
	pubsubManyName    = "pubsub-many"
	pubsubTrickleName = "pubsub-trickle"

	tensName    = "raw-10"     // the generated client, ten messages in a call: the floor of publishing
	pullsName   = "raw-unary"  // the same client, pulls side by side: the floor of consuming
	streamsName = "raw-stream" // the same, streams side by side
)

// pubsubContenders by name. The high-level client is what one gets with
// gcp.NewClient: with as many streams as its name says, and one by default.
var pubsubContenders = []pubsubContender{
	{
		name: rawName, peer: true, in: []string{pubsubLoneName, pubsubManyName},
		publisher: rawPubSub,
	}, {
		name: tensName, peer: true, in: []string{pubsubPublishName},
		publisher: rawTens,
	}, {
		name: pullsName, peer: true, in: []string{pubsubConsumeName, pubsubTrickleName}, floorOf: []string{pubsubConsumeName},
		publisher: rawPubSub, consumer: rawPulls,
	}, {
		name: streamsName, peer: true, in: []string{pubsubConsumeName, pubsubTrickleName}, floorOf: []string{pubsubConsumeName},
		publisher: rawPubSub, consumer: rawStreams,
	}, {
		name: oursName, in: []string{pubsubPublishName, pubsubConsumeName, pubsubLoneName, pubsubManyName, pubsubTrickleName},
		publisher: ourPubSubPublisher, consumer: ourPubSubConsumer,
	}, {
		name: "gocloud", peer: true, in: []string{pubsubPublishName, pubsubConsumeName, pubsubLoneName, pubsubManyName, pubsubTrickleName},
		publisher: gocloudPubSubPublisher, consumer: gocloudPubSubConsumer,
	}, {
		name: "highlevel", peer: true, in: []string{pubsubPublishName, pubsubLoneName, pubsubManyName, pubsubTrickleName},
		publisher: highLevel{}.publisher, consumer: highLevel{}.consumer,
	}, {
		name: "highlevel-1ms", peer: true, in: []string{pubsubPublishName, pubsubTrickleName},
		publisher: highLevel{delay: time.Millisecond}.publisher, consumer: highLevel{}.consumer,
	}, {
		name: "highlevel-1", peer: true, in: []string{pubsubConsumeName},
		consumer: highLevel{streams: 1}.consumer,
	}, {
		name: "highlevel-10", peer: true, in: []string{pubsubConsumeName},
		consumer: highLevel{streams: 10}.consumer,
	}, {
		name: "watermill", peer: true, in: []string{pubsubPublishName, pubsubConsumeName, pubsubLoneName, pubsubManyName, pubsubTrickleName},
		publisher: watermillPubSubPublisher, consumer: watermillPubSubConsumer,
	},
}

// pubsubContenders are those that were asked for and take part.
func (o options) pubsubContenders(measurement string) []pubsubContender {
	wanted := strings.FieldsFunc(o.systems, func(r rune) bool { return r == ',' })
	var out []pubsubContender
	for _, c := range pubsubContenders {
		if slices.Contains(c.in, measurement) && (len(wanted) == 0 || slices.Contains(wanted, c.name)) {
			c.peer = c.peer && !slices.Contains(c.floorOf, measurement)
			out = append(out, c)
		}
	}
	return out
}
