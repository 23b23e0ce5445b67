package remote_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/anyqueue/anyqueue/internal/remote"
)

// two are sources of which the second keeps what has come, and is asked by one
// caller at a time.
func two() (a, b *broker, first, second *remote.Polls[string]) {
	a, first = newBroker()
	b, second = newBroker()
	second.Keep, second.Most = time.Second, 1
	return a, b, first, second
}

func receiveAny(d time.Duration, max int, first, second *remote.Polls[string]) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return remote.ReceiveAny(ctx, max, first, second)
}

func end(ps ...*remote.Polls[string]) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, p := range ps {
		p.Close(ctx)
	}
}

func TestEitherOfTwoSourcesBringsSomething(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b, first, second := two()
		defer end(first, second)
		b.items <- "b"
		got, err := receiveAny(time.Minute, 5, first, second)
		assert.NoError(t, err)
		assert.Equal(t, []string{"b"}, got)
		a.items <- "a"
		got, err = receiveAny(time.Minute, 5, first, second)
		assert.NoError(t, err)
		assert.Equal(t, []string{"a"}, got)
		polls, returned, _ := a.seen()
		assert.Equal(t, []int{5}, polls, "the second call took over what the first had begun")
		assert.Empty(t, returned)
	})
}

func TestTwoSourcesTogetherBringNoMoreThanAsked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b, first, second := two()
		defer end(first, second)
		a.items <- "a"
		b.items <- "b"
		got, err := receiveAny(time.Minute, 1, first, second)
		assert.NoError(t, err)
		assert.Len(t, got, 1)
		more, err := receiveAny(time.Minute, 1, first, second)
		assert.NoError(t, err)
		assert.ElementsMatch(t, []string{"a", "b"}, append(got, more...))
		_, returned, _ := b.seen()
		assert.Empty(t, returned)
	})
}

// Otherwise a source that's always second would have everything given back.
func TestWhatCameBetweenTwoCallersIsKeptForTheNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b, first, second := two()
		defer end(first, second)
		a.items <- "a"
		got, err := receiveAny(time.Minute, 5, first, second)
		assert.NoError(t, err)
		assert.Equal(t, []string{"a"}, got)
		b.items <- "b"
		time.Sleep(second.Keep - time.Millisecond) // nobody receives
		got, err = receiveAny(time.Minute, 5, first, second)
		assert.NoError(t, err)
		assert.Equal(t, []string{"b"}, got)
		time.Sleep(time.Hour)
		_, returned, _ := b.seen()
		assert.Empty(t, returned, "it has a caller")
	})
}

func TestWhatNobodyFetchesIsGivenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b, first, second := two()
		a.items <- "a"
		_, err := receiveAny(time.Minute, 5, first, second)
		assert.NoError(t, err)
		b.items <- "b"
		time.Sleep(second.Keep)
		synctest.Wait()
		_, returned, _ := b.seen()
		assert.Equal(t, []string{"b"}, returned)
		end(first, second)
	})
}

func TestWhatIsKeptIsGivenBackByClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b, first, second := two()
		a.items <- "a"
		_, err := receiveAny(time.Minute, 5, first, second)
		assert.NoError(t, err)
		b.items <- "b"
		synctest.Wait()
		begun := time.Now()
		second.Close(context.Background())
		assert.Zero(t, time.Since(begun))
		_, returned, _ := b.seen()
		assert.Equal(t, []string{"b"}, returned)
		end(first)
	})
}

func TestASourceWithALimitIsAskedByOneCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b, first, second := two()
		defer end(first, second)
		var wg sync.WaitGroup
		defer wg.Wait()
		for range 3 {
			wg.Go(func() { _, _ = receiveAny(time.Minute, 5, first, second) })
		}
		synctest.Wait()
		polls, _, _ := a.seen()
		assert.Len(t, polls, 3)
		polls, _, _ = b.seen()
		assert.Len(t, polls, 1)
	})
}

