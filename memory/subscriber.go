package memory

import (
	"context"
	"errors"
	"time"

	"github.com/anyqueue/anyqueue/internal/broker"
	"github.com/anyqueue/anyqueue/queue"
)

type (
	lease = broker.Lease[payload]
	op    = broker.Op[payload]
)

// delivery is a queue.Delivery with what settles it, in one allocation. It's the
// Native of its Delivery. What settles it isn't written to once it's handed out.
type delivery struct {
	queue.Delivery
	core     *core
	item     *broker.Item[payload]
	gen      uint32
	receives int32
	unfilled bool // see Fill
}

// Original returns what was published, whatever the handler has done to its
// copy, as long as the broker has the message. It makes delivery a
// queue.Original.
func (d *delivery) Original() (body []byte, attributes map[string]string) {
	// Only its own settlement frees what's unfilled.
	if !d.unfilled && !d.core.q.Share(d.item) {
		return d.Body, d.Attributes
	}
	var o queue.Delivery
	d.item.Payload.load(&o, &d.core.wire)
	return o.Body, o.Attributes
}

// Receive waits until there's a message, ctx has ended or the queue was closed.
// Like SQS and Pub/Sub it returns nothing after 20 seconds.
func (h *handle) Receive(ctx context.Context, max int) ([]*queue.Delivery, error) {
	return h.receiveAnyhow(ctx, max, false)
}

// ReceiveUnfilled is Receive, but that deliveries lack body and attributes until
// Fill. It's what the engine calls, see there.
func (h *handle) ReceiveUnfilled(ctx context.Context, max int) ([]*queue.Delivery, error) {
	return h.receiveAnyhow(ctx, max, true)
}

// Fill completes a delivery that ReceiveUnfilled has returned. Until that's settled
// nobody frees its payload.
func (h *handle) Fill(d *queue.Delivery) {
	if n, ok := d.Native.(*delivery); ok && n.unfilled {
		n.unfilled = false
		d.Body, d.Attributes = n.item.Payload.content()
	}
}

func (h *handle) receiveAnyhow(ctx context.Context, max int, unfilled bool) ([]*queue.Delivery, error) {
	if err := h.begin(); err != nil {
		return nil, h.fail("receive from", err)
	}
	defer h.end()
	faults := &h.core.broker.faults
	if fs := faults.Load(); fs != nil {
		ds, err := h.receiveFaulty(ctx, fs, max)
		h.spoil(fs, ds)
		return ds, err
	}
	ds, err := h.receive(ctx, max, unfilled)
	if fs := faults.Load(); fs != nil {
		for _, d := range ds {
			h.Fill(d) // faults are chosen by it
		}
		h.spoil(fs, ds)
	}
	return ds, err
}

func (h *handle) receive(ctx context.Context, max int, unfilled bool) ([]*queue.Delivery, error) {
	if max <= 0 {
		return nil, h.fail("receive from", &queue.InvalidError{Field: "max", Reason: "must be at least 1"})
	}
	if h.caps.MaxReceive > 0 {
		max = min(max, h.caps.MaxReceive)
	}
	if !h.consumer.Load() && h.consumer.CompareAndSwap(false, true) {
		h.core.q.AddConsumer(1)
	}
	b, err := h.core.q.Receive(ctx, broker.Request{Max: max, Lease: h.lease, Wait: h.core.broker.like.poll, Stop: h.stop})
	if err != nil {
		return nil, h.fail("receive from", err)
	}
	if b == nil {
		return nil, nil
	}
	out := h.deliveries(b.Leases, unfilled)
	h.core.q.Recycle(b)
	return out, nil
}

// deliveriesPerBlock bounds how much memory one delivery that's kept can hold.
const deliveriesPerBlock = 32

func (h *handle) deliveries(ls []lease, unfilled bool) []*queue.Delivery {
	out := make([]*queue.Delivery, len(ls))
	var block []delivery
	for i := range ls {
		if len(block) == 0 {
			block = make([]delivery, min(len(ls)-i, deliveriesPerBlock))
		}
		d := &block[0]
		block = block[1:]
		h.fill(d, &ls[i], unfilled)
		out[i] = &d.Delivery
	}
	return out
}

