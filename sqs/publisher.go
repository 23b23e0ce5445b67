package sqs

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/uuid"

	"github.com/anyqueue/anyqueue/internal/remote"
	"github.com/anyqueue/anyqueue/queue"
)

// unkeyed begins the group of a message that has no key: a FIFO queue wants one
// of every message.
const unkeyed = "queue-none-"

// outgoing is a message on its way.
type outgoing struct {
	index int // in the call
	size  int
	group string // of a FIFO queue
	entry types.SendMessageBatchRequestEntry
}

// Publish sends in requests of ten messages and 1 MiB, several at a time on a
// standard queue, one after the other on a FIFO queue.
func (h *handle) Publish(ctx context.Context, msgs ...*queue.Message) error {
	ctx, end, err := h.calls.Begin(ctx)
	if err != nil {
		return h.fail("publish to", err)
	}
	defer end()
	ctx, cancel := queue.PublishContext(ctx)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return h.fail("publish to", err)
	}
	errs := make([]error, len(msgs))
	out := make([]outgoing, 0, len(msgs))
	now := time.Now()
	for i, m := range msgs {
		o, err := h.outgoing(m, now)
		if err != nil {
			errs[i] = err
			continue
		}
		o.index = i
		out = append(out, o)
	}
	h.send(ctx, out, errs)
	if err := queue.NewPublishError(errs); err != nil {
		return h.fail("publish to", err)
	}
	return nil
}

// PublishBack is Publish: an SQS queue has no other subscribers that could be
// disturbed.
func (h *handle) PublishBack(ctx context.Context, msgs ...*queue.Message) error {
	return h.Publish(ctx, msgs...)
}

// outgoing checks a message and encodes it.
func (h *handle) outgoing(m *queue.Message, now time.Time) (outgoing, error) {
	p, err := h.caps.Prepare(m, now)
	if err != nil {
		return outgoing{}, err
	}
	if len(p.Options) > 0 {
		return outgoing{}, &queue.UnsupportedError{Feature: "an option", System: system}
	}
	enc, err := h.caps.Wire.Encode(p.Message)
	if err != nil {
		return outgoing{}, err
	}
	o := outgoing{size: enc.Size}
	o.entry.MessageBody = aws.String(string(enc.Body))
	o.entry.DelaySeconds = seconds(p.Delay)
	if len(enc.Attributes) > 0 {
		o.entry.MessageAttributes = make(map[string]types.MessageAttributeValue, len(enc.Attributes))
		for k, v := range enc.Attributes {
			o.entry.MessageAttributes[k] = attribute(v, enc.Types[k])
		}
	}
	if !h.fifo {
		return o, nil
	}
	if strings.HasPrefix(p.Message.OrderingKey, unkeyed) {
		return o, &queue.InvalidError{Field: "OrderingKey", Reason: "keys beginning with " + unkeyed + " are reserved for this library"}
	}
	if o.group = p.Message.OrderingKey; o.group == "" {
		o.group = unkeyed + uuid.NewString()
	}
	dedup := m.DedupID
	if dedup == "" {
		dedup = uuid.NewString() // else SQS could take it for a repeat
	}
	o.entry.MessageGroupId, o.entry.MessageDeduplicationId = &o.group, &dedup
	return o, nil
}

func attribute(v, kind string) types.MessageAttributeValue {
	if kind == "" {
		kind = "String"
	}
	a := types.MessageAttributeValue{DataType: &kind}
	if binary(kind) {
		a.BinaryValue = []byte(v)
	} else {
		a.StringValue = &v
	}
	return a
}

func binary(kind string) bool { return kind == "Binary" || strings.HasPrefix(kind, "Binary.") }

// send sends in as few requests as can be, and notes what fails.
func (h *handle) send(ctx context.Context, out []outgoing, errs []error) {
	var batches [][]outgoing
	for len(out) > 0 {
		n, size := 1, out[0].size
		for n < len(out) && n < maxEntries && size+out[n].size <= maxRequest {
			size += out[n].size
			n++
		}
		batches = append(batches, out[:n])
		out = out[n:]
	}
	if !h.fifo {
		remote.Parallel(len(batches), func(i int) { h.sendBatch(ctx, batches[i], errs) })
		return
	}
	// A group's messages mustn't overtake one that failed.
	broken := map[string]bool{}
	for _, b := range batches {
		kept := b[:0:0]
		for _, o := range b {
			if broken[o.group] {
				errs[o.index] = errOvertaking
				continue
			}
			kept = append(kept, o)
		}
		h.sendBatch(ctx, kept, errs)
		for _, o := range kept {
			if errs[o.index] != nil {
				broken[o.group] = true
			}
		}
	}
}

var errOvertaking = errors.New("not sent: an earlier message with the same OrderingKey failed")

// sendBatch sends one request.
func (h *handle) sendBatch(ctx context.Context, batch []outgoing, errs []error) {
	if len(batch) == 0 {
		return
	}
	in := &awssqs.SendMessageBatchInput{QueueUrl: &h.url, Entries: make([]types.SendMessageBatchRequestEntry, len(batch))}
	for i, o := range batch {
		in.Entries[i] = o.entry
		in.Entries[i].Id = entryID(i)
	}
	var s sent
	out, err := h.client.SendMessageBatch(ctx, in, s.watch)
	if err != nil {
		if err = classify(err); s.maybe.Load() {
			err = as(queue.ErrUnknownOutcome, err)
		}
		for _, o := range batch {
			errs[o.index] = err
		}
		return
	}
	for _, o := range batch {
		errs[o.index] = errUnanswered
	}
	for _, e := range out.Successful {
		if i, ok := entryIndex(e.Id, len(batch)); ok {
			errs[batch[i].index] = nil
		}
	}
	for i := range out.Failed {
		if k, ok := entryIndex(out.Failed[i].Id, len(batch)); ok {
			errs[batch[k].index] = entryError(&out.Failed[i], false)
		}
	}
}

var errUnanswered error = &callError{queue.ErrUnknownOutcome, errors.New("the answer doesn't mention this entry")}

func entryID(i int) *string { return aws.String(strconv.Itoa(i)) }

func entryIndex(id *string, n int) (int, bool) {
	i, err := strconv.Atoi(deref(id))
	return i, err == nil && i >= 0 && i < n
}
