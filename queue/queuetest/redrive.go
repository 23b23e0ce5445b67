package queuetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// redriveRules hold the way back out of a dead-letter queue.
func redriveRules() []rule {
	return []rule{
		{"EverythingComesBackAsItWas", "after the fix of a bug all that it broke is done", true, redriveAll},
		{"TheHistoryStaysWithTheMessage", "whoever sees it fail again must see that it's the second time", false, redriveHistory},
		{"TheAgeCountsFromTheRedrive", "what's old because it lay in the dead-letter queue must get a chance", false, redriveAge},
		{"FailuresBeginAnew", "what failed before the fix doesn't count after it", false, redriveFailures},
		{"OnlyWhatIsSelectedMoves", "a person fixes one kind of failure at a time", false, redriveFilter},
		{"WhatCameFromElsewhereStays", "a dead-letter queue may be shared: a message must not end up in another queue than its own", false, redriveElsewhere},
		{"MaxEndsIt", "a first few as a test, then the rest", false, redriveMax},
		{"TheRateIsKept", "what comes back in a flood breaks the fixed party again", false, redriveRate},
		{"ProgressIsTold", "people watch it", false, redriveProgress},
		{"ACancelledRedriveLosesNothing", "people stop it when they see it go wrong", false, redriveCancelled},
		{"WhatFailsAgainIsNotMovedAgain", "all means what was there when asked: it must end", false, redriveEnds},
		{"WhatCannotBePublishedStays", "each is removed only after its copy is durable", false, redrivePublishFails},
		{"MessagesWithoutAHistoryMoveToo", "the broker itself or a foreign program may have put them there", false, redrivePlain},
		{"TheOrderingKeyIsKept", "in an ordered queue it decides what may run beside it", false, redriveKeyed},
	}
}

// redrive moves n messages back, as soon as they're there.
func (e *env) redrive(from, to queue.Queue, n int) {
	e.Helper()
	moved := 0
	ok := e.eventually(e.patience, func() bool {
		res, err := queue.Redrive(e.ctx, from, to, &queue.RedriveOptions{Quiet: e.quietFor()})
		if err != nil {
			e.Errorf("Redrive: %v", err)
			return true
		}
		moved += res.Moved
		return moved >= n
	})
	if !ok || moved != n {
		e.Fatalf("Redrive has moved %d messages, want %d", moved, n)
	}
}

// quietFor is how long a dead-letter queue must have been empty to count so.
func (e *env) quietFor() time.Duration { return e.longer(10*time.Second, 3*time.Second) }

// fillDead dead-letters n messages named prefix0 ... and returns their source.
func (e *env) fillDead(prefix string, n int) (q, dead queue.Queue) {
	e.Helper()
	q, dead = e.openPair(queue.QueueSpec{})
	c := e.consume(q, func(context.Context, *queue.Delivery) error { return queue.Reject(errWork) },
		with(&deadLetters{to: dead, name: e.name(dead)}))
	e.publishCount(q, prefix, n)
	e.await("all to be dead-lettered", func() bool { return c.Stats().DeadLettered == uint64(n) })
	c.stop()
	return q, dead
}

func redriveAll(e *env) {
	q, dead := e.openPair(queue.QueueSpec{})
	c := e.consume(q, func(context.Context, *queue.Delivery) error { return queue.Reject(errWork) },
		with(&deadLetters{to: dead, name: e.name(dead)}))
	const n = 25
	for i := range n {
		e.publish(q, &queue.Message{ID: fmt.Sprint("id", i), Body: []byte{byte(i), 0xff}, Attributes: map[string]string{"n": fmt.Sprint(i), "e": ""}})
	}
	e.await("all to be dead-lettered", func() bool { return c.Stats().DeadLettered == n })
	c.stop()
	e.quiet(e.longer(time.Minute, 10*time.Millisecond)) // what's dead-lettered at the very moment is left
	res, err := queue.Redrive(e.ctx, dead, q, &queue.RedriveOptions{Quiet: e.quietFor()})
	if err != nil || res.Moved != n || res.Skipped+res.Newer+res.Failed+res.Repeated != 0 {
		e.Errorf("Redrive: %+v, %v; want %d moved", res, err, n)
	}
	got, c := e.collect(q)
	e.await("all to come back", func() bool { return got.len() >= n })
	c.stop()
	for i := range n {
		d, ok := got.get(fmt.Sprint("id", i))
		want := map[string]string{"n": fmt.Sprint(i), "e": ""}
		if !ok || string(d.Body) != string([]byte{byte(i), 0xff}) || !maps.Equal(d.Attributes, want) {
			e.Errorf("id%d came back as %q with %v", i, d.Body, d.Attributes)
		}
	}
	equal(e, "messages that came back", got.len(), n)
	e.expectGone(dead)
	res, err = queue.Redrive(e.ctx, dead, q, &queue.RedriveOptions{Quiet: e.quietFor()})
	if err != nil || res != (queue.RedriveResult{}) {
		e.Errorf("Redrive of an empty queue: %+v, %v", res, err)
	}
}

