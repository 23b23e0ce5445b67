package queue

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"time"
	"unicode/utf8"
)

// RedriveOptions are the settings of Redrive. The zero value moves everything
// that came from the queue, as fast as it goes.
type RedriveOptions struct {
	// Filter selects messages; nil selects all. What it doesn't select stays.
	// It's called by one goroutine at a time and may only read.
	Filter func(d *Delivery) bool

	// AnySource also moves messages whose history names another queue than the
	// one they're moved to, as in a dead-letter queue that several queues share.
	// Without it they stay. Messages without a history (dead-lettered by a broker that
	// doesn't say where they failed, or put there by hand) are moved in any case.
	AnySource bool

	// ID names the operation, at most 64 bytes. It stays with the messages that are
	// moved (DeadLetterInfo.Operation), so that those which come back can be told from
	// others: RedriveResult.CameBack. Default: none.
	ID string

	// Before freezes the operation at a time: what was dead-lettered later is left. It's
	// for going on with an operation that was interrupted; with an ID, too, what it had
	// moved isn't moved again. Default: now.
	Before time.Time

	// Trial moves messages as a test: those that fail once come back at once, with
	// ReasonTrial, instead of being tried again for as long as their queue's policy
	// says. It works where the consumers use middleware.DeadLetter, and not for keys
	// that OnExhausted blocks.
	Trial bool

	// Max ends the operation after so many messages were moved; 0: no limit.
	Max int

	// Rate is the most messages moved a second, on average and in bursts of at
	// most a second's worth; 0: no limit.
	Rate float64

	// Quiet is how long nothing new must have come before the queue counts as
	// empty. What's dead-lettered meanwhile is no reason to wait for more than a
	// minute, or Quiet where that's longer. Default 2 s.
	Quiet time.Duration

	// Aside is the least time for which messages that stay are hidden, when
	// there are more of them than the 1,000 whose leases can be kept instead.
	// Default 30 s; twice as long as the operation has been running, when that's
	// longer.
	Aside time.Duration

	// Progress is called after each batch, from the goroutine that called
	// Redrive. It shouldn't block: messages are leased meanwhile.
	Progress func(RedriveResult)
}

func (o RedriveOptions) validate() (RedriveOptions, error) {
	switch {
	case len(o.ID) > maxOperationID || !utf8.ValidString(o.ID):
		return o, &InvalidError{"RedriveOptions.ID", "isn't up to 64 bytes of UTF-8"}
	case o.Before.After(time.Now()):
		return o, &InvalidError{"RedriveOptions.Before", "in the future"}
	case o.Max < 0:
		return o, &InvalidError{"RedriveOptions.Max", "negative"}
	case !(o.Rate >= 0) || math.IsInf(o.Rate, 0):
		return o, &InvalidError{"RedriveOptions.Rate", "must be a number of messages a second, or 0"}
	case o.Quiet < 0:
		return o, &InvalidError{"RedriveOptions.Quiet", "negative"}
	case o.Aside < 0:
		return o, &InvalidError{"RedriveOptions.Aside", "negative"}
	}
	setDefault(&o.Quiet, 2*time.Second)
	setDefault(&o.Aside, 30*time.Second)
	return o, nil
}

// RedriveResult counts what Redrive has done. Each message of the dead-letter
// queue counts once, in one of the first four.
type RedriveResult struct {
	Moved   int // published back; removed, except for Repeated
	Skipped int // not selected: left
	Newer   int // dead-lettered after the start, or moved by this operation and back again: left
	Failed  int // couldn't be published: left
	// Repeated are of Moved: removing them from the dead-letter queue failed, so
	// they're there a second time.
	Repeated int
	// CameBack are of Newer: moved by the operation of this ID, and dead-lettered again.
	// It's what was met so far: the consumers may still be at others.
	CameBack int
}

const (
	maxOperationID = 64

	redriveBatch   = 100     // messages in a step, where the broker has no limit of its own
	redriveFailing = 3       // steps without a success, one after the other, that end it: nothing published, or nothing removed
	redriveTries   = 3       // of a publish or a settlement
	redrivePolls   = 5       // failures of a receive, one after the other, that end it
	redriveHeld    = 1000    // messages that are kept leased until the end
	redriveStay    = 1 << 20 // messages that stay, told from new ones

	// redriveNewer is how long nothing may come but what's dead-lettered meanwhile. Queues
	// have their messages roughly in order, so that there's nothing behind it.
	redriveNewer = time.Minute
)

