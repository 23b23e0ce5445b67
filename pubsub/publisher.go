package pubsub

import (
	"context"
	"errors"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/protobuf/proto"

	"github.com/anyqueue/anyqueue/internal/remote"
	"github.com/anyqueue/anyqueue/queue"
)

// outgoing is a message on its way.
type outgoing struct {
	index   int // in the call
	size    int
	message *pubsubpb.PubsubMessage
}

// Publish sends in as few requests as can be, several at a time; those with the
// same ordering key one after the other. A request succeeds or fails as a whole.
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

// PublishBack is Publish where nobody else subscribes to the topic, and fails
// with queue.ErrUnsupported where others do, or may.
func (h *handle) PublishBack(ctx context.Context, msgs ...*queue.Message) error {
	if !h.shared {
		return h.Publish(ctx, msgs...)
	}
	errs := make([]error, len(msgs))
	for i := range errs {
		errs[i] = errShared
	}
	return h.fail("publish back to", queue.NewPublishError(errs))
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
	pm := &pubsubpb.PubsubMessage{Data: enc.Body, Attributes: enc.Attributes, OrderingKey: p.Message.OrderingKey}
	return outgoing{size: proto.Size(pm) + 8, message: pm}, nil
}

// send sends everything and notes what fails.
func (h *handle) send(ctx context.Context, out []outgoing, errs []error) {
	var lines [][]outgoing // what's sent one after the other: one key, or a batch without
	var plain []outgoing
	keys := map[string]int{}
	for _, o := range out {
		k := o.message.GetOrderingKey()
		if k == "" {
			plain = append(plain, o)
			continue
		}
		i, ok := keys[k]
		if !ok {
			i = len(lines)
			keys[k] = i
			lines = append(lines, nil)
		}
		lines[i] = append(lines[i], o)
	}
	lines = append(lines, batches(plain)...)
	remote.Parallel(len(lines), func(i int) {
		failed := false
		for _, b := range batches(lines[i]) {
			if failed { // the later ones mustn't overtake
				for _, o := range b {
					errs[o.index] = errOvertaking
				}
				continue
			}
			err := h.sendBatch(ctx, b)
			for _, o := range b {
				errs[o.index] = err
			}
			failed = err != nil
		}
	})
}

var errOvertaking = errors.New("not sent: an earlier message with the same OrderingKey failed")

// batches splits by what one request may hold.
func batches(out []outgoing) [][]outgoing {
	var bs [][]outgoing
	for len(out) > 0 {
		n, size := 1, out[0].size
		for n < len(out) && n < maxMessages && size+out[n].size <= maxRequest-requestReserve {
			size += out[n].size
			n++
		}
		bs = append(bs, out[:n])
		out = out[n:]
	}
	return bs
}

func (h *handle) sendBatch(ctx context.Context, batch []outgoing) error {
	req := &pubsubpb.PublishRequest{Topic: h.topic, Messages: make([]*pubsubpb.PubsubMessage, len(batch))}
	for i, o := range batch {
		req.Messages[i] = o.message
	}
	var s sending
	if _, err := h.client.TopicAdminClient.Publish(ctx, req, s.options()...); err != nil {
		return s.failure(err)
	}
	return nil
}
