package sqstest

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyqueue/anyqueue/internal/broker"
)

const (
	maxVisibility = 12 * time.Hour
	dedupWindow   = 5 * time.Minute
)

// core is a queue of the server.
type core struct {
	name   string
	arn    string
	number uint32 // of all queues that the server ever had
	fifo   bool
	q      *broker.Queue[*message]

	settings atomic.Pointer[settings]
	tenants  atomic.Bool // a standard queue has had messages with a group

	mu       sync.Mutex
	created  time.Time
	modified time.Time
	tags     map[string]string
	items    map[uint64]*broker.Item[*message] // what was received, by message.number
	purged   time.Time                         // when it may be purged again
	repeats  repeats
	attempts attempts

	ended sync.Once
	stop  chan struct{} // closed when the queue, or the server, has gone
}

// message is what was sent. It's never changed, but for first.
type message struct {
	number uint64
	id     string
	body   string
	attrs  []attribute // sorted by name
	trace  string
	group  string
	dedup  string
	origin *core

	md5Body, md5Attrs string
	first             atomic.Int64 // when it was first received, in Unix milliseconds
}

type attribute struct {
	name, dataType, value string
	binary                bool
}

func (s *Server) newQueue(name string, fifo bool, set *settings) *core {
	q := &core{
		name: name, arn: s.arn(name), fifo: fifo, number: uint32(s.number.Add(1)), //nolint:gosec // far from it
		created: s.wall(), modified: s.wall(), tags: map[string]string{},
		items: map[uint64]*broker.Item[*message]{}, stop: make(chan struct{}),
	}
	cfg := broker.Config{MaxLease: maxVisibility, LateDeadLetter: true, MaxInFlight: s.opts.MaxInFlight}
	if fifo {
		cfg.Ordering = broker.Grouped
	} else {
		cfg.KeepAge = true
		cfg.Duplicate, cfg.Reorder = s.opts.Duplicate, s.opts.Reorder
		cfg.Rand = rand.New(rand.NewPCG(s.opts.Seed, uint64(q.number))) //nolint:gosec // it's to be repeatable
	}
	q.q = broker.New[*message](s.group, cfg)
	q.settings.Store(set)
	return q
}

// end makes those who wait for messages stop.
func (q *core) end() { q.ended.Do(func() { close(q.stop) }) }

// sequence is the SequenceNumber of a message: 20 digits, in steps, like those of
// AWS.
func sequence(seq uint64) uint64 { return 18_000_000_000_000_000_000 + seq<<8 }

// repeats remembers what was sent to a FIFO queue for as long as a repeat is
// dropped. It's guarded by core.mu.
type repeats struct {
	sent  map[string]sent
	order []sent // in the order of their ends
}

type sent struct {
	key   string
	until time.Time
	id    string
	seq   uint64
}

// find returns what was sent with the key within the window.
func (r *repeats) find(key string, now time.Time) (sent, bool) {
	n := 0
	for n < len(r.order) && !r.order[n].until.After(now) {
		delete(r.sent, r.order[n].key)
		n++
	}
	r.order = r.order[n:]
	x, ok := r.sent[key]
	return x, ok
}

func (r *repeats) add(x sent) {
	if r.sent == nil {
		r.sent = map[string]sent{}
	}
	r.sent[x.key] = x
	r.order = append(r.order, x)
}

// keep remembers received messages by their number, so that their handles find
// them.
func (q *core) keep(leases []broker.Lease[*message], now broker.Instant) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range leases {
		q.items[l.Item.Payload.number] = l.Item
	}
	// What was dead-lettered, or wasn't kept for longer, has left without a word.
	total, _ := q.q.Totals(now)
	if len(q.items) > 2*total+1024 {
		for n, it := range q.items {
			if q.q.State(now, it) == broker.Gone {
				delete(q.items, n)
			}
		}
	}
}

func (q *core) item(number uint64) *broker.Item[*message] {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.items[number]
}

func (q *core) forget(number uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.items, number)
}

// newID returns a random id in the form of a UUID. Nobody has to be kept from
// guessing it, so that a fast generator will do.
func newID() string {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], rand.Uint64())  //nolint:gosec // see above
	binary.LittleEndian.PutUint64(b[8:], rand.Uint64()) //nolint:gosec // see above
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	var s [36]byte
	hex.Encode(s[:], b[:4])
	hex.Encode(s[9:], b[4:6])
	hex.Encode(s[14:], b[6:8])
	hex.Encode(s[19:], b[8:10])
	hex.Encode(s[24:], b[10:])
	s[8], s[13], s[18], s[23] = '-', '-', '-', '-'
	return string(s[:])
}
