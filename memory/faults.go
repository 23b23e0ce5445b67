package memory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// ErrInjected is the error of a Fault that has no other. It's a passing one.
var ErrInjected = errors.New("memory: injected fault")

// Call is a kind of call that a Fault hits.
type Call int

// The calls that a Fault can hit.
const (
	OnPublish Call = iota
	OnReceive
	OnSettle
	OnExtend
)

func (c Call) String() string {
	if c < 0 || c > OnExtend {
		return fmt.Sprintf("Call(%d)", int(c))
	}
	return [...]string{"publish", "receive", "settle", "extend"}[c]
}

// Effect is what a Fault does.
type Effect int

const (
	// Refuse makes the call fail, without any other effect.
	Refuse Effect = iota
	// Unanswered lets the call take effect and then makes it fail, as if the
	// answer had been lost. A publish reports queue.ErrUnknownOutcome as well;
	// what a receive would have brought stays leased.
	Unanswered
	// Twice lets the call succeed and makes the message come once more: it's
	// published twice, delivered twice, or comes back although it was
	// acknowledged.
	Twice
	// LoseLease ends the lease before the call takes effect, or, for a receive,
	// right after it.
	LoseLease
)

// A Fault makes calls go wrong, for tests. See Broker.Fail.
type Fault struct {
	// Call says what goes wrong. Default: publishing.
	Call Call
	// Queue is where. Default: in every queue.
	Queue string
	// Effect says how. Default: Refuse.
	Effect Effect
	// Err is the error of Refuse and Unanswered. Default: ErrInjected.
	Err error
	// Skip is how many messages pass before, and Times how many are hit then; 0:
	// all until it's healed. Each message of a call counts, so that a call can
	// partly fail; but like Pub/Sub a publish fails as a whole. A receive that
	// is refused or unanswered counts as one.
	Skip, Times int
	// Match chooses the messages, which it mustn't change or keep. Messages that it
	// doesn't choose don't count. Default: all.
	Match func(*queue.Message) bool
}

func (f *Fault) validate() error {
	invalid := func(field, reason string) error {
		return &queue.InvalidError{Field: "memory.Fault." + field, Reason: reason}
	}
	switch {
	case f.Call < OnPublish || f.Call > OnExtend:
		return invalid("Call", "unknown")
	case f.Effect < Refuse || f.Effect > LoseLease:
		return invalid("Effect", "unknown")
	case f.Call == OnPublish && f.Effect == LoseLease:
		return invalid("Effect", "a publish has no lease to lose")
	case f.Call == OnReceive && f.Effect <= Unanswered && f.Match != nil:
		return invalid("Match", "a receive is refused before there are messages to choose from")
	case f.Skip < 0:
		return invalid("Skip", "negative")
	case f.Times < 0:
		return invalid("Times", "negative")
	}
	return nil
}

// Fail makes calls go wrong from now on, until they have done so f.Times times
// or heal is called. Several faults may be in force; the first that applies is
// used up. A receive that already waits isn't refused any more. A Fault that
// can't be meant refuses the calls with queue.ErrInvalid.
func (b *Broker) Fail(f Fault) (heal func()) {
	if f.Err == nil {
		f.Err = ErrInjected
	}
	if err := f.validate(); err != nil {
		f = Fault{Call: min(max(f.Call, OnPublish), OnExtend), Queue: f.Queue, Err: err}
	}
	n := &fault{Fault: f, left: f.Times}
	if f.Times == 0 {
		n.left = -1
	}
	b.changeFaults(func(fs []*fault) []*fault { return append(fs, n) })
	return func() {
		b.changeFaults(func(fs []*fault) []*fault {
			return slices.DeleteFunc(fs, func(x *fault) bool { return x == n })
		})
	}
}

// changeFaults replaces the list of faults; a call under way keeps the old one.
func (b *Broker) changeFaults(change func([]*fault) []*fault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var old []*fault
	if fs := b.faults.Load(); fs != nil {
		old = slices.Clone(fs.list)
	}
	if list := change(old); len(list) > 0 {
		b.faults.Store(&faults{list: list})
	} else {
		b.faults.Store(nil)
	}
}

type fault struct {
	Fault
	mu   sync.Mutex
	skip int // passed so far
	left int // to hit; negative: no end
}

type faults struct{ list []*fault }

// hit returns the fault that a message runs into, or nil. m is nil for a receive
// as such, which only some effects concern.
func (fs *faults) hit(call Call, name string, m *queue.Message) *fault {
	for _, f := range fs.list {
		if f.Call != call || f.Queue != "" && f.Queue != name {
			continue
		}
		if call == OnReceive && (m == nil) != (f.Effect <= Unanswered) {
			continue
		}
		if f.Match != nil && !f.Match(m) {
			continue
		}
		f.mu.Lock()
		hit := f.skip >= f.Skip && f.left != 0
		switch {
		case f.skip < f.Skip:
			f.skip++
		case f.left > 0:
			f.left--
		}
		f.mu.Unlock()
		if hit {
			return f
		}
	}
	return nil
}

// faulty is a call on a list of messages, some of which run into faults.
type faulty[T any] struct {
	errs  []error  // by index in the call
	hits  []*fault // by index in the call
	pass  []T      // what the real call gets
	index []int    // of pass, in the call
}

func apply[T any](fs *faults, call Call, name string, all []T, message func(T) *queue.Message) *faulty[T] {
	c := &faulty[T]{errs: make([]error, len(all)), hits: make([]*fault, len(all))}
	for i, x := range all {
		if m := message(x); m != nil {
			c.hits[i] = fs.hit(call, name, m)
		}
		if f := c.hits[i]; f != nil && f.Effect == Refuse {
			c.errs[i] = f.Err
			continue
		}
		c.pass = append(c.pass, x)
		c.index = append(c.index, i)
	}
	return c
}

