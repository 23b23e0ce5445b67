package pubsub

import (
	"context"
	"fmt"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/anyqueue/anyqueue/queue"
)

var (
	_ queue.Inspector     = (*handle)(nil)
	_ queue.PeekConfirmer = (*handle)(nil)
	_ queue.Purger        = (*handle)(nil)
)

// Metrics tells what a system for monitoring knows of subscriptions.
type Metrics interface {
	// Latest returns the newest value of a metric of Pub/Sub, such as
	// "num_undelivered_messages", for a subscription by its full name, and when it
	// was measured. ok is false when there's none. It may be called concurrently.
	Latest(ctx context.Context, subscription, metric string) (value float64, at time.Time, ok bool, err error)
}

// Metrics of a subscription, without their prefix
// (https://docs.cloud.google.com/monitoring/api/metrics_gcp_p_z#gcp-pubsub).
const (
	metricUndelivered = "num_undelivered_messages"
	metricOldest      = "oldest_unacked_message_age" // in seconds
)

// Stats tells how many messages aren't done, and how old the oldest is, as
// Options.Metrics says: minutes late, and the leased and delayed ones among them.
// Pub/Sub itself doesn't tell; without Metrics everything is unknown. What's in the
// return subscription counts too.
func (h *handle) Stats(ctx context.Context) (queue.Stats, error) {
	const op = "stats of"
	ctx, end, err := h.calls.Begin(ctx)
	if err != nil {
		return queue.Stats{}, h.fail(op, err)
	}
	defer end()
	st := queue.Stats{AsOf: time.Now(), Approximate: true, Source: "unknown: Pub/Sub doesn't tell, and there are no Metrics"}
	if h.metrics == nil || h.subscription == "" {
		return st, nil
	}
	st.Source = "pubsub.googleapis.com/subscription"
	names := []string{h.subscription}
	if h.back.Load() != nil || h.main == nil { // opened to publish, it hasn't been looked for
		names = append(names, h.subscription+returnSuffix)
	}
	for i, name := range names {
		n, at, known, err := h.metrics.Latest(ctx, name, metricUndelivered)
		if err != nil {
			return queue.Stats{}, h.fail(op, err)
		}
		if !known {
			if i == 0 {
				st.Total = nil
				return st, nil // of the main one nothing is known: the rest would mislead
			}
			continue // nothing was ever published there
		}
		total := int64(n)
		if st.Total != nil {
			total += *st.Total
		}
		st.Total = &total
		if i == 0 || at.Before(st.AsOf) {
			st.AsOf = at
		}
		age, _, known, err := h.metrics.Latest(ctx, name, metricOldest)
		if err != nil {
			return queue.Stats{}, h.fail(op, err)
		}
		if d := time.Duration(age * float64(time.Second)); known && (st.OldestAge == nil || d > *st.OldestAge) {
			st.OldestAge = &d
		}
	}
	return st, nil
}

const (
	// peekHide is how long a message that's looked at is hidden at most.
	peekHide = 10 * time.Second
	// peekFor ends the collecting.
	peekFor = time.Second
)

// Peek returns messages that could be received now. Pub/Sub can only look by
// receiving, so that isn't free: each message is hidden from others until Peek
// returns, for at most 10 s. It takes a second when there are fewer than max. What's
// in the return subscription isn't looked at.
//
// It's refused with queue.ErrUnsupported where looking has consequences, and where
// that isn't known: with a dead-letter policy each look counts as an attempt, so that
// repeated often enough it would dead-letter what it looks at; with message ordering
// everything of a key that was sent after a message it has looked at may be sent
// again, also what was acknowledged. PeekConfirmed does it all the same.
func (h *handle) Peek(ctx context.Context, max int) ([]*queue.Delivery, error) {
	return h.peek(ctx, max, false)
}

// PeekConfirmed is Peek, also where it has consequences.
func (h *handle) PeekConfirmed(ctx context.Context, max int) ([]*queue.Delivery, error) {
	return h.peek(ctx, max, true)
}

