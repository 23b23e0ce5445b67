package pubsub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	gcp "cloud.google.com/go/pubsub/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/anyqueue/anyqueue/internal/remote"
	"github.com/anyqueue/anyqueue/queue"
)

// Open opens a queue that exists. It reads the subscription's settings; where
// that isn't permitted it assumes Pub/Sub's defaults, logs a warning and names
// them in Capabilities.Assumed. Opened for publishing only, the topic must have
// a subscription.
func (b *Backend) Open(ctx context.Context, name string, opts *queue.OpenOptions) (queue.Queue, error) {
	if opts == nil {
		opts = &queue.OpenOptions{}
	}
	q, err := b.open(ctx, name, opts)
	if err != nil {
		return nil, fmt.Errorf("pubsub: open %s: %w", name, err)
	}
	return q, nil
}

func (b *Backend) open(ctx context.Context, name string, opts *queue.OpenOptions) (*handle, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	if opts.Lease != 0 && (opts.Lease < time.Second || opts.Lease > maxAckDeadline) {
		return nil, &queue.InvalidError{Field: "Lease", Reason: fmt.Sprintf("%v isn't 1 s to 10 m", opts.Lease)}
	}
	client, done, err := b.clients.use(ctx)
	if err != nil {
		return nil, err
	}
	h := &handle{
		client: client, done: done, name: name, wait: b.opts.Wait, metrics: b.opts.Metrics, log: opts.Logger, closing: make(chan struct{}),
	}
	if h.log == nil {
		h.log = slog.Default()
	}
	if err := h.open(ctx, b.project(client), opts); err != nil {
		return nil, errors.Join(err, done())
	}
	return h, nil
}

// project is the one that names belong to.
func (b *Backend) project(client *gcp.Client) string {
	if b.opts.Project != "" {
		return b.opts.Project
	}
	return client.Project()
}

func (h *handle) open(ctx context.Context, project string, opts *queue.OpenOptions) error {
	at, err := locate(project, h.name, opts)
	if err != nil {
		return err
	}
	h.subscription = at.subscription
	s := settings{retention: defaultRetention, ackDeadline: defaultAckDeadline, ordering: opts.Ordered}
	if opts.Mode == queue.ForPublish {
		err = h.readForPublish(ctx, &at, &s, opts)
	} else {
		err = h.readForConsume(ctx, &at, &s, opts)
	}
	if err != nil {
		return err
	}
	if opts.Lease > 0 && opts.Lease != s.ackDeadline {
		h.lease = seconds(opts.Lease)
	}
	if at.topic == "" && h.noTopic == nil {
		h.noTopic = topicUnknown(h.subscription, s.err)
	}
	h.out.init(h.client, at.topic, &h.counts)
	h.outBack.init(h.client, topicOf(h.subscription)+returnSuffix, &h.counts)
	h.backLooked.Store(time.Now().UnixNano())
	if h.back.Load() != nil && !h.backAssumed {
		h.returning.out, h.returning.until = &h.outBack, time.Now().Add(knownFor)
	}
	h.filter = s.filter
	h.caps = h.capabilities(s)
	for _, src := range h.sources() {
		src.init(h)
	}
	if len(s.assumed) > 0 {
		h.log.Warn("settings of the queue can't be read, assuming the defaults", "queue", h.name, "assumed", s.assumed, "err", s.err)
	}
	return nil
}

