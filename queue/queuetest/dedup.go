package queuetest

import (
	"context"
	"fmt"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// dedupRules hold the broker's deduplication to what was asked for, and keep it
// off what wasn't.
func dedupRules() []rule {
	return []rule{
		{"ARepeatWithinTheWindowIsDropped", "that's what a DedupID asks for", false, repeatIsDropped},
		{"ARepeatAfterTheOriginalWasHandledIsDropped", "the window counts from the publish, not until the acknowledgement", false, repeatAfterAck},
		{"ADedupIDIsRefusedWhereTheBrokerCant", "a repeat that isn't dropped would be a promise broken in silence", true, dedupRefused},
		{"OnlyTheDedupIDDeduplicates", "equal bodies or equal IDs are no repeats: two orders of one book are two orders", true, onlyDedupID},
		{"ADeadLetterIsNoRepeat", "the broker would drop the copy in silence, and we'd acknowledge the original: lost", false, deadLetterNoRepeat},
		{"ARedrivenMessageIsNoRepeat", "a message that's moved back within the window of its first publish must arrive", false, redriveNoRepeat},
		{"AHopIsNoRepeat", "a delay that's carried on is the same message, not a repeat", false, hopNoRepeat},
	}
}

// dedup opens a queue whose broker deduplicates. Where there is none it asserts
// that a DedupID is refused, and reports false.
func (e *env) dedup() (queue.Queue, bool) {
	e.Helper()
	for _, spec := range []queue.QueueSpec{{}, {Ordered: true}} {
		if q, err := e.tryOpen(spec); err == nil && q.Capabilities().Dedup {
			return q, true
		}
	}
	if !e.lacks(featureDedup) {
		e.Fatal("no queue deduplicates")
	}
	e.wantDedupRefused(e.open())
	return nil, false
}

func (e *env) wantDedupRefused(q queue.Queue) {
	e.Helper()
	m := text("unique")
	m.DedupID = "d"
	e.wantErr(q.Publish(e.ctx, m), queue.ErrUnsupported, "publishing a DedupID to a broker that doesn't deduplicate")
	e.expectGone(q)
}

func withDedup(body, id string) *queue.Message {
	m := text(body)
	m.DedupID = id
	return m
}

func repeatIsDropped(e *env) {
	q, ok := e.dedup()
	if !ok {
		return
	}
	e.publish(q, withDedup("a", "1"), withDedup("b", "2"))
	e.publish(q, withDedup("a again", "1"), withDedup("c", "3"))
	r := e.recorder()
	c := e.consume(q, r.ok())
	r.awaitEnds("a", 1)
	r.awaitEnds("b", 1)
	r.awaitEnds("c", 1)
	c.stop()
	e.expectGone(q)
	r.expect("a again", 0)
	if e.h.long() { // the window is 5 minutes on SQS, and expectGone waited for an hour
		e.publish(q, withDedup("a later", "1"))
		r := e.recorder()
		c := e.consume(q, r.ok())
		r.awaitEnds("a later", 1)
		c.stop()
	}
}

func repeatAfterAck(e *env) {
	q, ok := e.dedup()
	if !ok {
		return
	}
	r := e.recorder()
	c := e.consume(q, r.ok())
	e.publish(q, withDedup("a", "1"))
	r.awaitEnds("a", 1)
	e.quiet(e.longer(time.Minute, e.unit))
	e.publish(q, withDedup("a again", "1"), text("other"))
	r.awaitEnds("other", 1)
	e.quiet(e.longer(time.Minute, e.unit))
	c.stop()
	r.expect("a again", 0)
}

func dedupRefused(e *env) {
	q := e.open()
	if !q.Capabilities().Dedup {
		e.wantDedupRefused(q)
		return
	}
	if e.lacks(featureDedup) {
		e.Error("the suite's table says that this backend doesn't deduplicate, and it says that it does")
	}
}

func onlyDedupID(e *env) {
	specs := []queue.QueueSpec{{}}
	if !e.lacks(featureOrdering) {
		specs = append(specs, queue.QueueSpec{Ordered: true})
	}
	for _, spec := range specs {
		q := e.open(spec)
		r := e.recorder()
		c := e.consume(q, r.ok())
		m := text("same")
		m.ID = "same-id"
		e.publish(q, m, m)
		e.publish(q, m)
		e.publish(q, text("same"), text("same"))
		r.awaitEnds("same", 5)
		c.stop()
		e.expectGone(q)
		r.expect("same", 5)
	}
}

// dedupPair opens a deduplicating queue with a dead-letter queue that
// deduplicates too.
func (e *env) dedupPair() (q, dead queue.Queue, ok bool) {
	e.Helper()
	q, ok = e.dedup()
	if !ok {
		return nil, nil, false
	}
	dead, ok = e.dedup()
	return q, dead, ok
}

func deadLetterNoRepeat(e *env) {
	q, dead, ok := e.dedupPair()
	if !ok {
		return
	}
	r := e.recorder()
	c := e.consume(q, r.handle(func(context.Context, *queue.Delivery, int) error { return queue.Reject(errWork) }),
		with(&deadLetters{to: dead, name: e.name(dead)}))
	// Both copies would carry the same DedupID if it were kept, as would a
	// message that was published to the dead-letter queue with it before.
	e.publish(dead, withDedup("other", "1"))
	e.publish(q, withDedup("one", "1"))
	r.awaitEnds("one", 1)
	e.awaitDead(dead, "one")
	c.stop()
}

func redriveNoRepeat(e *env) {
	q, dead, ok := e.dedupPair()
	if !ok {
		return
	}
	r := e.recorder()
	c := e.consume(q, r.handle(func(_ context.Context, _ *queue.Delivery, nth int) error {
		if nth <= 3 {
			return queue.Reject(errWork)
		}
		return nil
	}), with(&deadLetters{to: dead, name: e.name(dead)}))
	e.publish(q, withDedup("one", "1"))
	for round := 1; round <= 3; round++ {
		r.awaitEnds("one", round)
		e.redrive(dead, q, 1)
	}
	r.awaitEnds("one", 4)
	c.stop()
	e.expectGone(q)
	e.expectGone(dead)
}

func hopNoRepeat(e *env) {
	q, ok := e.dedup()
	if !ok {
		return
	}
	caps := q.Capabilities()
	if !caps.Delays {
		m := withDedup("one", "1")
		m.Delay = e.unit
		e.wantErr(q.Publish(e.ctx, m), queue.ErrUnsupported, "publishing with a Delay to "+fmt.Sprint(caps.Source))
		return
	}
	m := withDedup("one", "1")
	m.Delay = caps.MaxDelay + 4*time.Minute // the hop falls into the window if the broker's limit is short
	r := e.recorder()
	c := e.consume(q, r.handle(func(_ context.Context, _ *queue.Delivery, nth int) error {
		if nth <= 2 {
			return queue.RetryAfter(caps.MaxRedeliveryDelay+time.Minute, errWork)
		}
		return nil
	}))
	e.publish(q, m)
	limit := m.Delay + 2*caps.MaxRedeliveryDelay + e.patience
	if !e.eventually(limit, func() bool { return r.finished() == 3 }) {
		e.Errorf("handled %d times in %v, want 3", r.finished(), limit)
	}
	c.stop()
}
