package queue

import (
	"context"
	"errors"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Batch returns a Handler that gathers concurrent deliveries and gives them to fn
// in one call, for work that's cheaper together (a bulk insert, a bulk API). A
// batch starts when it has n deliveries, or wait after its first one came. Two
// deliveries of one Source and OrderingKey are never in the same batch.
//
// fn returns a result for each delivery, by index, with the meanings that a
// handler's error has: nil acknowledges, and so on. One that's missing because
// the slice is too short counts as a failure, so return make([]error, len(ds))
// when all went well; surplus ones are ignored. A panic of fn fails all of them
// with the same *PanicError. fn may be called concurrently, for different
// batches.
//
// Each delivery occupies its slot of the consumer's concurrency from when it
// joins until fn has returned, so a batch is never larger than the consumer's
// concurrency: set that to n or a multiple of it. With a wait of 0 only
// deliveries that come at the very same time go together.
//
// A delivery whose context ends while its batch still gathers leaves it and fails
// with the context's cause. Once fn runs, every caller waits for it. fn's context
// has the values of the first delivery's, and is cancelled when the contexts of
// all its deliveries are: a lease that's lost doesn't stop the work for the
// others. A shutdown waits for what gathers, so wait should be far below the
// consumer's DrainTimeout. BatchContexts has the contexts of all.
//
// One Batch may be used by several consumers, and gathers over all of them. With
// n below 1, a negative wait or a nil fn, every call fails with an *InvalidError
// and nothing is lost.
func Batch(n int, wait time.Duration, fn func(ctx context.Context, ds []*Delivery) []error) Handler {
	switch {
	case n < 1:
		return invalidHandler(&InvalidError{Field: "Batch", Reason: "n must be at least 1"})
	case wait < 0:
		return invalidHandler(&InvalidError{Field: "Batch", Reason: "wait must not be negative"})
	case fn == nil:
		return invalidHandler(&InvalidError{Field: "Batch", Reason: "nil function"})
	}
	return (&batcher{n: n, wait: wait, fn: fn}).handle
}

var (
	errNoResult    = errors.New("queue: the batch function returned no result for this delivery")
	errBatchGoexit = errors.New("queue: the batch function called runtime.Goexit")
)

type batcher struct {
	n    int
	wait time.Duration
	fn   func(context.Context, []*Delivery) []error

	mu   sync.Mutex
	open []*batch // gathering, the oldest first; mostly one
}

// batch is guarded by its batcher's mu until it has started.
type batch struct {
	members []*batchMember
	timer   *time.Timer
	done    chan struct{} // closed when fn has returned
}

type batchMember struct {
	ctx context.Context //nolint:containedctx // belongs to a call that waits for the batch
	d   *Delivery
	err error
}

func (b *batcher) handle(ctx context.Context, d *Delivery) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m := &batchMember{ctx: ctx, d: d, err: errBatchGoexit}
	bt := b.join(m)
	select {
	case <-bt.done:
		return m.err
	case <-ctx.Done():
	}
	if b.leave(bt, m) {
		return context.Cause(ctx)
	}
	<-bt.done
	return m.err
}

// join puts m in the oldest batch that may take it, and starts the batch when
// it's full.
func (b *batcher) join(m *batchMember) *batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	var bt *batch
	for _, o := range b.open {
		if !o.hasKey(m.d) {
			bt = o
			break
		}
	}
	if bt == nil {
		bt = &batch{done: make(chan struct{})}
		b.open = append(b.open, bt)
		if b.n > 1 {
			bt.timer = time.AfterFunc(b.wait, func() { b.due(bt) })
		}
	}
	bt.members = append(bt.members, m)
	if len(bt.members) == b.n {
		b.closeLocked(bt)
		go b.run(bt)
	}
	return bt
}

func (bt *batch) hasKey(d *Delivery) bool {
	return d.OrderingKey != "" && slices.ContainsFunc(bt.members, func(m *batchMember) bool {
		return m.d.OrderingKey == d.OrderingKey && m.d.Source == d.Source
	})
}

// due starts a batch that has waited long enough.
func (b *batcher) due(bt *batch) {
	b.mu.Lock()
	gathering := b.closeLocked(bt)
	b.mu.Unlock()
	if gathering {
		b.run(bt)
	}
}

// leave takes m out of a batch that hasn't started.
func (b *batcher) leave(bt *batch, m *batchMember) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Contains(b.open, bt) {
		return false
	}
	bt.members = slices.DeleteFunc(bt.members, func(o *batchMember) bool { return o == m })
	if len(bt.members) == 0 {
		b.closeLocked(bt)
	}
	return true
}

// closeLocked ends the gathering of bt; false when it has ended already.
func (b *batcher) closeLocked(bt *batch) bool {
	i := slices.Index(b.open, bt)
	if i < 0 {
		return false
	}
	b.open = slices.Delete(b.open, i, i+1)
	if bt.timer != nil {
		bt.timer.Stop()
	}
	return true
}

func (b *batcher) run(bt *batch) {
	defer close(bt.done) // whatever fn does
	ctx, end := bt.context()
	defer end()
	ds := make([]*Delivery, len(bt.members))
	for i, m := range bt.members {
		ds[i] = m.d
	}
	results, err := b.call(ctx, ds)
	for i, m := range bt.members {
		switch {
		case err != nil:
			m.err = err
		case i < len(results):
			m.err = results[i]
		default:
			m.err = errNoResult
		}
	}
}

func (b *batcher) call(ctx context.Context, ds []*Delivery) (results []error, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return b.fn(ctx, ds), nil
}

// context returns the context for fn, which ends when those of all members have
// ended, with the last one's cause.
func (bt *batch) context() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(bt.members[0].ctx))
	bc := &batchContext{Context: ctx, members: bt.members}
	alive := new(atomic.Int64)
	alive.Store(int64(len(bt.members)))
	stops := make([]func() bool, len(bt.members))
	for i, m := range bt.members {
		if l, ok := m.ctx.Value(leaseKey{}).(*lease); ok {
			bc.leases = append(bc.leases, l)
		}
		stops[i] = context.AfterFunc(m.ctx, func() {
			if alive.Add(-1) == 0 {
				cancel(context.Cause(m.ctx))
			}
		})
	}
	return bc, func() {
		for _, stop := range stops {
			stop()
		}
		cancel(nil)
	}
}

// leaseGroup are the leases that a context stands for.
type leaseGroup []*lease

// batchContext stands for the leases of all members, not for the first one's.
type batchContext struct {
	context.Context //nolint:containedctx // it is a context
	leases          leaseGroup
	members         []*batchMember
}

type batchKey struct{}

func (c *batchContext) Value(key any) any {
	switch key.(type) {
	case leaseKey:
		if len(c.leases) == 0 {
			return nil
		}
		return c.leases
	case batchKey:
		return c.members
	}
	return c.Context.Value(key)
}

// BatchContexts returns the contexts of the deliveries of a Batch, by index, when ctx is
// that of its function or comes from it; otherwise nil. They are for their values, such
// as the trace that each delivery belongs to: each ends with its own delivery, that of
// the function with the last one.
func BatchContexts(ctx context.Context) []context.Context {
	members, _ := ctx.Value(batchKey{}).([]*batchMember)
	if members == nil {
		return nil
	}
	out := make([]context.Context, len(members))
	for i, m := range members {
		out[i] = m.ctx //nolint:fatcontext // each is another delivery's
	}
	return out
}
