package middleware

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// LimitOptions are the settings of Limit. The zero value is usable.
type LimitOptions struct {
	// Key makes the limit apply to each key, such as a tenant, rather than to
	// all deliveries together. An empty key is one like others. It's asked
	// before a delivery starts, concurrently; it must neither block nor panic
	// nor call the consumer. Default: one limit for all.
	Key func(*queue.Delivery) string

	// KeyMax are limits of single keys that differ from the general one.
	KeyMax map[string]int
}

// A Limiter bounds how many handlers run at once. Its methods may be called
// concurrently.
type Limiter struct {
	key func(*queue.Delivery) string
	err error

	mu       sync.Mutex
	max      int
	keyMax   map[string]int
	keys     map[string]*limitKey
	running  int
	attached int
	starved  []*limitSeat // were told that there is no room, in order
	late     lateWake
}

// limitKey is the state of one key, or of an unkeyed limit. As long as anybody
// is in line no slot is free, as a free one is offered to the first; but for a
// moment after one was given back unused.
type limitKey struct {
	name    string
	running int
	line    []*limitSeat // consumers that hold a delivery of this key, in order of being refused
	offers  []*limitOffer
}

// limitOffer keeps a free slot for a consumer that waited, as one that's busy
// would otherwise always be faster. It lapses, as a consumer may have given its
// delivery back meanwhile.
type limitOffer struct {
	to    *limitSeat
	timer *time.Timer
}

const offerTime = 50 * time.Millisecond

// Limit is a gate that lets at most n handlers run at once, over all the consumers
// that it's given to; n is at least 1. Consumers that wait take
// turns. What may not start yet isn't fetched; with a Key it waits, leased,
// without a slot, and others flow past it.
//
// In a queue.Chain it limits too, but what waits there holds a slot of its
// consumer.
func Limit(n int, o LimitOptions) *Limiter {
	l := &Limiter{key: o.Key, max: n, keyMax: maps.Clone(o.KeyMax), keys: map[string]*limitKey{}}
	if l.keyMax == nil {
		l.keyMax = map[string]int{}
	}
	switch {
	case n < 1:
		l.err = invalid("Limit", fmt.Sprintf("%d is less than 1", n))
	case o.Key == nil && len(o.KeyMax) > 0:
		l.err = invalid("Limit.KeyMax", "there is no Key")
	}
	for k, m := range o.KeyMax {
		if m < 1 {
			l.err = invalid("Limit.KeyMax", fmt.Sprintf("%d for %q is less than 1", m, k))
		}
	}
	return l
}

// SetMax changes the limit, of every key that has none of its own. When more
// handlers are running they finish. It fails when n is less than 1.
func (l *Limiter) SetMax(n int) error {
	if n < 1 {
		return invalid("Limit", fmt.Sprintf("%d is less than 1", n))
	}
	l.mu.Lock()
	l.max = n
	var wake []func()
	for _, k := range l.keys {
		wake = append(wake, l.advance(k)...)
	}
	wake = append(wake, l.feed()...)
	l.mu.Unlock()
	call(wake)
	return nil
}

// SetKeyMax changes the limit of one key; 0 makes it follow the general limit
// again. It fails when n is negative or the Limiter has no Key.
func (l *Limiter) SetKeyMax(key string, n int) error {
	switch {
	case n < 0:
		return invalid("Limit.KeyMax", fmt.Sprintf("%d is negative", n))
	case l.key == nil:
		return invalid("Limit.KeyMax", "there is no Key")
	}
	l.mu.Lock()
	if n == 0 {
		delete(l.keyMax, key)
	} else {
		l.keyMax[key] = n
	}
	var wake []func()
	if k := l.keys[key]; k != nil {
		wake = l.advance(k)
	}
	l.mu.Unlock()
	call(wake)
	return nil
}

// InUse tells how many handlers are running or about to.
func (l *Limiter) InUse() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.running
}

// Bind implements queue.Binder: it returns the gate for one consumer.
func (l *Limiter) Bind(queue.ConsumerInfo) (queue.Middleware, error) {
	if l.err != nil {
		return nil, l.err
	}
	return &limitSeat{l: l}, nil
}

// Wrap implements queue.Middleware, for use in a Chain.
func (l *Limiter) Wrap(next queue.Handler) queue.Handler {
	if l.err != nil {
		return refuse(l.err)
	}
	return waitAtGate(func() queue.Gate { return &limitSeat{l: l} }, next)
}

// free is how many more may start; negative after the limit was lowered.
func (l *Limiter) free(k *limitKey) int {
	n := l.max
	if m, ok := l.keyMax[k.name]; ok {
		n = m
	}
	return n - k.running - len(k.offers)
}

// at returns the state of a key.
func (l *Limiter) at(name string) *limitKey {
	k := l.keys[name]
	if k == nil {
		k = &limitKey{name: name}
		l.keys[name] = k
	}
	return k
}

