package sqs

import (
	"context"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/uuid"

	"github.com/anyqueue/anyqueue/internal/batcher"
	"github.com/anyqueue/anyqueue/queue"
)

// unkeyed begins the group of a message that has no key: a FIFO queue wants one
// of every message.
const unkeyed = "queue-none-"

// outgoing is a message on its way.
type outgoing struct {
	entry types.SendMessageBatchRequestEntry
	due   time.Time // its delay runs to this; zero: none
	first time.Time // when it was sent first
}

// Publish sends a message at once when nothing else is under way; else it goes
// along with those of other calls, ten and 1 MiB in a request. What fails and may
// pass is tried again, until ctx ends.
func (h *handle) Publish(ctx context.Context, msgs ...*queue.Message) error {
	if err := h.calls.Enter(); err != nil {
		return h.fail("publish to", err)
	}
	defer h.calls.Leave()
	ctx, cancel := queue.PublishContext(ctx)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return h.fail("publish to", err)
	}
	errs := make([]error, len(msgs))
	items := make([]batcher.Item[outgoing], len(msgs))
	group := h.out.Begin(ctx)
	now := time.Now()
	for i, m := range msgs {
		if errs[i] = h.outgoing(&items[i], m, now); errs[i] == nil {
			group.Add(&items[i])
		}
	}
	group.Wait()
	for i := range items {
		if errs[i] == nil {
			errs[i] = items[i].Err()
		}
	}
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
func (h *handle) outgoing(it *batcher.Item[outgoing], m *queue.Message, now time.Time) error {
	p, err := h.caps.Prepare(m, now)
	if err != nil {
		return err
	}
	o := &it.Value
	if err := o.apply(p.Options, h.fifo); err != nil {
		return err
	}
	key := p.Message.OrderingKey
	if h.fifo && strings.HasPrefix(key, unkeyed) {
		return &queue.InvalidError{Field: "OrderingKey", Reason: "keys beginning with " + unkeyed + " are reserved for this library"}
	}
	enc, err := h.caps.Wire.Encode(p.Message)
	if err != nil {
		return err
	}
	it.Size = enc.Size
	o.entry.MessageBody = aws.String(string(enc.Body))
	if p.Delay > 0 {
		o.due = p.Due
	}
	if len(enc.Attributes) > 0 {
		o.entry.MessageAttributes = make(map[string]types.MessageAttributeValue, len(enc.Attributes))
		values := make([]string, 0, len(enc.Attributes)) // one allocation for all
		for k, v := range enc.Attributes {
			values = append(values, v)
			o.entry.MessageAttributes[k] = attribute(&values[len(values)-1], enc.Types[k])
		}
	}
	if !h.fifo {
		return nil
	}
	it.Key = key // the others go without waiting for each other
	group, dedup := key, m.DedupID
	if group == "" {
		group = unkeyed + uuid.NewString()
	}
	if dedup == "" {
		dedup = uuid.NewString() // else SQS could take it for a repeat
	}
	o.entry.MessageGroupId, o.entry.MessageDeduplicationId = &group, &dedup
	return nil
}

// plain is the type of most attributes.
var plain = "String"

func attribute(v *string, kind string) types.MessageAttributeValue {
	switch {
	case kind == "":
		return types.MessageAttributeValue{DataType: &plain, StringValue: v}
	case binary(kind):
		return types.MessageAttributeValue{DataType: &kind, BinaryValue: []byte(*v)}
	}
	return types.MessageAttributeValue{DataType: &kind, StringValue: v}
}

func binary(kind string) bool { return kind == "Binary" || strings.HasPrefix(kind, "Binary.") }

// delay is the rest of its delay, in seconds.
func (o *outgoing) delay(now time.Time) int32 {
	if o.due.IsZero() {
		return 0
	}
	return seconds(min(max(o.due.Sub(now), 0), maxDelay))
}
