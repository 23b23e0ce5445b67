package sqs

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/anyqueue/anyqueue/queue"
)

// hop is a delivery that's deferred: a copy of it is sent, then it's removed.
type hop struct {
	receipt *receipt
	indexes []int // in the call: more than one when it's named repeatedly
	copy    item
	err     error // of making or sending the copy
}

// addHop adds the settlement s, which has the index i. A delivery that's there
// already isn't copied again.
func (h *handle) addHop(hops []*hop, r *receipt, i int, s *queue.Settlement, now time.Time) []*hop {
	for _, p := range hops {
		if p.receipt == r {
			p.indexes = append(p.indexes, i)
			return hops
		}
	}
	p := &hop{receipt: r, indexes: []int{i}}
	if !r.hopSent {
		m := s.Hop()
		m.Options = r.OriginalOptions()
		if h.fifo {
			if r.hopDedup == "" {
				r.hopDedup = uuid.NewString()
			}
			m.DedupID = r.hopDedup
		}
		p.err = h.outgoing(&p.copy, m, now)
	}
	return append(hops, p)
}

// deferAll sends the copies, in the order of the call as they may be of one key,
// and removes what has a copy.
func (h *handle) deferAll(ctx context.Context, hops []*hop, errs []error) {
	group := h.out.Begin(ctx, time.Now())
	for _, p := range hops {
		if p.err == nil && !p.receipt.hopSent {
			group.Add(&p.copy)
		}
	}
	group.Wait()
	var originals []change
	for _, p := range hops {
		if p.err == nil && !p.receipt.hopSent {
			p.err = p.copy.Err()
		}
		if p.err == nil { // its copy is durable
			p.receipt.hopSent = true
			originals = append(originals, change{p.indexes[0], p.receipt, 0})
		} else {
			errs[p.indexes[0]] = p.err
		}
	}
	h.each(originals, func(b []change) { h.remove(ctx, b, errs) })
	for _, p := range hops {
		for _, i := range p.indexes[1:] {
			errs[i] = errs[p.indexes[0]]
		}
	}
}
