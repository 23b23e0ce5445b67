package sqs

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/anyqueue/anyqueue/internal/remote"
	"github.com/anyqueue/anyqueue/queue"
)

// receipt is Delivery.Native: what settles a delivery. Only the fields about hops
// are written to once it's handed out, by one settlement at a time.
type receipt struct {
	queue    *handle
	message  types.Message
	received time.Time
	// hopSent says that a Defer has sent its copy, so that trying again doesn't
	// send another one.
	hopSent bool
	// hopDedup is the deduplication id of that copy on a FIFO queue, which drops
	// the repeat when it isn't known whether the first one arrived.
	hopDedup string
}

// Original returns what was received, whatever the handler has done to its copy.
// It makes receipt a queue.Original.
func (r *receipt) Original() (body []byte, attributes map[string]string) {
	d := r.decode()
	return d.Body, d.Attributes
}

func (r *receipt) decode() *queue.Delivery {
	var attrs, kinds map[string]string
	if n := len(r.message.MessageAttributes); n > 0 {
		attrs = make(map[string]string, n)
		for k, v := range r.message.MessageAttributes {
			kind := deref(v.DataType)
			if attrs[k] = deref(v.StringValue); binary(kind) {
				attrs[k] = string(v.BinaryValue)
			}
			if kind != "String" {
				if kinds == nil {
					kinds = map[string]string{}
				}
				kinds[k] = kind
			}
		}
	}
	return r.queue.caps.Wire.Decode([]byte(deref(r.message.Body)), attrs, kinds)
}

// Receive waits for messages for at most Options.Wait. When ctx ends earlier the
// poll goes on for the next Receive; what it brings before that is given back.
func (h *handle) Receive(ctx context.Context, max int) ([]*queue.Delivery, error) {
	ctx, end, err := h.calls.Begin(ctx)
	if err != nil {
		return nil, h.fail("receive from", err)
	}
	defer end()
	if max <= 0 {
		return nil, h.fail("receive from", &queue.InvalidError{Field: "max", Reason: "must be at least 1"})
	}
	rs, err := h.polls.Receive(ctx, min(max, maxEntries))
	if err != nil {
		return nil, h.fail("receive from", err)
	}
	ds := make([]*queue.Delivery, len(rs))
	for i, r := range rs {
		ds[i] = h.delivery(r)
	}
	return ds, nil
}

const (
	// pollMargin is how much earlier than its caller a poll ends.
	pollMargin = 250 * time.Millisecond
	// shortPause follows a poll that didn't wait and brought nothing.
	shortPause = 100 * time.Millisecond
)

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// poll asks SQS once.
func (h *handle) poll(ctx context.Context, most int) ([]*receipt, error) {
	wait := h.wait
	if until, ok := remote.Until(ctx); ok {
		wait = min(wait, time.Until(until)-pollMargin)
	}
	ctx, cancel := context.WithTimeout(ctx, max(wait, 0)+readTimeout)
	defer cancel()
	in := &awssqs.ReceiveMessageInput{
		QueueUrl: &h.url, MaxNumberOfMessages: int32(most), //nolint:gosec // at most 10
		VisibilityTimeout:           h.visibility,
		MessageAttributeNames:       []string{"All"},
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
	}
	in.WaitTimeSeconds = int32(max(wait, 0) / time.Second) //nolint:gosec // at most 20
	sent := &sent{Context: ctx, tries: &h.counts.receives}
	out, err := h.client.ReceiveMessage(sent, in, h.once)
	if err != nil {
		if sent.maybe || sent.taken {
			h.counts.unread.Add(1)
		}
		return nil, h.throttled(classify(err))
	}
	if len(out.Messages) == 0 && in.WaitTimeSeconds == 0 {
		// Its caller waits for less than SQS can: that mustn't become a request
		// after the other.
		pause(ctx, shortPause)
	}
	now := time.Now()
	rs := make([]*receipt, len(out.Messages))
	for i, m := range out.Messages {
		rs[i] = &receipt{queue: h, message: m, received: now}
	}
	return rs, nil
}

// giveBack makes what nobody waits for visible again. Where that fails, its lease
// ends by itself.
func (h *handle) giveBack(ctx context.Context, rs []*receipt) {
	cs := make([]change, len(rs))
	for i, r := range rs {
		cs[i] = change{i, r, 0}
		h.unseen.Add(deref(r.message.MessageId))
	}
	h.each(cs, func(b []change) { h.hide(ctx, b, make([]error, len(rs))) })
}

