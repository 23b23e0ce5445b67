package queuetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// orderRules hold messages of one key to their order, and to nothing else.
func orderRules() []rule {
	return []rule{
		{"OneKeyIsHandledInOrderOneAtATime", "an update must not overtake the one before it", true, keyInOrder},
		{"OnePublishKeepsItsOrder", "batching and retrying must not reorder what was given in order", false, publishKeepsOrder},
		{"AFailingKeyHoldsBackItsFollowers", "what was fetched behind a failure must wait for it", true, failingKey},
		{"OtherKeysFlowPastAFailingOne", "one key holds back others only where the broker itself does", true, othersFlow},
		{"ASnoozedHeadHoldsBackItsFollowers", "'not yet' for the first means 'not yet' for those behind it", false, snoozedHead},
		{"AHeadThatComesBackAtOnceHoldsBackItsFollowers", "also where nothing has to be waited for", false, headAtOnce},
		{"FollowersOfAFailureHaveNotFailed", "waiting behind somebody else's failure isn't one", false, followersHaveNotFailed},
		{"ADeadLetteredHeadLetsItsFollowersGoOn", "a message that left the queue blocks nobody", false, deadHeadLetsGo},
		{"OrderSurvivesARestart", "a deployment in the middle of a key must not swap what follows", false, orderSurvivesRestart},
		{"OneKeyIsSerialAcrossConsumers", "where the broker locks keys, two processes never work on one at the same time", false, serialAcrossConsumers},
		{"MessagesWithoutAKeyAreIndependent", "no key means no order to keep, also in an ordered queue", false, unkeyedAreIndependent},
		{"AnOrderingKeyIsRefusedWithoutOrder", "an order that nobody keeps is a promise broken in silence", true, keyRefused},
		{"TheKeyArrives", "handlers and dead letters need it", false, keyArrives},
	}
}

// keyOf is what a test's names begin with: "a3" belongs to the key "a".
func keyOf(name string) string { return strings.TrimRight(name, "0123456789") }

// byKey publishes n messages of each key, the keys taking turns.
func (e *env) byKey(q queue.Queue, n int, keys ...string) {
	e.Helper()
	var msgs []*queue.Message
	for i := range n {
		for _, k := range keys {
			msgs = append(msgs, keyed(k, fmt.Sprint(k, i)))
		}
	}
	e.publish(q, msgs...)
}

// expectOrder fails unless each key's messages were handled in their order, one
// at a time: none before the one ahead of it had succeeded or left the queue.
func (e *env) expectOrder(r *recorder, n int, keys ...string) {
	e.Helper()
	for _, k := range keys {
		var busyUntil time.Time
		var busy string
		for _, c := range r.all() {
			if keyOf(c.name) != k {
				continue
			}
			if c.start.Before(busyUntil) {
				e.Errorf("%q was started at %v while %q of the same key ran until %v", c.name, c.start, busy, busyUntil)
			}
			busy, busyUntil = c.name, c.end
		}
		var done time.Time // when the one ahead was done with
		for i := range n {
			name := fmt.Sprint(k, i)
			calls := r.of(name)
			if len(calls) == 0 {
				e.Errorf("%q was never handled", name)
				continue
			}
			if calls[0].start.Before(done) {
				e.Errorf("%q was started at %v; the one ahead of it was done with only at %v", name, calls[0].start, done)
			}
			done = calls[len(calls)-1].end
			if at := slices.IndexFunc(calls, func(c call) bool { return c.err == nil }); at >= 0 {
				done = calls[at].end
			}
		}
	}
}

func keyInOrder(e *env) {
	q, ok := e.ordered()
	if !ok {
		return
	}
	keys := []string{"a", "b", "c", "d"}
	r := e.recorder()
	c := e.consume(q, r.handle(func(ctx context.Context, _ *queue.Delivery, _ int) error {
		return linger(ctx, e.longer(time.Second, 20*time.Millisecond))
	}))
	e.byKey(q, 12, keys...)
	for _, k := range keys {
		r.awaitAll(k, 12)
	}
	c.stop()
	e.expectOrder(r, 12, keys...)
	if r.highest() < 2 {
		e.Error("never two keys were handled at once; order is per key")
	}
	e.expectGone(q)
}

func publishKeepsOrder(e *env) {
	q, ok := e.ordered()
	if !ok {
		return
	}
	const n = 45 // several requests of any broker
	e.byKey(q, n, "a", "b")
	r := e.recorder()
	c := e.consume(q, r.ok())
	r.awaitAll("a", n)
	r.awaitAll("b", n)
	c.stop()
	e.expectOrder(r, n, "a", "b")
}

