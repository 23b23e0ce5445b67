package pubsub

import (
	"bytes"
	"context"
	"maps"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/anyqueue/anyqueue/internal/remote"
	"github.com/anyqueue/anyqueue/queue"
)

// receipt is Delivery.Native: what settles a delivery. Only hopSent is written
// to once it's handed out, by one settlement at a time.
type receipt struct {
	from     *source
	received *pubsubpb.ReceivedMessage
	deadline time.Time
	// hopSent says that a Defer has sent its copy, so that trying again doesn't
	// send another one.
	hopSent bool
	peeked  bool // it can't be settled
}

// Original returns what was received, whatever the handler has done to its copy.
// It makes receipt a queue.Original.
func (r *receipt) Original() (body []byte, attributes map[string]string) {
	d := r.decode()
	return d.Body, d.Attributes
}

func (r *receipt) decode() *queue.Delivery {
	m := r.received.GetMessage()
	// The handler may write to what it gets.
	attrs := maps.Clone(m.GetAttributes())
	withoutDeadLetter(attrs)
	return r.from.h.caps.Wire.Decode(bytes.Clone(m.GetData()), attrs, nil)
}

var errPublishOnly error = &queue.UnsupportedError{Feature: "receiving from a queue that was opened to publish", System: system}

// Receive waits for messages for at most Options.Wait, on the subscription and its
// return subscription. When ctx ends earlier, or one of them has brought something,
// the other pulls go on for the next Receive; what they bring before that waits for
// it for a moment, and is then given back.
func (h *handle) Receive(ctx context.Context, max int) ([]*queue.Delivery, error) {
	const op = "receive from"
	ctx, end, err := h.calls.Begin(ctx)
	if err != nil {
		return nil, h.fail(op, err)
	}
	defer end()
	if max <= 0 {
		return nil, h.fail(op, &queue.InvalidError{Field: "max", Reason: "must be at least 1"})
	}
	if h.main == nil {
		return nil, h.fail(op, errPublishOnly)
	}
	var second *remote.Polls[*receipt]
	if back := h.back.Load(); back != nil {
		second = &back.polls
	} else {
		h.lookForBack()
	}
	rs, err := remote.ReceiveAny(ctx, min(max, maxMessages), &h.main.polls, second)
	if err != nil {
		return nil, h.fail(op, err)
	}
	ds := make([]*queue.Delivery, len(rs))
	for i, r := range rs {
		ds[i] = h.delivery(r)
	}
	return ds, nil
}

func (h *handle) delivery(r *receipt) *queue.Delivery {
	d := r.decode()
	m := r.received.GetMessage()
	d.Source = h.caps.Source
	r.fillDeadLetter(d)
	var published time.Time
	if at := m.GetPublishTime(); at != nil { // without it, AsTime says 1970, which looks very old
		published = at.AsTime()
	}
	d.FillFromBroker(m.GetMessageId(), published)
	if n := int(r.received.GetDeliveryAttempt()); n > 0 { // counted
		d.Attempt = max(n-h.unseen.Count(d.BrokerID), 1)
	}
	if h.caps.Ordering {
		d.OrderingKey = m.GetOrderingKey()
	}
	d.Deadline = r.deadline
	d.Native = r
	return d
}

// receiptOf returns what settles d.
func (h *handle) receiptOf(d *queue.Delivery) (*receipt, error) {
	if d != nil {
		if r, ok := d.Native.(*receipt); ok && h.main != nil && r.from.h.main.name == h.main.name && !r.peeked {
			return r, nil
		}
	}
	return nil, &queue.InvalidError{Field: "Delivery", Reason: "it wasn't received from this queue"}
}

// change is a request to make: of one kind, on one subscription.
type change struct {
	from  *source
	delay int32 // seconds; negative: acknowledge
}

// acks is the delay of a change that acknowledges.
const acks = -1

// changes gathers what goes together.
type changes map[change]*group

func (c changes) add(from *source, delay int32, i int, r *receipt) {
	k := change{from, delay}
	if c[k] == nil {
		c[k] = &group{}
	}
	c[k].add(i, r)
}

// Settle ends leases. Acknowledgements go in one request for each thousand, releases
// in one for each delay, in seconds.
func (h *handle) Settle(ctx context.Context, s ...queue.Settlement) error {
	ctx, end, err := h.calls.Begin(ctx)
	if err != nil {
		return h.fail("settle on", err)
	}
	defer end()
	errs := make([]error, len(s))
	todo := changes{}
	var hops []*hop
	now := time.Now()
	for i := range s {
		r, err := h.receiptOf(s[i].Delivery)
		if err != nil {
			errs[i] = err
			continue
		}
		switch s[i].Kind {
		case queue.Ack:
			todo.add(r.from, acks, i, r)
		case queue.Release:
			if s[i].Delay < 0 {
				errs[i] = &queue.InvalidError{Field: "Delay", Reason: "negative"}
				continue
			}
			if r.hopSent { // instead of a Defer that failed by half: its copy comes back
				todo.add(r.from, acks, i, r)
				continue
			}
			todo.add(r.from, seconds(min(s[i].Delay, maxAckDeadline)), i, r)
		case queue.Defer:
			hops = h.addHop(hops, r, i, &s[i], now)
		default:
			errs[i] = &queue.InvalidError{Field: "Kind", Reason: s[i].Kind.String()}
		}
	}
	var wg sync.WaitGroup
	if len(hops) > 0 { // nobody else waits for their copies
		wg.Go(func() { h.deferAll(ctx, hops, errs) })
	}
	h.apply(ctx, todo, errs)
	wg.Wait()
	if err := queue.NewSettleError(errs); err != nil {
		return h.fail("settle on", err)
	}
	return nil
}

// apply makes changes, several requests at a time.
func (h *handle) apply(ctx context.Context, todo changes, errs []error) {
	var calls []func()
	for c, g := range todo {
		for _, part := range g.parts() {
			calls = append(calls, func() {
				if c.delay == acks {
					c.from.acknowledge(ctx, part, errs)
				} else {
					c.from.modify(ctx, part, c.delay, errs)
				}
			})
		}
	}
	remote.Parallel(len(calls), func(i int) { calls[i]() })
}

// Extend makes leases end d from now, rounded up to whole seconds, at most 10
// minutes. Only a subscription with exactly-once delivery says that a lease was lost
// already.
func (h *handle) Extend(ctx context.Context, d time.Duration, ds ...*queue.Delivery) ([]time.Time, error) {
	ctx, end, err := h.calls.Begin(ctx)
	if err != nil {
		return nil, h.fail("extend on", err)
	}
	defer end()
	if d <= 0 { // that would end them
		return nil, h.fail("extend on", &queue.InvalidError{Field: "duration", Reason: "must be positive"})
	}
	granted, errs := make([]time.Time, len(ds)), make([]error, len(ds))
	todo := changes{}
	ask := seconds(min(d, maxAckDeadline))
	for i, del := range ds {
		r, err := h.receiptOf(del)
		if err != nil {
			errs[i] = err
			continue
		}
		todo.add(r.from, ask, i, r)
	}
	until := time.Now().Add(time.Duration(ask) * time.Second) // Pub/Sub counts from later
	h.apply(ctx, todo, errs)
	for i := range ds {
		if errs[i] == nil {
			granted[i] = until
		}
	}
	if err := queue.NewSettleError(errs); err != nil {
		return granted, h.fail("extend on", err)
	}
	return granted, nil
}
