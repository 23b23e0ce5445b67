package queuetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// deadLetterRules hold the way of a message that can't be handled: its copy is
// confirmed before the original goes, with its history, and as it was.
func deadLetterRules() []rule {
	return []rule{
		{"GivesUpByFailures", "after N failures means after N", true, givesUpByFailures},
		{"GivesUpByAge", "age works where attempts are unknown, and bounds how late a message may be handled", false, givesUpByAge},
		{"AgeCountsFromTheDueTime", "a message that waited for its time isn't old yet", false, ageFromDueTime},
		{"AnInterruptedAttemptIsNotDeadLettered", "a shutdown says nothing about the message", false, interruptedNotDeadLettered},
		{"TheCopyGoesBeforeTheOriginal", "when the dead-letter queue is down the message stays where it is", false, copyBeforeOriginal},
		{"ALostAnswerToTheCopyLosesNothing", "a copy whose outcome is unknown may come twice; it's never lost", false, copyAnswerLost},
		{"TheCopyHasItsHistory", "whoever looks needs to know what, where, why and since when", false, copyHasHistory},
		{"LikeFailuresHaveOneFingerprint", "ten thousand dead letters are looked at in groups", false, fingerprintGroups},
		{"AFullSizeMessageIsCopied", "the copy always goes: the history is cut, or left out", false, fullSizeCopied},
		{"AMessageWithAllItsAttributesIsCopied", "what the history takes the place of is folded away and comes back", false, fullAttributesCopied},
		{"AHugeHistoryIsCut", "a giant stack must not keep the message from being saved", false, hugeHistoryCut},
		{"AnOddErrorTextIsCopied", "errors quote whatever they were given: binary, control characters, nothing", false, oddErrorText},
		{"TheBrokersOwnLimitIsANet", "below the library's policies the broker may have its own: it moves the message, unchanged", false, brokersOwnLimit},
	}
}

// deadLetters is the least middleware that gives up: by rejection, failures or
// age. It confirms the copy before it lets the original go.
type deadLetters struct {
	to          queue.Publisher
	name        string
	maxFailures int
	maxAge      time.Duration
}

func (g *deadLetters) Wrap(next queue.Handler) queue.Handler {
	return func(ctx context.Context, d *queue.Delivery) error {
		err := shielded(ctx, d, next)
		now := time.Now()
		reason, ok := g.givesUp(ctx, d, err, now)
		if !ok {
			return err
		}
		if perr := g.to.Publish(ctx, queue.NewDeadLetter(d, err, reason, now)); perr != nil {
			// Only the text of err: its outcome mustn't decide now.
			return fmt.Errorf("no copy in %s: %w (the work: %s)", g.name, perr, err.Error())
		}
		return queue.WithDeadLettered(g.name, err)
	}
}

func (g *deadLetters) givesUp(ctx context.Context, d *queue.Delivery, err error, now time.Time) (queue.DeadLetterReason, bool) {
	switch queue.OutcomeOf(err).Kind {
	case queue.Rejected:
		return queue.ReasonRejected, true
	case queue.Failed, queue.Retry:
	default:
		return "", false
	}
	switch from := d.AgeFrom(); {
	case queue.Interrupted(ctx, err):
		return "", false
	case g.maxFailures > 0 && d.Failures+1 >= g.maxFailures:
		return queue.ReasonFailures, true
	case g.maxAge > 0 && !from.IsZero() && now.Sub(from) >= g.maxAge:
		return queue.ReasonAge, true
	}
	return "", false
}

// shielded makes a panic an error.
func shielded(ctx context.Context, d *queue.Delivery, next queue.Handler) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &queue.PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return next(ctx, d)
}

// awaitDead waits until the message named name is in a dead-letter queue, and
// takes out everything that's there. It fails unless just one copy came.
func (e *env) awaitDead(dead queue.Queue, name string) queue.Delivery {
	e.Helper()
	got, c := e.collect(e.again(dead))
	find := func() []queue.Delivery {
		return slices.DeleteFunc(got.all(), func(d queue.Delivery) bool { return string(d.Body) != name })
	}
	e.await(fmt.Sprintf("%q in the dead-letter queue", name), func() bool { return len(find()) > 0 })
	e.quiet(e.longer(time.Minute, e.unit))
	c.stop()
	found := find()
	if len(found) != 1 {
		e.Errorf("%d copies of %q are in the dead-letter queue", len(found), name)
	}
	return found[0]
}

