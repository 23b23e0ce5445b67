package pubsub

import (
	"context"
	"fmt"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/anyqueue/anyqueue/internal/remote"
	"github.com/anyqueue/anyqueue/queue"
)

// settings are what a subscription says about itself.
type settings struct {
	retention, ackDeadline time.Duration
	ordering, exactlyOnce  bool
	counts                 bool // there's a dead-letter policy
	maxAttempts            int
	filter                 string
	retry                  *pubsubpb.RetryPolicy
	assumed                []string
	err                    error // why they are assumed
}

func (s *settings) read(sub *pubsubpb.Subscription) {
	if d := sub.GetAckDeadlineSeconds(); d > 0 {
		s.ackDeadline = time.Duration(d) * time.Second
	}
	if d := sub.GetMessageRetentionDuration(); d != nil {
		s.retention = d.AsDuration()
	}
	s.ordering = sub.GetEnableMessageOrdering()
	s.exactlyOnce = sub.GetEnableExactlyOnceDelivery()
	if p := sub.GetDeadLetterPolicy(); p != nil {
		s.counts, s.maxAttempts = true, int(p.GetMaxDeliveryAttempts())
	}
	s.filter, s.retry = sub.GetFilter(), sub.GetRetryPolicy()
}

func (s *settings) assume(err error, what ...string) {
	s.err, s.assumed = err, append(s.assumed, what...)
}

// warn says what of a subscription that's received from works against the queue.
func (s *settings) warn(h *handle, name string) {
	s.warnFilter(h, name)
	if s.retry != nil {
		h.log.Warn("the subscription has a retry policy: a failed message comes again later than it's asked for", "queue", h.name, "subscription", name, "retry_policy", retryInWords(s.retry))
	}
}

func (s *settings) warnFilter(h *handle, name string) {
	if s.filter != "" {
		h.log.Warn("the subscription has a filter: what doesn't match it can be published, and isn't received", "queue", h.name, "subscription", name, "filter", s.filter)
	}
}

// publishFiltered decides about publishing where the subscription that's received from
// has a filter: if it's the topic's only one, what doesn't match would be lost.
func (h *handle) publishFiltered(ctx context.Context, at *place, s *settings, mode queue.OpenMode) error {
	if s.filter == "" {
		return nil
	}
	if mode == queue.ForConsume { // who only consumes may not look who else subscribes
		at.topic, h.noTopic = "", &queue.UnsupportedError{
			Feature: fmt.Sprintf("publishing where the queue was opened to consume only, and its subscription has a filter (%s)", s.filter), System: system,
		}
		return nil
	}
	h.out.client, h.out.topic = h.client, at.topic
	found, err := h.subscribers(ctx, 2)
	switch {
	case denied(err):
		s.assume(err, "that another subscription gets what the filter leaves out")
	case err != nil:
		return err
	case len(found) == 1 && found[0] == at.subscription:
		return onlyFiltered(s.filter, at.subscription)
	}
	return nil
}

// onlyFiltered says the same as a topic without a subscription, of what filters leave
// out. The filter is that of one of the subscriptions that are named.
func onlyFiltered(filter string, names ...string) error {
	which := fmt.Sprintf("the topic's only subscription, %s, has a filter (%s)", names[0], filter)
	if len(names) > 1 {
		which = fmt.Sprintf("each of the topic's %d subscriptions, %s, has a filter (the last one %s)", len(names), strings.Join(names, ", "), filter)
	}
	return remote.As(queue.ErrQueueNotFound, fmt.Errorf(
		"%s, so that what's published and doesn't match would be lost; it can be opened to consume only", which))
}

// delivers tells where a subscription delivers to by itself; empty where it's pulled
// from.
func delivers(sub *pubsubpb.Subscription) string {
	switch {
	case sub.GetPushConfig().GetPushEndpoint() != "":
		return "pushes"
	case sub.GetBigqueryConfig() != nil:
		return "exports to BigQuery"
	case sub.GetCloudStorageConfig() != nil:
		return "exports to Cloud Storage"
	case sub.GetBigtableConfig() != nil:
		return "exports to Bigtable"
	}
	return ""
}

// retryInWords says how long a retry policy waits; Pub/Sub's defaults are 10 s and
// 10 minutes.
func retryInWords(p *pubsubpb.RetryPolicy) string {
	if p == nil {
		return "none"
	}
	least, most := minRetryBackoff, maxRetryBackoff
	if d := p.GetMinimumBackoff(); d != nil {
		least = d.AsDuration()
	}
	if d := p.GetMaximumBackoff(); d != nil {
		most = d.AsDuration()
	}
	return fmt.Sprintf("%v to %v", least, most)
}

const minRetryBackoff, maxRetryBackoff = 10 * time.Second, 10 * time.Minute