// failsOnce makes a0 fail the first time.
func failsOnce(err error) func(context.Context, *queue.Delivery, int) error {
	return func(_ context.Context, d *queue.Delivery, nth int) error {
		if string(d.Body) == "a0" && nth == 1 {
			return err
		}
		return nil
	}
}

func failingKey(e *env) {
	q, ok := e.ordered()
	if !ok {
		return
	}
	r := e.recorder()
	e.byKey(q, 5, "a")
	c := e.consume(q, r.handle(failsOnce(errWork)), backoff(2*e.unit, 2*e.unit))
	r.awaitAll("a", 5)
	c.stop()
	calls := r.of("a0")
	if len(calls) < 2 {
		e.Fatalf("a0 was handled %d times", len(calls))
	}
	e.between("the head's backoff", calls[1].start.Sub(calls[0].end), 2*e.unit-e.early(), 2*e.unit)
	for i := 1; i < 5; i++ {
		for _, call := range r.of(fmt.Sprint("a", i)) {
			if call.start.Before(calls[1].end) {
				e.Errorf("%q was handled before a0, which had failed, was tried again", call.name)
			}
		}
	}
	e.expectOrder(r, 5, "a")
	e.expectGone(q)
}

func othersFlow(e *env) {
	q, ok := e.ordered()
	if !ok {
		return
	}
	e.byKey(q, 4, "a", "b", "c")
	r := e.recorder()
	wait := e.longer(5*time.Minute, 6*e.unit)
	begun := time.Now()
	c := e.consume(q, r.handle(failsOnce(errWork)), backoff(wait, wait))
	r.awaitAll("b", 4)
	r.awaitAll("c", 4)
	if d := time.Since(begun); d > e.slack && d >= wait {
		e.Errorf("the keys b and c took %v beside a failing key that waits for %v", d, wait)
	}
	r.awaitAll("a", 4)
	c.stop()
	e.expectOrder(r, 4, "a", "b", "c")
}

func snoozedHead(e *env) {
	e.headComesBack("Snooze", queue.Snooze(2*e.unit))
	e.headComesBack("RetryAfter", queue.RetryAfter(2*e.unit, errWork))
}

func headAtOnce(e *env) { e.headComesBack("Snooze(0)", queue.Snooze(0)) }

// headComesBack expects that nothing overtakes the first message of a key, which its
// handler has put off with err.
func (e *env) headComesBack(kind string, err error) {
	e.Helper()
	q, ok := e.ordered()
	if !ok {
		return
	}
	r := e.recorder()
	e.byKey(q, 4, "a", "b")
	c := e.consume(q, r.handle(failsOnce(err)))
	r.awaitAll("a", 4)
	r.awaitAll("b", 4)
	c.stop()
	r.expect("a0", 2)
	e.expectOrder(r, 4, "a", "b")
	if e.Failed() {
		e.Fatalf("with %s", kind)
	}
}

func followersHaveNotFailed(e *env) {
	q, ok := e.ordered()
	if !ok {
		return
	}
	r := e.recorder()
	e.byKey(q, 4, "a")
	c := e.consume(q, r.handle(func(_ context.Context, d *queue.Delivery, nth int) error {
		if string(d.Body) == "a0" && nth <= 4 {
			return errWork
		}
		return nil
	}))
	r.awaitAll("a", 4)
	c.stop()
	for i, call := range r.of("a0") {
		equal(e, "Failures of the head", call.d.Failures, i)
	}
	for i := 1; i < 4; i++ {
		for _, call := range r.of(fmt.Sprint("a", i)) {
			equal(e, "Failures of the follower "+call.name, call.d.Failures, 0)
		}
	}
}

func deadHeadLetsGo(e *env) {
	dead, ok := e.orderedSpec(queue.QueueSpec{Ordered: true, IsDeadLetter: true})
	if !ok {
		return
	}
	q := e.open(queue.QueueSpec{Ordered: true})
	r := e.recorder()
	e.byKey(q, 4, "a")
	c := e.consume(q, r.handle(func(_ context.Context, d *queue.Delivery, _ int) error {
		if string(d.Body) == "a0" {
			return errWork
		}
		return nil
	}), with(&deadLetters{to: dead, name: e.name(dead), maxFailures: 2}))
	r.awaitAll("a", 4)
	got := e.awaitDead(dead, "a0")
	c.stop()
	r.expect("a0", 2)
	e.expectOrder(r, 4, "a")
	equal(e, "OrderingKey of the dead letter", got.OrderingKey, "a")
	e.expectGone(q)
}

