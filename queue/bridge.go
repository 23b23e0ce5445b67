package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"
)

// BridgeOptions are the settings of Bridge. The zero value copies as fast as it
// goes.
type BridgeOptions struct {
	// Rate is the most messages copied a second, on average; 0: no limit.
	Rate float64

	// Parallel is how many batches are on their way at a time, each of up to 100
	// messages or as many as the broker gives in a receive: 1 to 64. Default 4; 1
	// where the queue keeps an order without locking keys, as else they could
	// overtake each other.
	Parallel int

	// Aside is for how long a message is hidden that the other side can't carry,
	// before it's tried again. Default 5 minutes.
	Aside time.Duration

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

const (
	defaultBridgeParallel = 4
	maxBridgeParallel     = 64
	bridgePoll            = 5 * time.Second
)

// BridgeResult counts what Bridge has done.
type BridgeResult struct {
	Copied int // published on the other side; removed on this one, except for Repeated
	// Failed counts failures to publish a message that trying again can't help; it stays,
	// and is tried again after Aside, so that it may be counted more than once.
	Failed int
	// Repeated are of Copied: removing them failed, so that they may be copied a second
	// time.
	Repeated int
}

// Bridge copies the messages of one queue to another one, also of another backend,
// until ctx ends: to drain one side into the other while producers move. They keep
// body, attributes, ordering key, ID (the broker's, if they had none), due time, age,
// and the failures that their metadata tells; each is removed only after its copy is durable, so that a crash at
// any point loses none and repeats at most what's on its way. Options of the old
// provider go along and are ignored by another one. What isn't due yet is copied at
// once, with its due time; what the old broker itself delays comes when it's due.
//
// An ordered queue is only bridged to an ordered one: else Bridge fails with
// ErrUnsupported. A message that the other side can't carry, such as one that's too
// large, stays and is tried again after Aside; on an ordered queue it holds up its
// key.
//
// It doesn't see whether the queue is empty: Inspector's Stats and Progress tell.
// Passing errors on either side are logged and tried again without limit. It returns
// nil when ctx has ended, after what was on its way is finished, and an error when a
// side is missing, closed, or denies the permission. The result is valid in every
// case. Other consumers of the queue may run at the same time, and further Bridges.
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
	var target *Capabilities
	if c, ok := As[interface{ Capabilities() Capabilities }](to); ok {
		known := c.Capabilities()
		target = &known
		switch {
		case caps.Ordering && !target.Ordering:
			return BridgeResult{}, &UnsupportedError{Feature: "a bridge from an ordered queue to one that keeps no order", System: target.system()}
		case target.Source == caps.Source && caps.Source != (Endpoint{}):
			return BridgeResult{}, &InvalidError{Field: "queue", Reason: "a queue can't be bridged to itself"}
		}
	}
	b := &bridge{caps: caps, target: target, opts: o, name: caps.Source.String(), parked: map[string]time.Time{}}
	ctx, b.stop = context.WithCancelCause(ctx)
	defer b.stop(nil)
	var wg sync.WaitGroup
	for range o.Parallel {
		wg.Go(func() { b.run(ctx, newMover(from, to.Publish, bridged, o.Rate/float64(o.Parallel))) })
	}
	wg.Wait()
	return b.result, b.err
}

// bridged is the message to publish on the other side.
func bridged(d *Delivery, _ time.Time) *Message {
	m := hopMessage(d, time.Time{}, d.Failures)
	if c := d.carried; c != nil { // what it waits for, it waits for there
		m.meta.due, m.meta.ageFrom = c.due, c.ageFrom
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

	mu     sync.Mutex
	result BridgeResult
	err    error // that has ended it
}

// run copies one batch after the other.
func (b *bridge) run(ctx context.Context, m mover) {
	defer m.close(ctx)
	for failures := 0; ctx.Err() == nil; {
		if d := time.Until(m.ready); d > 0 && !sleep(ctx, d) {
			return
		}
		ds, err := b.receive(ctx, &m)
		if len(ds) > 0 {
			err = errors.Join(err, b.step(ctx, &m, ds))
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
		wait := Backoff{}.Delay(failures)
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

func (b *bridge) receive(ctx context.Context, m *mover) ([]*Delivery, error) {
	n := redriveBatch
	if most := b.caps.MaxReceive; most > 0 {
		n = min(n, most)
	}
	if m.rate > 0 && m.rate < float64(n) {
		n = max(int(m.rate), 1)
	}
	poll, cancel := context.WithTimeout(ctx, bridgePoll)
	defer cancel()
	ds, err := m.from.Receive(poll, n)
	m.keeper.add(ctx, ds...)
	if err != nil && poll.Err() != nil && errors.Is(err, poll.Err()) { // because we ended it
		err = nil
	}
	return ds, err
}

// step copies what was received. What is on its way is brought to its end, also when
// ctx ends.
func (b *bridge) step(ctx context.Context, m *mover, ds []*Delivery) error {
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*DefaultPublishTimeout)
	defer cancel()
	now := time.Now()
	fresh, again, failed := b.sort(m, ds, now)
	removedAgain := len(m.remove(work, again))
	copied, removed, more := m.move(ctx, work, fresh)
	var err error
	refused := 0
	for _, f := range append(failed, more...) {
		if !refuses(f.err) {
			err = f.err
			continue
		}
		refused++
		b.opts.Logger.Error("bridge: a message can't be copied; it stays", "queue", b.name, "id", f.d.ID, "err", f.err, "in", b.opts.Aside)
		m.keeper.drop(f.d)
		m.settle(work, []*Delivery{f.d}, Settlement{Kind: Release, Delay: b.opts.Aside})
		if b.caps.Ordering && !b.caps.KeyLocked && f.d.OrderingKey != "" {
			b.parked[f.d.OrderingKey] = now.Add(b.opts.Aside)
		}
	}
	// Whatever isn't gone goes back: what couldn't be published, and what the
	// context's end has kept from being tried again.
	for _, d := range m.keeper.ours(ds) {
		m.keeper.drop(d)
		m.settle(work, []*Delivery{d}, Settlement{Kind: Release, Delay: max(b.parked[d.OrderingKey].Sub(now), 0)})
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.result.Copied += copied
	b.result.Repeated += copied - removed - removedAgain
	b.result.Failed += refused
	if b.opts.Progress != nil {
		b.opts.Progress(b.result)
	}
	return err
}

// sort tells what to copy, what to remove as it was copied before, and what the
// other side can't carry. Of a key nothing goes that's behind such a message.
func (b *bridge) sort(m *mover, ds []*Delivery, now time.Time) (fresh, again []*Delivery, failed []notMoved) {
	blocked := map[string]bool{}
	for _, d := range ds {
		switch _, repeated := m.repeated[d.BrokerID]; {
		case repeated:
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
