package queue

import (
	"context"
	"errors"
	"sync"
	"time"
)

// leaseKeeper keeps the leases of deliveries that nobody handles: of a Redrive,
// which may hold many for long. A Consumer has its own scheduler.
type leaseKeeper struct {
	sub    Subscriber
	length time.Duration // what to ask for; 0: not known yet, or no leases

	// mu is also held over the call that extends leases: once drop has returned
	// no late extension can overwrite a settlement.
	mu   sync.Mutex
	held map[*Delivery]struct{}

	stop chan struct{} // nil: not running
	done chan struct{}
}

func newLeaseKeeper(sub Subscriber, length time.Duration) *leaseKeeper {
	return &leaseKeeper{sub: sub, length: length, held: map[*Delivery]struct{}{}}
}

// add begins to keep leases, also when ctx ends.
func (k *leaseKeeper) add(ctx context.Context, ds ...*Delivery) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, d := range ds {
		k.held[d] = struct{}{}
		if k.length <= 0 && !d.Deadline.IsZero() {
			k.length = max(time.Until(d.Deadline), time.Second)
		}
	}
	if len(ds) > 0 && k.stop == nil && k.length > 0 {
		k.stop, k.done = make(chan struct{}), make(chan struct{})
		go k.run(context.WithoutCancel(ctx), k.length, k.stop, k.done)
	}
}

// drop ends the keeping of leases.
func (k *leaseKeeper) drop(ds ...*Delivery) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, d := range ds {
		delete(k.held, d)
	}
}

// ours returns those of ds whose leases weren't lost.
func (k *leaseKeeper) ours(ds []*Delivery) []*Delivery {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := ds[:0:0]
	for _, d := range ds {
		if _, ok := k.held[d]; ok {
			out = append(out, d)
		}
	}
	return out
}

func (k *leaseKeeper) size() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.held)
}

// close ends the keeping and returns what was still held.
func (k *leaseKeeper) close() []*Delivery {
	if k.stop != nil {
		close(k.stop)
		<-k.done
	}
	ds := make([]*Delivery, 0, len(k.held))
	for d := range k.held {
		ds = append(ds, d)
	}
	return ds
}

func (k *leaseKeeper) run(ctx context.Context, length time.Duration, stop, done chan struct{}) {
	defer close(done)
	tick := time.NewTicker(max(length/3, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			k.extend(ctx, length)
		}
	}
}

func (k *leaseKeeper) extend(ctx context.Context, length time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.held) == 0 {
		return
	}
	ds := make([]*Delivery, 0, len(k.held))
	for d := range k.held {
		ds = append(ds, d)
	}
	// Nothing can be settled meanwhile.
	ctx, cancel := context.WithTimeout(ctx, min(max(length/3, time.Millisecond), extendTimeout))
	defer cancel()
	_, err := k.sub.Extend(ctx, length, ds...)
	for i, err := range settleErrors(err, len(ds)) {
		// Other errors may pass; there are two more tries before the end.
		if errors.Is(err, ErrLeaseLost) {
			delete(k.held, ds[i])
		}
	}
}
