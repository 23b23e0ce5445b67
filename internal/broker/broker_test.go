package broker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fixture drives a queue at the bubble's time.
type fixture struct {
	*testing.T
	q *Queue[int]
}

func setup(t *testing.T, cfg Config) *fixture {
	t.Helper()
	return &fixture{t, New[int](NewGroup(), cfg)}
}

func (f *fixture) now() Instant {
	f.Helper()
	now, err := f.q.group.Clock.Now()
	require.NoError(f, err)
	return now
}

func (f *fixture) send(key string, values ...int) {
	f.Helper()
	for _, v := range values {
		require.NoError(f, f.sendEntry(Entry[int]{Item: &Item[int]{Payload: v}, Key: key, Size: 1}))
	}
}

func (f *fixture) sendEntry(e Entry[int]) error {
	f.Helper()
	es := []Entry[int]{e}
	f.q.Send(f.now(), false, es)
	return es[0].Err
}

func (f *fixture) take(n int) []Lease[int] {
	f.Helper()
	b, err := f.q.Receive(f.Context(), Request{Max: n, Lease: 30 * time.Second, Wait: -1})
	require.NoError(f, err)
	if b == nil {
		return nil
	}
	return slices.Clone(b.Leases)
}

func (f *fixture) do(kind Kind, d time.Duration, ls ...Lease[int]) error {
	f.Helper()
	var err error
	for _, l := range ls {
		ops := []Op[int]{{Item: l.Item, Gen: l.Gen, Kind: kind, For: d}}
		f.q.Settle(f.now(), false, ops)
		if ops[0].Err != nil {
			err = ops[0].Err
		}
	}
	return err
}

// check compares the counts with what's really there.
func (f *fixture) check() {
	f.Helper()
	q := f.q
	q.mu.Lock()
	defer q.mu.Unlock()
	n := map[State]int{}
	seen := map[*Item[int]]bool{}
	bytes := int64(0)
	q.walk(func(it *Item[int]) {
		if seen[it] {
			f.Fatalf("message %d is in two places", it.Payload)
		}
		seen[it] = true
		n[it.state]++
		bytes += int64(it.size)
	})
	require.Equal(f, len(seen), q.total, "total")
	require.Equal(f, n[Leased], q.leased, "leased")
	require.Equal(f, n[Delayed], q.delayed, "delayed")
	require.Equal(f, bytes, q.bytes, "bytes")
	require.Zero(f, n[Gone]+n[acked], "what's gone can't be found")
	for name, k := range q.keys {
		require.True(f, k.active != nil || k.out > 0 || len(k.log) > 0, "key %s has nothing left but is remembered", name)
	}
}

func TestEveryOrderingKeepsItsMessagesThroughRandomUse(t *testing.T) {
	t.Parallel()
	for _, o := range []Ordering{Unordered, OneByOne, Grouped, Resend} {
		for seed := range uint64(4) {
			t.Run(fmt.Sprintf("ordering %d seed %d", o, seed), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { randomUse(t, o, seed) })
			})
		}
	}
}

// randomUse does whatever callers may do, in random order, and then drains the
// queue: every message that wasn't acknowledged must come, in the order of its key.
func randomUse(t *testing.T, o Ordering, seed uint64) {
	f := setup(t, Config{Ordering: o})
	rnd := rand.New(rand.NewPCG(seed, uint64(o)))
	live := map[int]bool{}
	var held []Lease[int]
	keyOf := func(v int) string { return []string{"", "a", "b", "c"}[v%4] }
	sent := 0
	for range 3000 {
		switch r := rnd.IntN(100); {
		case r < 30:
			e := Entry[int]{Item: &Item[int]{Payload: sent}, Key: keyOf(sent), Size: 1}
			if e.Key == "" && rnd.IntN(3) == 0 {
				e.Delay = time.Duration(rnd.IntN(60)) * time.Second
			}
			require.NoError(t, f.sendEntry(e))
			live[sent] = true
			sent++
		case r < 60:
			held = append(held, f.take(1+rnd.IntN(5))...)
		case r < 95 && len(held) > 0:
			i := rnd.IntN(len(held))
			l := held[i]
			held = slices.Delete(held, i, i+1)
			switch rnd.IntN(5) {
			case 0, 1:
				if f.do(Ack, 0, l) == nil {
					delete(live, l.Item.Payload)
				}
			case 2:
				_ = f.do(Release, time.Duration(rnd.IntN(40))*time.Second, l) // stale ones fail
			case 3:
				if f.do(Extend, time.Duration(1+rnd.IntN(100))*time.Second, l) == nil {
					held = append(held, l)
				}
			case 4: // forgotten: its lease will end
			}
		case r < 98:
			time.Sleep(time.Duration(rnd.IntN(20)) * time.Second)
		default:
			f.q.LoseLeases(f.now())
		}
		if rnd.IntN(10) == 0 {
			f.check()
		}
	}
	time.Sleep(time.Hour) // every lease and delay has ended
	last := map[string]int{}
	come := map[int]bool{}
	for {
		ls := f.take(3)
		if ls == nil {
			break
		}
		for _, l := range ls {
			v := l.Item.Payload
			if o != Unordered && keyOf(v) != "" {
				require.Equal(t, keyOf(v), l.Key)
				require.GreaterOrEqual(t, v, last[l.Key], "out of order")
				last[l.Key] = v
			}
			come[v] = true
			require.NoError(t, f.do(Ack, 0, l))
		}
		f.check()
	}
	for v := range live {
		assert.True(t, come[v], "message %d is lost", v)
	}
	if o != Resend { // which sends what's acknowledged again
		assert.Len(t, come, len(live), "a message that was acknowledged came again")
	}
	assert.Zero(t, f.q.total)
	assert.Empty(t, f.q.keys, "keys without messages cost nothing")
}

