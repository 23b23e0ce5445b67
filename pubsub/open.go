package pubsub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"time"

	gcp "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/iterator"

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
	if b.err != nil {
		return nil, b.err
	}
	if opts.Lease != 0 && (opts.Lease < time.Second || opts.Lease > maxAckDeadline) {
		return nil, &queue.InvalidError{Field: "Lease", Reason: fmt.Sprintf("%v isn't 1 s to 10 m", opts.Lease)}
	}
	h := &handle{client: b.client, name: name, wait: b.opts.Wait, ackDeadline: minAckDeadline}
	h.polls.Poll, h.polls.GiveBack = h.poll, h.giveBack
	if err := b.locate(h, name, opts); err != nil {
		return nil, err
	}
	s := settings{retention: defaultRetention, ordering: opts.Ordered}
	if h.subscription != "" {
		if err := b.settings(ctx, h, &s); err != nil {
			return nil, err
		}
		if opts.Ordered && !s.ordering {
			return nil, &queue.InvalidError{Field: "Ordered", Reason: "the subscription was made without message ordering"}
		}
	}
	if err := b.subscriptions(ctx, h, &s); err != nil {
		return nil, err
	}
	if opts.Lease > 0 && opts.Lease != h.ackDeadline {
		h.lease = seconds(opts.Lease)
	}
	h.caps = h.capabilities(s)
	if len(s.assumed) > 0 {
		log := opts.Logger
		if log == nil {
			log = slog.Default()
		}
		log.Warn("settings of the queue can't be read, assuming the defaults", "queue", name, "assumed", s.assumed, "err", s.err)
	}
	return h, nil
}

var fullName = regexp.MustCompile(`^projects/[^/]+/(topics|subscriptions)/[^/]+$`)

// locate works out where the queue is from its name and the explicit address.
func (b *Backend) locate(h *handle, name string, opts *queue.OpenOptions) error {
	if opts.Address == "" {
		if err := queue.CheckName(name); err != nil {
			return err
		}
		h.topic = b.topic(name)
		if opts.Mode != queue.ForPublish {
			h.subscription = b.subscription(name)
		}
		return nil
	}
	m := fullName.FindStringSubmatch(opts.Address)
	switch {
	case m == nil:
		return &queue.InvalidError{Field: "Address", Reason: fmt.Sprintf("%q isn't the full name of a topic or subscription", opts.Address)}
	case m[1] == "subscriptions":
		h.subscription = opts.Address
	case opts.Mode == queue.ForPublish:
		h.topic = opts.Address
	default:
		return &queue.InvalidError{Field: "Address", Reason: "a topic can only be opened to publish; a subscription leads to its topic"}
	}
	return nil
}

func (b *Backend) topic(name string) string {
	return "projects/" + b.client.Project() + "/topics/" + name
}
func (b *Backend) subscription(name string) string {
	return "projects/" + b.client.Project() + "/subscriptions/" + name
}

// settings are what a subscription says about itself.
type settings struct {
	retention   time.Duration
	ordering    bool
	maxAttempts int
	counts      bool // there's a dead-letter policy
	assumed     []string
	err         error // why they are assumed
}

func (b *Backend) settings(ctx context.Context, h *handle, s *settings) error {
	sub, err := b.client.SubscriptionAdminClient.GetSubscription(ctx, &pubsubpb.GetSubscriptionRequest{Subscription: h.subscription})
	if err != nil {
		if err = classify(err); !errors.Is(err, queue.ErrPermission) || h.topic == "" {
			return err
		}
		s.err = err
		s.assumed = []string{"ack_deadline", "message_retention_duration", "enable_message_ordering", "dead_letter_policy"}
		return nil
	}
	if sub.GetEnableExactlyOnceDelivery() {
		return &queue.UnsupportedError{Feature: "a subscription with exactly-once delivery", System: system}
	}
	if h.topic == "" {
		h.topic = sub.GetTopic()
	}
	if h.topic != sub.GetTopic() {
		return &queue.InvalidError{Field: "subscription", Reason: fmt.Sprintf("%s belongs to %s", h.subscription, sub.GetTopic())}
	}
	if d := sub.GetAckDeadlineSeconds(); d > 0 {
		h.ackDeadline = time.Duration(d) * time.Second
	}
	if d := sub.GetMessageRetentionDuration(); d != nil {
		s.retention = d.AsDuration()
	}
	s.ordering = sub.GetEnableMessageOrdering()
	if p := sub.GetDeadLetterPolicy(); p != nil {
		s.counts, s.maxAttempts = true, int(p.GetMaxDeliveryAttempts())
	}
	return nil
}

// subscriptions finds out who gets what's published: nobody, which would lose it,
// or others too, who mustn't see what's published again.
func (b *Backend) subscriptions(ctx context.Context, h *handle, s *settings) error {
	h.shared = true
	it := b.client.TopicAdminClient.ListTopicSubscriptions(ctx, &pubsubpb.ListTopicSubscriptionsRequest{Topic: h.topic})
	var found []string
	for len(found) < 2 {
		sub, err := it.Next()
		if errors.Is(err, iterator.Done) {
			break
		}
		if err != nil {
			if err = classify(err); errors.Is(err, queue.ErrPermission) {
				s.err, s.assumed = err, append(s.assumed, "that others subscribe to the topic")
				return nil
			}
			return err
		}
		found = append(found, sub)
	}
	if len(found) == 0 {
		return remote.As(queue.ErrQueueNotFound, errNoSubscription)
	}
	h.shared = len(found) > 1 || found[0] != h.subscription
	return nil
}

var errNoSubscription = errors.New("the topic has no subscription, so that what's published would be lost")

func (h *handle) capabilities(s settings) queue.Capabilities {
	c := queue.Capabilities{
		Source: queue.Endpoint{System: system, Name: h.name}, Address: h.subscription,
		Wire:       queue.PubSubWire(),
		MaxReceive: maxMessages, MaxSettle: maxMessages,
		Lease: h.ackDeadline, MaxExtension: maxAckDeadline,
		Delays: true, MaxRedeliveryDelay: maxAckDeadline, Retention: s.retention,
		Ordering: s.ordering,
		Assumed:  s.assumed,
	}
	if h.lease > 0 {
		c.Lease = time.Duration(h.lease) * time.Second
	}
	if c.Address == "" {
		c.Address = h.topic
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
	name         string
	topic        string // full names
	subscription string // empty: opened to publish
	shared       bool   // the topic has, or may have, other subscriptions
	wait         time.Duration
	ackDeadline  time.Duration // that the subscription gives
	lease        int32         // seconds to ask for instead; 0: none
	caps         queue.Capabilities
	calls        remote.Calls
	polls        remote.Polls[*receipt]
}

// Capabilities tells what the queue can do.
func (h *handle) Capabilities() queue.Capabilities { return h.caps }

// Close waits for calls in flight, and for polls that went on after their
// Receive had ended: up to Options.Wait. What's still open when ctx ends is cut
// off; for such a poll that's no error.
func (h *handle) Close(ctx context.Context) error {
	err := h.calls.Close(ctx)
	h.polls.Close(ctx)
	if err != nil {
		return h.fail("close", err)
	}
	return nil
}
