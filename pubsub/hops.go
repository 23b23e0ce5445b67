package pubsub

import (
	"context"
	"errors"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/api/iterator"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anyqueue/anyqueue/queue"
)

// What the library publishes again mustn't reach other subscribers of the topic. So
// a queue has a topic of its own for that, with a subscription that's received from
// beside the main one: both have the subscription's name with this suffix, which no
// portable name has.
const returnSuffix = ".return"

var errShared error = &queue.UnsupportedError{
	Feature: "publishing again (redrive, a wait beyond 10 minutes) without a return topic, which Ensure makes when it's called with the name of the subscription, to a topic that has or may have other subscriptions or filters",
	System:  system,
}

// returning is what's known of the way back.
type returning struct {
	mu    sync.Mutex
	out   *outlet
	err   error
	until time.Time // it's to be asked for again
}

// knownFor is how long it counts who else subscribes to the topic, and that there's a
// return subscription: others may come, and it may be made, or deleted. Without it what's
// published to the return topic would be lost.
const knownFor = time.Minute

// wayBack returns where to publish what only this queue's consumers shall get.
func (h *handle) wayBack(ctx context.Context) (*outlet, error) {
	r := &h.returning
	r.mu.Lock()
	out, err, known := r.out, r.err, time.Now().Before(r.until)
	r.mu.Unlock()
	if known {
		return out, err
	}
	// Not with the lock, which would make others wait for longer than they want to.
	out, err = h.findWayBack(ctx)
	if err != nil && !errors.Is(err, queue.ErrUnsupported) {
		return nil, err // it's asked for again
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.out, r.err, r.until = out, err, time.Now().Add(knownFor)
	return out, err
}

func (h *handle) findWayBack(ctx context.Context) (*outlet, error) {
	if h.subscription == "" {
		return nil, errShared
	}
	asking := ctx
	var opts []gax.CallOption
	seen := h.back.Load() != nil && !h.backAssumed
	if seen { // one short question will do
		limited, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		var t try
		asking, opts = limited, t.options()
	}
	// The topic alone isn't enough: without a subscription it would lose everything.
	sub, err := h.client.SubscriptionAdminClient.GetSubscription(asking, &pubsubpb.GetSubscriptionRequest{Subscription: h.subscription + returnSuffix}, opts...)
	switch code := status.Code(err); {
	case err == nil && sub.GetTopic() == h.outBack.topic && sub.GetFilter() == "" && delivers(sub) == "":
		h.attachBack(sub) // what goes there must come back
		return &h.outBack, nil
	case err == nil || code == codes.NotFound:
	case seen && ctx.Err() == nil:
		return &h.outBack, nil // nobody says that it isn't there any more
	case code != codes.PermissionDenied:
		return nil, classify(ctx, err)
	}
	if h.out.topic == "" || h.filter != "" { // a filter might leave it out
		return nil, errShared
	}
	found, err := h.subscribers(ctx, 2)
	switch {
	case denied(err):
		return nil, errShared
	case err != nil:
		return nil, err
	case len(found) != 1 || found[0] != h.subscription:
		return nil, errShared
	}
	return &h.out, nil
}

// subscribers returns the names of subscriptions of the topic, at most so many.
func (h *handle) subscribers(ctx context.Context, most int) ([]string, error) {
	var a asking
	it := h.client.TopicAdminClient.ListTopicSubscriptions(ctx, &pubsubpb.ListTopicSubscriptionsRequest{Topic: h.out.topic}, a.option())
	var found []string
	for len(found) < most {
		sub, err := it.Next()
		if errors.Is(err, iterator.Done) {
			break
		}
		if err != nil {
			return nil, a.failed(ctx, err)
		}
		found = append(found, sub)
	}
	return found, nil
}

// hop is a delivery that's deferred: a copy of it is sent, then it's removed.
type hop struct {
	receipt *receipt
	indexes []int // in the call: more than one when it's named repeatedly
	copy    item
	err     error // of making or sending the copy
}

// addHop adds the settlement s, which has the index i. A delivery that's there
// already isn't copied again.
func (h *handle) addHop(hops []*hop, r *receipt, i int, s *queue.Settlement, now time.Time) []*hop {
	for _, p := range hops {
		if p.receipt == r {
			p.indexes = append(p.indexes, i)
			return hops
		}
	}
	p := &hop{receipt: r, indexes: []int{i}}
	if !r.hopSent {
		p.err = h.outgoing(&p.copy, s.Hop(), now)
	}
	return append(hops, p)
}

// deferAll sends the copies, in the order of the call as they may be of one key,
// and removes what has a copy.
func (h *handle) deferAll(ctx context.Context, hops []*hop, errs []error) {
	sending, cancel := queue.PublishContext(ctx)
	defer cancel()
	out, err := h.wayBack(sending)
	if err == nil {
		group := out.batches.Begin(sending, time.Now())
		for _, p := range hops {
			if p.err == nil && !p.receipt.hopSent {
				group.Add(&p.copy)
			}
		}
		group.Wait()
	}
	todo := changes{}
	for _, p := range hops {
		if p.err == nil && !p.receipt.hopSent {
			if p.err = err; err == nil {
				p.err = p.copy.Err()
			}
		}
		if p.err == nil { // its copy is durable
			p.receipt.hopSent = true
			todo.add(p.receipt.from, acks, p.indexes[0], p.receipt)
		} else {
			errs[p.indexes[0]] = p.err
		}
	}
	h.apply(ctx, todo, errs)
	for _, p := range hops {
		for _, i := range p.indexes[1:] {
			errs[i] = errs[p.indexes[0]]
		}
	}
}
