package main

import (
	"bytes"
	"errors"
	"maps"
	"sync"
	"time"
)

// floor is the least that a queue with leases can do: a ring under a mutex, a
// copy when a message is published, a lease when it's handed out, a slot that
// becomes free when it's acknowledged. It has no name, delay, order, attempt,
// limit or statistics, and it copies once only: a handler that changes its
// message changes what a redelivery brings. It's a floor, not a peer.
type floor struct{}

func newFloor() system { return floor{} }

const floorLease = 30 * time.Second

type slot struct {
	body  []byte
	attrs map[string]string
	until time.Time // end of the lease; zero: not leased
	gen   uint32    // of the lease
	done  bool
}

type ring struct {
	mu     sync.Mutex
	filled sync.Cond
	slots  []slot // its length is a power of two
	// Counting up for ever: the oldest that isn't done, the next to hand out, the
	// next to fill.
	oldest, next, end uint64
	again             []uint64 // given back, to be handed out again
	closed            bool

	handlers sync.WaitGroup
}

func (floor) start(_ string, n int, h handler) (session, error) {
	r := &ring{slots: make([]slot, 16)}
	r.filled.L = &r.mu
	for range n {
		r.handlers.Go(func() {
			for {
				at, s, ok := r.take()
				if !ok {
					return
				}
				r.settle(at, s.gen, h(s.body, s.attrs) == nil)
			}
		})
	}
	return r, nil
}

func (r *ring) at(i uint64) *slot { return &r.slots[i&uint64(len(r.slots)-1)] }

func (r *ring) publisher(attrs map[string]string) func([]byte) error {
	return func(body []byte) error {
		s := slot{body: bytes.Clone(body), attrs: maps.Clone(attrs)}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.closed {
			return errors.New("closed")
		}
		if r.end-r.oldest == uint64(len(r.slots)) {
			r.grow()
		}
		*r.at(r.end) = s
		r.end++
		r.filled.Signal()
		return nil
	}
}

func (r *ring) grow() {
	old := r.slots
	r.slots = make([]slot, 2*len(old))
	for i := r.oldest; i < r.end; i++ {
		*r.at(i) = old[i&uint64(len(old)-1)]
	}
}

// take waits for a message and leases it.
func (r *ring) take() (uint64, slot, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.closed {
		now := time.Now()
		if r.next > r.oldest && now.After(r.at(r.oldest).until) { // leases end in the order of the ring
			return r.lease(r.oldest, now)
		}
		if n := len(r.again); n > 0 {
			i := r.again[n-1]
			r.again = r.again[:n-1]
			return r.lease(i, now)
		}
		if r.next < r.end {
			r.next++
			return r.lease(r.next-1, now)
		}
		r.filled.Wait()
	}
	return 0, slot{}, false
}

func (r *ring) lease(i uint64, now time.Time) (uint64, slot, bool) {
	s := r.at(i)
	s.until = now.Add(floorLease)
	s.gen++
	return i, *s, true
}

// settle ends a lease: acknowledged or given back.
func (r *ring) settle(i uint64, gen uint32, ack bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.at(i)
	switch {
	case i < r.oldest || s.gen != gen: // the lease had ended
	case !ack:
		s.gen++
		r.again = append(r.again, i)
		r.filled.Signal()
	default:
		*s = slot{done: true}
		for r.oldest < r.next && r.at(r.oldest).done {
			*r.at(r.oldest) = slot{}
			r.oldest++
		}
	}
}

func (r *ring) stop() error {
	r.mu.Lock()
	r.closed = true
	r.filled.Broadcast()
	r.mu.Unlock()
	r.handlers.Wait()
	return nil
}
