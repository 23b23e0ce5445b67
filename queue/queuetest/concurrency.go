package queuetest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// concurrencyRules hold the engine to its bound on handlers, and to fetching no
// more than it can start.
func concurrencyRules() []rule {
	return []rule{
		{"NeverMoreHandlersThanTheLimit", "the limit protects what the handlers use: a database, a partner", true, neverMore},
		{"TheLimitIsReached", "slots that stay empty while messages wait are wasted", false, limitReached},
		{"ConcurrencyGrowsLive", "people raise it when a queue grows, without a restart", false, growsLive},
		{"ConcurrencyShrinksLive", "it returns at once; running handlers finish, and none starts until there's room", false, shrinksLive},
		{"ALimitBelowOneIsRefused", "nothing would ever run", false, limitRefused},
		{"TwoConsumersShareAQueue", "a queue has competing consumers", true, consumersShare},
		{"OneQueueNeverStarvesAnother", "failures and floods stay where they happened", false, noStarving},
		{"OnlyWhatCanStartIsFetched", "what waits in memory ages its lease, and others could have had it", false, fetchesOnlyNeeded},
		{"WhatCannotStartSoonIsGivenBack", "a consumer that was fast and hangs must not hide messages", false, givesBack},
		{"AnIdleConsumerHasOneOpenReceive", "idle queues must not cost requests", false, oneReceiveIdle},
	}
}

func neverMore(e *env) {
	q := e.open()
	const n, limit = 40, 5
	e.publishCount(q, "m", n)
	r := e.recorder()
	c := e.consume(q, r.handle(func(ctx context.Context, _ *queue.Delivery, _ int) error {
		return linger(ctx, e.longer(time.Second, 30*time.Millisecond))
	}), concurrency(limit))
	r.awaitAll("m", n)
	c.stop()
	if p := r.highest(); p > limit {
		e.Errorf("%d handlers ran at once; the limit is %d", p, limit)
	}
	if s := c.Stats(); s.Concurrency != limit || s.InUse != 0 {
		e.Errorf("Stats: Concurrency %d, InUse %d; want %d and 0", s.Concurrency, s.InUse, limit)
	}
}

func limitReached(e *env) {
	q := e.open()
	const limit = 25 // more than one receive of any broker brings
	e.publishCount(q, "m", limit+5)
	r := e.recorder()
	hold := e.latch()
	c := e.consume(q, r.handle(func(context.Context, *queue.Delivery, int) error {
		hold.wait()
		return nil
	}), concurrency(limit))
	r.awaitStarts("", limit)
	equal(e, "Stats().InUse", c.Stats().InUse, limit)
	e.quiet(e.unit / 2)
	if n := r.highest(); n != limit {
		e.Errorf("%d handlers run at once; the limit is %d", n, limit)
	}
	hold.open()
	r.awaitAll("m", limit+5)
	c.stop()
}

func growsLive(e *env) {
	q := e.open()
	e.publishCount(q, "m", 20)
	r := e.recorder()
	hold := e.latch()
	c := e.consume(q, r.handle(func(context.Context, *queue.Delivery, int) error {
		hold.wait()
		return nil
	}), concurrency(2))
	r.awaitStarts("", 2)
	e.quiet(e.unit / 2)
	if n := r.highest(); n != 2 {
		e.Errorf("%d handlers run at once; the limit is 2", n)
	}
	for _, limit := range []int{7, 12} {
		if err := c.SetConcurrency(limit); err != nil {
			e.Errorf("SetConcurrency(%d): %v", limit, err)
		}
		equal(e, "Stats().Concurrency", c.Stats().Concurrency, limit)
		r.awaitStarts("", limit)
		e.quiet(e.unit / 2)
		if n := r.highest(); n != limit {
			e.Errorf("%d handlers run at once; the limit is %d", n, limit)
		}
	}
	hold.open()
	r.awaitAll("m", 20)
	c.stop()
	for i := range 20 {
		r.expect(fmt.Sprint("m", i), 1)
	}
}

func shrinksLive(e *env) {
	q := e.open()
	e.publishCount(q, "m", 24)
	r := e.recorder()
	hold := e.latch()
	one := make(chan struct{}) // lets one handler return
	c := e.consume(q, r.handle(func(context.Context, *queue.Delivery, int) error {
		select {
		case <-hold.ch:
		case <-one:
		}
		return nil
	}), concurrency(8))
	r.awaitStarts("", 8)
	begun := time.Now()
	if err := c.SetConcurrency(3); err != nil {
		e.Errorf("SetConcurrency(3): %v", err)
	}
	e.between("SetConcurrency", time.Since(begun), 0, 0)
	equal(e, "running handlers after shrinking", r.inUse(), 8)
	for range 5 {
		one <- struct{}{}
	}
	e.await("five handlers to finish", func() bool { return r.finished() == 5 })
	e.quiet(e.unit / 2)
	equal(e, "handlers started while more ran than the new limit", r.started(""), 8)
	one <- struct{}{}
	r.awaitStarts("", 9)
	_ = r.highest()
	hold.open()
	r.awaitAll("m", 24)
	if n := r.highest(); n > 3 {
		e.Errorf("%d handlers ran at once; the limit is 3", n)
	}
	c.stop()
	for i := range 24 {
		r.expect(fmt.Sprint("m", i), 1)
	}
}

