package queuetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// soakRules let everything happen at once.
func soakRules() []rule {
	return []rule{
		{"NothingIsLostInAStorm", "whatever fails, in whatever order: each message is handled or dead-lettered, none is early, keys keep their order", false, func(e *env) {
			newStorm(e, rand.Uint64()).run(e.longer(2*time.Hour, 10*time.Second))
		}},
	}
}

// Soak runs storms on a backend: random failures of handlers and of every call
// to the broker, lost answers, lost leases, resizes, pauses and restarts of
// several consumers. It fails unless every message ends up handled or
// dead-lettered. On virtual time it runs one storm of two hours after the other,
// for d of real time; else one that lasts d.
func Soak(t *testing.T, h Harness, d time.Duration) {
	h.validate(t)
	r := soakRules()[0]
	if !h.long() {
		r.test = func(e *env) { newStorm(e, rand.Uint64()).run(d) }
		runRule(t, &h, "Soak", r)
		return
	}
	for begun := time.Now(); time.Since(begun) < d && !t.Failed(); {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				newStorm(newEnv(t, &h, r), seed).run(2 * time.Hour)
			})
		})
	}
}

// storm is one run. What has become of each message is kept by its ID.
type storm struct {
	e    *env
	seed uint64

	mu     sync.Mutex
	rand   *rand.Rand
	calm   bool // no more faults
	states map[string]*stormState
	past   *past
	order  map[string]int // by key: the highest number that has succeeded
}

type stormState struct {
	due     time.Time
	done    int // successes and drops
	dead    int // copies in the dead-letter queue
	publish int // tries
}

const stormKeys = 6

func newStorm(e *env, seed uint64) *storm {
	e.Logf("seed %d", seed)
	return &storm{e: e, seed: seed, rand: rand.New(rand.NewPCG(seed, 0)), states: map[string]*stormState{}, past: newPast(), order: map[string]int{}}
}

// chance is true with a probability of percent in a hundred, while it storms.
func (s *storm) chance(percent int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.calm && s.rand.IntN(100) < percent
}

func (s *storm) upTo(d time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Duration(s.rand.Int64N(int64(d) + 1))
}

func (s *storm) intN(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rand.IntN(n)
}

func (s *storm) run(d time.Duration) {
	e := s.e
	spec := queue.QueueSpec{Ordered: !e.lacks(featureOrdering)}
	q, dead := e.openPair(spec)
	mw := &deadLetters{to: s.faulty(dead), name: e.name(dead), maxFailures: 12}
	change := func(o *queue.ConsumerOptions) {
		o.Middleware = append(o.Middleware, mw)
		o.Backoff = queue.Backoff{Min: e.unit, Max: 4 * e.unit}
		o.DrainTimeout = e.unit
		o.MaxHold = 30
	}
	caps := q.Capabilities()
	cs := []*consumer{
		e.consume(s.faulty(e.again(q)), s.handler(caps), change),
		e.consume(s.faulty(e.again(q)), s.handler(caps), change, concurrency(2)),
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { s.publishFor(s.faulty(q), caps, d) })
	for _, c := range cs {
		wg.Go(func() { s.operate(c, stop) })
	}
	e.quiet(d)
	close(stop)
	wg.Wait()
	s.mu.Lock()
	s.calm = true
	s.mu.Unlock()
	deadOnes := e.consume(dead, func(_ context.Context, d *queue.Delivery) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.states[d.ID].dead++
		s.past.forget(d.ID)
		e.poke.tell()
		return nil
	})
	s.awaitAll()
	// Repeats, of a publish or an ack whose answer was lost, may take longer.
	e.quiet(e.longer(time.Hour, 3*e.lease+6*e.unit))
	for _, c := range cs {
		c.stop()
	}
	deadOnes.stop()
	e.expectGone(q)
	total := 0
	for _, c := range cs {
		st := c.Stats()
		total += int(st.Succeeded + st.Dropped + st.DeadLettered)
		if st.InUse+st.Buffered+st.Held != 0 {
			e.Errorf("seed %d: a consumer that has ended still holds something: %+v", s.seed, st)
		}
	}
	if total < len(s.states) {
		e.Errorf("seed %d: %d messages, and the consumers have only counted %d that were done", s.seed, len(s.states), total)
	}
	e.Logf("%d messages", len(s.states))
}

// awaitAll waits until each message is handled or dead-lettered. On a server it does so
// for as long as one becomes so within its patience, but not for ever: what a storm
// leaves may be minutes of work for the few handlers that it leaves, and brokers
// needn't be fair between keys.
func (s *storm) awaitAll() {
	end := time.Now().Add(s.e.longer(24*time.Hour, 10*s.e.patience))
	for left := s.left(); len(left) > 0; {
		patience := min(s.e.longer(24*time.Hour, s.e.patience), time.Until(end))
		if !s.e.eventually(patience, func() bool { return len(s.left()) < len(left) }) {
			s.e.Errorf("seed %d: lost, neither handled nor dead-lettered: %v", s.seed, left)
			s.past.tell(s.e, left)
			return
		}
		left = s.left()
	}
}

// left are the messages of which nothing has become yet.
func (s *storm) left() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for id, st := range s.states {
		if st.done+st.dead == 0 {
			out = append(out, id)
		}
	}
	return out
}

