package queuetest

import (
	"fmt"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// delayRules hold delays to their time: never early, never lost.
func delayRules() []rule {
	return []rule{
		{"ADelayIsKept", "a delayed message must not be handled before its time, and must be soon after", true, delayIsKept},
		{"DeliverAtIsKept", "a due time is the absolute form of a delay", true, deliverAtIsKept},
		{"DeliverAtInThePastIsAtOnce", "a due time that has passed is due", false, deliverAtPast},
		{"ADelayBetweenTheBrokersUnitsIsNeverEarly", "a broker that counts seconds must round up", false, delayRoundsUp},
		{"ALongDelayIsKept", "what the broker can't delay so long the library carries on, without a failure, and nothing about the message changes", false, longDelays},
		{"ALongDelaySurvivesARestart", "the due time travels with the message, not in a process", false, delaySurvivesRestart},
		{"ManyDelayedMessagesHoldUpNobody", "what waits for its time takes no slot", false, delayedHoldUpNobody},
		{"MoreDelayedMessagesThanMaxHoldAreAllKept", "a bound on what's held in memory must not lose or hasten the rest", false, delayedBeyondMaxHold},
		{"ADelayWithAnOrderingKeyIsRefused", "it can't be kept everywhere, and order and delay contradict each other", true, delayWithKeyRefused},
		{"DelayAndDeliverAtTogetherAreRefused", "they may contradict each other", false, delayAndDeliverAt},
		{"ANegativeDelayIsRefused", "it's a mistake in the caller", false, negativeDelay},
		{"ADelayBeyondTheRetentionIsRefused", "the broker would throw the message away before it's due", false, delayBeyondRetention},
	}
}

// delayed returns a queue where messages can be delayed. Where they can't it
// asserts that a delay is refused, and reports false.
func (e *env) delayed() (queue.Queue, bool) {
	e.Helper()
	q := e.open()
	if q.Capabilities().Delays {
		return q, true
	}
	if !e.lacks(featureDelay) {
		e.Fatal("Capabilities().Delays is false")
	}
	m := text("delayed")
	m.Delay = e.unit
	e.wantErr(q.Publish(e.ctx, m), queue.ErrUnsupported, "publishing with a Delay")
	m.Delay, m.DeliverAt = 0, time.Now().Add(e.unit)
	e.wantErr(q.Publish(e.ctx, m), queue.ErrUnsupported, "publishing with a DeliverAt")
	e.expectGone(q)
	return nil, false
}

func delayIsKept(e *env) {
	q, ok := e.delayed()
	if !ok {
		return
	}
	r := e.recorder()
	c := e.consume(q, r.ok())
	late, now := text("late"), text("now")
	late.Delay = 3 * e.unit
	begun := time.Now()
	e.publish(q, late, now)
	sent := time.Now()
	e.between("a message without delay", r.awaitEnds("now", 1)[0].start.Sub(begun), 0, 0)
	got := r.awaitEnds("late", 1)[0]
	if d := got.start.Sub(begun); d < 3*e.unit-e.early() {
		e.Errorf("a delay of %v was over after %v", 3*e.unit, d)
	}
	e.between("after the delay", got.start.Sub(sent)-3*e.unit, -time.Hour, 0)
	equal(e, "Failures after a delay", got.d.Failures, 0)
	equal(e, "Delay of the delivery", got.d.Delay, 0)
	c.stop()
	r.expect("late", 1)
}

func deliverAtIsKept(e *env) {
	q, ok := e.delayed()
	if !ok {
		return
	}
	r := e.recorder()
	c := e.consume(q, r.ok())
	m := text("late")
	at := time.Now().Add(2*e.unit + e.unit/2)
	m.DeliverAt = at
	e.publish(q, m)
	got := r.awaitEnds("late", 1)[0]
	c.stop()
	e.between("after DeliverAt", got.start.Sub(at), -e.early(), e.unit)
	equal(e, "Failures after a delay", got.d.Failures, 0)
}

func deliverAtPast(e *env) {
	q := e.open()
	r := e.recorder()
	c := e.consume(q, r.ok())
	for name, at := range map[string]time.Time{"hour": time.Now().Add(-time.Hour), "now": time.Now(), "epoch": time.Unix(0, 0), "year 1": time.Time{}.Add(1)} {
		m := text(name)
		m.DeliverAt = at
		begun := time.Now()
		e.publish(q, m)
		e.between("DeliverAt in the past ("+name+")", r.awaitEnds(name, 1)[0].start.Sub(begun), 0, 0)
	}
	c.stop()
}

func delayRoundsUp(e *env) {
	q, ok := e.delayed()
	if !ok {
		return
	}
	r := e.recorder()
	c := e.consume(q, r.ok())
	for i, d := range []time.Duration{1, time.Millisecond, 999 * time.Millisecond, 1001 * time.Millisecond, 1500 * time.Millisecond, 2*time.Second - 1} {
		for _, at := range []bool{false, true} {
			name := fmt.Sprint(i, at)
			m := text(name)
			begun := time.Now()
			if at {
				m.DeliverAt = begun.Add(d)
			} else {
				m.Delay = d
			}
			e.publish(q, m)
			got := r.awaitEnds(name, 1)[0].start.Sub(begun)
			if got < d-min(d, e.early()) {
				e.Errorf("a delay of %v was over after %v", d, got)
			}
			e.between(fmt.Sprintf("a delay of %v", d), got, 0, d+q.Capabilities().DelayUnit)
		}
	}
	c.stop()
}

// longDelays go beyond what any broker delays by itself.
func longDelays(e *env) {
	q, ok := e.delayed()
	if !ok {
		return
	}
	caps := q.Capabilities()
	r := e.recorder()
	c := e.consume(q, r.ok())
	delays := []time.Duration{10 * time.Minute, 15*time.Minute + time.Second, 40 * time.Minute, 13 * time.Hour, 50 * time.Hour}
	if caps.Dedup {
		e.Log("deduplication is on: the hops must not be taken for repeats")
	}
	begun := time.Now()
	for i, d := range delays {
		for _, at := range []bool{false, true} {
			m := text(fmt.Sprint(d, at))
			m.ID = "id-" + string(m.Body)
			m.Attributes = map[string]string{"kind": "long", "n": fmt.Sprint(i)}
			if caps.Dedup {
				m.DedupID = "dedup-" + fmt.Sprint(i, at)
			}
			if at {
				m.DeliverAt = begun.Add(d)
			} else {
				m.Delay = d
			}
			e.publish(q, m)
		}
	}
	last := delays[len(delays)-1]
	if !e.eventually(last+e.patience, func() bool { return r.finished() == 2*len(delays) }) {
		e.Errorf("%d of %d messages were handled", r.finished(), 2*len(delays))
	}
	c.stop()
	for i, d := range delays {
		for _, at := range []bool{false, true} {
			name := fmt.Sprint(d, at)
			r.expect(name, 1)
			for _, call := range r.of(name) {
				e.between(fmt.Sprintf("a delay of %v (DeliverAt: %v)", d, at), call.start.Sub(begun), d, d+caps.DelayUnit)
				equal(e, "ID after "+name, call.d.ID, "id-"+name)
				equal(e, "attributes after "+name, fmt.Sprint(call.d.Attributes), fmt.Sprint(map[string]string{"kind": "long", "n": fmt.Sprint(i)}))
				equal(e, "Failures after "+name, call.d.Failures, 0)
				if off := call.d.EnqueuedAt.Sub(begun); off < 0 || off > time.Second {
					e.Errorf("EnqueuedAt after %s is %v after the publish; it must be kept over hops", name, off)
				}
				if age := call.start.Sub(call.d.AgeFrom()); age > caps.DelayUnit+e.slack {
					e.Errorf("the age after %s is %v; it must count from the due time", name, age)
				}
			}
		}
	}
}

func delaySurvivesRestart(e *env) {
	q, ok := e.delayed()
	if !ok {
		return
	}
	delay := e.longer(20*time.Hour, 8*e.unit)
	m := text("late")
	begun := time.Now()
	m.Delay = delay
	e.publish(q, m)
	r := e.recorder()
	// Each round is another process: another consumer on another handle.
	for time.Since(begun) < delay/2 {
		c := e.consume(e.again(q), r.ok())
		e.quiet(delay / 8)
		c.stop()
	}
	if time.Since(begun) < delay {
		r.expect("late", 0)
	}
	c := e.consume(e.again(q), r.ok())
	if !e.eventually(delay+e.patience, func() bool { return r.finished() == 1 }) {
		e.Fatalf("the message hasn't come after %v", time.Since(begun))
	}
	c.stop()
	// A process that held the message and ended may have it hidden for a lease.
	e.between("over restarts", r.of("late")[0].start.Sub(begun), delay-e.early(), delay+e.lease)
	e.expectGone(q)
	r.expect("late", 1)
}

func delayedHoldUpNobody(e *env) {
	q, ok := e.delayed()
	if !ok {
		return
	}
	delay := e.longer(3*time.Hour, 8*e.unit)
	n := 30
	var msgs []*queue.Message
	for i := range n {
		m := text(fmt.Sprint("late", i))
		m.Delay = delay
		msgs = append(msgs, m)
	}
	r := e.recorder()
	c := e.consume(q, r.ok(), concurrency(2))
	begun := time.Now()
	e.publish(q, msgs...)
	e.quiet(e.unit)
	sent := time.Now()
	e.publishCount(q, "now", 10)
	r.awaitAll("now", 10)
	e.between("ten messages beside delayed ones", time.Since(sent), 0, 0)
	if !e.eventually(delay+e.patience, func() bool { return len(r.missing("late", n)) == 0 }) {
		e.Errorf("never handled: %v", r.missing("late", n))
	}
	for i := range n {
		if got := r.of(fmt.Sprint("late", i))[0].start.Sub(begun); got < delay-e.early() {
			e.Errorf("a delay of %v was over after %v", delay, got)
		}
	}
	c.stop()
}

func delayedBeyondMaxHold(e *env) {
	q, ok := e.delayed()
	if !ok {
		return
	}
	delay := e.longer(2*time.Hour, 4*e.unit)
	const n = 40
	var msgs []*queue.Message
	begun := time.Now()
	for i := range n {
		m := text(fmt.Sprint("late", i))
		m.DeliverAt = begun.Add(delay)
		msgs = append(msgs, m)
	}
	r := e.recorder()
	c := e.consume(q, r.ok(), func(o *queue.ConsumerOptions) { o.MaxHold = 5 })
	e.publish(q, msgs...)
	held := 0
	if !e.eventually(delay+e.patience, func() bool {
		held = max(held, c.Stats().Held)
		return len(r.missing("late", n)) == 0
	}) {
		e.Errorf("never handled: %v", r.missing("late", n))
	}
	if held > 5 {
		e.Errorf("%d deliveries were held at once; MaxHold is 5", held)
	}
	c.stop()
	for _, call := range r.all() {
		if got := call.start.Sub(begun); got < delay-e.early() {
			e.Errorf("%q was handled after %v, before its time at %v", call.name, got, delay)
		}
		r.expect(call.name, 1)
		equal(e, "Failures of "+call.name, call.d.Failures, 0)
	}
}

func delayWithKeyRefused(e *env) {
	q, ok := e.ordered()
	if !ok {
		return
	}
	a, b := keyed("k", "delay"), keyed("k", "at")
	a.Delay = e.unit
	b.DeliverAt = time.Now().Add(time.Hour)
	for _, m := range []*queue.Message{a, b} {
		e.wantErr(q.Publish(e.ctx, m), queue.ErrUnsupported, "publishing with an OrderingKey and a "+string(m.Body))
	}
	e.expectGone(q)
}

func delayAndDeliverAt(e *env) {
	q := e.open()
	m := text("both")
	m.Delay, m.DeliverAt = e.unit, time.Now().Add(e.unit)
	err := q.Publish(e.ctx, m)
	e.wantErr(err, queue.ErrInvalid, "publishing with Delay and DeliverAt")
	e.expectGone(q)
}

func negativeDelay(e *env) {
	q := e.open()
	m := text("negative")
	m.Delay = -time.Second
	e.wantErr(q.Publish(e.ctx, m), queue.ErrInvalid, "publishing with a negative Delay")
	e.expectGone(q)
}

func delayBeyondRetention(e *env) {
	q, ok := e.delayed()
	if !ok {
		return
	}
	caps := q.Capabilities()
	if caps.Retention == 0 {
		// Nothing expires here: a very long delay is as good as another.
		m := text("far")
		m.Delay = 365 * 24 * time.Hour
		e.publish(q, m)
		return
	}
	m := text("far")
	m.Delay = caps.Retention + time.Hour
	e.wantLimit(q.Publish(e.ctx, m), "delay", int(m.Delay), int(caps.Retention))
	m.Delay, m.DeliverAt = 0, time.Now().Add(caps.Retention+time.Hour)
	e.wantLimit(q.Publish(e.ctx, m), "delay", int(caps.Retention), int(caps.Retention))
	e.expectGone(q)
}
