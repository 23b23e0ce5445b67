package pubsub

import (
	"context"
	"maps"
	"os"
	"sync"
	"sync/atomic"
	"time"

	gcp "cloud.google.com/go/pubsub/v2"

	"github.com/anyqueue/anyqueue/queue"
)

const system = "gcp_pubsub"

// Backend opens queues of Google Cloud Pub/Sub. It's a queue.Backend and a
// queue.Ensurer, and may be used concurrently. Make it with New or NewBackend: the
// zero value has no client, and its calls fail with a *queue.InvalidError.
type Backend struct {
	clients *clients
	opts    Options
	err     error // of the arguments

	// shortRetention says that Pub/Sub's longest retention was refused, or would be, as
	// Google's emulator does.
	shortRetention atomic.Bool
	making         sync.Map // a lock for each subscription, by its full name
}

var (
	_ queue.Backend = (*Backend)(nil)
	_ queue.Ensurer = (*Backend)(nil)
)

// New returns a backend that works through client, which stays the caller's. Nil
// options are the defaults. What's wrong with the arguments is reported by Open.
func New(client *gcp.Client, opts *Options) *Backend {
	b := newBackend(opts)
	if client == nil {
		b.err = &queue.InvalidError{Field: "client", Reason: "nil"}
		return b
	}
	b.clients = &clients{client: client, foreign: true}
	return b
}

// NewBackend returns a backend with a client of its own, which it makes when it's
// first needed and closes with the last queue that it has opened: without a queue
// it neither connects nor asks for credentials. The client finds credentials as
// Google's libraries do, and the emulator by PUBSUB_EMULATOR_HOST. Nil options are
// the defaults; the project is then that of the environment (GOOGLE_CLOUD_PROJECT)
// or of the credentials. What's wrong with the options is reported by Open.
//
// After an outage, however long, that client connects again within 10 s. One that's
// given to New does as it was made to: by gRPC's default it may wait for two minutes,
// which grpc.WithConnectParams changes; so it does here, in Options.ClientOptions.
func NewBackend(opts *Options) *Backend {
	b := newBackend(opts)
	project, more := b.opts.Project, b.opts.ClientOptions
	b.clients = &clients{dial: func(ctx context.Context) (*gcp.Client, error) {
		if os.Getenv(emulatorHost) != "" {
			b.shortRetention.Store(true)
		}
		return dial(ctx, project, more)
	}}
	return b
}

func newBackend(opts *Options) *Backend {
	if opts == nil {
		opts = &Options{}
	}
	b := &Backend{}
	b.opts, b.err = opts.validate()
	return b
}

// check tells what was wrong with the arguments.
func (b *Backend) check() error {
	if b.err == nil && b.clients == nil {
		return &queue.InvalidError{Field: "Backend", Reason: "not made with New or NewBackend"}
	}
	return b.err
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
	// Attributes are all that came, with those of the library and those that Pub/Sub
	// adds when it dead-letters.
	Attributes map[string]string
}

// InfoOf returns what Pub/Sub says of a delivery that came from it; false for any
// other, and for nil.
func InfoOf(d *queue.Delivery) (Info, bool) {
	if d == nil {
		return Info{}, false
	}
	r, ok := d.Native.(*receipt)
	if !ok {
		return Info{}, false
	}
	m := r.received.GetMessage()
	return Info{
		MessageID: m.GetMessageId(), Subscription: r.from.name, OrderingKey: m.GetOrderingKey(),
		PublishTime: m.GetPublishTime().AsTime(), DeliveryAttempt: int(r.received.GetDeliveryAttempt()),
		Attributes: maps.Clone(m.GetAttributes()),
	}, true
}