func (h *handle) peek(ctx context.Context, max int, confirmed bool) ([]*queue.Delivery, error) {
	const op = "peek into"
	ctx, end, err := h.calls.Begin(ctx)
	if err != nil {
		return nil, h.fail(op, err)
	}
	defer end()
	switch {
	case max <= 0:
		return nil, h.fail(op, &queue.InvalidError{Field: "max", Reason: "must be at least 1"})
	case h.main == nil:
		return nil, h.fail(op, errPublishOnly)
	case !confirmed:
		if err := h.mayPeek(ctx); err != nil {
			return nil, h.fail(op, err)
		}
	}
	seen, err := h.main.glance(ctx, max)
	// Not with ctx: whatever was received is to be visible again.
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	h.main.giveBack(back, seen)
	if len(seen) == 0 && err != nil {
		return nil, h.fail(op, classify(ctx, err))
	}
	ds := make([]*queue.Delivery, len(seen))
	for i, r := range seen {
		r.peeked = true
		ds[i] = h.delivery(r)
		ds[i].Deadline = time.Time{}
	}
	return ds, nil
}

// mayPeek fails where looking has consequences. It asks anew, as a policy may have
// been set since the queue was opened.
func (h *handle) mayPeek(ctx context.Context) error {
	refuse := func(why string) error {
		return &queue.UnsupportedError{Feature: "a Peek without confirmation, as " + why, System: system}
	}
	sub, err := h.look(ctx, h.main.name)
	switch {
	case denied(err):
		return refuse("the settings of the subscription may not be read, and it may count as an attempt")
	case err != nil:
		return err
	case sub.GetDeadLetterPolicy() != nil:
		return refuse(fmt.Sprintf("it counts as an attempt, and Pub/Sub itself dead-letters after %d", sub.GetDeadLetterPolicy().GetMaxDeliveryAttempts()))
	case sub.GetEnableMessageOrdering():
		return refuse("with message ordering others may be sent again, also what was acknowledged")
	}
	return nil
}

// glance receives up to max different messages within peekFor. The error says why
// there are fewer.
func (s *source) glance(ctx context.Context, max int) ([]*receipt, error) {
	var seen []*receipt
	at := map[string]int{} // of each message in seen
	limited, cancel := context.WithTimeout(ctx, peekFor)
	defer cancel()
	for len(seen) < max && limited.Err() == nil {
		var t try
		out, err := s.h.client.SubscriptionAdminClient.Pull(limited, &pubsubpb.PullRequest{
			Subscription: s.name, MaxMessages: int32(min(max-len(seen), maxMessages)), //nolint:gosec // at most 1,000
		}, t.options()...)
		if err != nil {
			if ctx.Err() == nil && (limited.Err() != nil || status.Code(err) == codes.DeadlineExceeded) {
				err = nil // nothing more came
			}
			return seen, err
		}
		fresh := make([]*receipt, len(out.GetReceivedMessages()))
		for i, m := range out.GetReceivedMessages() {
			fresh[i] = &receipt{from: s, received: m}
			id := m.GetMessage().GetMessageId()
			if k, again := at[id]; again {
				seen[k] = fresh[i] // its newest ack id is the one that counts
				continue
			}
			at[id] = len(seen)
			seen = append(seen, fresh[i])
		}
		// If this process dies now, they're hidden for no longer than this.
		if len(fresh) > 0 && s.ackDeadline > peekHide {
			s.each(groupOf(fresh), func(g group) { s.modify(ctx, g, seconds(peekHide), make([]error, len(fresh))) })
		}
	}
	return seen, ctx.Err()
}

// Purge removes every message that was published before it, also those in flight
// and delayed, by seeking subscription and return subscription to the present, by
// this machine's clock: where that's wrong, by so much earlier or later. An answer
// that's lost makes it a queue.ErrUnknownOutcome.
func (h *handle) Purge(ctx context.Context) error {
	const op = "purge"
	ctx, end, err := h.calls.Begin(ctx)
	if err != nil {
		return h.fail(op, err)
	}
	defer end()
	if h.main == nil {
		return h.fail(op, errPublishOnly)
	}
	for _, s := range h.sources() {
		var t try
		_, err := h.client.SubscriptionAdminClient.Seek(ctx, &pubsubpb.SeekRequest{
			Subscription: s.name, Target: &pubsubpb.SeekRequest_Time{Time: timestamppb.New(time.Now())},
		}, t.options()...)
		if err != nil && (s == h.main || !missing(err)) {
			return h.fail(op, t.outcome(ctx, err))
		}
	}
	return nil
}