func orderSurvivesRestart(e *env) {
	q, ok := e.ordered()
	if !ok {
		return
	}
	const n = 20
	e.byKey(q, n, "a", "b")
	r := e.recorder()
	slow := r.handle(func(ctx context.Context, _ *queue.Delivery, _ int) error {
		return linger(ctx, e.longer(time.Second, 30*time.Millisecond))
	})
	for round := 1; round <= 3; round++ {
		c := e.consume(e.again(q), slow)
		r.awaitStarts("", 8*round)
		c.stop()
	}
	c := e.consume(e.again(q), slow)
	r.awaitAll("a", n)
	r.awaitAll("b", n)
	c.stop()
	e.expectOrder(r, n, "a", "b")
	for _, k := range []string{"a", "b"} {
		for i := range n {
			r.expect(fmt.Sprint(k, i), 1)
		}
	}
}

func serialAcrossConsumers(e *env) {
	q, ok := e.ordered()
	if !ok {
		return
	}
	keys := []string{"a", "b", "c"}
	const n = 10
	r := e.recorder()
	var mu sync.Mutex
	busy := map[string]int{}
	work := r.handle(func(ctx context.Context, d *queue.Delivery, nth int) error {
		mu.Lock()
		busy[d.OrderingKey]++
		if b := busy[d.OrderingKey]; b > 1 && q.Capabilities().KeyLocked {
			e.Errorf("%d handlers work on key %q at the same time", b, d.OrderingKey)
		}
		mu.Unlock()
		err := linger(ctx, e.longer(time.Second, 20*time.Millisecond))
		mu.Lock()
		busy[d.OrderingKey]--
		mu.Unlock()
		if string(d.Body) == "b3" && nth == 1 {
			return errWork
		}
		return err
	})
	one, two := e.consume(e.again(q), work), e.consume(e.again(q), work)
	e.byKey(q, n, keys...)
	for _, k := range keys {
		r.awaitAll(k, n)
	}
	one.stop()
	two.stop()
	if q.Capabilities().KeyLocked {
		e.expectOrder(r, n, keys...)
	}
	e.expectGone(q)
}

func unkeyedAreIndependent(e *env) {
	q, ok := e.ordered()
	if !ok {
		return
	}
	r := e.recorder()
	hold := e.latch()
	c := e.consume(q, r.handle(func(_ context.Context, d *queue.Delivery, nth int) error {
		switch {
		case string(d.Body) == "m0" && nth == 1:
			return errWork
		case string(d.Body) == "m1":
			hold.wait()
		}
		return nil
	}), backoff(2*e.unit, 2*e.unit))
	e.publishCount(q, "m", 8)
	e.await("six messages to be handled beside one that runs and one that has failed", func() bool {
		return len(r.missing("m", 8)) <= 1
	})
	hold.open()
	r.awaitEnds("m0", 2)
	r.awaitAll("m", 8)
	c.stop()
	for _, call := range r.all() {
		equal(e, "OrderingKey of "+call.name, call.d.OrderingKey, "")
	}
	e.expectGone(q)
}

func keyRefused(e *env) {
	q := e.open()
	if q.Capabilities().Ordering {
		// Asserted on queues that keep no order; here a key just works.
		r := e.recorder()
		c := e.consume(q, r.ok())
		e.publish(q, keyed("k", "k0"))
		r.awaitAll("k", 1)
		c.stop()
		return
	}
	err := q.Publish(e.ctx, text("before"), keyed("k", "k0"), text("after"))
	e.wantFailed(err, map[int]error{1: queue.ErrUnsupported})
	r := e.recorder()
	c := e.consume(q, r.ok())
	r.awaitEnds("before", 1)
	r.awaitEnds("after", 1)
	c.stop()
	e.expectGone(q)
	r.expect("k0", 0)
}

func keyArrives(e *env) {
	q, ok := e.ordered()
	if !ok {
		return
	}
	keys := []string{"a", "customer-42", "!#$%&'()*+,-./:;<=>?@[]^_`{|}~", strings.Repeat("k", 128)}
	r := e.recorder()
	c := e.consume(q, r.ok())
	for i, k := range keys {
		e.publish(q, keyed(k, fmt.Sprint("m", i)))
	}
	r.awaitAll("m", len(keys))
	c.stop()
	for i, k := range keys {
		equal(e, "OrderingKey", r.of(fmt.Sprint("m", i))[0].d.OrderingKey, k)
	}
}
