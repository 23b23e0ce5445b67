package pubsub

import (
	"context"
	"errors"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/anyqueue/anyqueue/queue"
)

// readBack looks for the return subscription. One that may not be looked at is
// received from all the same: there may be something in it.
func (h *handle) readBack(ctx context.Context, s *settings) error {
	name := h.main.name + returnSuffix
	sub, err := h.look(ctx, name)
	switch {
	case errors.Is(err, queue.ErrQueueNotFound):
		return nil
	case denied(err):
		h.backAssumed = true
		s.assume(err, "that "+name+" exists")
		h.back.Store(&source{name: name, ackDeadline: s.ackDeadline, aside: true, log: h.log})
		return nil
	case err != nil:
		return err
	}
	back, own := h.backFrom(sub, s)
	if back == nil {
		return nil
	}
	h.backAssumed = own.filter != "" // not everything comes that way
	if own.retention > 0 && own.retention < s.retention {
		s.retention = own.retention // what waits for long may have to do so there
	}
	h.back.Store(back)
	return nil
}

// backFrom makes a source of the return subscription, and says what of it works
// against the queue; nil: it can't be received from.
func (h *handle) backFrom(sub *pubsubpb.Subscription, s *settings) (*source, *settings) {
	name := sub.GetName()
	warn := func(what string) { h.log.Warn(what, "queue", h.name, "subscription", name) }
	switch {
	case sub.GetTopic() != topicOf(h.main.name)+returnSuffix:
		h.log.Warn("not received from, as it belongs to another topic", "queue", h.name, "subscription", name, "topic", sub.GetTopic())
		return nil, nil
	case delivers(sub) != "":
		warn("not received from, as it " + delivers(sub))
		return nil, nil
	}
	own := &settings{ackDeadline: defaultAckDeadline}
	own.read(sub)
	own.warn(h, name)
	if s.exactlyOnce && !own.exactlyOnce {
		warn("the return subscription has no exactly-once delivery: what comes through it is acknowledged without the service's word")
	}
	if s.ordering && !own.ordering {
		warn("the return subscription keeps no order: what's redriven or has waited for long comes without its key's")
	}
	if s.counts && !own.counts {
		warn("the return subscription has no dead-letter policy: attempts of what's redriven or has waited for long aren't counted")
	}
	return &source{name: name, ackDeadline: own.ackDeadline, exactlyOnce: own.exactlyOnce, aside: true, log: h.log}, own
}

// sources are the subscriptions that are received from.
func (h *handle) sources() []*source {
	var out []*source
	for _, s := range []*source{h.main, h.back.Load()} {
		if s != nil {
			out = append(out, s)
		}
	}
	return out
}

// lookForBack looks from time to time whether somebody has made the return
// subscription since the queue was opened: what's redriven from elsewhere, or waits for
// long, goes there as soon as it exists. It doesn't hold up a Receive.
func (h *handle) lookForBack() {
	last := h.backLooked.Load()
	now := time.Now().UnixNano()
	if h.back.Load() != nil || now-last < int64(knownFor) || !h.backLooked.CompareAndSwap(last, now) {
		return
	}
	ctx, end, err := h.calls.Begin(context.Background())
	if err != nil {
		return // closed
	}
	go func() {
		defer end()
		limited, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		var t try
		sub, err := h.client.SubscriptionAdminClient.GetSubscription(limited, &pubsubpb.GetSubscriptionRequest{Subscription: h.main.name + returnSuffix}, t.options()...)
		if err == nil {
			h.attachBack(sub)
		} // else it's asked again
	}()
}

// attachBack begins to receive from a return subscription that wasn't there when the
// queue was opened.
func (h *handle) attachBack(sub *pubsubpb.Subscription) {
	if h.main == nil || h.back.Load() != nil {
		return
	}
	s := &settings{
		ordering: h.caps.Ordering, exactlyOnce: h.main.exactlyOnce, counts: h.caps.Attempts != queue.AttemptsUnknown,
	}
	back, own := h.backFrom(sub, s)
	if back == nil {
		return
	}
	if own.retention > 0 && own.retention < h.caps.Retention {
		h.log.Warn("the return subscription keeps messages for less than the queue's own: open the queue again, so that this is reckoned with",
			"queue", h.name, "subscription", back.name, "retention", own.retention)
	}
	back.init(h)
	h.attaching.Lock()
	defer h.attaching.Unlock()
	select {
	case <-h.closing: // nobody would close it any more
	default:
		h.back.CompareAndSwap(nil, back)
	}
}
