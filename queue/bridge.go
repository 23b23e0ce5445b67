package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"time"
)

// BridgeOptions are the settings of Bridge. The zero value copies as fast as it
// goes, until its context ends.
type BridgeOptions struct {
	// Rate is the most messages copied a second, on average; 0: no limit.
	Rate float64

	// Parallel is how many batches are on their way at a time, each of up to 100
	// messages or as many as the broker gives in a receive: 1 to 64. Default 4; 1
	// where the queue keeps an order without locking keys, as else they could
	// overtake each other.
	Parallel int

	// DeadLetter gets the messages that the other side can't carry, with
	// ReasonBridge in their history. Default: they stay in the queue.
	DeadLetter Publisher

	// Aside is for how long a message is hidden that stays as the other side can't
	// carry it, before it's tried again. Default 5 minutes.
	Aside time.Duration

	// Quiet ends the operation when nothing new has come for so long and nothing is on
	// its way. What others hold leased, or the broker delays, isn't seen: Inspector's
	// Stats tell of it. Default 0: it goes on until its context ends.
	Quiet time.Duration

	// Progress is called after each batch, by one goroutine at a time. It shouldn't
	// block: messages are leased meanwhile.
	Progress func(BridgeResult)

	// Logger gets a line for what couldn't be copied. Default: slog.Default().
	Logger *slog.Logger
}