func (h *handle) fill(d *delivery, l *lease, unfilled bool) {
	p := &l.Item.Payload
	if unfilled && !p.encoded { // else what's not for the handler is in there, too
		d.ID, d.unfilled = p.id, true
	} else {
		p.load(&d.Delivery, &h.core.wire)
	}
	if l.Key != "" {
		d.OrderingKey = l.Key
	}
	d.Source = h.core.source
	d.FillFromBroker(h.core.ids.of(l.Seq), l.Enqueued)
	d.Attempt = h.core.broker.like.attempt(h.caps.Attempts, l.Receives, l.Returns)
	d.Deadline = h.core.broker.group.Clock.Time(l.Until)
	if p.more != nil && !p.more.due.IsZero() {
		d.FillDue(p.more.due)
	}
	// Field by field: copying a whole struct with pointers is dear while the
	// garbage collector marks.
	d.core, d.item, d.gen, d.receives = h.core, l.Item, l.Gen, int32(l.Receives) //nolint:gosec // a number of deliveries
	d.Native = d
}

// attempt counts the deliveries as the system does.
func (p *personality) attempt(c queue.AttemptCount, receives, returns int) int {
	switch {
	case c == queue.AttemptsUnknown:
		return 0
	case p.byReturns:
		return returns + 1
	}
	return receives
}

// Info is what only this broker knows of a delivery.
type Info struct {
	// State is "ready", "leased" or "delayed".
	State string
	// Receives counts how often the message was received, this time included.
	Receives int
	// Until is when a delayed message is due; zero for others.
	Until time.Time
	// Options are the provider-specific options that it was published with.
	Options []queue.MessageOption
}

// InfoOf returns what the broker knows of a delivery that came from a queue in
// memory, at the time when it was received or looked at.
func InfoOf(d *queue.Delivery) (Info, bool) {
	switch n := d.Native.(type) {
	case *delivery:
		return Info{State: broker.Leased.String(), Receives: int(n.receives), Options: n.item.Payload.options()}, true
	case *Info:
		return *n, true
	}
	return Info{}, false
}

// receiptOf returns what settles d, which may be a copy of what was received.
func (h *handle) receiptOf(d *queue.Delivery) (*delivery, error) {
	if d != nil {
		if r, ok := d.Native.(*delivery); ok && r.core == h.core {
			return r, nil
		}
	}
	return nil, &queue.InvalidError{Field: "Delivery", Reason: "it wasn't received from this queue"}
}

// Settle ends leases.
func (h *handle) Settle(ctx context.Context, s ...queue.Settlement) error {
	if err := h.begin(); err != nil {
		return h.fail("settle on", err)
	}
	defer h.end()
	if fs := h.core.broker.faults.Load(); fs != nil {
		return h.settleFaulty(ctx, fs, s)
	}
	return h.settle(ctx, s)
}

func (h *handle) settle(ctx context.Context, s []queue.Settlement) error {
	wall, now, err := h.core.broker.group.Clock.Read()
	if err != nil {
		return h.fail("settle on", err)
	}
	if err := ctx.Err(); err != nil {
		return h.fail("settle on", err)
	}
	var few [8]op
	ops := few[:0]
	if len(s) > len(few) {
		scratch := h.core.broker.opsFor(len(s))
		defer h.core.broker.recycle(scratch)
		ops = *scratch
	}
	for i := range s {
		ops = append(ops, op{})
		o := &ops[i]
		o.Err = h.settlement(&s[i], wall, o)
	}
	h.core.q.Settle(now, h.core.broker.like.silentAck, ops)
	h.core.chunks.reclaim(ops)
	return h.outcome("settle on", ops)
}

// opsFor returns an empty slice with room for n. Give it to recycle afterwards.
func (b *Broker) opsFor(n int) *[]op {
	if ops, ok := b.ops.Get().(*[]op); ok && cap(*ops) >= n {
		return ops
	}
	ops := make([]op, 0, n)
	return &ops
}

