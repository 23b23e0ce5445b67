package memory

import (
	"context"
	"time"

	"github.com/anyqueue/anyqueue/internal/broker"
	"github.com/anyqueue/anyqueue/queue"
)

type entry = broker.Entry[payload]

// Publish copies the messages into the queue. It doesn't wait for anything, so
// that ctx only matters when it has ended before.
func (h *handle) Publish(ctx context.Context, msgs ...*queue.Message) error {
	if err := h.begin(); err != nil {
		return h.fail("publish to", err)
	}
	defer h.end()
	if fs := h.core.broker.faults.Load(); fs != nil {
		return h.publishFaulty(ctx, fs, msgs)
	}
	return h.publish(ctx, msgs)
}

func (h *handle) publish(ctx context.Context, msgs []*queue.Message) error {
	if err := ctx.Err(); err != nil {
		return h.fail("publish to", err)
	}
	wall, now, err := h.core.broker.group.Clock.Read()
	if err != nil {
		return h.fail("publish to", err)
	}
	var few [2]entry
	es := few[:0]
	if len(msgs) > len(few) {
		es = make([]entry, 0, len(msgs))
	}
	for _, m := range msgs {
		es = append(es, entry{})
		e := &es[len(es)-1]
		e.Err = h.prepare(m, wall, e, false)
	}
	h.core.chunks.stored(h.core.q.Send(now, h.core.broker.like.allOrNothing, es))
	failed := false
	for i := range es {
		failed = failed || es[i].Err != nil
	}
	if !failed {
		return nil
	}
	errs := make([]error, len(es))
	for i := range es {
		errs[i] = translate(es[i].Err)
	}
	return h.fail("publish to", queue.NewPublishError(errs))
}

// place is where a message is stored: alone if it may stay for long, or isn't certain to
// be accepted, as it would keep or waste a chunk; nil says so.
func (h *handle) place(p *queue.Prepared, moves bool) *chunks {
	if o := &h.core.broker.opts; moves || p.Delay > 0 || p.Message.OrderingKey != "" || p.Message.DedupID != "" || o.MaxMessages > 0 || o.MaxBytes > 0 {
		return nil
	}
	return &h.core.chunks
}

// prepare checks a message and copies it. moves says that it takes the place of another
// one, if that's still there.
func (h *handle) prepare(m *queue.Message, now time.Time, e *entry, moves bool) error {
	it := &broker.Item[payload]{}
	var attrs packer
	p, err := h.prep.PrepareEach(m, now, func(name, value string) { attrs.add(name, value) })
	if err != nil {
		return err
	}
	e.Size, err = it.Payload.store(&p, &attrs, &h.core.wire, h.place(&p, moves))
	if err != nil {
		return err
	}
	if p.Delay > 0 {
		it.Payload.extra().due = now.Round(0).Add(p.Delay)
	}
	e.Item, e.Key, e.Dedup, e.Delay, e.At = it, p.Message.OrderingKey, p.Message.DedupID, p.Delay, now
	return nil
}

// PublishBack is Publish: a queue in memory has no other subscribers that
// could be disturbed.
func (h *handle) PublishBack(ctx context.Context, msgs ...*queue.Message) error {
	return h.Publish(ctx, msgs...)
}
