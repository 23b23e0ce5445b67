package queuetest

import (
	"errors"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// adminRules hold the optional capabilities, where there are any, to what they
// mean.
func adminRules() []rule {
	return []rule{
		{"CapabilitiesAreConsistent", "the engine plans by them", true, capabilitiesConsistent},
		{"CapabilitiesAreFoundBehindWrappers", "a wrapper must not hide what a queue can do", false, foundBehindWrappers},
		{"StatsCountWhatIsThere", "people decide by these numbers; unknown is nil, never 0", false, statsAreRight},
		{"PeekTakesNothing", "looking at a queue mustn't change it", false, peekTakesNothing},
		{"PurgeRemovesEverything", "and nothing that's published afterwards", false, purgeRemoves},
		{"EnsureIsRepeatable", "every start of a program may call it", false, ensureRepeatable},
		{"EnsureDryRunChangesNothing", "people want to see first", false, ensureDryRun},
	}
}

func capabilitiesConsistent(e *env) {
	q := e.open()
	c := q.Capabilities()
	if c.Source.System != e.in.Backend.System() || c.Wire.System == "" || c.Address == "" {
		e.Errorf("Source %+v, Wire.System %q, Address %q; the backend's system is %q", c.Source, c.Wire.System, c.Address, e.in.Backend.System())
	}
	if c.Lease != 0 && (c.Lease > e.lease+time.Second || c.Lease < e.lease-time.Second) {
		e.Errorf("Lease is %v; the queue was opened with %v", c.Lease, e.lease)
	}
	for what, d := range map[string]time.Duration{
		"MaxLease": c.MaxLease, "MaxExtension": c.MaxExtension, "MaxDelay": c.MaxDelay, "DelayUnit": c.DelayUnit,
		"MaxRedeliveryDelay": c.MaxRedeliveryDelay, "Retention": c.Retention,
	} {
		if d < 0 {
			e.Errorf("%s is %v", what, d)
		}
	}
	if c.MaxReceive < 0 || c.MaxSettle < 0 || c.MaxLease > 0 && c.MaxLease < c.Lease {
		e.Errorf("Capabilities: %+v", c)
	}
	if !c.Delays && c.MaxDelay > 0 {
		e.Errorf("Delays is false, and MaxDelay is %v", c.MaxDelay)
	}
	if e.h.Ordered && !c.Ordering {
		e.Error("the queue was opened as an ordered one, and Ordering is false")
	}
	_ = c.Attempts.String() // a value outside of its range panics
}

func foundBehindWrappers(e *env) {
	q := e.open()
	f := newFaultQueue(newFaultQueue(q))
	_, direct := queue.As[queue.Inspector](q)
	_, behind := queue.As[queue.Inspector](f)
	equal(e, "Inspector behind two wrappers", behind, direct)
	_, direct = queue.As[queue.Purger](q)
	_, behind = queue.As[queue.Purger](f)
	equal(e, "Purger behind two wrappers", behind, direct)
	_, direct = queue.As[queue.Redriver](q)
	_, behind = queue.As[queue.Redriver](f)
	equal(e, "Redriver behind two wrappers", behind, direct)
	if c, ok := queue.As[interface{ Capabilities() queue.Capabilities }](f); !ok || c.Capabilities().Source != q.Capabilities().Source {
		e.Error("Capabilities aren't found behind two wrappers")
	}
}

// inspector returns the queue's Inspector. Where there's none the table must say
// so.
func (e *env) inspector(q queue.Queue) (queue.Inspector, bool) {
	e.Helper()
	in, ok := queue.As[queue.Inspector](q)
	if !ok && !e.lacks(featureInspect) {
		e.Fatal("the queue is no Inspector")
	}
	return in, ok
}

// wantStats waits until the counts are as wanted; a count that's unknown is
// skipped. A broker's numbers may lag.
func (e *env) wantStats(in queue.Inspector, ready, inFlight, delayed int64) {
	e.Helper()
	var s queue.Stats
	var err error
	same := func(got *int64, want int64) bool { return got == nil || *got == want }
	ok := e.eventually(e.longer(time.Second, e.patience), func() bool {
		s, err = in.Stats(e.ctx)
		return err == nil && same(s.Ready, ready) && same(s.InFlight, inFlight) && same(s.Delayed, delayed) &&
			same(s.Total, ready+inFlight+delayed)
	})
	show := func(n *int64) any {
		if n == nil {
			return "unknown"
		}
		return *n
	}
	if !ok {
		e.Errorf("Stats: ready %v, in flight %v, delayed %v, in all %v (%v); want %d, %d, %d",
			show(s.Ready), show(s.InFlight), show(s.Delayed), show(s.Total), err, ready, inFlight, delayed)
	}
	if s.AsOf.IsZero() || s.Source == "" {
		e.Errorf("Stats don't say when and from where: %+v", s)
	}
}

func statsAreRight(e *env) {
	q := e.open()
	in, ok := e.inspector(q)
	if !ok {
		return
	}
	e.wantStats(in, 0, 0, 0)
	e.publishCount(q, "m", 5)
	e.wantStats(in, 5, 0, 0)
	ds := e.take(q, 2)
	e.wantStats(in, 3, 2, 0)
	e.settle(q, ack(ds[0]))
	e.wantStats(in, 3, 1, 0)
	e.settle(q, release(ds[1], 0))
	e.wantStats(in, 4, 0, 0)
	if q.Capabilities().MaxDelay > 0 {
		m := text("late")
		m.Delay = 10 * e.unit
		e.publish(q, m)
		e.wantStats(in, 4, 0, 1)
	}
	if !e.h.long() {
		return
	}
	e.quiet(time.Minute)
	if s, err := in.Stats(e.ctx); err != nil || s.OldestAge != nil && (*s.OldestAge < time.Minute || *s.OldestAge > time.Minute+e.slack) {
		e.Errorf("the oldest message was published a minute ago: %+v, %v", s, err)
	}
}

func peekTakesNothing(e *env) {
	q := e.open()
	in, ok := e.inspector(q)
	if !ok {
		return
	}
	e.publishCount(q, "m", 5)
	ds, err := in.Peek(e.ctx, 3)
	if errors.Is(err, queue.ErrUnsupported) {
		return // said, not ignored
	}
	if err != nil || len(ds) == 0 || len(ds) > 3 {
		e.Fatalf("Peek(3) returned %d messages and %v", len(ds), err)
	}
	for _, d := range ds {
		if d.BrokerID == "" || len(d.Body) == 0 {
			e.Errorf("Peek returned %+v", d)
		}
		copy(d.Body, "XXXXX") // what was looked at isn't what will be delivered
	}
	r := e.recorder()
	c := e.consume(q, r.ok())
	r.awaitAll("m", 5)
	c.stop()
	for _, call := range r.all() {
		r.expect(call.name, 1)
		// Where a release counts, a Peek may have been a receive that nobody can
		// tell from a failure later.
		if most := 1; call.d.Failures > most || call.d.Failures > 0 && !q.Capabilities().ReleaseCounts {
			e.Errorf("Failures after a Peek: %d", call.d.Failures)
		}
	}
}

func purgeRemoves(e *env) {
	q := e.open()
	p, ok := queue.As[queue.Purger](q)
	if !ok {
		if !e.lacks(featurePurge) {
			e.Error("the queue is no Purger")
		}
		return
	}
	e.publishCount(q, "m", 12)
	e.settle(q, release(e.take(q, 1)[0], 2*e.unit))
	if err := p.Purge(e.ctx); err != nil {
		e.Fatalf("Purge: %v", err)
	}
	e.expectGone(q)
	e.publish(q, text("after"))
	r := e.recorder()
	c := e.consume(q, r.ok())
	r.awaitEnds("after", 1)
	c.stop()
}

// ensurer returns the backend's Ensurer, or false when the harness creates
// queues by itself.
func (e *env) ensurer() (queue.Ensurer, bool) {
	e.Helper()
	en, ok := queue.As[queue.Ensurer](e.in.Backend)
	if !ok && e.in.Create == nil {
		e.Fatal("the backend is no Ensurer")
	}
	return en, ok
}

func ensureRepeatable(e *env) {
	en, ok := e.ensurer()
	if !ok {
		return
	}
	name, dead := uniqueName(), uniqueName()
	ofDead := queue.QueueSpec{Ordered: e.h.Ordered, IsDeadLetter: true, Retention: 2 * time.Hour}
	spec := &queue.QueueSpec{Ordered: e.h.Ordered, Lease: e.lease, DeadLetter: dead, DeadLetterSpec: &ofDead}
	first, err := en.Ensure(e.ctx, name, spec)
	if err != nil {
		e.Fatalf("Ensure: %v", err)
	}
	if len(first.Created) < 2 {
		e.Errorf("Ensure created %v, want the queue and its dead-letter queue", first.Created)
	}
	q, err := e.openNamed(opening{name, queue.OpenOptions{Ordered: e.h.Ordered, Logger: e.log.logger()}})
	if err != nil {
		e.Fatalf("opening what Ensure made: %v", err)
	}
	e.publish(q, text("m"))
	again, err := en.Ensure(e.ctx, name, spec)
	if err != nil || len(again.Created)+len(again.Changed)+len(again.Differences) > 0 {
		e.Errorf("Ensure for the second time: %+v, %v; want nothing to do", again, err)
	}
	if alone, err := en.Ensure(e.ctx, dead, &ofDead); err != nil || len(alone.Created)+len(alone.Changed)+len(alone.Differences) > 0 {
		e.Errorf("Ensure of the dead-letter queue, as DeadLetterSpec described it: %+v, %v; want nothing to do", alone, err)
	}
	if _, err := e.openNamed(opening{dead, queue.OpenOptions{Ordered: e.h.Ordered, Logger: e.log.logger()}}); err != nil {
		e.Errorf("opening the dead-letter queue that Ensure made: %v", err)
	}
	r := e.recorder()
	c := e.consume(q, r.ok())
	r.awaitEnds("m", 1) // it has deleted nothing
	c.stop()
}

func ensureDryRun(e *env) {
	en, ok := e.ensurer()
	if !ok {
		return
	}
	name := uniqueName()
	rep, err := en.Ensure(e.ctx, name, &queue.QueueSpec{Ordered: e.h.Ordered, DryRun: true})
	if err != nil || len(rep.Created) == 0 {
		e.Errorf("Ensure with DryRun: %+v, %v; want what it would create", rep, err)
	}
	_, err = e.in.Backend.Open(e.ctx, name, &queue.OpenOptions{Ordered: e.h.Ordered, Logger: e.log.logger()})
	e.wantErr(err, queue.ErrQueueNotFound, "opening what Ensure with DryRun didn't make")
}