// publishFor publishes at random times for d. A message whose publish failed is
// published again before the next one of its key, as its fate is unknown.
func (s *storm) publishFor(p queue.Publisher, caps queue.Capabilities, d time.Duration) {
	e := s.e
	pause := e.longer(40*time.Second, 60*time.Millisecond)
	numbers := map[string]int{}
	begun := time.Now()
	for n := 0; time.Since(begun) < d; n++ {
		e.quiet(s.upTo(pause))
		m := &queue.Message{ID: fmt.Sprint("n", n), Body: []byte{byte(n), 0xff}}
		st := &stormState{}
		if k := s.intN(2 * stormKeys); k < stormKeys && caps.Ordering {
			m.OrderingKey = fmt.Sprint("k", k)
			m.ID = fmt.Sprint(m.OrderingKey, "-", numbers[m.OrderingKey])
			numbers[m.OrderingKey]++
		} else if k == stormKeys && caps.Delays {
			m.Delay = s.upTo(20 * e.unit)
			st.due = time.Now().Add(m.Delay)
		}
		s.mu.Lock()
		s.states[m.ID] = st
		s.mu.Unlock()
		for p.Publish(e.ctx, m) != nil {
			st.publish++
			e.quiet(e.unit / 10)
		}
	}
}

// operate does to a consumer what people and deployments do.
func (s *storm) operate(c *consumer, stop <-chan struct{}) {
	e := s.e
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-stop:
			c.Resume()
			return
		case <-t.C:
		}
		t.Reset(e.unit + s.upTo(20*e.unit))
		switch s.intN(6) {
		case 0, 1:
			if err := c.SetConcurrency(1 + s.intN(8)); err != nil {
				e.Errorf("SetConcurrency: %v", err)
			}
		case 2:
			c.Pause()
		case 3, 4:
			c.Resume()
		case 5:
			c.stop() // its handlers obey their context: it drains cleanly
			c.run()
		}
	}
}

func (s *storm) handler(caps queue.Capabilities) queue.Handler {
	e := s.e
	return func(ctx context.Context, d *queue.Delivery) error {
		now := time.Now()
		if !d.Deadline.IsZero() && !now.Before(d.Deadline) {
			e.Errorf("seed %d: %s was started at %v; its lease had ended at %v", s.seed, d.ID, now, d.Deadline)
		}
		id, key := d.ID, d.OrderingKey
		s.mu.Lock()
		st := s.states[id]
		s.mu.Unlock()
		if st == nil || len(d.Body) != 2 {
			e.Errorf("seed %d: %q came with %d bytes", s.seed, id, len(d.Body))
			return nil
		}
		if now.Before(st.due.Add(-e.early())) {
			e.Errorf("seed %d: %s came %v before its time", s.seed, id, st.due.Sub(now))
		}
		s.past.note(id, "handled from here")
		defer s.past.note(id, "to here")
		work := s.upTo(e.unit)
		if s.chance(3) {
			work += 2 * e.lease
		}
		if err := linger(ctx, work); err != nil {
			return err
		}
		switch {
		case s.chance(12):
			return errWork
		case s.chance(4):
			return queue.RetryAfter(s.upTo(5*e.unit), errWork)
		case s.chance(4):
			return queue.Snooze(s.upTo(5 * e.unit))
		case s.chance(3):
			return queue.Reject(errWork)
		case s.chance(3):
			panicHere()
		}
		d.ID, d.Body, d.OrderingKey = "changed", nil, "changed"
		s.succeed(id, key, st, caps)
		if s.chance(2) {
			return queue.Drop(errWork)
		}
		return nil
	}
}

func (s *storm) succeed(id, key string, st *stormState, caps queue.Capabilities) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.done++
	s.past.forget(id)
	if key != "" && st.done == 1 && caps.KeyLocked {
		var n int
		if _, err := fmt.Sscanf(id, key+"-%d", &n); err != nil {
			s.e.Errorf("seed %d: %q came with the key %q", s.seed, id, key)
		}
		// What was dead-lettered on the way leaves gaps.
		if last, ok := s.order[key]; ok && n < last {
			s.e.Errorf("seed %d: %s was done after %s-%d", s.seed, id, key, last)
		}
		s.order[key] = n
	}
	s.e.poke.tell()
}

// faulty makes the calls of a queue fail at random: before they take effect, or
// after.
func (s *storm) faulty(q queue.Queue) *faultQueue {
	f := newFaultQueue(q)
	if s.intN(2) == 0 {
		f.caps = func(c *queue.Capabilities) { c.CancelSafe = false } // as a server far away
	}
	unknown := fmt.Errorf("%w: no answer", queue.ErrUnknownOutcome)
	f.receive = func(ctx context.Context, most int, next receiveFunc) ([]*queue.Delivery, error) {
		if s.chance(3) {
			return nil, errFault
		}
		ds, err := next(ctx, most)
		s.past.received(ds)
		if s.chance(2) {
			return nil, unknown // what it brought is hidden until its lease ends
		}
		return ds, err
	}
	f.settle = func(ctx context.Context, ss []queue.Settlement, next settleFunc) (err error) {
		done := s.past.settling(ss)
		defer func() { done(err) }()
		if s.chance(3) {
			return errFault
		}
		err = settleSome(ctx, ss, next, func(queue.Settlement) error {
			if s.chance(5) {
				return errFault
			}
			return nil
		})
		if s.chance(3) {
			return unknown
		}
		return err
	}
	f.extend = func(ctx context.Context, d time.Duration, ds []*queue.Delivery, next extendFunc) ([]time.Time, error) {
		if s.chance(5) {
			return nil, errFault
		}
		return extendSome(ctx, d, ds, next, func(*queue.Delivery) error {
			if s.chance(3) {
				return queue.ErrLeaseLost
			}
			return nil
		})
	}
	f.send = func(ctx context.Context, msgs []*queue.Message, next publishFunc) error {
		if s.chance(5) {
			return errFault
		}
		err := next(ctx, msgs...)
		for _, m := range msgs {
			s.past.note(m.ID, "published: %v", err)
		}
		if err == nil && s.chance(5) {
			return unknown
		}
		return err
	}
	return f
}