func (o BridgeOptions) validate(c *Capabilities) (BridgeOptions, error) {
	switch {
	case !(o.Rate >= 0) || math.IsInf(o.Rate, 0):
		return o, &InvalidError{"BridgeOptions.Rate", "must be a number of messages a second, or 0"}
	case o.Parallel < 0 || o.Parallel > maxBridgeParallel:
		return o, &InvalidError{"BridgeOptions.Parallel", fmt.Sprintf("%d isn't 1 to %d", o.Parallel, maxBridgeParallel)}
	case o.Aside < 0:
		return o, &InvalidError{"BridgeOptions.Aside", "negative"}
	case o.Quiet < 0:
		return o, &InvalidError{"BridgeOptions.Quiet", "negative"}
	}
	if dead := capabilitiesOf(o.DeadLetter); dead != nil && sameQueue(dead, c) {
		return o, &InvalidError{"BridgeOptions.DeadLetter", "a queue can't be its own dead-letter queue"}
	}
	unlocked := c.Ordering && !c.KeyLocked
	if unlocked && o.Parallel > 1 {
		return o, &InvalidError{"BridgeOptions.Parallel", "the queue keeps an order without locking keys, so that batches could overtake each other"}
	}
	if unlocked {
		o.Parallel = 1
	}
	setDefault(&o.Parallel, defaultBridgeParallel)
	setDefault(&o.Aside, 5*time.Minute)
	if m := c.MaxRedeliveryDelay; m > 0 {
		o.Aside = min(o.Aside, m)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o, nil
}

// capabilitiesOf returns what a publisher tells of its queue; nil when it doesn't.
func capabilitiesOf(p Publisher) *Capabilities {
	if p == nil {
		return nil
	}
	c, ok := As[interface{ Capabilities() Capabilities }](p)
	if !ok {
		return nil
	}
	caps := c.Capabilities()
	return &caps
}

// sameQueue compares two queues that are open. Those of two regions or projects may
// have one name.
func sameQueue(a, b *Capabilities) bool {
	// A queue that was opened to publish only may tell its topic.
	where := func(c *Capabilities) string { return strings.Replace(c.Address, "/topics/", "/subscriptions/", 1) }
	return a.Source == b.Source && a.Source != (Endpoint{}) && (a.Address == "" || b.Address == "" || where(a) == where(b))
}

const (
	defaultBridgeParallel = 4
	maxBridgeParallel     = 64
	bridgePoll            = 5 * time.Second
)

// bridgeBackoff is short at most: what is on its way waits leased.
var bridgeBackoff = Backoff{Max: 30 * time.Second}

// BridgeResult counts what Bridge has done.
type BridgeResult struct {
	Copied       int // published on the other side; removed on this one, except for Repeated
	DeadLettered int // published to DeadLetter instead; removed, except for Repeated
	// Failed counts failures to publish a message that trying again can't help. One that
	// stays is tried again after Aside, so that it may be counted more than once.
	Failed int
	// Left are the messages known to stay in the queue: each that the other side can't
	// carry, and those seen behind one with the same OrderingKey.
	Left int
	// Repeated are of Copied and DeadLettered: removing them failed, so that they may be
	// copied a second time.
	Repeated int
}

// Bridge copies the messages of one queue to another one, also of another backend,
// until ctx ends or nothing comes for Quiet: to drain one side into the other while
// producers move. They keep body, attributes, ordering key, ID (the broker's, if they
// had none), due time, age, the history of a dead letter, and the failures that their
// metadata tells; not a DedupID. Each is removed only after its copy is durable, so
// that a crash at any point loses none and repeats at most what's on its way: up to 100
// messages by Parallel. What isn't due yet is copied at once, with its due time; what
// the old broker itself delays comes when it's due. Options of the old provider go
// along and are ignored by another one. Attributes beyond what the other side takes
// travel in the library's metadata, which consumers of this library read.
//
// A message that the other side can't carry (it's too large, its key or ID doesn't fit,
// its due time is beyond the retention there) goes to DeadLetter. Without one, or when
// it isn't due yet, it stays, with a line in the log, and is tried again after Aside;
// on an ordered queue it holds up its key. What stays is subject to the old queue's
// retention and its broker's own limit of deliveries.
//
// An ordered queue is only bridged to an ordered one: else Bridge fails with
// ErrUnsupported. A crash may repeat some messages of a key after later ones of it, all
// of them in their order. Other consumers of the queue may run at the same time, and
// further Bridges; not on a queue that keeps an order without locking keys, where they
// would overtake each other.
//
// Redrive on the other side takes the history of a dead letter that was copied for one
// of another queue: it needs RedriveOptions.AnySource.
//
// Passing errors on either side are logged and tried again without limit; meanwhile
// what's on its way is kept leased and counts no further delivery. It returns nil when
// ctx has ended, after what was on its way is finished, and an error when a side is
// missing, closed, or denies the permission to receive, to publish or to remove. The
// result is valid in every case.
func Bridge(ctx context.Context, from Queue, to Publisher, opts *BridgeOptions) (BridgeResult, error) {
	if from == nil || to == nil {
		return BridgeResult{}, &InvalidError{Field: "queue", Reason: "nil"}
	}
	if opts == nil {
		opts = &BridgeOptions{}
	}
	caps := from.Capabilities()
	o, err := opts.validate(&caps)
	if err != nil {
		return BridgeResult{}, err
	}
	target := capabilitiesOf(to)
	switch {
	case caps.Ordering && target == nil:
		return BridgeResult{}, &UnsupportedError{Feature: "a bridge to a Publisher that doesn't tell whether it keeps an order", System: "an ordered queue of " + caps.system()}
	case target == nil:
	case caps.Ordering && !target.Ordering:
		return BridgeResult{}, &UnsupportedError{Feature: "a bridge from an ordered queue to one that keeps no order", System: target.system()}
	case sameQueue(target, &caps):
		return BridgeResult{}, &InvalidError{Field: "queue", Reason: "a queue can't be bridged to itself"}
	}
	b := &bridge{
		caps: caps, target: target, opts: o, name: caps.Source.String(),
		parked: map[string]time.Time{}, repeated: newIDSet(), left: newIDSet(), fresh: time.Now(),
	}
	ctx, b.stop = context.WithCancelCause(ctx)
	defer b.stop(nil)
	var wg sync.WaitGroup
	for range o.Parallel {
		wg.Go(func() {
			m := newMover(from, to.Publish, bridged, o.Rate/float64(o.Parallel))
			m.repeated, m.insist = b.repeated, true
			b.run(ctx, &m)
		})
	}
	wg.Wait()
	return b.result, b.err
}

// bridged is the message to publish on the other side.
func bridged(d *Delivery, _ time.Time) *Message {
	m := hopMessage(d, time.Time{}, d.Failures)
	m.meta.exact, m.meta.named = true, d.ID != d.BrokerID
	if c := d.carried; c != nil { // what it waits for, it waits for there
		m.meta.due, m.meta.ageFrom = c.due, c.ageFrom
	} else {
		m.meta.ageFrom = d.due
	}
	return m
}

// bridge is one operation.
type bridge struct {
	caps   Capabilities
	target *Capabilities // nil: unknown
	opts   BridgeOptions
	name   string
	stop   context.CancelCauseFunc

	// parked are keys that wait for a message that can't be copied, where the broker
	// doesn't lock them; used by the only run that there is then.
	parked map[string]time.Time

	repeated *idSet // see mover
	left     *idSet // see BridgeResult

	mu     sync.Mutex
	result BridgeResult
	busy   int       // runs that have messages in hand
	fresh  time.Time // when something new was last seen, or on its way
	err    error     // that has ended it
}

// run copies one batch after the other. What couldn't be published or removed for now is
// tried again before more is received: given back it would count as failed deliveries, as
// long as the other side is down, and what's there twice would become more and more.
func (b *bridge) run(ctx context.Context, m *mover) {
	defer m.close(ctx)
	var held []*Delivery
	for failures := 0; ctx.Err() == nil; {
		if d := time.Until(m.ready); d > 0 && !sleep(ctx, d) {
			return
		}
		var err error
		ds := held
		if len(ds) == 0 {
			ds, err = b.receive(ctx, m)
		}
		if len(ds) > 0 {
			var failed error
			held, failed = b.step(ctx, m, ds)
			b.settled(len(held) == 0)
			err = errors.Join(err, failed)
		}
		switch {
		case err == nil:
			failures = 0
			continue
		case ctx.Err() != nil:
			return
		case final(err):
			b.end(fmt.Errorf("bridge: %w", err))
			return
		}
		failures++
		wait := bridgeBackoff.Delay(failures)
		b.opts.Logger.Warn("bridge held up", "queue", b.name, "err", err, "in", wait.Round(time.Millisecond))
		sleep(ctx, wait)
	}
}

func (b *bridge) end(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = err
	}
	b.stop(err)
}