// Redrive moves messages from the dead-letter queue from back to the queue to.
// They get what they had there: body, attributes, id, ordering key. Their age and
// failures count anew; their history stays with them, in Delivery.DeadLetter.
// Each is removed from the dead-letter queue only after its copy is durable: a
// crash at any point loses none and repeats at most the batch on its way.
//
// The operation is frozen at its start: what is dead-lettered later, or comes
// back after having been moved, is left. That's judged by the time of the last
// failure as the failing consumer saw it; of a message that the broker itself
// dead-lettered only the first enqueue is known.
//
// It returns nil when nothing is left that it could move, or Max is reached. It
// can't see messages that others hold leased or that back off; on a queue that
// locks keys, not those behind a message that stays either. Messages that stay
// are hidden while it runs: up to 1,000 of them become visible at its end, more
// after Aside. Messages that
// can't be published stay, and the first one's error is returned; when nothing
// can be published or removed any more it ends. When ctx ends, the batch on its way is
// finished and the context's cause returned. The result is valid in every case.
//
// It uses to's Redriver where there is one, so that no other subscriber of the
// same topic gets the messages. Leases are kept for as long as it takes. Two
// operations on one queue at the same time do no harm, but each sees only a
// part.
func Redrive(ctx context.Context, from, to Queue, opts *RedriveOptions) (RedriveResult, error) {
	if from == nil || to == nil {
		return RedriveResult{}, &InvalidError{Field: "queue", Reason: "nil"}
	}
	if opts == nil {
		opts = &RedriveOptions{}
	}
	o, err := opts.validate()
	if err != nil {
		return RedriveResult{}, err
	}
	now := time.Now()
	copyOf := func(d *Delivery, now time.Time) *Message { return redriven(d, now, &o) }
	r := &redrive{
		mover: newMover(from, to.Publish, copyOf, o.Rate), opts: o, caps: from.Capabilities(), home: to.Capabilities().Source,
		begun: now, start: now, seed: maphash.MakeSeed(), stays: map[uint64]struct{}{},
	}
	if !o.Before.IsZero() {
		r.start = o.Before
	}
	if rd, ok := As[Redriver](to); ok {
		r.publish = rd.PublishBack
	}
	// Also when the filter panics: what isn't settled becomes visible again.
	defer r.close(ctx)
	err = r.run(ctx)
	return r.result, err
}

// redrive is one operation. It's driven by the goroutine that called Redrive.
type redrive struct {
	mover
	home Endpoint // where the messages go
	opts RedriveOptions
	caps Capabilities

	begun  time.Time
	start  time.Time     // of the operation, which may have begun in another process
	quiet  time.Duration // of asking since something new was last seen
	stale  time.Duration // the same, since that was something to be moved or to be known again
	result RedriveResult
	err    error // the first of a publish

	// stays has the hashes of the messages that were met and stay, to count them
	// once and to know what's new. When two collide, a message stays that could
	// have been moved.
	seed  maphash.Seed
	stays map[uint64]struct{}
	polls int // receives that failed
}

func (r *redrive) run(ctx context.Context) error {
	for {
		n := r.next()
		if n == 0 {
			return r.err
		}
		if d := time.Until(r.ready); d > 0 && !sleep(ctx, d) {
			return context.Cause(ctx)
		}
		began := time.Now()
		ds, empty, err := r.receive(ctx, n)
		asked := time.Since(began)
		r.quiet, r.stale = r.quiet+asked, r.stale+asked
		if len(ds) > 0 {
			r.step(ctx, ds)
			if r.opts.Progress != nil {
				r.opts.Progress(r.result)
			}
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		case r.down != nil:
			return fmt.Errorf("redrive: stopped, as nothing can be published: %w", r.down)
		case r.unremoved >= redriveFailing || r.kept != nil && final(r.kept):
			return fmt.Errorf("redrive: stopped, as nothing can be removed: %w", r.kept)
		case len(r.stays) >= redriveStay:
			return fmt.Errorf("redrive: stopped, as more than %d messages were met that stay", redriveStay)
		}
		if empty && r.quiet >= r.opts.Quiet || r.quiet > 2*r.aside()+r.opts.Quiet || r.stale > max(redriveNewer, r.opts.Quiet) {
			return r.err
		}
	}
}

// next is how many to receive; 0 when Max is reached.
func (r *redrive) next() int {
	n := redriveBatch
	if m := r.caps.MaxReceive; m > 0 {
		n = min(n, m)
	}
	if r.opts.Rate > 0 && r.opts.Rate < float64(n) {
		n = max(int(r.opts.Rate), 1)
	}
	if r.opts.Max > 0 {
		n = min(n, r.opts.Max-r.result.Moved)
	}
	return n
}

