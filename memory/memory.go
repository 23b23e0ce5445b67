package memory

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyqueue/anyqueue/internal/broker"
	"github.com/anyqueue/anyqueue/internal/remote"
	"github.com/anyqueue/anyqueue/queue"
)

// System is the name of this messaging system in queue.Endpoint.
const System = "memory"

// Broker holds queues in the memory of the process. It implements queue.Backend
// and queue.Ensurer. All methods may be called concurrently.
type Broker struct {
	opts  Options
	like  *personality
	err   error // of the options
	group *broker.Group

	mu    sync.Mutex
	cores map[string]*core
	order []*core // in the order of their creation

	faults atomic.Pointer[faults]
	chunks chunkPool
	// ops has slices for Settle.
	ops sync.Pool
}

var (
	_ queue.Backend = (*Broker)(nil)
	_ queue.Ensurer = (*Broker)(nil)
)

// New returns a Broker without queues. Nil options are the defaults; options
// that can't be meant make every call fail with queue.ErrInvalid.
//
// A Broker that's made inside a testing/synctest bubble lives by the bubble's
// clock. Using it on the other side of the bubble's border fails with
// queue.ErrInvalid.
func New(opts *Options) *Broker {
	b := &Broker{group: broker.NewGroup(), cores: map[string]*core{}}
	if opts != nil {
		b.opts = *opts
	}
	if b.err = b.opts.validate(); b.err != nil {
		b.opts.Like = Portable
	}
	b.like = &personalities[b.opts.Like]
	return b
}

// System returns "memory".
func (b *Broker) System() string { return System }

// core is a queue, however often it's opened.
type core struct {
	broker *Broker
	name   string
	source queue.Endpoint
	q      *broker.Queue[payload]
	wire   queue.Wire
	ids    ids
	chunks chunks

	// Of b.mu.
	spec      settings
	purged    bool
	lastPurge broker.Instant
}

// settings of a queue that was created.
type settings struct {
	ordered          bool
	lease, retention time.Duration
	deadTo           string
	deadAfter        int
	tags             map[string]string
}

// create adds a queue; b.mu is held.
func (b *Broker) create(name string, s settings) *core {
	cfg := broker.Config{
		MaxLease: b.like.maxTotal, DedupWindow: b.like.dedup,
		MaxMessages: b.opts.MaxMessages, MaxBytes: b.opts.MaxBytes,
		MaxInFlight: b.like.maxInFlight, InFlightFails: b.like.neverOrdered,
		LateDeadLetter: !b.like.byReturns, KeepAge: !b.like.alwaysOrdered,
		Duplicate: b.opts.Duplicate, Reorder: b.opts.Reorder,
	}
	if s.ordered {
		cfg.Ordering = b.like.ordered
	}
	c := &core{broker: b, name: name, source: queue.Endpoint{System: System, Name: name}, wire: b.like.wire(), spec: s}
	c.ids.prefix = randomPrefix(rand.Uint64()) //nolint:gosec // tells brokers apart; nothing secret
	if seed := b.opts.Seed; seed != 0 || cfg.Duplicate > 0 || cfg.Reorder > 0 {
		if seed == 0 {
			seed = rand.Uint64() //nolint:gosec // test data
		}
		h := fnv.New64a()
		_, _ = h.Write([]byte(name))                      // never fails
		cfg.Rand = rand.New(rand.NewPCG(seed, h.Sum64())) //nolint:gosec // must be reproducible
		c.ids.prefix = randomPrefix(cfg.Rand.Uint64())
	}
	c.chunks.pool = &b.chunks
	c.q = broker.New[payload](b.group, cfg)
	c.q.OnReturn(func(p *payload, alone bool) (payload, bool) { return p.moveOut(&c.chunks, alone) })
	c.q.OnEmpty(c.chunks.leave)
	b.cores[name] = c
	b.order = append(b.order, c)
	return c
}

// find returns the queue of that name, or nil.
func (b *Broker) find(name string) *core {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cores[name]
}