// readForConsume reads the subscription and looks for its return subscription.
func (h *handle) readForConsume(ctx context.Context, at *place, s *settings, opts *queue.OpenOptions) error {
	sub, err := h.look(ctx, at.subscription)
	switch {
	case err == nil:
		if err := usable(sub, at); err != nil {
			return err
		}
		if how := delivers(sub); how != "" {
			return &queue.UnsupportedError{Feature: "receiving from a subscription that " + how, System: system}
		}
		at.topic = sub.GetTopic()
		s.read(sub)
		s.warn(h, at.subscription)
		if err := h.publishFiltered(ctx, at, s, opts.Mode); err != nil {
			return err
		}
	case !denied(err):
		return err
	case at.topic == "" && opts.Mode != queue.ForConsume:
		return topicUnknown(at.subscription, err)
	default:
		s.assume(err, "ack_deadline", "message_retention_duration", "enable_message_ordering", "enable_exactly_once_delivery", "dead_letter_policy",
			"retry_policy", "filter")
	}
	if opts.Ordered && !s.ordering {
		return errUnordered
	}
	h.main = &source{name: at.subscription, ackDeadline: s.ackDeadline, exactlyOnce: s.exactlyOnce}
	return h.readBack(ctx, s)
}

// readForPublish sees to it that what's published isn't lost, and learns from the
// subscription for how long it's kept.
func (h *handle) readForPublish(ctx context.Context, at *place, s *settings, opts *queue.OpenOptions) error {
	if at.topic == "" {
		sub, err := h.look(ctx, at.subscription)
		switch {
		case denied(err):
			return topicUnknown(at.subscription, err)
		case err != nil:
			return err
		}
		if err := usable(sub, at); err != nil {
			return err
		}
		at.topic = sub.GetTopic()
	}
	h.out.client, h.out.topic = h.client, at.topic
	found, err := h.subscribers(ctx, maxMessages)
	switch {
	case denied(err):
		s.assume(err, "that the topic has a subscription", "message_retention_duration", "filter")
		return nil
	case err != nil:
		return err
	case len(found) == 0:
		return remote.As(queue.ErrQueueNotFound, fmt.Errorf("%s isn't there, or has no subscription, so that what's published would be lost (Ensure makes both)", at.topic))
	}
	if at.subscription == "" {
		return h.readAll(ctx, at, s, found)
	}
	sub, err := h.look(ctx, at.subscription)
	switch {
	case !slices.Contains(found, at.subscription) && (denied(err) || errors.Is(err, queue.ErrQueueNotFound)):
		return ownMissing(at)
	case denied(err):
		s.assume(err, "message_retention_duration", "filter") // publishing doesn't need more
		return nil
	case err != nil:
		return err
	}
	if err := usable(sub, at); err != nil {
		return err
	}
	own := *s
	own.read(sub)
	if opts.Ordered && !own.ordering {
		return errUnordered
	}
	s.retention, s.filter = own.retention, own.filter
	s.ordering = s.ordering || own.ordering
	if s.filter == "" {
		return nil
	}
	s.warnFilter(h, at.subscription)
	if len(found) == 1 {
		return onlyFiltered(s.filter, at.subscription)
	}
	return nil
}

var errUnordered error = &queue.InvalidError{Field: "Ordered", Reason: "the subscription was made without message ordering"}

// ownMissing says that what's published would only reach others than the queue's own
// consumers.
func ownMissing(at *place) error {
	return remote.As(queue.ErrQueueNotFound, fmt.Errorf("%s doesn't exist, and what's published meanwhile would be lost to it; to publish to the other subscriptions of the topic name that alone, in Address: %s",
		at.subscription, at.topic))
}

// topicUnknown says that there's nowhere to publish to, for want of a permission.
func topicUnknown(subscription string, err error) error {
	return fmt.Errorf("the topic of %s isn't known, as its settings may not be read; name it too, in Address, as topics/TOPIC,subscriptions/SUBSCRIPTION: %w", subscription, err)
}

// look reads a subscription.
func (h *handle) look(ctx context.Context, name string) (*pubsubpb.Subscription, error) {
	var a asking
	sub, err := h.client.SubscriptionAdminClient.GetSubscription(ctx, &pubsubpb.GetSubscriptionRequest{Subscription: name}, a.option())
	if missing(err) {
		return nil, remote.As(queue.ErrQueueNotFound, fmt.Errorf("there's no %s (Ensure makes queues): %w", name, err))
	}
	if err != nil {
		return nil, a.failed(ctx, err)
	}
	return sub, nil
}