// answered takes the results of the real call, and loses some of them.
func (c *faulty[T]) answered(results []error) {
	for j, err := range results {
		i := c.index[j]
		c.errs[i] = err
		if f := c.hits[i]; f != nil && f.Effect == Unanswered && err == nil {
			c.errs[i] = f.Err
		}
	}
}

func (h *handle) publishFaulty(ctx context.Context, fs *faults, msgs []*queue.Message) error {
	b := h.core.broker
	c := apply(fs, OnPublish, h.core.name, msgs, func(m *queue.Message) *queue.Message {
		if _, err := h.prep.Prepare(m, time.Now()); err != nil {
			return nil // it fails anyway
		}
		return m
	})
	if b.like.allOrNothing {
		for _, f := range c.hits {
			if f != nil && f.Effect == Refuse {
				for i := range c.errs {
					c.errs[i] = f.Err
				}
				return h.fail("publish to", queue.NewPublishError(c.errs))
			}
			if f != nil && f.Effect == Unanswered {
				for i := range c.hits {
					c.hits[i] = f
				}
			}
		}
	}
	if len(c.pass) > 0 {
		c.answered(queue.PublishErrors(h.publish(ctx, c.pass), len(c.pass)))
	}
	for i, f := range c.hits {
		switch {
		case f == nil:
		case f.Effect == Unanswered && errors.Is(c.errs[i], f.Err):
			c.errs[i] = fmt.Errorf("%w: %w", queue.ErrUnknownOutcome, f.Err)
		case f.Effect == Twice && c.errs[i] == nil:
			c.errs[i] = queue.PublishErrors(h.publish(ctx, msgs[i:i+1]), 1)[0]
		}
	}
	if err := queue.NewPublishError(c.errs); err != nil {
		return h.fail("publish to", err)
	}
	return nil
}

func (h *handle) receiveFaulty(ctx context.Context, fs *faults, n int) ([]*queue.Delivery, error) {
	f := fs.hit(OnReceive, h.core.name, nil)
	if f != nil && f.Effect == Refuse {
		return nil, h.fail("receive from", f.Err)
	}
	ds, err := h.receive(ctx, n, false)
	if f != nil && err == nil {
		return nil, h.fail("receive from", f.Err)
	}
	return ds, err
}

// spoil does to deliveries what the faults of a receive want. It's asked again
// after a receive, which may have begun before the faults.
func (h *handle) spoil(fs *faults, ds []*queue.Delivery) {
	now, err := h.core.broker.group.Clock.Now()
	if err != nil {
		return // the receive itself would have failed
	}
	for _, d := range ds {
		r, err := h.receiptOf(d)
		if err != nil {
			continue // can't be: it was just made
		}
		if f := fs.hit(OnReceive, h.core.name, &d.Message); f != nil {
			f.Effect.spoil(r, now)
		}
	}
}

func (h *handle) settleFaulty(ctx context.Context, fs *faults, s []queue.Settlement) error {
	for i := range s {
		if d := s[i].Delivery; d != nil {
			h.Fill(d) // Match may look at what no handler has seen
		}
	}
	c := apply(fs, OnSettle, h.core.name, s, func(s queue.Settlement) *queue.Message { return messageOf(s.Delivery) })
	h.beforehand(c.hits, func(i int) *queue.Delivery { return s[i].Delivery })
	if len(c.pass) > 0 {
		c.answered(settleErrors(h.settle(ctx, c.pass), len(c.pass)))
	}
	if err := queue.NewSettleError(c.errs); err != nil {
		return h.fail("settle on", err)
	}
	return nil
}

func (h *handle) extendFaulty(ctx context.Context, fs *faults, d time.Duration, ds []*queue.Delivery) ([]time.Time, error) {
	c := apply(fs, OnExtend, h.core.name, ds, messageOf)
	h.beforehand(c.hits, func(i int) *queue.Delivery { return ds[i] })
	granted := make([]time.Time, len(ds))
	if len(c.pass) > 0 {
		times, err := h.extend(ctx, d, c.pass)
		c.answered(settleErrors(err, len(c.pass)))
		for j, t := range times {
			if i := c.index[j]; c.errs[i] == nil {
				granted[i] = t
			}
		}
	}
	if err := queue.NewSettleError(c.errs); err != nil {
		return granted, h.fail("extend on", err)
	}
	return granted, nil
}

func messageOf(d *queue.Delivery) *queue.Message {
	if d == nil {
		return nil
	}
	return &d.Message
}

// beforehand does LoseLease and Twice, which begin before the call takes effect:
// afterwards the lease is over, and a key has gone on.
func (h *handle) beforehand(hits []*fault, of func(int) *queue.Delivery) {
	now, err := h.core.broker.group.Clock.Now()
	if err != nil {
		return // the call itself says so
	}
	for i, f := range hits {
		if f == nil || f.Effect < Twice {
			continue
		}
		if d, err := h.receiptOf(of(i)); err == nil {
			f.Effect.spoil(d, now)
		}
	}
}

// spoil does to one delivery what Twice and LoseLease say.
func (e Effect) spoil(d *delivery, now instant) {
	switch e {
	case Twice:
		d.core.q.Again(now, d.item, d.gen)
	case LoseLease:
		d.core.q.Lose(now, d.item, d.gen)
	case Refuse, Unanswered: // they concern the call
	}
}

// settleErrors spreads the error of a Settle or Extend of n entries over them.
func settleErrors(err error, n int) []error {
	out := make([]error, n)
	if se, ok := errors.AsType[*queue.SettleError](err); ok {
		for _, f := range se.Failed {
			out[f.Index] = f.Err
		}
		return out
	}
	for i := range out {
		out[i] = err
	}
	return out
}
