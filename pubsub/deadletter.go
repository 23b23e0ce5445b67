package pubsub

import (
	"strconv"
	"strings"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// What Pub/Sub adds to a message that it takes to the topic of a dead-letter policy
// (https://docs.cloud.google.com/pubsub/docs/dead-letter-topics): these attributes, which
// aren't the user's, and an id and a time of their own.
const (
	deadLetterPrefix  = "CloudPubSubDeadLetterSource"
	deadSubscription  = deadLetterPrefix + "Subscription"
	deadProject       = deadLetterPrefix + "SubscriptionProject"
	deadDeliveryCount = deadLetterPrefix + "DeliveryCount"
	deadPublishTime   = deadLetterPrefix + "TopicPublishTime"
)

// withoutDeadLetter takes out of attrs what Pub/Sub has added. It's called for every
// delivery.
func withoutDeadLetter(attrs map[string]string) {
	for k := range attrs {
		if strings.HasPrefix(k, deadLetterPrefix) {
			delete(attrs, k)
		}
	}
}

// fillDeadLetter notes what Pub/Sub says of the dead-lettering of what was received, if
// it was that which did it.
func (r *receipt) fillDeadLetter(d *queue.Delivery) {
	m := r.received.GetMessage()
	subscription := m.GetAttributes()[deadSubscription]
	if subscription == "" {
		return
	}
	// What came through the return subscription failed in the same queue.
	name := strings.TrimSuffix(subscription, returnSuffix)
	if p := m.GetAttributes()[deadProject]; p != "" && !strings.HasPrefix(r.from.name, fullName(p, subscriptionKind, "")) {
		name = fullName(p, subscriptionKind, name)
	}
	// What isn't understood is left out.
	count, _ := strconv.Atoi(m.GetAttributes()[deadDeliveryCount])
	published, _ := time.Parse(time.RFC3339, m.GetAttributes()[deadPublishTime])
	d.FillDeadLetter(queue.DeadLetterInfo{
		Source: queue.Endpoint{System: system, Name: name}, Reason: queue.ReasonBroker, Attempt: count,
		FirstAt: published, LastAt: m.GetPublishTime().AsTime(),
	})
}