// deletedTopic is the topic of a subscription whose topic is gone.
const deletedTopic = "_deleted-topic_"

// usable reports what makes a subscription unfit.
func usable(sub *pubsubpb.Subscription, at *place) error {
	gone := func(why string) error {
		return remote.As(queue.ErrQueueNotFound, fmt.Errorf("the subscription %s %s", sub.GetName(), why))
	}
	switch {
	case sub.GetTopic() == deletedTopic:
		return gone("has lost its topic, which was deleted")
	case sub.GetDetached():
		return gone("was detached from its topic")
	case at.topic != "" && at.topic != sub.GetTopic():
		return &queue.InvalidError{Field: "subscription", Reason: fmt.Sprintf("%s belongs to %s, not to %s", sub.GetName(), sub.GetTopic(), at.topic)}
	}
	return nil
}

func (h *handle) capabilities(s settings) queue.Capabilities {
	c := queue.Capabilities{
		Source: queue.Endpoint{System: system, Name: h.name}, Address: h.subscription,
		Wire:       queue.PubSubWire(),
		MaxReceive: maxMessages, MaxSettle: maxMessages,
		Lease: s.ackDeadline, MaxExtension: maxAckDeadline,
		Delays: true, MaxRedeliveryDelay: maxAckDeadline, Retention: s.retention,
		Filter:          s.filter,
		Ordering:        s.ordering,
		SettleConfirmed: s.exactlyOnce && (h.back.Load() == nil || h.back.Load().exactlyOnce),
		Assumed:         s.assumed,
	}
	if h.lease > 0 {
		c.Lease = time.Duration(h.lease) * time.Second
	}
	if h.main == nil {
		c.Address = h.out.topic
	}
	if s.counts {
		c.Attempts, c.ReleaseCounts, c.BrokerMaxAttempts = queue.AttemptsApproximate, true, s.maxAttempts
	}
	return c
}

var (
	_ queue.Queue    = (*handle)(nil)
	_ queue.Redriver = (*handle)(nil)
)

// handle is an opened queue.
type handle struct {
	client       *gcp.Client
	done         func() error // with the client
	name         string
	subscription string                 // full name; empty: only a topic is known
	main         *source                // nil: opened to publish
	back         atomic.Pointer[source] // nil: there's none, as far as known
	filter       string                 // of the main subscription, as far as known
	backAssumed  bool                   // it isn't known to bring what's published to its topic
	noTopic      error                  // why out has none, where that isn't known
	out          outlet
	outBack      outlet // the return topic, if there's one
	returning    returning
	backLooked   atomic.Int64 // when back was looked for: Unix time in nanoseconds
	attaching    sync.Mutex   // of back, beside closing

	wait    time.Duration
	lease   int32 // seconds to ask for, instead of what the subscription gives; 0: that
	caps    queue.Capabilities
	metrics Metrics
	log     *slog.Logger

	calls  remote.Calls
	unseen remote.Unseen
	counts counts

	closed  sync.Once
	closing chan struct{} // closed by Close: nobody receives any more
}

// Capabilities tells what the queue can do.
func (h *handle) Capabilities() queue.Capabilities { return h.caps }

// Close waits for calls in flight, and for pulls that went on after their
// Receive had ended: up to Options.Wait. What's still open when ctx ends is cut
// off; for such a pull that's no error.
func (h *handle) Close(ctx context.Context) error {
	err := h.calls.Close(ctx)
	h.closed.Do(func() {
		h.attaching.Lock()
		defer h.attaching.Unlock()
		close(h.closing)
	})
	h.out.batches.Close()
	h.outBack.batches.Close()
	var wg sync.WaitGroup
	for _, src := range h.sources() {
		wg.Go(func() { src.polls.Close(ctx) })
	}
	wg.Wait()
	if err = errors.Join(err, h.done()); err != nil {
		return h.fail("close", err)
	}
	return nil
}

// missing reports whether a call says that something doesn't exist.
func missing(err error) bool { return status.Code(err) == codes.NotFound }