func redriveHistory(e *env) {
	q, dead := e.openPair(queue.QueueSpec{})
	r := e.recorder()
	c := e.consume(q, r.handle(func(_ context.Context, _ *queue.Delivery, nth int) error {
		if nth <= 2 {
			return queue.Reject(fmt.Errorf("time %d", nth))
		}
		return nil
	}), with(&deadLetters{to: dead, name: e.name(dead)}))
	begun := time.Now()
	e.publish(q, text("m"))
	for round := 1; round <= 2; round++ {
		r.awaitEnds("m", round)
		e.quiet(e.unit)
		e.redrive(dead, q, 1)
		call := r.awaitEnds("m", round+1)[round]
		dl := call.d.DeadLetter
		if dl == nil || dl.Redriven != round || dl.Error != fmt.Sprintf("time %d", round) || dl.Source != q.Capabilities().Source {
			e.Errorf("after redrive %d the history is %+v", round, dl)
		}
		if off := call.d.EnqueuedAt.Sub(begun); off < -e.slack || off > e.slack {
			e.Errorf("after redrive %d EnqueuedAt is %v after the publish", round, off)
		}
	}
	c.stop()
}

func redriveAge(e *env) {
	q, dead := e.openPair(queue.QueueSpec{})
	most := e.longer(time.Hour, 4*e.unit)
	r := e.recorder()
	c := e.consume(q, r.handle(func(_ context.Context, _ *queue.Delivery, nth int) error {
		switch nth {
		case 1:
			return queue.Reject(errWork)
		case 2:
			return errWork // at an age that's beyond the limit, counted from the publish
		}
		return nil
	}), with(&deadLetters{to: dead, name: e.name(dead), maxAge: most}))
	e.publish(q, text("m"))
	r.awaitEnds("m", 1)
	e.quiet(2 * most)
	e.redrive(dead, q, 1)
	call := r.awaitEnds("m", 3)[1]
	c.stop()
	equal(e, "Stats().DeadLettered", c.Stats().DeadLettered, 1)
	if age := call.start.Sub(call.d.AgeFrom()); age > e.slack+e.quietFor() {
		e.Errorf("the age after the redrive is %v", age)
	}
}

func redriveFailures(e *env) {
	q, dead := e.openPair(queue.QueueSpec{})
	r := e.recorder()
	c := e.consume(q, r.handle(func(_ context.Context, _ *queue.Delivery, nth int) error {
		if nth <= 5 {
			return errWork
		}
		return nil
	}), with(&deadLetters{to: dead, name: e.name(dead), maxFailures: 3}))
	e.publish(q, text("m"))
	r.awaitEnds("m", 3)
	e.quiet(e.unit)
	e.redrive(dead, q, 1)
	calls := r.awaitEnds("m", 6)
	c.stop()
	for i, want := range []int{0, 1, 2, 0, 1, 2} {
		if got := calls[i].d.Failures; got != want {
			e.Errorf("Failures of delivery %d: got %d, want %d", i+1, got, want)
		}
	}
}

func redriveFilter(e *env) {
	q, dead := e.fillDead("m", 6)
	e.quiet(e.unit)
	even := func(d *queue.Delivery) bool { return (d.Body[1]-'0')%2 == 0 }
	res, err := queue.Redrive(e.ctx, dead, q, &queue.RedriveOptions{Filter: even, Quiet: e.quietFor()})
	if err != nil || res.Moved != 3 || res.Skipped != 3 {
		e.Errorf("Redrive with a filter: %+v, %v; want 3 moved and 3 skipped", res, err)
	}
	back, left := e.recorder(), e.recorder()
	c, cd := e.consume(q, back.ok()), e.consume(dead, left.ok())
	e.await("three back and three left", func() bool { return back.finished() == 3 && left.finished() == 3 })
	c.stop()
	cd.stop()
	for i := range 6 {
		name := fmt.Sprint("m", i)
		if got := back.started(name) == 1; got != (i%2 == 0) || left.started(name) == 1 == got {
			e.Errorf("%s: back %d, left %d", name, back.started(name), left.started(name))
		}
	}
	for _, call := range left.all() {
		if call.d.DeadLetter == nil {
			e.Errorf("%q has lost its history by being looked at", call.name)
		}
	}
}

