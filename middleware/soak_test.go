package middleware_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
)

var (
	soakFor  = flag.Duration("soak", 0, "how long TestSoakOnRealTime runs, with -timeout well beyond it; 0: a moment")
	soakSeed = flag.Uint64("soak-seed", 0, "of the soak; 0: by chance")
)

// soak publishes while everything goes wrong that can: calls that fail, whose
// answer is lost, that repeat; leases that are lost; handlers that fail in every
// way; consumers that are resized, paused and restarted. What was confirmed must
// be handled or dead-lettered in the end.
type soak struct {
	t       *testing.T
	rand    *rand.Rand
	broker  *memory.Broker
	q, dead queue.Queue
	period  time.Duration // of one disturbance

	mu        sync.Mutex
	confirmed map[string]bool
	handled   map[string]int
	attempts  int
	restarts  int
}

func newSoak(t *testing.T, seed uint64, like memory.Like, lease, period time.Duration) *soak {
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-soak-seed=%d", seed)
	s := &soak{
		t: t, rand: rand.New(rand.NewPCG(seed, 1)), period: period,
		confirmed: map[string]bool{}, handled: map[string]int{},
		broker: memory.New(&memory.Options{Like: like, Create: true, Lease: lease}),
	}
	var err error
	opts := &queue.OpenOptions{Ordered: like != memory.SQSStandard}
	s.q, err = s.broker.Open(t.Context(), "work", opts)
	require.NoError(t, err)
	s.dead, err = s.broker.Open(t.Context(), "work-dlq", opts)
	require.NoError(t, err)
	return s
}

func (s *soak) chance(n int) bool { return s.roll(n) == 0 }

func (s *soak) roll(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rand.IntN(n)
}

func (s *soak) handle(ctx context.Context, d *queue.Delivery) error {
	s.mu.Lock()
	s.attempts++
	s.mu.Unlock()
	wait := time.NewTimer(time.Duration(s.roll(100)) * s.period / 100)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	err := errors.New("chance")
	switch s.roll(12) {
	case 0:
		return err
	case 1:
		panic(err)
	case 2:
		return queue.RetryAfter(time.Duration(s.roll(10))*s.period/5, err)
	case 3:
		return queue.Snooze(s.period / 4)
	case 4:
		if s.chance(5) {
			return queue.Reject(err)
		}
	case 5:
		d.Body, d.Attributes, d.Native, d.ID = nil, nil, nil, "spoiled"
		return err
	}
	s.mu.Lock()
	s.handled[d.ID]++
	s.mu.Unlock()
	return nil
}

