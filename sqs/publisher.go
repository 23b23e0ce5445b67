package sqs

import (
	"context"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/uuid"

	"github.com/anyqueue/anyqueue/queue"
)

// unkeyed begins the group of a message that has no key: a FIFO queue wants one
// of every message.
const unkeyed = "queue-none-"

// outgoing is a message on its way.
type outgoing struct {
	entry types.SendMessageBatchRequestEntry
	body  string        // of entry
	due   time.Time     // its delay runs to this; zero: none
	most  time.Duration // as far as the broker is asked for it
	first time.Time     // when it was sent first

	sequence *sequence // of the call, when its order may get lost
}

// Publish sends a message at once when nothing else is under way; else it goes
// along with those of other calls, ten and 1 MiB in a request. What fails and may
// pass is tried again, until ctx ends.
func (h *handle) Publish(ctx context.Context, msgs ...*queue.Message) error {
	if err := h.calls.Enter(); err != nil {
		return h.fail("publish to", err)
	}
	defer h.calls.Leave()
	if err := ctx.Err(); err != nil {
		return h.fail("publish to", err)
	}
	items := make([]item, len(msgs))
	var errs []error // by index, when there are any
	failed := func(i int, err error) {
		if errs == nil {
			errs = make([]error, len(msgs))
		}
		errs[i] = err
	}
	now := time.Now()
	group := h.out.Begin(ctx, now)
	var seq *sequence
	if h.fifo && len(msgs) > 1 {
		seq = &sequence{}
	}
	for i, m := range msgs {
		if err := h.outgoing(&items[i], m, now); err != nil {
			failed(i, err)
			continue
		}
		if items[i].Key != "" {
			items[i].Value.sequence = seq
		}
		group.Add(&items[i])
	}
	group.Wait()
	for i := range items {
		if err := items[i].Err(); err != nil {
			failed(i, err)
		}
	}
	if errs == nil {
		return nil
	}
	return h.fail("publish to", queue.NewPublishError(errs))
}

// PublishBack is Publish: an SQS queue has no other subscribers that could be
// disturbed.
func (h *handle) PublishBack(ctx context.Context, msgs ...*queue.Message) error {
	return h.Publish(ctx, msgs...)
}

// outgoing checks a message and encodes it.
func (h *handle) outgoing(it *item, m *queue.Message, now time.Time) error {
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
	o.body = string(enc.Body)
	o.entry.MessageBody = &o.body
	if p.Delay > 0 {
		o.due = p.Due
		o.most = p.Delay
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
	if kind == "" {
		return types.MessageAttributeValue{DataType: &plain, StringValue: v}
	}
	own := kind // a variable of its own: it's this one that goes to the heap
	if binary(own) {
		return types.MessageAttributeValue{DataType: &own, BinaryValue: []byte(*v)}
	}
	return types.MessageAttributeValue{DataType: &own, StringValue: v}
}

func binary(kind string) bool { return kind == "Binary" || strings.HasPrefix(kind, "Binary.") }

// delay is the rest of its delay, in seconds.
func (o *outgoing) delay(now time.Time) int32 {
	if o.due.IsZero() {
		return 0
	}
	return seconds(min(max(o.due.Sub(now), 0), o.most))
}