// receive takes messages. empty says that there was none to be had; passing
// errors are only returned when they last.
func (r *redrive) receive(ctx context.Context, n int) (ds []*Delivery, empty bool, err error) {
	began := time.Now()
	poll, cancel := context.WithTimeout(ctx, r.opts.Quiet)
	ds, err = r.from.Receive(poll, n)
	cut := poll.Err() != nil
	cancel()
	r.keeper.add(ctx, ds...)
	ended := cut && errors.Is(err, poll.Err()) // because we ended it
	if err != nil && !ended {
		r.polls++
		if final(err) || r.polls >= redrivePolls {
			return ds, false, fmt.Errorf("redrive: receive: %w", err)
		}
		sleep(ctx, Backoff{}.Delay(r.polls))
		return ds, false, nil
	}
	r.polls = 0
	if len(ds) == 0 && !cut {
		// A poll that was shorter than asked for isn't repeated at once.
		sleep(ctx, min(r.opts.Quiet-time.Since(began), r.opts.Quiet/10))
	}
	return ds, len(ds) == 0, nil //nolint:nilerr // a poll that we have ended isn't a failed one
}

// step decides about what was received and moves what's selected.
func (r *redrive) step(ctx context.Context, ds []*Delivery) {
	var picked, stay, again []*Delivery
	for _, d := range ds {
		if r.repeated.has(d.BrokerID) {
			again = append(again, d)
			continue
		}
		met := r.met(d)
		back := r.cameBack(d)
		newer := !back && r.newer(d)
		if !met {
			r.quiet = 0
		}
		if !met && !newer {
			r.stale = 0
		}
		switch {
		case back:
			r.count(&r.result.CameBack, !met)
			r.count(&r.result.Newer, !met)
		case newer:
			r.count(&r.result.Newer, !met)
		case !r.selects(d):
			r.count(&r.result.Skipped, !met)
		case met: // it couldn't be published
		default:
			picked = append(picked, d)
			continue
		}
		stay = append(stay, d)
	}
	// What is on its way is brought to its end, also when ctx ends.
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*DefaultPublishTimeout)
	defer cancel()
	moved, removed, failed := r.move(ctx, work, picked)
	r.result.Moved += moved
	r.result.Repeated += moved - removed
	for _, f := range failed {
		r.result.Failed++
		if r.err == nil {
			r.err = fmt.Errorf("redrive: publish: %w", f.err)
		}
		stay = append(stay, f.d)
	}
	r.result.Repeated -= len(r.remove(work, again))
	r.leave(work, stay)
}

func (r *redrive) hash(d *Delivery) uint64 { return maphash.String(r.seed, d.BrokerID) }

func (r *redrive) met(d *Delivery) bool {
	_, ok := r.stays[r.hash(d)]
	return ok && d.BrokerID != ""
}

func (r *redrive) count(n *int, first bool) {
	if first {
		*n++
	}
}

// cameBack reports whether d was moved by this operation, be it in another process.
func (r *redrive) cameBack(d *Delivery) bool {
	return r.opts.ID != "" && d.DeadLetter != nil && d.DeadLetter.Operation == r.opts.ID
}

func (r *redrive) newer(d *Delivery) bool {
	// What isn't due has an age from then on.
	if c := d.carried; c != nil && !c.ageFrom.IsZero() && !c.ageFrom.Before(r.start) && !c.ageFrom.After(time.Now()) {
		return true // moved by us, and back
	}
	at := d.EnqueuedAt
	if d.DeadLetter != nil && !d.DeadLetter.LastAt.IsZero() {
		at = d.DeadLetter.LastAt
	}
	return at.After(r.start)
}

func (r *redrive) selects(d *Delivery) bool {
	if dl := d.DeadLetter; dl != nil && !r.opts.AnySource && dl.Source != (Endpoint{}) && dl.Source != r.home {
		return false
	}
	return r.opts.Filter == nil || r.opts.Filter(d)
}

// leave keeps what stays from being met again in this operation: a number of
// messages by holding their leases until its end, the others by a delay.
func (r *redrive) leave(ctx context.Context, ds []*Delivery) {
	for _, d := range ds {
		r.stays[r.hash(d)] = struct{}{}
	}
	// Those behind the limit, so as not to give back what has been held long.
	if over := r.keeper.size() - redriveHeld; over > 0 {
		ds = ds[:min(over, len(ds))]
		r.keeper.drop(ds...)
		// A failure only means that they're back when their leases end.
		r.settle(ctx, ds, Settlement{Kind: Release, Delay: r.aside()})
	}
}

// aside grows with the time that the operation has taken, so that a message is
// met again a few times at most, however long it takes.
func (r *redrive) aside() time.Duration {
	d := max(r.opts.Aside, 2*time.Since(r.begun))
	if m := r.caps.MaxRedeliveryDelay; m > 0 {
		d = min(d, m)
	}
	return d
}
