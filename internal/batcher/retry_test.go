package batcher

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/anyqueue/anyqueue/queue"
)

var errNo = errors.New("no")

// failing answers with a failure of those values that are refused.
func failing(refused func(n int, value string) bool, r Result) func(int, []string) Report {
	return func(n int, batch []string) Report {
		out := Report{Results: make([]Result, len(batch))}
		for i, v := range batch {
			if refused(n, v) {
				out.Results[i] = r
			}
		}
		return out
	}
}

func first(n int, _ string) bool { return n == 0 }

func TestOnlyWhatFailedIsSentAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, time.Millisecond)
		b.answer = failing(func(n int, v string) bool { return n == 0 && v == "b" }, Result{Err: errNo, Again: true})
		begun := time.Now()
		assert.Equal(t, none(3), b.publish(t.Context(), "a", "b", "c"))
		assert.Equal(t, [][]string{{"a", "b", "c"}, {"b"}}, b.sent())
		assert.GreaterOrEqual(t, time.Since(begun), minPause/2)
	})
}

func TestWhatCannotPassIsNotSentAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, time.Millisecond)
		b.answer = failing(func(_ int, v string) bool { return v == "b" }, Result{Err: errNo})
		errs := b.publish(t.Context(), "a", "b")
		assert.NoError(t, errs[0])
		assert.Equal(t, errNo, errs[1])
		assert.Len(t, b.sent(), 1)
	})
}

func TestTriesEndWithTheContext(t *testing.T) {
	t.Parallel()
	for _, doubt := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := newBroker(t, time.Millisecond)
			b.answer = failing(func(int, string) bool { return true }, Result{Err: errNo, Again: true, Doubt: doubt})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			begun := time.Now()
			errs := b.publish(ctx, "a")
			assert.Equal(t, 10*time.Second, time.Since(begun))
			assert.ErrorIs(t, errs[0], context.DeadlineExceeded)
			assert.ErrorIs(t, errs[0], errNo)
			assert.Equal(t, doubt, errors.Is(errs[0], queue.ErrUnknownOutcome))
			assert.Greater(t, len(b.sent()), 5)
			assert.Less(t, len(b.sent()), 20, "pauses double")
			held, _ := b.state()
			assert.Zero(t, held)
		})
	}
}

func TestWhatWasNotSentWhenItsContextEndedNeverIs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, 10*time.Millisecond)
		b.MaxCalls = 1
		go b.publish(t.Context(), "first")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		begun := time.Now()
		errs := b.publish(ctx, "second")
		assert.Equal(t, time.Millisecond, time.Since(begun))
		assert.ErrorIs(t, errs[0], context.DeadlineExceeded)
		assert.NotErrorIs(t, errs[0], queue.ErrUnknownOutcome)
		time.Sleep(time.Second)
		assert.Equal(t, [][]string{{"first"}}, b.sent())
		held, _ := b.state()
		assert.Zero(t, held)
	})
}

func TestTheEndOfAContextIsToldWithItsCause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, time.Hour)
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(queue.ErrDraining) })
		errs := b.publish(ctx, "m")
		assert.ErrorIs(t, errs[0], context.Canceled)
		assert.ErrorIs(t, errs[0], queue.ErrDraining)
	})
}

func TestWhatIsUnderWayWhenItsContextEndsIsUnknown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, 10*time.Millisecond)
		b.MaxCalls = 1
		go b.publish(t.Context(), "first")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Millisecond)
		defer cancel()
		var other []error
		var wg sync.WaitGroup
		wg.Go(func() { other = b.publish(t.Context(), "other") })
		synctest.Wait()
		errs := b.publish(ctx, "second") // beside other
		assert.ErrorIs(t, errs[0], context.DeadlineExceeded)
		assert.ErrorIs(t, errs[0], queue.ErrUnknownOutcome)
		wg.Wait()
		assert.Equal(t, none(1), other, "who waits longer isn't cut off")
		assert.Equal(t, [][]string{{"first"}, {"other", "second"}}, b.sent())
	})
}

func TestARequestThatNobodyWaitsForIsCutOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		begun := time.Now()
		errs := b.publish(ctx, "a")
		assert.ErrorIs(t, errs[0], context.Canceled)
		assert.ErrorIs(t, errs[0], queue.ErrUnknownOutcome)
		assert.Equal(t, time.Millisecond, time.Since(begun))
		synctest.Wait()
		assert.Zero(t, b.open, "the request has ended")
	})
}

// One that knows that nothing was sent says so.
func TestACutRequestKnowsBest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, 0)
		b.Send = func(ctx context.Context, _ []*Item[string]) Report {
			<-ctx.Done()
			return all(1, Result{Err: errNo, Again: true})
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		errs := b.publish(ctx, "a")
		assert.ErrorIs(t, errs[0], context.DeadlineExceeded)
		assert.ErrorIs(t, errs[0], errNo)
		assert.NotErrorIs(t, errs[0], queue.ErrUnknownOutcome)
	})
}

func TestAThrottledBrokerIsAskedLess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, time.Millisecond)
		until := time.Now().Add(3 * time.Second)
		b.answer = func(_ int, batch []string) Report {
			if time.Now().Before(until) {
				r := all(len(batch), Result{Err: errNo, Again: true})
				r.Slow = true
				return r
			}
			return all(len(batch), Result{})
		}
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { assert.Equal(t, none(1), b.publish(t.Context(), "m")) })
		}
		wg.Wait()
		assert.Less(t, len(b.sent()), 40, "100 messages, throttled for 3 seconds")
	})
}

func TestCloseFailsWhatWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, time.Hour)
		b.MaxCalls = 1
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { assert.Error(t, b.publish(t.Context(), "m")[0]) })
			synctest.Wait()
		}
		b.Close()
		wg.Wait()
		assert.Zero(t, b.open)
		assert.ErrorIs(t, b.publish(t.Context(), "late")[0], queue.ErrClosed)
		b.Close()
	})
}

func TestCloseFailsWhatRests(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"m", "k/m"} {
		synctest.Test(t, func(t *testing.T) {
			b := newBroker(t, time.Millisecond)
			b.answer = failing(func(int, string) bool { return true }, Result{Err: errNo, Again: true})
			time.AfterFunc(8*time.Second, b.Close) // it rests for 2.5 s and more by then
			begun := time.Now()
			errs := b.publish(t.Context(), value)
			assert.ErrorIs(t, errs[0], queue.ErrClosed)
			assert.ErrorIs(t, errs[0], errNo)
			assert.Equal(t, 8*time.Second, time.Since(begun))
			held, lines := b.state()
			assert.Zero(t, held)
			assert.Zero(t, lines)
		})
	}
}

// ---- keys

func TestAKeysItemsGoInOrderOneRequestAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, 5*time.Millisecond)
		var wg sync.WaitGroup
		for _, key := range []string{"a", "b", "c"} {
			wg.Go(func() { assert.Equal(t, none(25), b.publish(t.Context(), many(25, key+"/")...)) })
		}
		wg.Wait()
		synctest.Wait()
		seen := map[string][]string{}
		type slot struct {
			key string
			at  time.Duration
		}
		once := map[slot]int{}
		for i, r := range b.sent() {
			keys := map[string]bool{}
			for _, v := range r {
				k, _, _ := strings.Cut(v, "/")
				seen[k] = append(seen[k], v)
				keys[k] = true
			}
			for k := range keys {
				once[slot{k, b.at[i]}]++
			}
		}
		for k, got := range seen {
			assert.Equal(t, many(25, k+"/"), got)
		}
		for s, n := range once {
			assert.Equal(t, 1, n, "requests with %v under way at once", s)
		}
		assert.Greater(t, b.widest, 1, "other keys go beside it")
	})
}

func TestKeysAndFailures(t *testing.T) {
	t.Parallel()
	in := func(values ...string) func(int, string) bool {
		return func(n int, v string) bool { return n == 0 && slices.Contains(values, v) }
	}
	for _, c := range []struct {
		name    string
		refused func(n int, v string) bool
		again   bool
		failed  map[string]error // the others succeed
		sent    string           // after the first request
	}{
		{"the last one failed: it's sent again, before the next", in("k/9"), true, nil, "k/9 k/10 k/11"},
		{"the last one, twice", func(n int, v string) bool { return n < 2 && v == "k/9" }, true, nil, "k/9 k/9 k/10 k/11"},
		{"the last two", in("k/8", "k/9"), true, nil, "k/8 k/9 k/10 k/11"},
		{"one in the middle: a later one was taken", in("k/3"), true, map[string]error{"k/3": errNo, "k/10": ErrOvertaking, "k/11": ErrOvertaking}, ""},
		{"one in the middle and the last", in("k/3", "k/9"), true, map[string]error{
			"k/3": errNo, "k/9": ErrOvertaking, "k/10": ErrOvertaking, "k/11": ErrOvertaking,
		}, ""},
		{"the last one failed for good", in("k/9"), false, map[string]error{"k/9": errNo, "k/10": ErrOvertaking, "k/11": ErrOvertaking}, ""},
		{"all", first, true, nil, "k/0 k/1 k/2 k/3 k/4 k/5 k/6 k/7 k/8 k/9 k/10 k/11"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBroker(t, 5*time.Millisecond)
				b.answer = failing(c.refused, Result{Err: errNo, Again: c.again})
				values := many(12, "k/")
				for i, err := range b.publish(t.Context(), values...) {
					assert.Equal(t, c.failed[values[i]], err, values[i])
				}
				synctest.Wait()
				var sent []string
				for _, r := range b.sent()[1:] {
					sent = append(sent, r...)
				}
				assert.Equal(t, c.sent, strings.Join(sent, " "))
				held, lines := b.state()
				assert.Zero(t, held)
				assert.Zero(t, lines)
			})
		})
	}
}

// A key's failure is its caller's alone.
func TestOthersOfAKeyGoOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, 5*time.Millisecond)
		b.answer = failing(func(_ int, v string) bool { return v == "k/bad" }, Result{Err: errNo})
		go b.publish(t.Context(), "k/bad")
		synctest.Wait()
		assert.Equal(t, none(2), b.publish(t.Context(), "k/1", "k/2"))
		assert.Equal(t, [][]string{{"k/bad"}, {"k/1", "k/2"}}, b.sent())
	})
}

func TestAKeyWhoseCallerHasGoneGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, 5*time.Millisecond)
		b.answer = failing(func(_ int, v string) bool { return v == "k/bad" }, Result{Err: errNo, Again: true})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go b.publish(ctx, "k/bad")
		time.Sleep(500 * time.Millisecond)
		assert.Equal(t, none(1), b.publish(t.Context(), "k/next"))
		time.Sleep(maxPause)
		_, lines := b.state()
		assert.Zero(t, lines)
	})
}