func redriveElsewhere(e *env) {
	q, dead := e.fillDead("m", 3)
	other := e.open()
	c := e.consume(other, func(context.Context, *queue.Delivery) error { return queue.Reject(errWork) },
		with(&deadLetters{to: dead, name: e.name(dead)}))
	e.publishCount(other, "o", 2)
	e.await("all to be dead-lettered", func() bool { return c.Stats().DeadLettered == 2 })
	c.stop()
	e.quiet(e.unit)
	res, err := queue.Redrive(e.ctx, dead, q, &queue.RedriveOptions{Quiet: e.quietFor()})
	if err != nil || res.Moved != 3 || res.Skipped != 2 {
		e.Errorf("Redrive from a shared dead-letter queue: %+v, %v; want 3 moved and 2 skipped", res, err)
	}
	res, err = queue.Redrive(e.ctx, dead, q, &queue.RedriveOptions{AnySource: true, Quiet: e.quietFor()})
	if err != nil || res.Moved != 2 {
		e.Errorf("Redrive of any source: %+v, %v; want 2 moved", res, err)
	}
	r := e.recorder()
	c = e.consume(q, r.ok())
	r.awaitAll("m", 3)
	r.awaitAll("o", 2)
	c.stop()
	e.expectGone(dead)
}

func redriveMax(e *env) {
	q, dead := e.fillDead("m", 8)
	e.quiet(e.unit)
	res, err := queue.Redrive(e.ctx, dead, q, &queue.RedriveOptions{Max: 3, Quiet: e.quietFor()})
	if err != nil || res.Moved != 3 {
		e.Errorf("Redrive with Max 3: %+v, %v", res, err)
	}
	e.redrive(dead, q, 5)
	r := e.recorder()
	c := e.consume(q, r.ok())
	r.awaitAll("m", 8)
	c.stop()
	e.expectGone(dead)
}

func redriveRate(e *env) {
	q, dead := e.fillDead("m", 10)
	e.quiet(e.unit)
	begun := time.Now()
	const rate = 5
	res, err := queue.Redrive(e.ctx, dead, q, &queue.RedriveOptions{Rate: rate, Quiet: e.quietFor()})
	if err != nil || res.Moved != 10 {
		e.Errorf("Redrive: %+v, %v", res, err)
	}
	if took := time.Since(begun); took < (10/rate-1)*time.Second {
		e.Errorf("ten messages at %d a second took %v", rate, took)
	}
	r := e.recorder()
	c := e.consume(q, r.ok())
	r.awaitAll("m", 10)
	c.stop()
}

func redriveProgress(e *env) {
	q, dead := e.fillDead("m", 12)
	e.quiet(e.unit)
	var told []queue.RedriveResult
	res, err := queue.Redrive(e.ctx, dead, q, &queue.RedriveOptions{
		Rate: 4, Quiet: e.quietFor(), Progress: func(r queue.RedriveResult) { told = append(told, r) },
	})
	if err != nil || len(told) < 3 || told[len(told)-1] != res {
		e.Errorf("Redrive: %+v, %v; Progress was told %+v", res, err, told)
	}
	for i := 1; i < len(told); i++ {
		if told[i].Moved < told[i-1].Moved {
			e.Errorf("Progress went back: %+v", told)
		}
	}
}

func redriveCancelled(e *env) {
	const n = 12
	q, dead := e.fillDead("m", n)
	e.quiet(e.unit)
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	res, err := queue.Redrive(ctx, dead, q, &queue.RedriveOptions{
		Rate: 4, Quiet: e.quietFor(), Progress: func(queue.RedriveResult) { cancel() },
	})
	if !errors.Is(err, context.Canceled) || res.Moved == 0 || res.Moved >= n {
		e.Errorf("a cancelled Redrive: %+v, %v; want a part moved", res, err)
	}
	back, left := e.recorder(), e.recorder()
	c, cd := e.consume(q, back.ok()), e.consume(dead, left.ok())
	e.await("each message in one of the queues", func() bool { return back.finished()+left.finished() >= n })
	c.stop()
	cd.stop()
	equal(e, "messages that came back", back.started(""), res.Moved)
	for i := range n {
		name := fmt.Sprint("m", i)
		if back.started(name)+left.started(name) != 1 {
			e.Errorf("%s: back %d, left %d", name, back.started(name), left.started(name))
		}
	}
}

