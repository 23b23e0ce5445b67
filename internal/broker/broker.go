// Package broker is a message broker within the process: queues with leases,
// redelivery, delays, ordering keys, deduplication and dead-letter policies. It
// knows nothing of how messages look; the payload is a type parameter. Package
// memory puts the library's contract on top of it, package sqstest the API of
// Amazon SQS.
//
// A queue has no goroutine. It keeps the order of events itself and does what
// has become due at the next call; a timer runs only while a receiver waits and
// something can become due for it.
//
// Locks: each queue has one mutex. No code holds two, except Pending, which
// takes all in the order of its argument. Payloads are never written to once
// sent, so that callers read them without a lock: until the message is gone, and
// for ever unless its Op said Freed. (One that nobody can be reading may be moved,
// see OnReturn.)
package broker

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Errors of entries and calls.
var (
	// ErrFull says that a bounded queue can't take more.
	ErrFull = errors.New("queue full")
	// ErrStale says that a lease has ended.
	ErrStale = errors.New("lease ended")
	// ErrStopped says that Request.Stop was closed.
	ErrStopped = errors.New("stopped")
	// ErrInFlight says that too many messages are leased.
	ErrInFlight = errors.New("too many messages in flight")
)

// Ordering says what a queue does with keys.
type Ordering uint8

const (
	// Unordered queues ignore keys.
	Unordered Ordering = iota
	// OneByOne leases one message of a key at a time. A key is locked while
	// its first message is leased or backing off.
	OneByOne
	// Grouped leases a message when no earlier one of its key is leased. One Receive
	// may lease several of a key, and takes as many of one key as it can (SQS FIFO).
	Grouped
	// Resend doesn't lock keys. When a message comes back, everything of its key
	// that was sent after it is sent again, also what was acknowledged
	// (Pub/Sub).
	Resend
)

// Config is what a queue is made with.
type Config struct {
	Ordering    Ordering
	MaxLease    time.Duration // of one lease with its extensions; 0: no limit
	DedupWindow time.Duration // how long an Entry.Dedup is remembered
	MaxMessages int           // 0: no limit
	MaxBytes    int64         // of Entry.Size together; 0: no limit
	MaxInFlight int           // 0: no limit
	// InFlightFails makes Receive fail with ErrInFlight at MaxInFlight; otherwise
	// it waits.
	InFlightFails bool
	// LateDeadLetter dead-letters a message when it would be received once more
	// (SQS), otherwise as soon as its last delivery has failed.
	LateDeadLetter bool
	// KeepAge keeps the time of the first enqueue in the dead-letter queue.
	KeepAge bool

	// Duplicate and Reorder are the probabilities that a message without a key
	// is delivered twice, and that it's passed over once. They need Rand.
	Duplicate, Reorder float64
	Rand               *rand.Rand
}

// A Group is what the queues of one broker share.
type Group struct {
	Clock *Clock

	// watchers counts those who wait for the queues to become idle.
	watchers atomic.Int32
	mu       sync.Mutex
	changed  chan struct{}

	// scratch has slices for Receive, which a receiver that waits doesn't need.
	scratch sync.Pool
}

// NewGroup returns a Group with a new clock.
func NewGroup() *Group { return &Group{Clock: NewClock()} }

// An Item is a message in a queue. Payload is only to be read once it was sent;
// the other fields belong to the queue.
type Item[P any] struct {
	Payload P

	seq      uint64
	enqueued int64   // when it was sent, on the wall: Unix time in nanoseconds
	at       Instant // the end of the lease, or when it's due
	leasedAt Instant
	key      *key[P]
	next     *Item[P] // see list
	pos      int      // see ring and heap
	size     int32
	// gen is the number of the lease. A lease that its holder ends adds one, so
	// that doing it again can be told from an expired lease, which adds two.
	gen      uint32
	receives uint32
	returns  uint8 // by release and by expiry; stays at its maximum
	state    State
	inRing   bool
	shared   bool // others than a lease's holder may read Payload
}

// State is where a message is.
type State uint8

const (
	// Ready messages can be received, or wait for their key.
	Ready State = iota
	// Leased messages are with a receiver.
	Leased
	// Delayed messages aren't due.
	Delayed
	// Gone messages have been removed.
	Gone
	// acked messages are kept because an earlier one of their key may come back;
	// see Resend.
	acked
)

func (s State) String() string {
	return [...]string{"ready", "leased", "delayed", "gone", "acked"}[s]
}

