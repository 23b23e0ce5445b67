package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// trivial is a Subscriber that has its deliveries ready: what a consumer on it
// costs is the engine's own.
type trivial struct {
	mu      sync.Mutex
	ring    []*queue.Delivery // handed out again and again
	total   int
	given   int
	settled int
	freed   sync.Cond // something was settled

	settledAll chan struct{}
}

// trivialRing is more than the engine can have in flight: what it fetches ahead
// and what it's about to settle.
const trivialRing = 1 << 15

func newTrivial(total int) *trivial {
	t := &trivial{total: total, ring: make([]*queue.Delivery, trivialRing), settledAll: make(chan struct{})}
	t.freed.L = &t.mu
	all := make([]queue.Delivery, trivialRing)
	body, attrs := newBody(), newAttributes()
	for i := range all {
		all[i] = queue.Delivery{
			Message:  queue.Message{ID: number(i), Body: body, Attributes: attrs},
			BrokerID: number(i), Attempt: 1,
		}
		t.ring[i] = &all[i]
	}
	return t
}

// Receive hands out the next deliveries; when there are no more it waits for the
// end.
func (t *trivial) Receive(ctx context.Context, n int) ([]*queue.Delivery, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.given < t.total && t.given-t.settled == len(t.ring) {
		t.freed.Wait()
	}
	if t.given == t.total {
		t.mu.Unlock()
		<-ctx.Done()
		t.mu.Lock()
		return nil, ctx.Err()
	}
	from := t.given % len(t.ring)
	n = min(n, t.total-t.given, len(t.ring)-from, len(t.ring)-(t.given-t.settled))
	t.given += n
	ds := t.ring[from : from+n]
	deadline := time.Now().Add(30 * time.Second)
	for _, d := range ds {
		d.Deadline = deadline
	}
	return ds, nil
}

// Settle counts. The engine settles nearly in the order of the deliveries; the
// ring is so much larger than what's in flight that none is handed out twice.
func (t *trivial) Settle(_ context.Context, s ...queue.Settlement) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range s {
		if s[i].Kind != queue.Ack {
			return errors.New("something else than an acknowledgement")
		}
	}
	t.settled += len(s)
	t.freed.Signal()
	if t.settled == t.total {
		close(t.settledAll)
	}
	return nil
}

// Extend isn't reached: nothing takes that long.
func (t *trivial) Extend(context.Context, time.Duration, ...*queue.Delivery) ([]time.Time, error) {
	return nil, errors.New("unexpected")
}
