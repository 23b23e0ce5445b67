package queuetest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// errFault is an error of a broker that passes.
var errFault = errors.New("queuetest: an injected fault")

type (
	receiveFunc func(ctx context.Context, max int) ([]*queue.Delivery, error)
	settleFunc  func(ctx context.Context, s ...queue.Settlement) error
	extendFunc  func(ctx context.Context, d time.Duration, ds ...*queue.Delivery) ([]time.Time, error)
	publishFunc func(ctx context.Context, msgs ...*queue.Message) error
)

// faultQueue stands between the engine and any backend, and lets a test change
// what calls do. The functions are set before it's used; each is given the next
// one to call.
type faultQueue struct {
	queue.Queue
	receive func(ctx context.Context, most int, next receiveFunc) ([]*queue.Delivery, error)
	settle  func(ctx context.Context, s []queue.Settlement, next settleFunc) error
	extend  func(ctx context.Context, d time.Duration, ds []*queue.Delivery, next extendFunc) ([]time.Time, error)
	send    func(ctx context.Context, msgs []*queue.Message, next publishFunc) error
	caps    func(c *queue.Capabilities)

	mu    sync.Mutex
	names map[string]string // bodies as received, by the broker's id
	log   []settleCall
}

// settleCall is one settlement that the engine asked for.
type settleCall struct {
	name  string
	kind  queue.SettleKind
	delay time.Duration
	at    time.Time
	err   error
}

func newFaultQueue(q queue.Queue) *faultQueue {
	return &faultQueue{Queue: q, names: map[string]string{}}
}

// Unwrap lets queue.As look through.
func (f *faultQueue) Unwrap() queue.Queue { return f.Queue }

// Capabilities are those of the queue, unless the test changes them.
func (f *faultQueue) Capabilities() queue.Capabilities {
	c := f.Queue.Capabilities()
	if f.caps != nil {
		f.caps(&c)
	}
	return c
}

func (f *faultQueue) Receive(ctx context.Context, max int) ([]*queue.Delivery, error) {
	next := func(ctx context.Context, max int) ([]*queue.Delivery, error) {
		ds, err := f.Queue.Receive(ctx, max)
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, d := range ds {
			f.names[d.BrokerID] = string(d.Body)
		}
		return ds, err
	}
	if f.receive != nil {
		return f.receive(ctx, max, next)
	}
	return next(ctx, max)
}

func (f *faultQueue) Settle(ctx context.Context, s ...queue.Settlement) error {
	calls := make([]settleCall, len(s))
	for i := range s {
		calls[i] = settleCall{f.name(s[i].Delivery), s[i].Kind, s[i].Delay, time.Now(), nil}
	}
	var err error
	if f.settle != nil {
		err = f.settle(ctx, s, f.Queue.Settle)
	} else {
		err = f.Queue.Settle(ctx, s...)
	}
	for i, e := range entryErrors(err, len(s)) {
		calls[i].err = e
	}
	f.mu.Lock()
	f.log = append(f.log, calls...)
	f.mu.Unlock()
	return err
}

func (f *faultQueue) Extend(ctx context.Context, d time.Duration, ds ...*queue.Delivery) ([]time.Time, error) {
	if f.extend != nil {
		return f.extend(ctx, d, ds, f.Queue.Extend)
	}
	return f.Queue.Extend(ctx, d, ds...)
}

func (f *faultQueue) Publish(ctx context.Context, msgs ...*queue.Message) error {
	if f.send != nil {
		return f.send(ctx, msgs, f.Queue.Publish)
	}
	return f.Queue.Publish(ctx, msgs...)
}

// name tells which message a delivery is, whatever its handler has done to it.
func (f *faultQueue) name(d *queue.Delivery) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.names[d.BrokerID]
}

// settlements returns the settlements of one message so far, or of all for "".
func (f *faultQueue) settlements(name string) []settleCall {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []settleCall
	for _, c := range f.log {
		if name == "" || c.name == name {
			out = append(out, c)
		}
	}
	return out
}

// settleSome passes on what verdict lets pass, and fails the rest with its error.
func settleSome(ctx context.Context, s []queue.Settlement, next settleFunc, verdict func(queue.Settlement) error) error {
	errs := make([]error, len(s))
	var pass []queue.Settlement
	var at []int
	for i := range s {
		if errs[i] = verdict(s[i]); errs[i] == nil {
			pass, at = append(pass, s[i]), append(at, i)
		}
	}
	if len(pass) > 0 {
		for j, err := range entryErrors(next(ctx, pass...), len(pass)) {
			errs[at[j]] = err
		}
	}
	return queue.NewSettleError(errs)
}

// extendSome is the same for Extend.
func extendSome(ctx context.Context, d time.Duration, ds []*queue.Delivery, next extendFunc, verdict func(*queue.Delivery) error) ([]time.Time, error) {
	errs := make([]error, len(ds))
	out := make([]time.Time, len(ds))
	var pass []*queue.Delivery
	var at []int
	for i := range ds {
		if errs[i] = verdict(ds[i]); errs[i] == nil {
			pass, at = append(pass, ds[i]), append(at, i)
		}
	}
	if len(pass) > 0 {
		granted, err := next(ctx, d, pass...)
		for j, e := range entryErrors(err, len(pass)) {
			errs[at[j]] = e
			if j < len(granted) {
				out[at[j]] = granted[j]
			}
		}
	}
	return out, queue.NewSettleError(errs)
}

// entryErrors spreads the error of a Settle or Extend over its entries.
func entryErrors(err error, n int) []error {
	out := make([]error, n)
	var se *queue.SettleError
	switch {
	case err == nil:
	case errors.As(err, &se):
		for _, f := range se.Failed {
			out[f.Index] = f.Err
		}
	default:
		for i := range out {
			out[i] = err
		}
	}
	return out
}