// settled notes that a run has nothing in hand any more.
func (b *bridge) settled(all bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if all {
		b.busy--
	}
}

func (b *bridge) receive(ctx context.Context, m *mover) ([]*Delivery, error) {
	n := redriveBatch
	if most := b.caps.MaxReceive; most > 0 {
		n = min(n, most)
	}
	if m.rate > 0 && m.rate < float64(n) {
		n = max(int(m.rate), 1)
	}
	wait := bridgePoll
	if b.opts.Quiet > 0 {
		wait = min(wait, b.opts.Quiet)
	}
	poll, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	ds, err := m.from.Receive(poll, n)
	m.keeper.add(ctx, ds...)
	if err != nil && poll.Err() != nil && errors.Is(err, poll.Err()) { // because we ended it
		err = nil
	}
	b.received(ds, err)
	return ds, err
}

// received ends the operation when nothing has come for long enough.
func (b *bridge) received(ds []*Delivery, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(ds) > 0 {
		b.busy++
	}
	if err != nil || b.busy > 0 && !b.knows(ds) {
		b.fresh = time.Now()
	}
	if b.opts.Quiet > 0 && b.busy == 0 && time.Since(b.fresh) >= b.opts.Quiet {
		b.stop(nil)
	}
}

// knows reports whether all of ds stay, for all that's known.
func (b *bridge) knows(ds []*Delivery) bool {
	for _, d := range ds {
		if !b.left.has(d.BrokerID) {
			return false
		}
	}
	return true
}

// step copies what was received, and returns what is still in hand. What is on its way
// is brought to its end, also when ctx ends.
func (b *bridge) step(ctx context.Context, m *mover, ds []*Delivery) (held []*Delivery, err error) {
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*DefaultPublishTimeout)
	defer cancel()
	now := time.Now()
	for _, d := range ds {
		b.left.remove(d.BrokerID)
	}
	fresh, again, failed := b.sort(m, ds, now)
	m.kept = nil
	removedAgain := len(m.remove(work, again))
	kept := m.kept
	copied, removed, more := m.move(ctx, work, fresh)
	did := BridgeResult{Copied: copied, Repeated: copied - removed - removedAgain}
	blocked := map[string]bool{} // keys of which one stays
	for _, f := range append(failed, more...) {
		if !refuses(f.err) {
			err = f.err
			continue
		}
		did.Failed++
		if b.deadLetter(work, m, &f, now, &did) {
			continue
		}
		blocked[f.d.OrderingKey] = f.d.OrderingKey != ""
		b.opts.Logger.Error("bridge: a message can't be copied; it stays", "queue", b.name, "id", f.d.ID, "err", f.err, "in", b.opts.Aside)
		b.leave(work, m, f.d, b.opts.Aside)
		if b.caps.Ordering && !b.caps.KeyLocked && f.d.OrderingKey != "" {
			b.parked[f.d.OrderingKey] = now.Add(b.opts.Aside)
		}
	}
	for _, d := range m.keeper.ours(ds) {
		if blocked[d.OrderingKey] || b.waits(d, now) {
			b.leave(work, m, d, max(b.parked[d.OrderingKey].Sub(now), 0))
			continue
		}
		held = append(held, d)
	}
	switch {
	case m.denied != nil:
		err = m.denied
	case err == nil && len(held) > 0:
		if err = m.kept; err == nil {
			err = kept
		}
	}
	b.add(did)
	return held, err
}