// publish sends numbered messages until ctx ends.
func (s *soak) publish(ctx context.Context, publisher int) {
	for i := 0; ctx.Err() == nil; i++ {
		id := fmt.Sprintf("%d-%d", publisher, i)
		m := &queue.Message{ID: id, Body: []byte(id), Attributes: map[string]string{"id": id}}
		switch c := s.q.Capabilities(); {
		case c.Ordering && s.chance(3):
			m.OrderingKey = fmt.Sprint("key", s.roll(5))
		case c.Delays && s.chance(10):
			m.Delay = time.Duration(1+s.roll(3)) * s.period
		}
		if err := s.q.Publish(ctx, m); err == nil {
			s.mu.Lock()
			s.confirmed[id] = true
			s.mu.Unlock()
		}
		pause(ctx, s.period/3)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (s *soak) consumer() *queue.Consumer {
	c, err := queue.NewConsumer(s.q, s.handle, &queue.ConsumerOptions{
		Concurrency: 8, DrainTimeout: s.period / 2, ReceiveGrace: s.period / 10, Backoff: queue.Backoff{Min: s.period / 10, Max: 2 * s.period},
		MaxHold: 20, Logger: slog.New(slog.DiscardHandler),
		Middleware: []queue.Middleware{
			middleware.Limit(6, middleware.LimitOptions{}),
			middleware.DeadLetter(s.dead, middleware.DeadLetterOptions{MaxAge: 100 * s.period}),
			middleware.Retry(middleware.RetryOptions{}),
			middleware.Recover(),
		},
	})
	require.NoError(s.t, err)
	return c
}

// consume runs consumers, one after the other, each until it's replaced.
func (s *soak) consume(ctx context.Context, current func(*queue.Consumer)) {
	for ctx.Err() == nil {
		c := s.consumer()
		current(c)
		life, stop := context.WithTimeout(ctx, time.Duration(3+s.roll(10))*s.period)
		err := c.Run(life)
		stop()
		var abandoned *queue.AbandonedError
		if err != nil && !errors.As(err, &abandoned) {
			s.t.Errorf("Run: %v", err)
		}
		s.mu.Lock()
		s.restarts++
		s.mu.Unlock()
	}
}

// disturb does one harmful thing after the other until ctx ends.
func (s *soak) disturb(ctx context.Context, current func() *queue.Consumer) {
	calls := []memory.Call{memory.OnPublish, memory.OnReceive, memory.OnSettle, memory.OnExtend}
	for ctx.Err() == nil {
		c := current()
		switch s.roll(6) {
		case 0:
			if err := c.SetConcurrency(1 + s.roll(12)); err != nil {
				s.t.Error(err)
			}
		case 1:
			c.Pause()
			pause(ctx, s.period/2)
			c.Resume()
		case 2:
			s.broker.LoseLeases("work")
		default:
			call := calls[s.roll(len(calls))]
			effects := []memory.Effect{memory.Refuse, memory.Unanswered, memory.Twice, memory.LoseLease}
			heal := s.broker.Fail(memory.Fault{Call: call, Queue: "work", Effect: effects[s.roll(len(effects))], Skip: s.roll(3), Times: 1 + s.roll(10)})
			pause(ctx, s.period)
			heal()
		}
		pause(ctx, s.period/4)
	}
}

// run disturbs for d, then lets the rest be handled in peace, and checks.
func (s *soak) run(d time.Duration) {
	ctx, stop := context.WithCancel(s.t.Context())
	chaos, calm := context.WithTimeout(ctx, d)
	defer calm()
	var mu sync.Mutex
	var cur *queue.Consumer
	first := make(chan struct{})
	var once sync.Once
	var working, publishing sync.WaitGroup
	working.Go(func() {
		s.consume(ctx, func(c *queue.Consumer) {
			mu.Lock()
			cur = c
			mu.Unlock()
			once.Do(func() { close(first) })
		})
	})
	<-first
	for i := range 4 {
		publishing.Go(func() { s.publish(chaos, i) })
	}
	publishing.Go(func() {
		s.disturb(chaos, func() *queue.Consumer { mu.Lock(); defer mu.Unlock(); return cur })
	})
	publishing.Wait()
	idle, cancel := context.WithTimeout(ctx, d+1000*s.period)
	require.NoError(s.t, s.broker.WaitIdle(idle, "work"), "what was published must be handled or dead-lettered in the end")
	cancel()
	stop()
	working.Wait()
	s.check()
}

func (s *soak) check() {
	buried := map[string]bool{}
	for _, d := range s.broker.Messages("work-dlq") {
		buried[d.ID] = true
		require.NotNil(s.t, d.DeadLetter)
		assert.Equal(s.t, d.ID, string(d.Body), "a dead letter is the original, whatever the handler did to it")
	}
	assert.Empty(s.t, s.broker.Messages("work"))
	lost := 0
	for id := range s.confirmed {
		if s.handled[id] == 0 && !buried[id] {
			lost++
		}
	}
	s.t.Logf("%d confirmed, %d handled, %d dead-lettered, %d attempts, %d consumers", len(s.confirmed), len(s.handled), len(buried), s.attempts, s.restarts)
	assert.Zero(s.t, lost, "messages were lost")
	assert.NotEmpty(s.t, s.handled)
	assert.NotEmpty(s.t, buried)
	assert.Greater(s.t, s.restarts, 1)
	require.NoError(s.t, s.q.Close(s.t.Context()))
	require.NoError(s.t, s.dead.Close(s.t.Context()))
}

// In a bubble, where ten minutes pass at once and no goroutine may be left.
func TestSoakLosesNothing(t *testing.T) {
	for _, like := range []memory.Like{memory.Portable, memory.SQSStandard, memory.SQSFIFO, memory.PubSub} {
		t.Run(like.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				newSoak(t, *soakSeed, like, 10*time.Second, 4*time.Second).run(10 * time.Minute)
			})
		})
	}
}

// With -soak=10m -timeout=30m it's a real soak, with real scheduling.
func TestSoakOnRealTime(t *testing.T) {
	d := *soakFor
	if d == 0 {
		d = 500 * time.Millisecond
	}
	before := runtime.NumGoroutine()
	newSoak(t, *soakSeed, memory.Portable, 100*time.Millisecond, 20*time.Millisecond).run(d)
	// An abandoned handler may still be on its way out.
	for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before && time.Now().Before(end); {
		runtime.Gosched()
	}
	assert.LessOrEqual(t, runtime.NumGoroutine(), before, "goroutines were left")
}