func (h *handle) delivery(r *receipt) *queue.Delivery {
	d := r.decode()
	attrs := r.message.Attributes
	d.Source = h.caps.Source
	d.FillFromBroker(deref(r.message.MessageId), milliseconds(attrs[string(types.MessageSystemAttributeNameSentTimestamp)]))
	if n, err := strconv.Atoi(attrs[string(types.MessageSystemAttributeNameApproximateReceiveCount)]); err == nil {
		d.Attempt = max(n-h.unseen.Count(d.BrokerID), 1)
	}
	if group := attrs[string(types.MessageSystemAttributeNameMessageGroupId)]; h.fifo && !strings.HasPrefix(group, unkeyed) {
		d.OrderingKey = group // on a standard queue it names a tenant, and orders nothing
	}
	d.Deadline = r.received.Add(h.caps.Lease)
	d.Native = r
	return d
}

func milliseconds(s string) time.Time {
	if ms, err := strconv.ParseInt(s, 10, 64); err == nil && ms > 0 {
		return time.UnixMilli(ms)
	}
	return time.Time{}
}

// receiptOf returns what settles d.
func (h *handle) receiptOf(d *queue.Delivery) (*receipt, error) {
	if d != nil {
		if r, ok := d.Native.(*receipt); ok && r.queue.url == h.url && r.message.ReceiptHandle != nil { // none: a Peek
			return r, nil
		}
	}
	return nil, &queue.InvalidError{Field: "Delivery", Reason: "it wasn't received from this queue"}
}

// change is one message whose lease ends or changes.
type change struct {
	index      int // in the call
	receipt    *receipt
	visibility int32 // seconds
}

// Settle ends leases, ten of a kind in a request.
func (h *handle) Settle(ctx context.Context, s ...queue.Settlement) error {
	ctx, end, err := h.calls.Begin(ctx)
	if err != nil {
		return h.fail("settle on", err)
	}
	defer end()
	errs := make([]error, len(s))
	var acks, releases []change
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
			acks = append(acks, change{i, r, 0})
		case queue.Release:
			if r.hopSent { // instead of a Defer that failed by half: its copy comes back
				acks = append(acks, change{i, r, 0})
				continue
			}
			v, err := visibility(s[i].Delay, r, now)
			if err != nil {
				errs[i] = err
				continue
			}
			releases = append(releases, change{i, r, v})
		case queue.Defer:
			hops = h.addHop(hops, r, i, &s[i], now)
		default:
			errs[i] = &queue.InvalidError{Field: "Kind", Reason: s[i].Kind.String()}
		}
	}
	remove := func(b []change) { h.remove(ctx, b, errs) }
	hide := func(b []change) { h.hide(ctx, b, errs) }
	var wg sync.WaitGroup
	if len(hops) > 0 { // nobody else waits for their copies
		wg.Go(func() { h.deferAll(ctx, hops, errs) })
	}
	if len(releases) > 0 {
		wg.Go(func() { h.each(releases, hide) })
	}
	h.each(acks, remove)
	wg.Wait()
	if err := queue.NewSettleError(errs); err != nil {
		return h.fail("settle on", err)
	}
	return nil
}

// visibility is how many seconds to hide a message for a delay, as far as its 12
// hours since the receive go.
func visibility(delay time.Duration, r *receipt, now time.Time) (int32, error) {
	if delay < 0 {
		return 0, &queue.InvalidError{Field: "Delay", Reason: "negative"}
	}
	return seconds(min(delay, max(left(r, now), 0).Truncate(time.Second))), nil
}

func left(r *receipt, now time.Time) time.Duration { return r.received.Add(maxVisibility).Sub(now) }

// Extend makes leases end d from now, rounded up to whole seconds. A d that isn't
// positive is a *queue.InvalidError.
func (h *handle) Extend(ctx context.Context, d time.Duration, ds ...*queue.Delivery) ([]time.Time, error) {
	ctx, end, err := h.calls.Begin(ctx)
	if err != nil {
		return nil, h.fail("extend on", err)
	}
	defer end()
	if d <= 0 {
		return make([]time.Time, len(ds)), h.fail("extend on", &queue.InvalidError{Field: "d", Reason: "must be positive"})
	}
	granted, errs := make([]time.Time, len(ds)), make([]error, len(ds))
	changes := make([]change, 0, len(ds))
	now := time.Now() // SQS counts from later, so the answer is never too much
	for i, del := range ds {
		r, err := h.receiptOf(del)
		if err != nil {
			errs[i] = err
			continue
		}
		v, err := visibility(min(d, maxVisibility), r, now)
		if err == nil && v == 0 { // that would end it
			err = queue.ErrLeaseLost
		}
		if errs[i] = err; err == nil {
			changes = append(changes, change{i, r, v})
		}
	}
	h.each(changes, func(b []change) { h.hide(ctx, b, errs) })
	for _, c := range changes {
		if errs[c.index] == nil {
			granted[c.index] = now.Add(time.Duration(c.visibility) * time.Second)
		}
	}
	if err := queue.NewSettleError(errs); err != nil {
		return granted, h.fail("extend on", err)
	}
	return granted, nil
}

