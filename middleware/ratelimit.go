package middleware

import (
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// RateLimitOptions are the settings of RateLimit. The zero value is usable.
type RateLimitOptions struct {
	// Burst is how many may start at once after a quiet time. Default: one
	// second's worth, at least 1.
	Burst int

	// Key makes the rate apply to each key, such as a tenant, rather than to all
	// deliveries together. An empty key is one like others. It's asked before a
	// delivery starts, concurrently; it must neither block nor panic nor call
	// the consumer. Default: one rate for all.
	Key func(*queue.Delivery) string
}

// maxRate is where the time between two starts, in whole nanoseconds, is still
// exact to a thousandth.
const maxRate = 1e6

// A RateLimiter bounds how many handlers start in a second. Its methods may be
// called concurrently.
type RateLimiter struct {
	key func(*queue.Delivery) string
	err error

	mu    sync.Mutex
	each  time.Duration // between two starts
	burst int
	// buckets by key; "" for all without a Key. A full one may be missing.
	buckets map[string]*bucket
	sweepAt int // size of buckets at which the full ones are thrown out
	seats   seats
	last    *seat // without a Key: who got the last token
}

// yieldTime is for how long a consumer that got the last token leaves the next
// one to others that wait. Without it the one with the faster timer gets all.
const yieldTime = time.Millisecond

// bucket is a token bucket, kept as the time at which it's full again: each token
// taken moves that by the time that one takes to come back.
type bucket struct{ full time.Time }

// RateLimit is a gate that lets perSecond handlers start in a second, over all
// the consumers that it's given to; at most a million. What may not start yet
// isn't fetched; with a Key it waits, leased, without a slot, and others flow
// past it. What was admitted but never started gives its token back.
//
// In a queue.Chain it limits too, but what waits there holds a slot of its
// consumer.
func RateLimit(perSecond float64, o RateLimitOptions) *RateLimiter {
	r := &RateLimiter{key: o.Key, buckets: map[string]*bucket{}, sweepAt: 64}
	r.err = r.set(perSecond, o.Burst)
	return r
}

// SetRate changes the rate and the burst; a burst of 0 is one second's worth.
// Tokens that are missing stay missing. It fails, and changes nothing, when the
// arguments are out of range.
func (r *RateLimiter) SetRate(perSecond float64, burst int) error {
	r.mu.Lock()
	err := r.set(perSecond, burst)
	wake := r.seats.rouse()
	r.mu.Unlock()
	call(wake)
	return err
}

func (r *RateLimiter) set(perSecond float64, burst int) error {
	if !(perSecond > 0) || perSecond > maxRate {
		return invalid("RateLimit", fmt.Sprintf("%v per second isn't between 0 and %v", perSecond, maxRate))
	}
	if burst < 0 {
		return invalid("RateLimit.Burst", fmt.Sprintf("%d is negative", burst))
	}
	if burst == 0 {
		burst = max(1, int(perSecond))
	}
	// Rounded up, so that it's never faster than asked.
	ns := math.Ceil(float64(time.Second) / perSecond)
	if ns*float64(burst) > float64(math.MaxInt64/4) {
		return invalid("RateLimit", fmt.Sprintf("%v per second with a burst of %d takes longer than can be counted", perSecond, burst))
	}
	each := time.Duration(ns)
	now := time.Now()
	for _, b := range r.buckets {
		if missing := b.full.Sub(now); missing > 0 {
			b.full = now.Add(time.Duration(float64(missing) / float64(r.each) * float64(each)))
		}
	}
	r.each, r.burst = each, burst
	return nil
}

// Bind implements queue.Binder: it returns the gate for one consumer.
func (r *RateLimiter) Bind(queue.ConsumerInfo) (queue.Middleware, error) {
	if r.err != nil {
		return nil, r.err
	}
	return &rateSeat{r: r}, nil
}

// Wrap implements queue.Middleware, for use in a Chain.
func (r *RateLimiter) Wrap(next queue.Handler) queue.Handler {
	if r.err != nil {
		return refuse(r.err)
	}
	return waitAtGate(func() queue.Gate { return &rateSeat{r: r} }, next)
}

// tokens are how many there are, and when there is at least one.
func (r *RateLimiter) tokens(b *bucket, now time.Time) (n int, from time.Time) {
	if b == nil || !b.full.After(now) {
		return r.burst, now
	}
	whole := time.Duration(r.burst) * r.each
	if missing := b.full.Sub(now); missing <= whole {
		n = int((whole - missing) / r.each)
	}
	return n, b.full.Add(r.each - whole)
}

// sweep forgets the buckets that are full when they have become many.
func (r *RateLimiter) sweep(now time.Time) {
	if len(r.buckets) < r.sweepAt {
		return
	}
	for k, b := range r.buckets {
		if !b.full.After(now) {
			delete(r.buckets, k)
		}
	}
	r.sweepAt = max(64, 2*len(r.buckets))
}

// rateSeat is a RateLimiter as one consumer sees it.
type rateSeat struct {
	r *RateLimiter
	seat
}

// Wrap does nothing: the consumer asks before a delivery starts.
func (s *rateSeat) Wrap(next queue.Handler) queue.Handler { return next }

// Attach implements queue.Gate.
func (s *rateSeat) Attach(wake func()) (detach func()) {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.r.seats.attach(&s.seat, wake)
	return sync.OnceFunc(func() {
		s.r.mu.Lock()
		defer s.r.mu.Unlock()
		s.r.seats.detach(&s.seat)
	})
}

// Room implements queue.Gate.
func (s *rateSeat) Room() queue.Room {
	r := s.r
	if r.key != nil {
		return queue.Unlimited
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	n, from := r.tokens(r.buckets[""], now)
	if n == 0 {
		r.seats.mark(&s.seat)
		return queue.Room{Until: from}
	}
	return queue.Room{N: share(n, r.seats.attached)}
}

// Enter implements queue.Gate.
func (s *rateSeat) Enter(d *queue.Delivery) queue.Entry {
	r := s.r
	key := ""
	if r.key != nil {
		key = r.key(d)
	}
	now := time.Now()
	r.mu.Lock()
	e, wake := r.take(&s.seat, key, now)
	r.mu.Unlock()
	call(wake)
	return e
}

func (r *RateLimiter) take(s *seat, key string, now time.Time) (queue.Entry, []func()) {
	b := r.buckets[key]
	if n, from := r.tokens(b, now); n == 0 {
		r.seats.mark(s)
		return queue.Entry{Until: from}, nil
	}
	if r.key == nil {
		if r.last == s && r.seats.othersWait(s) {
			// Once for each time that they were refused: they may not come.
			return queue.Entry{Until: now.Add(yieldTime)}, r.seats.rouse()
		}
		r.last = s
	}
	if b == nil {
		r.sweep(now)
		b = &bucket{}
		r.buckets[key] = b
	}
	if b.full.Before(now) {
		b.full = now
	}
	b.full = b.full.Add(r.each)
	return queue.Entry{OK: true, Ticket: b}, nil
}

// Leave gives the token of what was never started back. Its bucket may have been
// forgotten meanwhile: then it was full.
func (s *rateSeat) Leave(ticket any, result queue.GateResult) {
	b, ok := ticket.(*bucket)
	if !ok || result.Started {
		return
	}
	r := s.r
	r.mu.Lock()
	defer r.mu.Unlock()
	b.full = b.full.Add(-r.each)
	if len(r.seats.waiting) > 0 {
		r.seats.late.arm(r.wakeLate)
	}
}

func (r *RateLimiter) wakeLate() {
	r.mu.Lock()
	r.seats.late.fired()
	wake := r.seats.rouse()
	r.mu.Unlock()
	call(wake)
}

var (
	_ queue.Binder = (*RateLimiter)(nil)
	_ queue.Gate   = (*rateSeat)(nil)
)
