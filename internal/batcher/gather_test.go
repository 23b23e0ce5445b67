package batcher

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// loop is what the gathering is measured by: a batch leaves when it's full, or
// after a linger.
type loop struct {
	linger   time.Duration
	latency  func() time.Duration
	mu       sync.Mutex
	waiting  []chan struct{}
	requests int
}

func (l *loop) publish() {
	done := make(chan struct{})
	l.mu.Lock()
	l.waiting = append(l.waiting, done)
	switch n := l.requests; len(l.waiting) {
	case 10:
		l.flushLocked()
	case 1:
		time.AfterFunc(l.linger, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.requests == n && len(l.waiting) > 0 {
				l.flushLocked()
			}
		})
	}
	l.mu.Unlock()
	<-done
}

func (l *loop) flushLocked() {
	batch := l.waiting
	l.waiting = nil
	l.requests++
	time.AfterFunc(l.latency(), func() {
		for _, done := range batch {
			close(done)
		}
	})
}

// run has publishers publish 20,000 messages, each waiting for its own, and
// returns how many a second.
func run(publishers int, publish func()) float64 {
	const messages = 20_000
	var left atomic.Int64
	left.Store(messages)
	begun := time.Now()
	var wg sync.WaitGroup
	for range publishers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				publish()
				time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
			}
		})
	}
	wg.Wait()
	return messages / time.Since(begun).Seconds()
}

// As few requests as a loop that lingers, and as fast, without a linger.
func TestManyPublishersFillRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		latency := func() time.Duration { return 5*time.Millisecond + time.Duration(rand.IntN(1000))*time.Microsecond }
		l := &loop{linger: 5 * time.Millisecond, latency: latency}
		floor := run(64, l.publish)
		b := newBroker(t, 0)
		var requests atomic.Int64
		b.Send = func(_ context.Context, batch []*Item[string]) Report {
			requests.Add(1)
			time.Sleep(latency())
			return all(len(batch), Result{})
		}
		ours := run(64, func() { b.publish(t.Context(), "m") })
		perMessage := float64(requests.Load()) / 20_000
		t.Logf("%.3f requests a message at %.0f/s; with a linger %.3f at %.0f/s", perMessage, ours, float64(l.requests)/20_000, floor)
		assert.LessOrEqual(t, perMessage, 0.115)
		assert.GreaterOrEqual(t, ours, 0.97*floor)
	})
}

func TestATrickleIsNeverDelayed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, 5*time.Millisecond)
		for range 100 {
			go func() {
				begun := time.Now()
				b.publish(t.Context(), "m")
				assert.Equal(t, 5*time.Millisecond, time.Since(begun))
			}()
			time.Sleep(10 * time.Millisecond)
		}
		assert.Len(t, b.sent(), 100)
	})
}

// What doesn't fill a request waits for a third of what one takes, not for one
// that hangs.
func TestARequestThatHangsHoldsUpNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, 6*time.Millisecond)
		b.publish(t.Context(), "to learn how long it takes")
		b.takes = time.Hour
		go b.publish(t.Context(), "hangs")
		synctest.Wait()
		b.takes = 6 * time.Millisecond
		begun := time.Now()
		assert.Equal(t, none(1), b.publish(t.Context(), "next"))
		assert.Equal(t, 8*time.Millisecond, time.Since(begun))
		b.Close()
	})
}

func TestRequestsAreCutByBytes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, time.Millisecond)
		big, huge := strings.Repeat("b", 400), strings.Repeat("h", 5000)
		assert.Equal(t, none(5), b.publish(t.Context(), big, big, big, huge, "s"))
		var sizes []int
		for _, r := range b.sent() {
			sizes = append(sizes, len(strings.Join(r, "")))
		}
		assert.ElementsMatch(t, []int{800, 400, 5000, 1}, sizes)
	})
}

