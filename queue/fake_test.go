package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing/synctest"
	"time"
)

// fakeBroker is a Subscriber for tests of the engine alone. It hands out what
// was put, records what the engine asks for, and fails as it's told. Every
// method may be called concurrently.
type fakeBroker struct {
	caps Capabilities

	mu       sync.Mutex
	queue    []*Delivery
	woken    chan struct{}
	settled  []Settlement
	calls    []int // max of each Receive
	open     int   // receives under way
	extends  []fakeExtend
	onExtend func(d *Delivery, dur time.Duration) (time.Time, error)
	onSettle func(s Settlement) error
	onRecv   func(n int) error
	latency  time.Duration
	brings   int // most that one Receive returns, whatever is asked for; 0: no limit
}

type fakeExtend struct {
	at  time.Time
	ids []string
	d   time.Duration
}

func newFake(lease time.Duration) *fakeBroker {
	return &fakeBroker{
		caps:  Capabilities{Source: Endpoint{"fake", "q"}, Lease: lease, Ordering: true, KeyLocked: true, Delays: true, Attempts: AttemptsExact, ReleaseCounts: true, MaxDelay: time.Hour},
		woken: make(chan struct{}, 1),
	}
}

func (f *fakeBroker) Capabilities() Capabilities { return f.caps }

func (f *fakeBroker) put(ds ...*Delivery) {
	f.mu.Lock()
	f.queue = append(f.queue, ds...)
	f.mu.Unlock()
	f.wake()
}

func (f *fakeBroker) wake() {
	select {
	case f.woken <- struct{}{}:
	default:
	}
}

func msgs(n int) []*Delivery {
	ds := make([]*Delivery, n)
	for i := range ds {
		id := fmt.Sprintf("m%d", i)
		ds[i] = &Delivery{Message: Message{ID: id}, BrokerID: id, Attempt: 1}
	}
	return ds
}

func (f *fakeBroker) Receive(ctx context.Context, n int) ([]*Delivery, error) {
	f.mu.Lock()
	f.calls = append(f.calls, n)
	f.open++
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.open--
		f.mu.Unlock()
	}()
	if f.latency > 0 {
		time.Sleep(f.latency)
	}
	poll := time.NewTimer(20 * time.Second)
	defer poll.Stop()
	for {
		f.mu.Lock()
		if f.onRecv != nil {
			if err := f.onRecv(n); err != nil {
				f.mu.Unlock()
				return nil, err
			}
		}
		if f.brings > 0 {
			n = min(n, f.brings)
		}
		if k := min(n, len(f.queue)); k > 0 {
			ds := slices.Clone(f.queue[:k])
			f.queue = f.queue[k:]
			left := len(f.queue)
			for _, d := range ds {
				if f.caps.Lease > 0 {
					d.Deadline = time.Now().Add(f.caps.Lease)
				}
			}
			f.mu.Unlock()
			if left > 0 {
				f.wake()
			}
			return ds, nil
		}
		f.mu.Unlock()
		select {
		case <-f.woken:
		case <-poll.C:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (f *fakeBroker) Settle(_ context.Context, ss ...Settlement) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	errs := make([]error, len(ss))
	for i, s := range ss {
		if f.onSettle != nil {
			errs[i] = f.onSettle(s)
		}
		if errs[i] == nil {
			f.settled = append(f.settled, s)
		}
	}
	return NewSettleError(errs)
}

func (f *fakeBroker) Extend(_ context.Context, d time.Duration, ds ...*Delivery) ([]time.Time, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := fakeExtend{at: time.Now(), d: d}
	out := make([]time.Time, len(ds))
	errs := make([]error, len(ds))
	for i, x := range ds {
		e.ids = append(e.ids, x.BrokerID)
		out[i] = time.Now().Add(d)
		if f.onExtend != nil {
			out[i], errs[i] = f.onExtend(x, d)
		}
	}
	f.extends = append(f.extends, e)
	return out, NewSettleError(errs)
}

func (f *fakeBroker) kinds() map[SettleKind]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[SettleKind]int{}
	for _, s := range f.settled {
		out[s.Kind]++
	}
	return out
}

func (f *fakeBroker) settlements() []Settlement {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.settled)
}

// running is a consumer whose Run is under way.
type running struct {
	*Consumer
	cancel context.CancelFunc
	done   chan error
}

func run(c *Consumer) *running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{c, cancel, make(chan error, 1)}
	go func() { r.done <- c.Run(ctx) }()
	return r
}

// stop ends Run and returns what it returned.
func (r *running) stop() error {
	r.cancel()
	return <-r.done
}

var errTest = errors.New("test failure")

// pass lets d pass in a bubble, and everything that it brings about.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