func givesUpByFailures(e *env) {
	q, dead := e.openPair(queue.QueueSpec{})
	r := e.recorder()
	c := e.consume(q, r.handle(func(context.Context, *queue.Delivery, int) error { return errWork }),
		with(&deadLetters{to: dead, name: e.name(dead), maxFailures: 3}))
	e.publish(q, text("m"))
	r.awaitEnds("m", 3)
	got := e.awaitDead(dead, "m")
	if dl := got.DeadLetter; dl == nil || dl.Reason != queue.ReasonFailures || dl.Failures != 3 {
		e.Errorf("the copy's history is %+v, want three failures", dl)
	}
	c.stop()
	e.expectGone(q)
	r.expect("m", 3)
	s := c.Stats()
	if s.DeadLettered != 1 || s.Failed != 2 {
		e.Errorf("Stats: DeadLettered %d, Failed %d; want 1 and 2", s.DeadLettered, s.Failed)
	}
}

func givesUpByAge(e *env) {
	q, dead := e.openPair(queue.QueueSpec{})
	r := e.recorder()
	most := e.longer(24*time.Hour, 4*e.unit)
	wait := most / 4
	c := e.consume(q, r.handle(func(context.Context, *queue.Delivery, int) error { return errWork }),
		with(&deadLetters{to: dead, name: e.name(dead), maxAge: most}), backoff(wait, wait))
	begun := time.Now()
	e.publish(q, text("m"))
	if !e.eventually(2*most+e.patience, func() bool { return c.Stats().DeadLettered == 1 }) {
		e.Fatalf("not given up after %v; the limit is %v", time.Since(begun), most)
	}
	took := time.Since(begun)
	// It's tried at least until the limit and then once more at most.
	e.between("until it was given up", took, most-e.longer(0, time.Second), most+wait)
	got := e.awaitDead(dead, "m")
	least := 2 // a server that's busy takes its time
	if e.h.long() {
		least = 4
	}
	if dl := got.DeadLetter; dl == nil || dl.Reason != queue.ReasonAge || dl.Failures < least {
		e.Errorf("the copy's history is %+v, want reason %q and at least %d failures", dl, queue.ReasonAge, least)
	}
	c.stop()
	e.expectGone(q)
}

func ageFromDueTime(e *env) {
	q, ok := e.delayed()
	if !ok {
		return
	}
	dead := e.open(queue.QueueSpec{IsDeadLetter: true})
	most := e.longer(time.Hour, 3*e.unit)
	m := text("m")
	m.Delay = max(2*most, time.Minute) // of shorter ones the consumer isn't told
	r := e.recorder()
	c := e.consume(q, r.handle(func(_ context.Context, _ *queue.Delivery, nth int) error {
		if nth == 1 {
			return errWork
		}
		return nil
	}), with(&deadLetters{to: dead, name: e.name(dead), maxAge: most}))
	e.publish(q, m)
	if !e.eventually(m.Delay+2*most+e.patience, func() bool { return r.finished() == 2 }) {
		e.Errorf("handled %d times; dead-lettered: %d. It was due after %v and may be %v old", r.finished(), c.Stats().DeadLettered, m.Delay, most)
	}
	c.stop()
	equal(e, "Stats().DeadLettered", c.Stats().DeadLettered, 0)
}