func TestNoMoreRequestsThanAllowed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, time.Millisecond)
		b.MaxCalls = 3
		assert.Equal(t, none(200), b.publish(t.Context(), many(200, "m")...))
		assert.Equal(t, 3, b.widest)
		assert.Len(t, b.sent(), 20)
	})
}

func TestWhatIsHeldIsBounded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name            string
		held, heldBytes int
	}{{"by count", 20, 1 << 20}, {"by bytes", 1000, 40}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBroker(t, time.Millisecond)
				b.MaxHeld, b.MaxHeldBytes = c.held, c.heldBytes
				most := 0
				send := b.Send
				b.Send = func(ctx context.Context, batch []*Item[string]) Report {
					b.Batcher.mu.Lock()
					most = max(most, b.held)
					b.Batcher.mu.Unlock()
					return send(ctx, batch)
				}
				var wg sync.WaitGroup
				for range 50 {
					wg.Go(func() { assert.Equal(t, none(12), b.publish(t.Context(), many(12, "m")...)) })
				}
				wg.Wait()
				synctest.Wait()
				assert.LessOrEqual(t, most, 20)
				assert.GreaterOrEqual(t, most, 10)
				held, _ := b.state()
				assert.Zero(t, held)
			})
		})
	}
}

func TestWaitingForRoomEndsWithTheContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, time.Second)
		b.MaxHeld = 1
		go b.publish(t.Context(), "first")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		errs := b.publish(ctx, "second")
		assert.ErrorIs(t, errs[0], context.DeadlineExceeded)
		assert.Equal(t, none(1), b.publish(t.Context(), "third"))
		assert.Equal(t, [][]string{{"first"}, {"third"}}, b.sent())
	})
}

// Pub/Sub takes one key in a request.
func TestKeysApartHaveRequestsOfTheirOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, 5*time.Millisecond)
		b.KeysApart = true
		begun := time.Now()
		assert.Equal(t, none(8), b.publish(t.Context(), "a/1", "x", "b/1", "a/2", "y", "a/3", "b/2", "z"))
		assert.Equal(t, 5*time.Millisecond, time.Since(begun), "all at once")
		for _, r := range b.sent() {
			switch r[0][0] {
			case 'a':
				assert.Equal(t, []string{"a/1", "a/2", "a/3"}, r)
			case 'b':
				assert.Equal(t, []string{"b/1", "b/2"}, r)
			default:
				for _, v := range r {
					assert.NotContains(t, v, "/")
				}
			}
		}
	})
}

func TestKeysApartDoNotWaitForCompany(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, 30*time.Millisecond)
		b.KeysApart = true
		var wg sync.WaitGroup
		for _, v := range []string{"a/1", "b/1", "c/1", "d/1", "e/1", "f/1", "g/1", "h/1"} {
			wg.Go(func() { assert.Equal(t, none(1), b.publish(t.Context(), v)) })
			synctest.Wait() // the others are under way
		}
		wg.Wait()
		for _, at := range b.at {
			assert.Zero(t, at)
		}
	})
}

// While a key's request is under way, what follows gathers behind it.
func TestKeysApartGatherBehindTheirOwnRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, 5*time.Millisecond)
		b.KeysApart = true
		var wg sync.WaitGroup
		for _, v := range []string{"a/1", "a/2", "a/3"} {
			wg.Go(func() { assert.Equal(t, none(1), b.publish(t.Context(), v)) })
			synctest.Wait()
		}
		wg.Wait()
		assert.Equal(t, [][]string{{"a/1"}, {"a/2", "a/3"}}, b.sent())
	})
}

func TestALargeGroupOfOneKeyGoesInFullRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, 5*time.Millisecond)
		b.KeysApart = true
		assert.Equal(t, none(25), b.publish(t.Context(), many(25, "k/")...))
		var sizes []int
		for _, r := range b.sent() {
			sizes = append(sizes, len(r))
		}
		assert.Equal(t, []int{10, 10, 5}, sizes)
	})
}