func (b *Broker) recycle(ops *[]op) {
	const most = 1024 // memory that nobody may ever need again
	if cap(*ops) > most {
		return
	}
	clear((*ops)[:cap(*ops)])
	b.ops.Put(ops)
}

// settlement translates one settlement.
func (h *handle) settlement(s *queue.Settlement, now time.Time, o *op) error {
	r, err := h.receiptOf(s.Delivery)
	if err != nil {
		return err
	}
	o.Item, o.Gen = r.item, r.gen
	switch s.Kind {
	case queue.Ack:
		o.Kind = broker.Ack
	case queue.Release:
		if s.Delay < 0 {
			return &queue.InvalidError{Field: "Delay", Reason: "negative"}
		}
		if most := h.caps.MaxRedeliveryDelay; most > 0 && s.Delay > most {
			return &queue.LimitError{Field: "delay of a redelivery", Got: int64(s.Delay), Max: int64(most), System: h.prep.Source.System}
		}
		o.Kind, o.For = broker.Release, h.roundUp(s.Delay)
	case queue.Defer:
		o.Kind, o.Entry = broker.Replace, &entry{}
		return h.prepare(s.Hop(), now, o.Entry, true)
	default:
		return &queue.InvalidError{Field: "Kind", Reason: s.Kind.String()}
	}
	return nil
}

// roundUp gives a delay the precision that the system has.
func (h *handle) roundUp(d time.Duration) time.Duration {
	if unit := h.core.broker.like.leaseUnit; unit > 0 && d%unit != 0 {
		return d - d%unit + unit
	}
	return d
}

// outcome collects the errors of a call.
func (h *handle) outcome(what string, ops []op) error {
	like := h.core.broker.like
	var errs []error
	for i := range ops {
		o := &ops[i]
		if o.Err == nil {
			continue
		}
		if silent := like.silentExtend || like.silentAck && (o.Kind == broker.Ack || o.Kind == broker.Replace); silent && errors.Is(o.Err, broker.ErrStale) {
			continue
		}
		if errs == nil {
			errs = make([]error, len(ops))
		}
		errs[i] = translate(o.Err)
	}
	if errs == nil {
		return nil
	}
	return h.fail(what, queue.NewSettleError(errs))
}

// Extend makes the leases end d from now, as far as the system allows.
func (h *handle) Extend(ctx context.Context, d time.Duration, ds ...*queue.Delivery) ([]time.Time, error) {
	if err := h.begin(); err != nil {
		return nil, h.fail("extend on", err)
	}
	defer h.end()
	if fs := h.core.broker.faults.Load(); fs != nil {
		return h.extendFaulty(ctx, fs, d, ds)
	}
	return h.extend(ctx, d, ds)
}

func (h *handle) extend(ctx context.Context, d time.Duration, ds []*queue.Delivery) ([]time.Time, error) {
	clock := h.core.broker.group.Clock
	now, err := clock.Now()
	if err != nil {
		return nil, h.fail("extend on", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, h.fail("extend on", err)
	}
	if d <= 0 {
		return nil, h.fail("extend on", &queue.InvalidError{Field: "extension", Reason: "must be positive"})
	}
	d = h.roundUp(d)
	if h.caps.MaxExtension > 0 {
		d = min(d, h.caps.MaxExtension)
	}
	ops := make([]op, len(ds))
	for i := range ds {
		r, err := h.receiptOf(ds[i])
		if err != nil {
			ops[i].Err = err
			continue
		}
		ops[i] = op{Item: r.item, Gen: r.gen, Kind: broker.Extend, For: d}
	}
	h.core.q.Settle(now, false, ops)
	granted := make([]time.Time, len(ops))
	for i := range ops {
		switch o := &ops[i]; {
		case o.Err == nil:
			granted[i] = clock.Time(o.Until)
		case h.core.broker.like.silentExtend && errors.Is(o.Err, broker.ErrStale):
			granted[i] = clock.Time(now.Add(d))
		}
	}
	return granted, h.outcome("extend on", ops)
}
