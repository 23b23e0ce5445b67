package pubsub

import (
	"maps"
	"time"

	gcp "cloud.google.com/go/pubsub/v2"

	"github.com/anyqueue/anyqueue/queue"
)

const system = "gcp_pubsub"

// Backend opens queues of Google Cloud Pub/Sub. It's a queue.Backend and a
// queue.Ensurer, and may be used concurrently.
type Backend struct {
	client *gcp.Client
	opts   Options
	err    error // of New's arguments
}

var (
	_ queue.Backend = (*Backend)(nil)
	_ queue.Ensurer = (*Backend)(nil)
)

// New returns a backend that works through client, which stays the caller's. Nil
// options are the defaults. What's wrong with the arguments is reported by Open.
func New(client *gcp.Client, opts *Options) *Backend {
	if opts == nil {
		opts = &Options{}
	}
	b := &Backend{client: client}
	if b.opts, b.err = opts.validate(); client == nil {
		b.err = &queue.InvalidError{Field: "client", Reason: "nil"}
	}
	return b
}

// System returns "gcp_pubsub".
func (b *Backend) System() string { return system }

// Info is what Pub/Sub itself says of a delivery.
type Info struct {
	MessageID    string
	Subscription string // full name
	OrderingKey  string
	PublishTime  time.Time
	// DeliveryAttempt is approximate, and 0 without a dead-letter policy.
	DeliveryAttempt int
	// Attributes are all that came, with those of the library.
	Attributes map[string]string
}

// InfoOf returns what Pub/Sub says of a delivery that came from it.
func InfoOf(d *queue.Delivery) (Info, bool) {
	r, ok := d.Native.(*receipt)
	if !ok {
		return Info{}, false
	}
	m := r.received.GetMessage()
	return Info{
		MessageID: m.GetMessageId(), Subscription: r.queue.subscription, OrderingKey: m.GetOrderingKey(),
		PublishTime: m.GetPublishTime().AsTime(), DeliveryAttempt: int(r.received.GetDeliveryAttempt()),
		Attributes: maps.Clone(m.GetAttributes()),
	}, true
}