func interruptedNotDeadLettered(e *env) {
	q, dead := e.openPair(queue.QueueSpec{})
	r := e.recorder()
	mw := &deadLetters{to: dead, name: e.name(dead), maxFailures: 1}
	c := e.consume(q, r.handle(func(ctx context.Context, _ *queue.Delivery, nth int) error {
		if nth == 1 {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}), with(mw), drainTimeout(e.unit))
	e.publish(q, text("m"))
	r.awaitStarts("m", 1)
	c.stop()
	c.run()
	r.awaitEnds("m", 2)
	c.stop()
	equal(e, "Stats().DeadLettered", c.Stats().DeadLettered, 0)
	e.expectGone(dead)
}

func copyBeforeOriginal(e *env) {
	q, dead := e.openPair(queue.QueueSpec{})
	f := newFaultQueue(dead)
	var down atomic.Int32
	down.Store(3)
	f.send = func(ctx context.Context, msgs []*queue.Message, next publishFunc) error {
		if down.Add(-1) >= 0 {
			return errFault
		}
		return next(ctx, msgs...)
	}
	r := e.recorder()
	c := e.consume(q, r.handle(func(context.Context, *queue.Delivery, int) error { return queue.Reject(errWork) }),
		with(&deadLetters{to: f, name: e.name(dead)}))
	e.publish(q, text("m"))
	r.awaitEnds("m", 4)
	got := e.awaitDead(dead, "m")
	c.stop()
	r.expect("m", 4)
	if dl := got.DeadLetter; dl == nil || dl.Failures != 4 {
		e.Errorf("the copy's history is %+v, want four failures", dl)
	}
	e.expectGone(q)
}

func copyAnswerLost(e *env) {
	q, dead := e.openPair(queue.QueueSpec{})
	f := newFaultQueue(dead)
	var first atomic.Bool
	f.send = func(ctx context.Context, msgs []*queue.Message, next publishFunc) error {
		if err := next(ctx, msgs...); err != nil {
			return err
		}
		if first.CompareAndSwap(false, true) {
			return fmt.Errorf("%w: no answer", queue.ErrUnknownOutcome)
		}
		return nil
	}
	r := e.recorder()
	c := e.consume(q, r.handle(func(context.Context, *queue.Delivery, int) error { return queue.Reject(errWork) }),
		with(&deadLetters{to: f, name: e.name(dead)}))
	m := text("m")
	m.ID = "the-id"
	e.publish(q, m)
	r.awaitEnds("m", 2)
	got, dc := e.collect(dead)
	e.await("both copies", func() bool { return got.len() == 2 })
	dc.stop()
	c.stop()
	for _, d := range got.all() {
		equal(e, "ID of a copy", d.ID, "the-id")
	}
	e.expectGone(q)
}

func copyHasHistory(e *env) {
	q, dead := e.openPair(queue.QueueSpec{})
	m := &queue.Message{ID: "order-7", Body: []byte("m\x00"), Attributes: map[string]string{"k": "v", "e": ""}}
	r := e.recorder()
	c := e.consume(q, r.handle(func(_ context.Context, _ *queue.Delivery, nth int) error {
		if nth == 1 {
			return fmt.Errorf("first: %w", errWork)
		}
		panic(fmt.Errorf("number %d", 42))
	}), with(&deadLetters{to: dead, name: e.name(dead), maxFailures: 2}))
	before := time.Now()
	e.publish(q, m)
	calls := r.awaitEnds("m\x00", 2)
	got := e.awaitDead(dead, "m\x00")
	c.stop()
	if got.ID != m.ID || !maps.Equal(got.Attributes, m.Attributes) {
		e.Errorf("the copy has ID %q and attributes %q, want %q and %q", got.ID, got.Attributes, m.ID, m.Attributes)
	}
	equal(e, "Failures of the copy in its new queue", got.Failures, 0)
	dl := got.DeadLetter
	if dl == nil {
		e.Fatal("the copy has no history")
	}
	equal(e, "history: ID", dl.ID, m.ID)
	equal(e, "history: source", dl.Source, q.Capabilities().Source)
	equal(e, "history: failures", dl.Failures, 2)
	equal(e, "history: attempt", dl.Attempt, calls[1].d.Attempt)
	if !strings.Contains(dl.Error, "number 42") || dl.ErrorType == "" || !strings.Contains(dl.Stack, "queuetest.") || dl.Fingerprint == "" {
		e.Errorf("history: error %q, type %q, fingerprint %q, stack %.200q", dl.Error, dl.ErrorType, dl.Fingerprint, dl.Stack)
	}
	off := e.longer(time.Millisecond, 2*time.Second) // times travel in milliseconds
	if d := dl.FirstAt.Sub(before); d < -off || d > e.slack {
		e.Errorf("history: first at %v, published at %v", dl.FirstAt, before)
	}
	if d := dl.LastAt.Sub(calls[1].end); d < -e.slack || d > e.slack {
		e.Errorf("history: last at %v, failed at %v", dl.LastAt, calls[1].end)
	}
	if d := got.EnqueuedAt.Sub(before); d < -off || d > e.slack {
		e.Errorf("EnqueuedAt of the copy is %v; the original was published at %v", got.EnqueuedAt, before)
	}
	equal(e, "history: redriven", dl.Redriven, 0)
}

func fingerprintGroups(e *env) {
	q, dead := e.openPair(queue.QueueSpec{})
	c := e.consume(q, func(_ context.Context, d *queue.Delivery) error {
		switch body := string(d.Body); body[0] {
		case 'a':
			return queue.Reject(fmt.Errorf("order %s of customer %d not found", body[1:], len(body)*7))
		case 'b':
			return queue.Reject(errors.New("no route to host"))
		}
		panic("always the same place")
	}, with(&deadLetters{to: dead, name: e.name(dead), maxFailures: 1}))
	e.publish(q, text("a1"), text("a22"), text("b"), text("c"), text("cc"))
	got, dc := e.collect(dead)
	e.await("five dead letters", func() bool { return got.len() == 5 })
	dc.stop()
	c.stop()
	groups := map[string]string{}
	for _, d := range got.all() {
		kind := string(d.Body[:1])
		fp := d.DeadLetter.Fingerprint
		if old, ok := groups[kind]; ok && old != fp {
			e.Errorf("failures of kind %q have the fingerprints %q and %q", kind, old, fp)
		}
		groups[kind] = fp
	}
	if groups["a"] == groups["b"] || groups["b"] == groups["c"] || groups["a"] == groups["c"] {
		e.Errorf("different failures share a fingerprint: %v", groups)
	}
}

// ---- copies that must be made to fit

// roundTripDead sends m through a dead-letter queue and back, and fails unless
// it arrives both times as it was.
func (e *env) roundTripDead(m *queue.Message, failure error) *queue.DeadLetterInfo {
	e.Helper()
	q, dead := e.openPair(queue.QueueSpec{})
	var redriven atomic.Bool
	back := &deliveries{}
	c := e.consume(q, func(_ context.Context, d *queue.Delivery) error {
		if redriven.Load() {
			cp := *d
			cp.Body, cp.Attributes = slices.Clone(d.Body), maps.Clone(d.Attributes)
			back.mu.Lock()
			back.ds = append(back.ds, cp)
			back.mu.Unlock()
			e.poke.tell()
			return nil
		}
		return queue.Reject(failure)
	}, with(&deadLetters{to: dead, name: e.name(dead)}))
	e.publish(q, m)
	e.await("the message to be dead-lettered", func() bool { return c.Stats().DeadLettered == 1 })
	var info *queue.DeadLetterInfo
	look := e.take(dead, 1)[0]
	e.wantSame("in the dead-letter queue", look, m)
	info = look.DeadLetter
	e.settle(dead, release(look, 0))
	redriven.Store(true)
	e.redrive(dead, q, 1)
	e.await("the message to come back", func() bool { return back.len() == 1 })
	c.stop()
	d := back.all()[0]
	e.wantSame("after redrive", &d, m)
	e.expectGone(q)
	return info
}

func (e *env) wantSame(where string, d *queue.Delivery, m *queue.Message) {
	e.Helper()
	if !bytes.Equal(d.Body, m.Body) {
		e.Errorf("%s the body has %d bytes, sent were %d", where, len(d.Body), len(m.Body))
	}
	if len(d.Attributes) != len(m.Attributes) || len(m.Attributes) > 0 && !maps.Equal(d.Attributes, m.Attributes) {
		e.Errorf("%s there are %d attributes, sent were %d: %.300q", where, len(d.Attributes), len(m.Attributes), d.Attributes)
	}
	if m.ID != "" {
		equal(e, "ID "+where, d.ID, m.ID)
	}
}

// full returns a message that fills what the system takes: its attributes, then
// its body.
func full(w queue.Wire, attributes int) *queue.Message {
	m := &queue.Message{Attributes: someAttributes(attributes)}
	size := userBytes(w)
	if size == 0 {
		size = beyond
	}
	for k, v := range m.Attributes {
		size -= len(k) + len(v) + w.AttributeBytes
	}
	m.Body = bytes.Repeat([]byte("x"), size)
	return m
}

func fullSizeCopied(e *env) {
	w := e.open().Capabilities().Wire
	info := e.roundTripDead(full(w, 0), errWork)
	if w.MaxBytes > 0 && w.ReserveBytes == 0 && info != nil {
		e.Errorf("a copy of full size carries a history: %+v", info)
	}
	// A little room is used for what matters most.
	m := full(w, 0)
	m.Body = m.Body[:len(m.Body)-1200]
	info = e.roundTripDead(m, &queue.PanicError{Value: strings.Repeat("long error ", 1000), Stack: bytes.Repeat([]byte("frame\n"), 10_000)})
	if info == nil || info.Reason != queue.ReasonRejected || info.Failures != 1 {
		e.Errorf("a copy with room for 1,200 bytes carries the history %+v", info)
	}
}

func fullAttributesCopied(e *env) {
	w := e.open().Capabilities().Wire
	n := w.MaxAttributes
	if n == 0 {
		n = 100
	}
	m := &queue.Message{Body: []byte("small"), Attributes: someAttributes(n)}
	info := e.roundTripDead(m, errWork)
	if w.MaxValueBytes == 0 && (info == nil || info.Error != errWork.Error()) {
		e.Errorf("there's room to fold attributes away, but the history is %+v", info)
	}
	e.roundTripDead(full(w, n), errWork)
	// A binary body takes an attribute as well.
	m = &queue.Message{Body: []byte{0, 1, 2}, Attributes: someAttributes(n - 1)}
	e.roundTripDead(m, errWork)
}

func hugeHistoryCut(e *env) {
	stack := bytes.Repeat([]byte("main.handler(0x1)\n\t/src/main.go:17 +0x1d\n"), 100_000) // 4 MB
	m := &queue.Message{ID: "id", Body: []byte("small"), Attributes: map[string]string{"k": "v"}}
	info := e.roundTripDead(m, &queue.PanicError{Value: strings.Repeat("ü", 2_000_000), Stack: stack})
	if info == nil || !strings.HasPrefix(info.Error, "panic: ü") || info.Fingerprint == "" || info.ID != "id" {
		e.Errorf("history: %.300v; want the beginning of its error at least", info)
	}
}

func oddErrorText(e *env) {
	for name, failure := range map[string]error{
		"binary":       errors.New("bad \xff\x00\x01 bytes"),
		"noncharacter": errors.New("\uFFFE\uFFFF"),
		"empty":        errors.New(""),
		"quotes":       errors.New(`{"a": "\"}`),
		"no reason":    nil,
	} {
		m := &queue.Message{ID: "id", Body: []byte("small")}
		if info := e.roundTripDead(m, failure); info == nil || info.Reason != queue.ReasonRejected {
			e.Errorf("%s: the history is %+v", name, info)
		}
	}
}

func brokersOwnLimit(e *env) {
	const most = 5 // the least that Pub/Sub takes
	dead := e.open(queue.QueueSpec{IsDeadLetter: true})
	q := e.open(queue.QueueSpec{DeadLetter: e.name(dead), BrokerMaxAttempts: most})
	if got := q.Capabilities().BrokerMaxAttempts; got != most {
		if !e.lacks(featureBrokerLimit) {
			e.Errorf("Capabilities().BrokerMaxAttempts is %d, want %d", got, most)
		}
		return
	}
	m := &queue.Message{ID: "id", Body: []byte("m"), Attributes: map[string]string{"k": "v"}}
	r := e.recorder()
	c := e.consume(q, r.handle(func(context.Context, *queue.Delivery, int) error { return errWork }))
	e.publish(q, m)
	got := e.awaitDead(dead, "m")
	c.stop()
	r.expect("m", most)
	if got.ID != "id" || got.Attributes["k"] != "v" {
		e.Errorf("it arrived as ID %q with attributes %v", got.ID, got.Attributes)
	}
	e.expectGone(q)
}