// advance offers what is free to those in line and returns whom to wake. It's
// called, with the mutex held, whenever a slot may have become free.
func (l *Limiter) advance(k *limitKey) []func() {
	var wake []func()
	for len(k.line) > 0 && l.free(k) > 0 {
		o := &limitOffer{to: k.line[0]}
		k.line = slices.Delete(k.line, 0, 1)
		o.timer = time.AfterFunc(offerTime, func() { l.lapse(k, o) })
		k.offers = append(k.offers, o)
		wake = append(wake, o.to.wake)
	}
	if l.key != nil && k.running == 0 && len(k.line) == 0 && len(k.offers) == 0 {
		delete(l.keys, k.name)
	}
	return wake
}

func (l *Limiter) lapse(k *limitKey, o *limitOffer) {
	l.mu.Lock()
	var wake []func()
	if i := slices.Index(k.offers, o); i >= 0 {
		k.offers = slices.Delete(k.offers, i, i+1)
		o.to.places--
		wake = append(l.advance(k), l.feed()...)
	}
	l.mu.Unlock()
	call(wake)
}

// feed lets the consumers that were told that there is no room fetch again, and
// returns whom to wake. Each may fetch one even when others are faster again:
// once it holds a delivery it has its turn.
func (l *Limiter) feed() []func() {
	var wake []func()
	for _, s := range l.starved {
		s.starved = false
		s.extra = l.attached > 1
		wake = append(wake, s.wake)
	}
	clear(l.starved)
	l.starved = l.starved[:0]
	return wake
}

func (l *Limiter) wakeLate() {
	l.mu.Lock()
	l.late.fired()
	wake := l.feed()
	for _, k := range l.keys {
		wake = append(wake, l.advance(k)...)
	}
	l.mu.Unlock()
	call(wake)
}

// limitSeat is a Limiter as one consumer sees it.
type limitSeat struct {
	l *Limiter

	// Guarded by l.mu.
	wake    func()
	places  int  // lines it stands in, and offers it has
	starved bool // it's in l.starved
	extra   bool // it may fetch one although nothing is free
}

// Wrap does nothing: the consumer asks before a delivery starts.
func (s *limitSeat) Wrap(next queue.Handler) queue.Handler { return next }

// Attach implements queue.Gate.
func (s *limitSeat) Attach(wake func()) (detach func()) {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	s.wake = wake
	s.l.attached++
	return sync.OnceFunc(s.detach)
}

func (s *limitSeat) detach() {
	l := s.l
	l.mu.Lock()
	l.attached--
	s.wake, s.extra = nil, false
	if s.starved {
		s.starved = false
		l.starved = slices.DeleteFunc(l.starved, func(o *limitSeat) bool { return o == s })
	}
	var wake []func()
	if s.places > 0 {
		for _, k := range l.keys {
			k.line = slices.DeleteFunc(k.line, func(o *limitSeat) bool { return o == s })
			k.offers = slices.DeleteFunc(k.offers, func(o *limitOffer) bool {
				if o.to != s {
					return false
				}
				o.timer.Stop()
				return true
			})
			wake = append(wake, l.advance(k)...)
		}
		s.places = 0
		wake = append(wake, l.feed()...)
	}
	l.mu.Unlock()
	call(wake)
}

// Room implements queue.Gate.
func (s *limitSeat) Room() queue.Room {
	l := s.l
	if l.key != nil {
		return queue.Unlimited
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if free := l.free(l.at("")); free > 0 {
		return queue.Room{N: share(free, l.attached)}
	}
	if s.extra && s.places == 0 { // until it holds one: the consumer asks again and again
		return queue.Room{N: 1}
	}
	if !s.starved {
		s.starved = true
		l.starved = append(l.starved, s)
	}
	return queue.Room{}
}

// Enter implements queue.Gate.
func (s *limitSeat) Enter(d *queue.Delivery) queue.Entry {
	l := s.l
	name := ""
	if l.key != nil {
		name = l.key(d)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.at(name)
	s.extra = false
	if i := slices.IndexFunc(k.offers, func(o *limitOffer) bool { return o.to == s }); i >= 0 {
		k.offers[i].timer.Stop()
		k.offers = slices.Delete(k.offers, i, i+1)
		s.places--
		s.extra = l.attached > 1 // the next one may come to wait its turn
	} else {
		i := slices.Index(k.line, s)
		if l.free(k) <= 0 {
			if i < 0 {
				k.line = append(k.line, s)
				s.places++
			}
			return queue.Entry{}
		}
		if i >= 0 {
			k.line = slices.Delete(k.line, i, i+1)
			s.places--
		}
	}
	k.running++
	l.running++
	return queue.Entry{OK: true, Ticket: k}
}

// Leave gives the slot back. The key is that of Enter, as the handler may have
// changed the delivery.
func (s *limitSeat) Leave(ticket any, result queue.GateResult) {
	k, ok := ticket.(*limitKey)
	if !ok {
		return
	}
	l := s.l
	l.mu.Lock()
	k.running--
	l.running--
	var wake []func()
	if result.Started || len(k.line) == 0 && len(l.starved) == 0 {
		wake = append(l.advance(k), l.feed()...)
	} else {
		l.late.arm(l.wakeLate)
	}
	l.mu.Unlock()
	call(wake)
}

var (
	_ queue.Binder = (*Limiter)(nil)
	_ queue.Gate   = (*limitSeat)(nil)
)