func TestLeaseEndsAreInOrderWhateverTheirLengths(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := setup(t, Config{})
		f.send("", 1, 2, 3, 4)
		ls := f.take(4)
		require.NoError(t, f.do(Extend, time.Hour, ls[0]))
		require.NoError(t, f.do(Extend, 10*time.Second, ls[1]))
		require.NoError(t, f.do(Extend, 20*time.Second, ls[2]))
		start := time.Now()
		for _, want := range []struct {
			value int
			after time.Duration
		}{{2, 10 * time.Second}, {3, 20 * time.Second}, {4, 30 * time.Second}, {1, time.Hour}} {
			b, err := f.q.Receive(t.Context(), Request{Max: 1, Lease: 2 * time.Hour})
			require.NoError(t, err)
			assert.Equal(t, want.value, b.Leases[0].Item.Payload)
			assert.Equal(t, want.after, time.Since(start))
		}
	})
}

func TestRepeatingASettlementIsHarmless(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name          string
		first, second Kind
		want          error
	}{
		{"ack twice", Ack, Ack, nil},
		{"release twice", Release, Release, nil},
		{"ack after release", Release, Ack, ErrStale},
		{"release after ack", Ack, Release, ErrStale},
		{"extend after ack", Ack, Extend, ErrStale},
		{"extend after release", Release, Extend, ErrStale},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := setup(t, Config{})
			f.send("", 1)
			l := f.take(1)
			require.NoError(t, f.do(tc.first, time.Minute, l...))
			assert.Equal(t, tc.want, f.do(tc.second, time.Minute, l...))
			f.check()
		})
	}
}

func TestSettlementAfterExpiryIsStale(t *testing.T) {
	t.Parallel()
	for _, k := range []Kind{Ack, Release, Extend} {
		synctest.Test(t, func(t *testing.T) {
			f := setup(t, Config{})
			f.send("", 1)
			l := f.take(1)
			time.Sleep(30 * time.Second)
			assert.ErrorIs(t, f.do(k, time.Second, l...), ErrStale)
			again := f.take(1)
			require.Len(t, again, 1)
			assert.Equal(t, 2, again[0].Receives)
			assert.ErrorIs(t, f.do(k, time.Second, l...), ErrStale, "nor does it touch the new lease")
			require.NoError(t, f.do(Ack, 0, again...))
		})
	}
}

func TestOneMessageWakesOneReceiver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := setup(t, Config{})
		var returned atomic.Int32
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				b, err := f.q.Receive(ctx, Request{Max: 4, Lease: time.Hour})
				if err == nil && len(b.Leases) > 0 {
					returned.Add(1)
				}
			})
		}
		synctest.Wait()
		f.send("", 1)
		synctest.Wait()
		assert.EqualValues(t, 1, returned.Load())
		assert.Equal(t, 9, f.waiting(), "the others weren't even woken")

		// Four fit into one receive, the fifth needs another.
		es := make([]Entry[int], 5)
		for i := range es {
			es[i].Item = &Item[int]{Payload: i}
		}
		f.q.Send(f.now(), false, es)
		synctest.Wait()
		assert.EqualValues(t, 3, returned.Load())
		cancel()
		wg.Wait()
		assert.Zero(t, f.waiting())
		assert.Zero(t, f.q.wokenRoom)
	})
}

func (f *fixture) waiting() (n int) {
	f.q.mu.Lock()
	defer f.q.mu.Unlock()
	for w := f.q.waiters.head; w != nil; w = w.next {
		n++
	}
	return n
}

