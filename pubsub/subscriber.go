package pubsub

import (
	"bytes"
	"context"
	"maps"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anyqueue/anyqueue/internal/remote"
	"github.com/anyqueue/anyqueue/queue"
)

// receipt is Delivery.Native: what settles a delivery. Only hopSent is written
// to once it's handed out, by one settlement at a time.
type receipt struct {
	queue    *handle
	received *pubsubpb.ReceivedMessage
	deadline time.Time
	// hopSent says that a Defer has sent its copy, so that trying again doesn't
	// send another one.
	hopSent bool
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
	return r.queue.caps.Wire.Decode(bytes.Clone(m.GetData()), maps.Clone(m.GetAttributes()), nil)
}

// Receive waits for messages for at most Options.Wait. When ctx ends earlier the
// pull goes on for the next Receive; what it brings before that is given back.
func (h *handle) Receive(ctx context.Context, max int) ([]*queue.Delivery, error) {
	ctx, end, err := h.calls.Begin(ctx)
	if err != nil {
		return nil, h.fail("receive from", err)
	}
	defer end()
	if max <= 0 {
		return nil, h.fail("receive from", &queue.InvalidError{Field: "max", Reason: "must be at least 1"})
	}
	if h.subscription == "" {
		return nil, h.fail("receive from", errPublishOnly)
	}
	rs, err := h.polls.Receive(ctx, min(max, maxMessages))
	if err != nil {
		return nil, h.fail("receive from", classify(err))
	}
	ds := make([]*queue.Delivery, len(rs))
	for i, r := range rs {
		ds[i] = h.delivery(r)
	}
	return ds, nil
}

// pollMargin is how much earlier than its caller a pull ends.
const pollMargin = 250 * time.Millisecond

// poll pulls once.
func (h *handle) poll(ctx context.Context, max int) ([]*receipt, error) {
	wait := h.wait
	if until, ok := remote.Until(ctx); ok {
		wait = min(wait, time.Until(until)-pollMargin)
	}
	poll, cancel := context.WithTimeout(ctx, wait) // the server is told
	defer cancel()
	out, err := h.client.SubscriptionAdminClient.Pull(poll, &pubsubpb.PullRequest{
		Subscription: h.subscription, MaxMessages: int32(max), //nolint:gosec // at most 1,000
	})
	if err != nil {
		if ctx.Err() == nil && (poll.Err() != nil || status.Code(err) == codes.DeadlineExceeded) {
			return nil, nil // nothing came
		}
		return nil, err
	}
	deadline := time.Now().Add(h.ackDeadline)
	rs := make([]*receipt, len(out.GetReceivedMessages()))
	for i, m := range out.GetReceivedMessages() {
		rs[i] = &receipt{queue: h, received: m}
	}
	if h.lease > 0 && len(rs) > 0 {
		// A pull can't ask for a lease: it's changed at once. Where that fails, it's
		// as long as the subscription says.
		begun := time.Now()
		if err := h.modify(ctx, rs, h.lease); err == nil {
			deadline = begun.Add(time.Duration(h.lease) * time.Second)
		}
	}
	for _, r := range rs {
		r.deadline = deadline
	}
	return rs, nil
}

// giveBack makes Pub/Sub deliver again what nobody waits for.
func (h *handle) giveBack(ctx context.Context, rs []*receipt) {
	// Where it fails, its lease ends by itself.
	_ = h.modify(ctx, rs, 0)
}

var errPublishOnly error = &queue.UnsupportedError{Feature: "receiving from a queue that was opened to publish", System: system}

func (h *handle) delivery(r *receipt) *queue.Delivery {
	d := r.decode()
	m := r.received.GetMessage()
	d.Source = h.caps.Source
	d.FillFromBroker(m.GetMessageId(), m.GetPublishTime().AsTime())
	d.Attempt = int(r.received.GetDeliveryAttempt())
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
		if r, ok := d.Native.(*receipt); ok && r.queue.subscription == h.subscription {
			return r, nil
		}
	}
	return nil, &queue.InvalidError{Field: "Delivery", Reason: "it wasn't received from this queue"}
}

// group is what goes in one request.
type group struct {
	indexes  []int // in the call
	receipts []*receipt
}

func (g *group) add(i int, r *receipt) {
	g.indexes = append(g.indexes, i)
	g.receipts = append(g.receipts, r)
}