// A poll that was begun by a caller with more room is no loss for one with less.
func TestAKeptPollServesACallerWithLessRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b, first, second := two()
		defer end(first, second)
		second.Poll = func(ctx context.Context, max int) ([]string, error) {
			one, err := b.poll(ctx, max)
			return append(one, "b2", "b3"), err
		}
		a.items <- "a"
		_, err := receiveAny(time.Minute, 5, first, second)
		assert.NoError(t, err)
		b.items <- "b1"
		var got []string
		for range 3 {
			one, err := receiveAny(time.Minute, 1, first, second)
			assert.NoError(t, err)
			got = append(got, one...)
		}
		assert.Equal(t, []string{"b1", "b2", "b3"}, got)
		polls, _, _ := b.seen()
		assert.Len(t, polls, 1)
	})
}

// Two polls for the room of one would bring something that nobody has room for, and
// that's given back, each time.
func TestTwoSourcesThatBothHaveSomethingAreAskedInTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b, first, second := two()
		first.Keep = second.Keep
		defer end(first, second)
		for range cap(a.items) {
			a.items <- "a"
			b.items <- "b"
		}
		var got []string
		for range cap(a.items) {
			items, err := receiveAny(time.Minute, 1, first, second)
			assert.NoError(t, err)
			got = append(got, items...)
			time.Sleep(time.Minute) // they are worked on
		}
		_, fromA, _ := a.seen()
		_, fromB, _ := b.seen()
		assert.LessOrEqual(t, len(fromA)+len(fromB), 1, "until it's known that both have something")
		inTurn := got[1:]
		for i := range inTurn[2:] {
			assert.Equal(t, inTurn[i], inTurn[i+2], "%v", got)
		}
		assert.NotEqual(t, inTurn[0], inTurn[1], "%v", got)
	})
}

func TestASourceThatHasNothingMoreHoldsUpTheOtherOnce(t *testing.T) {
	t.Parallel()
	for _, which := range []string{"the first", "the second"} {
		t.Run(which, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a, b, first, second := two()
				first.Keep = second.Keep
				defer end(first, second)
				a.items <- "a"
				b.items <- "b"
				for range 2 {
					_, err := receiveAny(time.Minute, 1, first, second)
					assert.NoError(t, err)
				}
				from := a
				if which == "the second" {
					from = b
				}
				begun := time.Now()
				for range cap(from.items) {
					from.items <- "more"
					got, err := receiveAny(time.Minute, 1, first, second)
					assert.NoError(t, err)
					assert.Equal(t, []string{"more"}, got)
				}
				assert.LessOrEqual(t, time.Since(begun), 250*time.Millisecond)
			})
		})
	}
}

func TestWhatIsLeftOfWhatWasKeptIsGivenBackInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b, first, second := two()
		defer end(first, second)
		second.Poll = func(ctx context.Context, max int) ([]string, error) {
			one, err := b.poll(ctx, max)
			return append(one, "b2", "b3", "b4"), err
		}
		a.items <- "a"
		_, err := receiveAny(time.Minute, 5, first, second)
		assert.NoError(t, err)
		b.items <- "b1"
		for range 2 {
			time.Sleep(second.Keep * 2 / 5)
			_, err := receiveAny(time.Minute, 1, first, second)
			assert.NoError(t, err)
		}
		time.Sleep(second.Keep / 5)
		synctest.Wait()
		_, returned, _ := b.seen()
		assert.Equal(t, []string{"b3", "b4"}, returned, "taking a part doesn't make the rest wait for longer")
	})
}

func TestAPollDoesNotOvertakeWhatIsGivenBackInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, p := newBroker()
		p.Keep, p.Ordered = time.Second, true
		p.GiveBack = func(_ context.Context, items []string) {
			time.Sleep(time.Second) // its way to the broker
			for range len(b.items) {
				items = append(items, <-b.items)
			}
			for _, s := range items {
				b.items <- s
			}
		}
		_, err := receiveFor(p, time.Second, 5)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		b.items <- "1"
		synctest.Wait()
		b.items <- "2"
		time.Sleep(p.Keep + time.Millisecond) // nobody came for it
		var got []string
		for range 2 {
			items, err := p.Receive(t.Context(), 1)
			assert.NoError(t, err)
			got = append(got, items...)
		}
		assert.Equal(t, []string{"1", "2"}, got)
		end(p)
	})
}

func TestAReceiveFromTwoEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, _, first, second := two()
		defer end(first, second)
		_, err := receiveAny(time.Second, 1, first, second)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
	})
}