// Ensure creates the queue, and its dead-letter queue if spec names one, and
// reports how an existing one differs. With spec.Update it changes everything of
// it but its order. A limit of attempts that the imitated system doesn't allow
// becomes the nearest one that it does, which is reported as a difference.
func (b *Broker) Ensure(ctx context.Context, name string, spec *queue.QueueSpec) (*queue.EnsureReport, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("memory: ensure %s: %w", name, err)
	}
	if spec == nil {
		spec = &queue.QueueSpec{}
	}
	r := &queue.EnsureReport{}
	if err := b.ensure(name, spec, r); err != nil {
		return nil, fmt.Errorf("memory: ensure %s: %w", name, err)
	}
	return r, nil
}

func (b *Broker) ensure(name string, spec *queue.QueueSpec, r *queue.EnsureReport) error {
	if b.err != nil {
		return b.err
	}
	if _, err := b.group.Clock.Now(); err != nil {
		return translate(err)
	}
	if err := queue.CheckName(name); err != nil {
		return err
	}
	want, err := b.settings(name, spec)
	if err != nil {
		return err
	}
	var dead settings
	if spec.DeadLetter != "" {
		if dead, err = b.settings(spec.DeadLetter, remote.DeadLetterSpec(spec)); err != nil {
			return err
		}
	}
	if n := spec.BrokerMaxAttempts; want.deadAfter != n {
		r.Differences = append(r.Differences, fmt.Sprintf("queue %s: the broker dead-letters after %d attempts, not %d: %s allows %d to %d",
			name, want.deadAfter, n, b.like.system, max(b.like.minDead, 1), b.like.maxDead))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if want.deadTo != "" && b.cores[want.deadTo] == nil {
		r.Created = append(r.Created, "queue "+want.deadTo)
		if !spec.DryRun {
			b.create(want.deadTo, dead)
		}
	}
	c := b.cores[name]
	if c == nil {
		r.Created = append(r.Created, "queue "+name)
		if !spec.DryRun {
			c = b.create(name, want)
			b.applyPolicy(c)
		}
		return nil
	}
	if !c.reconcile(&want, spec, r) {
		return nil
	}
	c.spec = want
	b.applyPolicy(c)
	return nil
}

// reconcile compares an existing queue with what's wanted of it, which it
// completes. It reports whether to change the queue.
func (c *core) reconcile(want *settings, spec *queue.QueueSpec, r *queue.EnsureReport) bool {
	have := c.spec
	if have.ordered != want.ordered {
		r.Differences = append(r.Differences, fmt.Sprintf("queue %s: ordered is %t, not %t, and can't be changed", c.name, have.ordered, want.ordered))
		want.ordered = have.ordered
	}
	// What spec doesn't name stays as it is.
	if spec.Lease == 0 {
		want.lease = have.lease
	}
	if spec.Retention == 0 && !spec.IsDeadLetter {
		want.retention = have.retention
	}
	if spec.DeadLetter == "" {
		want.deadTo = have.deadTo
	}
	if spec.BrokerMaxAttempts == 0 {
		want.deadAfter = have.deadAfter
	}
	want.tags = maps.Clone(have.tags)
	compare := []struct {
		what       string
		have, want any
	}{
		{"lease", have.lease, want.lease},
		{"retention", have.retention, want.retention},
		{"dead-letter queue", have.deadTo, want.deadTo},
		{"attempts before the broker dead-letters", have.deadAfter, want.deadAfter},
	}
	for _, k := range slices.Sorted(maps.Keys(spec.Tags)) {
		compare = append(compare, struct {
			what       string
			have, want any
		}{fmt.Sprintf("tag %q", k), have.tags[k], spec.Tags[k]})
		if want.tags == nil {
			want.tags = map[string]string{}
		}
		want.tags[k] = spec.Tags[k]
	}
	for _, d := range compare {
		switch {
		case d.have == d.want:
		case spec.Update:
			r.Changed = append(r.Changed, fmt.Sprintf("queue %s: %s from %v to %v", c.name, d.what, shown(d.have), shown(d.want)))
		default:
			r.Differences = append(r.Differences, fmt.Sprintf("queue %s: %s is %v, not %v", c.name, d.what, shown(d.have), shown(d.want)))
		}
	}
	return spec.Update && !spec.DryRun
}

// shown makes names stand out, also empty ones.
func shown(v any) any {
	if name, ok := v.(string); ok {
		return strconv.Quote(name)
	}
	return v
}

// settings checks what Ensure was asked for and fills in the defaults.
func (b *Broker) settings(name string, spec *queue.QueueSpec) (settings, error) {
	s := settings{
		ordered: spec.Ordered || b.like.alwaysOrdered,
		lease:   spec.Lease, retention: spec.Retention, tags: maps.Clone(spec.Tags),
	}
	if s.ordered && b.like.neverOrdered {
		return s, &queue.UnsupportedError{Feature: "an ordered queue", System: "memory like " + b.like.name}
	}
	if err := b.like.checkLease(spec.Lease); err != nil {
		return s, err
	}
	if err := b.like.checkRetention(spec.Retention); err != nil {
		return s, err
	}
	if s.lease == 0 {
		s.lease = b.lease()
	}
	if s.retention == 0 {
		s.retention = b.retention()
		if spec.IsDeadLetter {
			s.retention = b.deadRetention()
		}
	}
	switch n := spec.BrokerMaxAttempts; {
	case n < 0:
		return s, &queue.InvalidError{Field: "BrokerMaxAttempts", Reason: "negative"}
	case spec.DeadLetter == name:
		return s, &queue.InvalidError{Field: "DeadLetter", Reason: "a queue can't be its own dead-letter queue"}
	case spec.DeadLetter == "" && n > 0:
		return s, &queue.InvalidError{Field: "BrokerMaxAttempts", Reason: "needs a DeadLetter queue"}
	case spec.DeadLetter == "":
		return s, nil
	case n > 0: // otherwise only the library's own policies move messages there
		s.deadAfter = max(n, b.like.minDead)
		if b.like.maxDead > 0 {
			s.deadAfter = min(s.deadAfter, b.like.maxDead)
		}
	}
	if err := queue.CheckName(spec.DeadLetter); err != nil {
		return s, err
	}
	s.deadTo = spec.DeadLetter
	return s, nil
}

func (b *Broker) lease() time.Duration {
	if b.opts.Lease > 0 {
		return b.opts.Lease
	}
	return b.like.lease
}

func (b *Broker) retention() time.Duration {
	if b.opts.Retention > 0 {
		return b.opts.Retention
	}
	return b.like.retention
}

// deadRetention is that of a dead-letter queue: the longest there is.
func (b *Broker) deadRetention() time.Duration {
	if b.like.deadRetention > 0 {
		return b.like.deadRetention
	}
	return b.opts.Retention
}

// applyPolicy makes the settings of a queue work; b.mu is held.
func (b *Broker) applyPolicy(c *core) {
	var to *broker.Queue[payload]
	if c.spec.deadTo != "" {
		to = b.cores[c.spec.deadTo].q
	}
	c.q.SetPolicy(c.spec.retention, c.spec.deadAfter, to)
}

// Queues returns the names of all queues, sorted.
func (b *Broker) Queues() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	names := make([]string, 0, len(b.order))
	for _, c := range b.order {
		names = append(names, c.name)
	}
	slices.Sort(names)
	return names
}

// addressPrefix begins Capabilities.Address.
const addressPrefix = "memory:"

func nameOf(name string, opts *queue.OpenOptions) (string, error) {
	if opts.Address == "" {
		return name, queue.CheckName(name)
	}
	n := strings.TrimPrefix(opts.Address, addressPrefix)
	if n == "" {
		return "", &queue.InvalidError{Field: "Address", Reason: "empty after " + addressPrefix}
	}
	return n, nil
}