// A Queue holds messages. All methods may be called concurrently.
type Queue[P any] struct {
	group *Group
	cfg   Config

	mu        sync.Mutex
	retention time.Duration // 0: for ever
	deadTo    *Queue[P]
	deadAfter uint32 // deliveries; 0: never

	onReturn func(*P, bool) (P, bool) // nil: see there
	onEmpty  func()                   // nil: see there

	seq    uint64
	ready  fifo[P] // for a key: one item that stands for it
	leases ring[P]
	timed  heap[P] // delayed messages and odd leases
	keys   map[string]*key[P]
	dedup  dedup

	total, leased, delayed int
	bytes                  int64
	// dead are messages that leave for the dead-letter queue at the end of the
	// current critical section; moving counts those on their way.
	dead      []*Item[P]
	moving    int
	consumers int // see AddConsumer

	waiters   waiterList
	spare     *waiter // saves an allocation when one receiver waits again and again
	wokenRoom int     // sum of max of the waiters that were woken and aren't back yet
	timer     *time.Timer
	armed     Instant // when timer fires; never: it doesn't
}

// New returns an empty queue.
func New[P any](g *Group, cfg Config) *Queue[P] {
	return &Queue[P]{group: g, cfg: cfg, armed: never}
}

// OnReturn has f called, with the queue locked, for each message that comes back without
// having been dealt with. If alone is set nobody else can be reading the payload, and f
// may change it. Otherwise it may return another one to be kept instead. OnReturn and
// OnEmpty must be called before the queue is used.
func (q *Queue[P]) OnReturn(f func(p *P, alone bool) (instead P, ok bool)) { q.onReturn = f }

// OnEmpty has f called after calls that leave no message in the queue.
func (q *Queue[P]) OnEmpty(f func()) { q.onEmpty = f }

// SetPolicy changes what can be changed in a queue that's in use: how long it
// keeps messages (0: for ever), and after how many deliveries (0: never) it
// moves them to another queue.
func (q *Queue[P]) SetPolicy(retention time.Duration, deadAfter int, deadTo *Queue[P]) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.retention, q.deadAfter, q.deadTo = retention, uint32(max(deadAfter, 0)), deadTo //nolint:gosec // a number of deliveries
	if deadTo == nil {
		q.deadAfter = 0
	}
}

// readyPush makes an item, or the key that it stands for, receivable.
func (q *Queue[P]) readyPush(it *Item[P]) {
	it.state = Ready
	q.ready.push(it)
}

func (q *Queue[P]) timedPush(it *Item[P]) {
	it.state = Delayed
	it.inRing = false
	q.delayed++
	q.timed.push(it)
}

// lock begins a critical section; finish ends it.
func (q *Queue[P]) lock(now Instant) {
	q.mu.Lock()
	q.advance(now)
}

// finish ends a critical section and does what followed from it.
func (q *Queue[P]) finish(now Instant) {
	q.wake()
	q.arm(now)
	if q.dead == nil && q.total > 0 {
		q.mu.Unlock()
		return
	}
	dead, to, idle := q.dead, q.deadTo, q.total+q.moving == 0
	q.dead = nil
	q.mu.Unlock()
	if dead != nil {
		q.move(dead, to, now)
	} else if idle {
		if q.onEmpty != nil {
			q.onEmpty()
		}
		q.group.notify()
	}
}

// forget takes an item that's in none of the structures out of the counts.
func (q *Queue[P]) forget(it *Item[P]) {
	it.state = Gone
	q.total--
	q.bytes -= int64(it.size)
}

// put brings an item that's in none of the structures to where it belongs by
// its key and its time.
func (q *Queue[P]) put(it *Item[P], now Instant) {
	switch {
	case it.key != nil:
		it.state = Ready
		q.putKeyed(it, now)
	case it.at > now:
		q.timedPush(it)
	default:
		q.readyPush(it)
	}
}

// advance does what has become due, in the order in which it did.
func (q *Queue[P]) advance(now Instant) {
	for {
		l, t := q.leases.first(), q.timed.first()
		it := l
		if l == nil || t != nil && t.at < l.at {
			it = t
		}
		if it == nil || it.at > now {
			return
		}
		if it.state == Leased {
			q.endLease(it)
			it.gen++ // see Item.gen
			q.comeBack(it, 0, now, false)
			continue
		}
		q.timed.remove(it)
		q.delayed--
		if it.key != nil && q.cfg.Ordering == Resend {
			it.state = Ready
			q.resend(it)
			continue
		}
		q.readyPush(it)
	}
}

// next is when advance has something to do.
func (q *Queue[P]) next() Instant {
	at := never
	if it := q.leases.first(); it != nil {
		at = it.at
	}
	if it := q.timed.first(); it != nil && it.at < at {
		at = it.at
	}
	return at
}

// arm sets the timer for what a waiting receiver would miss otherwise. A timer
// that fires too early is cheaper than setting it at every call.
func (q *Queue[P]) arm(now Instant) {
	if q.waiters.head == nil {
		return
	}
	at := q.next()
	if at >= q.armed {
		return
	}
	q.armed = at
	d := time.Duration(at - now)
	if q.timer == nil {
		q.timer = time.AfterFunc(d, q.tick)
		return
	}
	q.timer.Reset(d)
}

func (q *Queue[P]) tick() {
	now, err := q.group.Clock.Now()
	if err != nil {
		return // can't happen: the timer runs where the clock was made
	}
	q.mu.Lock()
	q.armed = never
	q.advance(now)
	q.finish(now)
}