func redriveEnds(e *env) {
	q, dead := e.openPair(queue.QueueSpec{})
	r := e.recorder()
	c := e.consume(q, r.handle(func(context.Context, *queue.Delivery, int) error { return queue.Reject(errWork) }),
		with(&deadLetters{to: dead, name: e.name(dead)}))
	e.publishCount(q, "m", 5)
	e.await("all to be dead-lettered", func() bool { return c.Stats().DeadLettered == 5 })
	e.quiet(e.unit)
	res, err := queue.Redrive(e.ctx, dead, q, &queue.RedriveOptions{Quiet: e.quietFor()})
	if err != nil || res.Moved != 5 {
		e.Errorf("Redrive beside a consumer that rejects everything: %+v, %v; want 5 moved, once", res, err)
	}
	e.await("all to be dead-lettered again", func() bool { return c.Stats().DeadLettered == 10 })
	c.stop()
	for i := range 5 {
		r.expect(fmt.Sprint("m", i), 2)
	}
}

func redrivePublishFails(e *env) {
	q, dead := e.fillDead("m", 4)
	e.quiet(e.unit)
	// Without the Redriver behind it, so that the failure is seen.
	res, err := queue.Redrive(e.ctx, dead, refusing{q, "m2"}, &queue.RedriveOptions{Quiet: e.quietFor()})
	if !errors.Is(err, errFault) || res.Moved != 3 || res.Failed != 1 {
		e.Errorf("Redrive where one publish fails: %+v, %v; want 3 moved, 1 failed and its error", res, err)
	}
	r, left := e.recorder(), e.recorder()
	c, cd := e.consume(q, r.ok()), e.consume(dead, left.ok())
	left.awaitEnds("m2", 1)
	e.await("the others to come back", func() bool { return r.finished() == 3 })
	c.stop()
	cd.stop()
	r.expect("m2", 0)
}

// refusing fails to publish one message. It hides the queue's Redriver.
type refusing struct {
	queue.Queue
	name string
}

func (q refusing) Publish(ctx context.Context, msgs ...*queue.Message) error {
	errs := make([]error, len(msgs))
	for i, m := range msgs {
		if string(m.Body) == q.name {
			errs[i] = errFault
			continue
		}
		errs[i] = queue.PublishErrors(q.Queue.Publish(ctx, m), 1)[0]
	}
	return queue.NewPublishError(errs)
}

func redrivePlain(e *env) {
	q, dead := e.openPair(queue.QueueSpec{})
	e.publish(dead, &queue.Message{ID: "id", Body: []byte("m"), Attributes: map[string]string{"k": "v"}})
	e.quiet(e.longer(time.Minute, 1500*time.Millisecond)) // a server's clock may keep seconds only
	e.redrive(dead, q, 1)
	got, c := e.collect(q)
	e.await("the message", func() bool { return got.len() == 1 })
	c.stop()
	if d := got.all()[0]; d.ID != "id" || d.Attributes["k"] != "v" || d.DeadLetter != nil {
		e.Errorf("it came as %+v", d)
	}
}

func redriveKeyed(e *env) {
	dead, ok := e.orderedSpec(queue.QueueSpec{Ordered: true, IsDeadLetter: true})
	if !ok {
		return
	}
	q := e.open(queue.QueueSpec{Ordered: true})
	r := e.recorder()
	c := e.consume(q, r.handle(func(_ context.Context, d *queue.Delivery, nth int) error {
		if nth == 1 {
			return queue.Reject(errWork)
		}
		return linger(context.Background(), e.longer(time.Second, 20*time.Millisecond))
	}), with(&deadLetters{to: dead, name: e.name(dead)}))
	e.byKey(q, 4, "a", "b")
	e.await("all to be dead-lettered", func() bool { return c.Stats().DeadLettered == 8 })
	e.quiet(e.unit)
	e.redrive(dead, q, 8)
	r.awaitAll("a", 4)
	e.await("all to be handled again", func() bool { return r.finished() == 16 })
	c.stop()
	for _, call := range r.all() {
		equal(e, "OrderingKey of "+call.name, call.d.OrderingKey, keyOf(call.name))
	}
	e.expectGone(dead)
}