func TestReceiverThatGivesUpPassesItsMessageOn(t *testing.T) {
	t.Parallel()
	// Whatever a cancelled receiver does at the moment when it's woken, the
	// message must reach one that goes on waiting.
	for range 200 {
		f := setup(t, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(cancel)
		got := make(chan int, 2)
		var wg sync.WaitGroup
		for _, c := range []context.Context{ctx, t.Context()} {
			wg.Go(func() {
				if b, err := f.q.Receive(c, Request{Max: 1, Lease: time.Hour}); err == nil {
					got <- b.Leases[0].Item.Payload
				}
			})
			for c == ctx && f.waiting() == 0 {
				runtime.Gosched()
			}
		}
		wg.Go(cancel)
		f.send("", 7)
		assert.Equal(t, 7, <-got)
		f.send("", 8) // lets the other one end, if it's still there
		cancel()
		wg.Wait()
	}
}

func TestTimerRunsOnlyForWaitingReceivers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := setup(t, Config{})
		require.NoError(t, f.sendEntry(Entry[int]{Item: &Item[int]{}, Delay: time.Hour}))
		f.send("", 1)
		f.take(1)
		assert.False(t, f.timing(), "nobody waits")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := f.q.Receive(ctx, Request{Max: 1, Lease: time.Minute})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.True(t, f.timing())
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		assert.False(t, f.timing(), "it doesn't go on by itself")
	})
}

func (f *fixture) timing() bool {
	f.q.mu.Lock()
	defer f.q.mu.Unlock()
	return f.q.armed != never
}

// AWS was seen to do so: a group's first message comes again as soon as it's
// visible, whether or not later ones are still in flight.
func TestAGroupsFirstMessageDoesNotWaitForLaterOnesInFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := setup(t, Config{Ordering: Grouped})
		f.send("a", 1, 2, 3, 4)
		ls := f.take(3)
		require.Len(t, ls, 3)
		require.NoError(t, f.do(Release, 0, ls[1]))
		require.Empty(t, f.take(10), "1 is in flight")
		require.NoError(t, f.do(Release, 0, ls[0]))
		again := f.take(10)
		require.Len(t, again, 2, "1 and 2; 4 waits for 3")
		assert.Equal(t, []int{1, 2}, []int{again[0].Item.Payload, again[1].Item.Payload})
		f.check()
		require.NoError(t, f.do(Ack, 0, again...))
		require.Empty(t, f.take(10))
		require.NoError(t, f.do(Extend, time.Minute, ls[2]))
		require.NoError(t, f.do(Ack, 0, ls[2]))
		last := f.take(10)
		require.Len(t, last, 1)
		assert.Equal(t, 4, last[0].Item.Payload)
		require.NoError(t, f.do(Ack, 0, last...))
		f.check()
	})
}

func TestConcurrentUseLosesNothing(t *testing.T) {
	t.Parallel()
	for _, o := range []Ordering{Unordered, OneByOne, Grouped, Resend} {
		t.Run(fmt.Sprint(o), func(t *testing.T) {
			t.Parallel()
			f := setup(t, Config{Ordering: o})
			const senders, each = 4, 300
			var wg sync.WaitGroup
			for s := range senders {
				wg.Go(func() {
					for i := range each {
						f.send(fmt.Sprint("k", i%7), s*each+i)
					}
				})
			}
			var mu sync.Mutex
			done := map[int]bool{}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			for range 3 {
				wg.Go(func() {
					for n := 0; ; n++ {
						b, err := f.q.Receive(ctx, Request{Max: 8, Lease: time.Minute})
						if err != nil {
							return
						}
						for i, l := range b.Leases {
							if (n+i)%5 == 0 {
								_ = f.do(Release, time.Millisecond, l)
								continue
							}
							if f.do(Ack, 0, l) != nil {
								continue
							}
							mu.Lock()
							done[l.Item.Payload] = true
							all := len(done) == senders*each
							mu.Unlock()
							if all {
								cancel()
							}
						}
						f.q.Recycle(b)
						if n%50 == 0 {
							f.q.LoseLeases(f.now())
						}
					}
				})
			}
			wg.Wait()
			assert.Len(t, done, senders*each)
		})
	}
}

func TestClockTellsOnWhichSideOfABubbleItIsUsed(t *testing.T) {
	t.Parallel()
	outside := NewClock()
	var inside *Clock
	synctest.Test(t, func(t *testing.T) {
		_, err := outside.Now()
		assert.ErrorIs(t, err, ErrBubble, "made outside, used inside")
		inside = NewClock()
		time.Sleep(50 * 365 * 24 * time.Hour)
		now, err := inside.Now()
		require.NoError(t, err)
		assert.Equal(t, 50*365*24*time.Hour, time.Duration(now))
	})
	_, err := inside.Now()
	require.ErrorIs(t, err, ErrBubble, "made inside, used outside")
	_, err = outside.Now()
	require.NoError(t, err)
}

func TestDelaysBeyondAllTimesDoNotOverflow(t *testing.T) {
	t.Parallel()
	assert.Equal(t, never, Instant(5).Add(1<<63-1))
	assert.Equal(t, Instant(4), Instant(5).Add(-1))
}