// Settle ends leases. Releases go in one request for each delay, in seconds.
func (h *handle) Settle(ctx context.Context, s ...queue.Settlement) error {
	ctx, end, err := h.calls.Begin(ctx)
	if err != nil {
		return h.fail("settle on", err)
	}
	defer end()
	errs := make([]error, len(s))
	var acks group
	releases := map[int32]*group{} // by delay
	var hops []outgoing
	deferred := map[int]*receipt{} // by index
	now := time.Now()
	for i := range s {
		r, err := h.receiptOf(s[i].Delivery)
		if err != nil {
			errs[i] = err
			continue
		}
		switch s[i].Kind {
		case queue.Ack:
			acks.add(i, r)
		case queue.Release:
			delay := seconds(min(s[i].Delay, maxAckDeadline))
			if s[i].Delay < 0 {
				errs[i] = &queue.InvalidError{Field: "Delay", Reason: "negative"}
				continue
			}
			if releases[delay] == nil {
				releases[delay] = &group{}
			}
			releases[delay].add(i, r)
		case queue.Defer:
			if h.shared {
				errs[i] = errShared
				continue
			}
			deferred[i] = r
			if r.hopSent {
				continue
			}
			o, err := h.outgoing(s[i].Hop(), now)
			if err != nil {
				errs[i] = err
				continue
			}
			o.index = i
			hops = append(hops, o)
		default:
			errs[i] = &queue.InvalidError{Field: "Kind", Reason: s[i].Kind.String()}
		}
	}
	h.send(ctx, hops, errs)
	for i, r := range deferred {
		if errs[i] == nil { // its copy is durable
			r.hopSent = true
			acks.add(i, r)
		}
	}
	h.settle(ctx, acks, releases, errs)
	if err := queue.NewSettleError(errs); err != nil {
		return h.fail("settle on", err)
	}
	return nil
}

var errShared error = &queue.UnsupportedError{
	Feature: "publishing again (redrive, a backoff beyond 10 minutes) to a topic that may have other subscriptions", System: system,
}

// settle sends what there is, all at a time.
func (h *handle) settle(ctx context.Context, acks group, releases map[int32]*group, errs []error) {
	var calls []func()
	call := func(g group, do func([]*receipt) error) {
		for len(g.receipts) > 0 {
			n := min(len(g.receipts), maxMessages)
			indexes, rs := g.indexes[:n], g.receipts[:n]
			g.indexes, g.receipts = g.indexes[n:], g.receipts[n:]
			calls = append(calls, func() {
				if err := do(rs); err != nil {
					for _, i := range indexes {
						errs[i] = classify(err)
					}
				}
			})
		}
	}
	call(acks, func(rs []*receipt) error {
		return h.client.SubscriptionAdminClient.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{Subscription: h.subscription, AckIds: ackIDs(rs)})
	})
	for delay, g := range releases {
		call(*g, func(rs []*receipt) error { return h.modify(ctx, rs, delay) })
	}
	remote.Parallel(len(calls), func(i int) { calls[i]() })
}

// modify makes leases end in so many seconds; 0 gives the messages back.
func (h *handle) modify(ctx context.Context, rs []*receipt, seconds int32) error {
	return h.client.SubscriptionAdminClient.ModifyAckDeadline(ctx, &pubsubpb.ModifyAckDeadlineRequest{
		Subscription: h.subscription, AckIds: ackIDs(rs), AckDeadlineSeconds: seconds,
	})
}

func ackIDs(rs []*receipt) []string {
	ids := make([]string, len(rs))
	for i, r := range rs {
		ids[i] = r.received.GetAckId()
	}
	return ids
}

// Extend makes leases end d from now, rounded up to whole seconds, at most 10
// minutes. Pub/Sub doesn't say when a lease was lost already.
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
	var all group
	for i, del := range ds {
		r, err := h.receiptOf(del)
		if err != nil {
			errs[i] = err
			continue
		}
		all.add(i, r)
	}
	ask := seconds(min(d, maxAckDeadline))
	until := time.Now().Add(time.Duration(ask) * time.Second) // Pub/Sub counts from later
	h.settle(ctx, group{}, map[int32]*group{ask: &all}, errs)
	for _, i := range all.indexes {
		if errs[i] == nil {
			granted[i] = until
		}
	}
	if err := queue.NewSettleError(errs); err != nil {
		return granted, h.fail("extend on", err)
	}
	return granted, nil
}