// deadLetter publishes to the dead-letter queue what the other side can't carry, and
// reports whether it's there. One that isn't due yet would come out of it too early;
// and when it's due, the other side may carry it.
func (b *bridge) deadLetter(ctx context.Context, m *mover, f *notMoved, now time.Time, did *BridgeResult) bool {
	if b.opts.DeadLetter == nil || f.d.Due().After(now) {
		return false
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), DefaultPublishTimeout)
	defer cancel()
	if err := b.opts.DeadLetter.Publish(ctx, NewDeadLetter(f.d, f.err, ReasonBridge, now)); err != nil {
		f.err = fmt.Errorf("%w; nor can it be dead-lettered: %w", f.err, err)
		return false
	}
	b.opts.Logger.Warn("bridge: a message can't be copied; it's dead-lettered", "queue", b.name, "id", f.d.ID, "err", f.err)
	did.DeadLettered++
	did.Repeated += 1 - len(m.remove(ctx, []*Delivery{f.d}))
	return true
}

// leave gives a message back that stays.
func (b *bridge) leave(ctx context.Context, m *mover, d *Delivery, aside time.Duration) {
	m.keeper.drop(d)
	m.settle(ctx, []*Delivery{d}, Settlement{Kind: Release, Delay: aside})
	b.left.add(d.BrokerID)
}

// add counts, and tells the user.
func (b *bridge) add(did BridgeResult) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.result.Copied += did.Copied
	b.result.DeadLettered += did.DeadLettered
	b.result.Failed += did.Failed
	b.result.Repeated += did.Repeated
	b.result.Left = b.left.size()
	if b.opts.Progress != nil {
		b.opts.Progress(b.result)
	}
}

// sort tells what to copy, what to remove as it was copied before, and what the
// other side can't carry. Of a key nothing goes that's behind such a message.
func (b *bridge) sort(m *mover, ds []*Delivery, now time.Time) (fresh, again []*Delivery, failed []notMoved) {
	blocked := map[string]bool{}
	for _, d := range ds {
		switch {
		case m.repeated.has(d.BrokerID):
			again = append(again, d)
		case blocked[d.OrderingKey] || b.waits(d, now):
		default:
			if err := b.check(d, now); err != nil {
				failed = append(failed, notMoved{d, err})
				blocked[d.OrderingKey] = d.OrderingKey != ""
				continue
			}
			fresh = append(fresh, d)
		}
	}
	return fresh, again, failed
}

// check reports what the other side's backend would say before it sends anything. It
// only matters where an order must be kept: publishers send what follows.
func (b *bridge) check(d *Delivery, now time.Time) error {
	if b.target == nil || d.OrderingKey == "" {
		return nil
	}
	_, err := b.target.Prepare(bridged(d, now), now)
	return err
}

// waits reports whether a message is behind one of its key that can't be copied.
func (b *bridge) waits(d *Delivery, now time.Time) bool {
	until, ok := b.parked[d.OrderingKey]
	if ok && !until.After(now) {
		delete(b.parked, d.OrderingKey)
		return false
	}
	return ok
}

// refuses reports whether an error of a publish is about the message alone.
func refuses(err error) bool {
	var limit *LimitError
	return errors.As(err, &limit) || errors.Is(err, ErrInvalid) || errors.Is(err, ErrUnsupported)
}