// each calls do for every ten changes.
func (h *handle) each(cs []change, do func([]change)) {
	n := (len(cs) + maxEntries - 1) / maxEntries
	remote.Parallel(n, func(i int) { do(cs[i*maxEntries : min((i+1)*maxEntries, len(cs))]) })
}

// remove deletes messages.
func (h *handle) remove(ctx context.Context, batch []change, errs []error) {
	in := &awssqs.DeleteMessageBatchInput{QueueUrl: &h.url, Entries: make([]types.DeleteMessageBatchRequestEntry, len(batch))}
	for i, c := range batch {
		in.Entries[i] = types.DeleteMessageBatchRequestEntry{Id: entryID(i), ReceiptHandle: c.receipt.message.ReceiptHandle}
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	sent := &sent{Context: ctx, tries: &h.counts.deletes, traced: true}
	out, err := h.client.DeleteMessageBatch(sent, in, h.once)
	if err != nil {
		spread(batch, errs, h.throttled(sent.outcome(err)))
		return
	}
	ids := make([]*string, len(out.Successful))
	for i := range out.Successful {
		ids[i] = out.Successful[i].Id
	}
	answered(batch, errs, ids, out.Failed)
}

// hide changes for how long messages aren't visible to others, and notes in batch
// for how long it did.
func (h *handle) hide(ctx context.Context, batch []change, errs []error) {
	h.change(ctx, batch, errs)
	var again []change
	now := time.Now()
	for i := range batch {
		c := &batch[i]
		if most := int32(left(c.receipt, now) / time.Second); is[*valueError](errs[c.index]) && c.visibility > most-limitSlack {
			// SQS counts the 12 hours from when it handed the message over, which is
			// known only when the answer was on its way quickly.
			if c.visibility = min(c.visibility, most) - limitSlack; c.visibility > 0 {
				again = append(again, *c)
			}
		}
	}
	if len(again) > 0 {
		h.change(ctx, again, errs)
	}
}

// limitSlack is how many seconds an answer with messages may have been on its way:
// readTimeout.
const limitSlack = 30

// change makes one request of hide.
func (h *handle) change(ctx context.Context, batch []change, errs []error) {
	in := &awssqs.ChangeMessageVisibilityBatchInput{QueueUrl: &h.url, Entries: make([]types.ChangeMessageVisibilityBatchRequestEntry, len(batch))}
	for i, c := range batch {
		in.Entries[i] = types.ChangeMessageVisibilityBatchRequestEntry{
			Id: entryID(i), ReceiptHandle: c.receipt.message.ReceiptHandle, VisibilityTimeout: c.visibility,
		}
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	sent := &sent{Context: ctx, tries: &h.counts.changes, traced: true}
	out, err := h.client.ChangeMessageVisibilityBatch(sent, in, h.once)
	if err != nil {
		spread(batch, errs, h.throttled(sent.outcome(err)))
		return
	}
	ids := make([]*string, len(out.Successful))
	for i := range out.Successful {
		ids[i] = out.Successful[i].Id
	}
	answered(batch, errs, ids, out.Failed)
}

// throttled counts an error that says so.
func (h *handle) throttled(err error) error {
	if errors.Is(err, queue.ErrThrottled) {
		h.counts.throttled.Add(1)
	}
	return err
}

func spread(batch []change, errs []error, err error) {
	for _, c := range batch {
		errs[c.index] = err
	}
}

// answered notes what the answer says of each entry.
func answered(batch []change, errs []error, done []*string, failed []types.BatchResultErrorEntry) {
	spread(batch, errs, errUnanswered)
	for _, id := range done {
		if i, ok := entryIndex(id, len(batch)); ok {
			errs[batch[i].index] = nil
		}
	}
	for i := range failed {
		if k, ok := entryIndex(failed[i].Id, len(batch)); ok {
			errs[batch[k].index] = entryError(&failed[i], true)
		}
	}
}