func limitRefused(e *env) {
	q := e.open()
	c := e.consumer(q, e.recorder().ok())
	for _, n := range []int{0, -1} {
		e.wantErr(c.SetConcurrency(n), queue.ErrInvalid, fmt.Sprintf("SetConcurrency(%d)", n))
	}
	for name, o := range map[string]*queue.ConsumerOptions{
		"Concurrency":    {Concurrency: -1},
		"MaxExtension":   {MaxExtension: -1},
		"HandlerTimeout": {HandlerTimeout: -1},
		"MaxHold":        {MaxHold: -1},
		"Backoff":        {Backoff: queue.Backoff{Min: 2, Max: 1}},
	} {
		_, err := queue.NewConsumer(q, e.recorder().ok(), o)
		e.wantErr(err, queue.ErrInvalid, "a consumer with a bad "+name)
	}
	_, err := queue.NewConsumer(nil, e.recorder().ok(), nil)
	e.wantErr(err, queue.ErrInvalid, "a consumer without a subscriber")
	_, err = queue.NewConsumer(q, nil, nil)
	e.wantErr(err, queue.ErrInvalid, "a consumer without a handler")
}

func consumersShare(e *env) {
	q := e.open()
	const n = 60
	r := e.recorder()
	var mu sync.Mutex
	by := map[int]int{}
	var cs []*consumer
	for i := range 3 {
		cs = append(cs, e.consume(e.again(q), r.handle(func(ctx context.Context, _ *queue.Delivery, _ int) error {
			mu.Lock()
			by[i]++
			mu.Unlock()
			return linger(ctx, e.longer(time.Second, 30*time.Millisecond))
		}), concurrency(2)))
	}
	e.publishCount(q, "m", n)
	r.awaitAll("m", n)
	for _, c := range cs {
		c.stop()
	}
	for i := range n {
		r.expect(fmt.Sprint("m", i), 1)
	}
	for i := range cs {
		if by[i] == 0 {
			e.Errorf("consumer %d got none of %d messages: %v", i, n, by)
		}
	}
	if p := r.highest(); p > 6 {
		e.Errorf("%d handlers ran at once in three consumers of two", p)
	}
}

func noStarving(e *env) {
	flooded, calm := e.open(), e.open()
	hold := e.latch()
	rf, rc := e.recorder(), e.recorder()
	cf := e.consume(flooded, rf.handle(func(context.Context, *queue.Delivery, int) error {
		hold.wait()
		return nil
	}), concurrency(4))
	cc := e.consume(calm, rc.ok())
	e.publishCount(flooded, "f", 50)
	rf.awaitStarts("", 4)
	begun := time.Now()
	e.publishCount(calm, "m", 10)
	rc.awaitAll("m", 10)
	e.between("ten messages beside a flooded queue", time.Since(begun), 0, 0)
	cc.stop()
	hold.open()
	rf.awaitAll("f", 50)
	cf.stop()
}

func fetchesOnlyNeeded(e *env) {
	q := e.open()
	const n = 60
	e.publishCount(q, "m", n)
	r := e.recorder()
	hold := e.latch()
	slow := e.consume(q, r.handle(func(context.Context, *queue.Delivery, int) error {
		hold.wait()
		return nil
	}), concurrency(2))
	r.awaitStarts("", 2)
	begun := time.Now()
	fast := e.consume(e.again(q), r.ok())
	e.await("the other consumer to handle the rest", func() bool { return r.finished() == n-2 })
	e.between("the rest", time.Since(begun), 0, 0)
	if got := slow.Stats().Received; got > 4 {
		e.Errorf("a consumer with two slots, both taken, has received %d messages", got)
	}
	fast.stop()
	hold.open()
	r.awaitAll("m", n)
	slow.stop()
	e.expectGone(q)
}

func givesBack(e *env) {
	q := e.open()
	const quick, stuck = 300, 60
	r := e.recorder()
	hold := e.latch()
	first := e.consume(q, r.handle(func(ctx context.Context, _ *queue.Delivery, _ int) error {
		if r.started("") > quick {
			hold.wait()
			return nil
		}
		return linger(ctx, time.Millisecond)
	}), concurrency(4))
	e.publishCount(q, "m", quick+stuck)
	r.awaitStarts("", quick+4)
	second := e.consume(e.again(q), r.ok())
	begun := time.Now()
	e.await("the other consumer to get the rest", func() bool { return r.finished() >= quick+stuck-4 })
	// Far less than a lease, so that it's not the lease's end that brought them.
	e.between("the rest", time.Since(begun), 0, e.lease/2)
	second.stop()
	hold.open()
	r.awaitAll("m", quick+stuck)
	first.stop()
	for i := range quick + stuck {
		r.expect(fmt.Sprint("m", i), 1)
	}
}

func oneReceiveIdle(e *env) {
	q := e.open()
	f := newFaultQueue(q)
	var mu sync.Mutex
	open, highest := 0, 0
	f.receive = func(ctx context.Context, most int, next receiveFunc) ([]*queue.Delivery, error) {
		mu.Lock()
		open++
		highest = max(highest, open)
		mu.Unlock()
		ds, err := next(ctx, most)
		mu.Lock()
		open--
		mu.Unlock()
		return ds, err
	}
	r := e.recorder()
	c := e.consume(f, r.ok(), concurrency(100))
	e.quiet(e.longer(10*time.Minute, 2*e.unit))
	mu.Lock()
	if highest != 1 {
		e.Errorf("an idle consumer had %d receives open at once", highest)
	}
	mu.Unlock()
	e.publishCount(q, "m", 3)
	r.awaitAll("m", 3)
	c.stop()
}
