package pubsub

import (
	"bytes"
	"context"
	"maps"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/anyqueue/anyqueue/internal/batcher"
	"github.com/anyqueue/anyqueue/queue"
)

// item is a message on its way.
type item = batcher.Item[*pubsubpb.PubsubMessage]

// Publish sends messages at once when nothing else is under way; else they go along
// with those of other calls, up to 1,000 and 10 MB in a request. What fails and may
// pass is tried again, until ctx ends.
func (h *handle) Publish(ctx context.Context, msgs ...*queue.Message) error {
	const op = "publish to"
	if err := h.calls.Enter(); err != nil {
		return h.fail(op, err)
	}
	defer h.calls.Leave()
	return h.publish(ctx, &h.out, op, msgs)
}

// PublishBack sends messages to this queue's own consumers alone: through its
// return topic if there's one, else through its topic, unless others subscribe to
// that or may; then it fails with queue.ErrUnsupported.
func (h *handle) PublishBack(ctx context.Context, msgs ...*queue.Message) error {
	const op = "publish back to"
	ctx, end, err := h.calls.Begin(ctx)
	if err != nil {
		return h.fail(op, err)
	}
	defer end()
	if len(msgs) == 0 {
		return nil
	}
	ctx, cancel := queue.PublishContext(ctx)
	defer cancel()
	out, err := h.wayBack(ctx)
	if err != nil {
		return h.failAll(op, err, len(msgs))
	}
	return h.publish(ctx, out, op, msgs)
}

// failAll fails each of n messages.
func (h *handle) failAll(op string, err error, n int) error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return h.fail(op, queue.NewPublishError(errs))
}

// publish is for a call that's registered.
func (h *handle) publish(ctx context.Context, out *outlet, op string, msgs []*queue.Message) error {
	if err := ctx.Err(); err != nil {
		return h.fail(op, err)
	}
	if out.topic == "" && len(msgs) > 0 {
		return h.failAll(op, h.noTopic, len(msgs))
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
	group := out.batches.Begin(ctx, now)
	for i, m := range msgs {
		if err := h.outgoing(&items[i], m, now); err != nil {
			failed(i, err)
			continue
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
	return h.fail(op, queue.NewPublishError(errs))
}

// framing is what's around one part of a message: tags, and lengths of four bytes at
// most.
const framing = 12

// outgoing checks a message and encodes it.
func (h *handle) outgoing(it *item, m *queue.Message, now time.Time) error {
	// Copies: for others in its request it may leave, or leave again, when its caller
	// has gone and uses what was his.
	var attrs map[string]string
	size := 2 * framing
	p, err := h.caps.PrepareEach(m, now, func(name, value string) {
		if attrs == nil {
			attrs = make(map[string]string, len(m.Attributes))
		}
		attrs[name] = value
		size += framing + len(name) + len(value)
	})
	if err != nil {
		return err
	}
	if len(p.Options) > 0 {
		return &queue.UnsupportedError{Feature: "an option", System: system}
	}
	it.Key = p.Message.OrderingKey
	if p.Plain {
		it.Value = &pubsubpb.PubsubMessage{Data: bytes.Clone(m.Body), Attributes: attrs, OrderingKey: it.Key}
		it.Size = size + len(m.Body) + len(it.Key)
		return nil
	}
	enc, err := h.caps.Wire.Encode(p.Message)
	if err != nil {
		return err
	}
	it.Value = &pubsubpb.PubsubMessage{Data: bytes.Clone(enc.Body), Attributes: maps.Clone(enc.Attributes), OrderingKey: it.Key}
	it.Size = sizeOf(it.Value)
	return nil
}

// sizeOf is what a message takes in a request at most: proto.Size without the work
// of reflection for each attribute.
func sizeOf(m *pubsubpb.PubsubMessage) int {
	n := 2*framing + len(m.Data) + len(m.OrderingKey)
	for k, v := range m.Attributes {
		n += framing + len(k) + len(v)
	}
	return n
}
