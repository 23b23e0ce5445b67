package remote_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/anyqueue/anyqueue/internal/remote"
)

// broker answers polls after a while, or when it's given something.
type broker struct {
	mu       sync.Mutex
	polls    []int // what each poll asked for
	cut      int
	returned []string
	items    chan string
	wait     time.Duration
}

func newBroker() (*broker, *remote.Polls[string]) {
	b := &broker{items: make(chan string, 10), wait: 20 * time.Second}
	return b, &remote.Polls[string]{Poll: b.poll, GiveBack: b.giveBack}
}

func (b *broker) poll(ctx context.Context, max int) ([]string, error) {
	b.mu.Lock()
	b.polls = append(b.polls, max)
	b.mu.Unlock()
	t := time.NewTimer(b.wait)
	defer t.Stop()
	select {
	case s := <-b.items:
		return []string{s}, nil
	case <-t.C:
		return nil, nil
	case <-ctx.Done():
		b.mu.Lock()
		b.cut++
		b.mu.Unlock()
		return nil, ctx.Err()
	}
}

// seen returns what the polls asked for, what was given back, and how many polls
// were cut off.
func (b *broker) seen() (polls []int, returned []string, cut int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.polls), slices.Clone(b.returned), b.cut
}

func (b *broker) giveBack(_ context.Context, items []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.returned = append(b.returned, items...)
}

func receiveFor(p *remote.Polls[string], d time.Duration, max int) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return p.Receive(ctx, max)
}

func TestAPollThatBringsSomethingReturnsIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, p := newBroker()
		b.items <- "a"
		got, err := p.Receive(t.Context(), 5)
		assert.NoError(t, err)
		assert.Equal(t, []string{"a"}, got)
		p.Close(t.Context())
		polls, _, _ := b.seen()
		assert.Equal(t, []int{5}, polls)
	})
}

func TestAPollThatWasLeftIsTakenOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, p := newBroker()
		_, err := receiveFor(p, time.Second, 5)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		time.AfterFunc(time.Second, func() { b.items <- "a" })
		got, err := p.Receive(t.Context(), 7)
		assert.NoError(t, err)
		assert.Equal(t, []string{"a"}, got)
		p.Close(t.Context())
		polls, returned, _ := b.seen()
		assert.Equal(t, []int{5}, polls, "one poll served both")
		assert.Empty(t, returned)
	})
}

func TestAPollThatWouldBringTooMuchIsNotTakenOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, p := newBroker()
		_, err := receiveFor(p, time.Second, 5)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = receiveFor(p, time.Second, 4)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		p.Close(t.Context())
		polls, _, cut := b.seen()
		assert.Equal(t, []int{5, 4}, polls)
		assert.Zero(t, cut)
	})
}

func TestWhatComesWhenNobodyWaitsIsGivenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, p := newBroker()
		_, err := receiveFor(p, time.Second, 5)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		b.items <- "a"
		synctest.Wait()
		_, returned, _ := b.seen()
		assert.Equal(t, []string{"a"}, returned)
		begun := time.Now()
		p.Close(t.Context())
		assert.Zero(t, time.Since(begun), "nothing is open any more")
	})
}

// What's being given back is somebody else's already.
func TestWhatIsGivenBackIsNotTakenOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, p := newBroker()
		p.GiveBack = func(ctx context.Context, items []string) {
			time.Sleep(time.Second)
			b.giveBack(ctx, items)
		}
		_, err := receiveFor(p, time.Second, 5)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		b.items <- "a"
		synctest.Wait()
		time.AfterFunc(500*time.Millisecond, func() { b.items <- "b" })
		got, err := p.Receive(t.Context(), 5)
		assert.NoError(t, err)
		assert.Equal(t, []string{"b"}, got)
		p.Close(t.Context())
		_, returned, _ := b.seen()
		assert.Equal(t, []string{"a"}, returned)
	})
}

func TestCloseLetsPollsEndByThemselves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, p := newBroker()
		begun := time.Now()
		_, err := receiveFor(p, time.Second, 5)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		p.Close(t.Context())
		assert.Equal(t, b.wait, time.Since(begun))
		_, _, cut := b.seen()
		assert.Zero(t, cut)
		p.Close(t.Context()) // harmless
	})
}

func TestCloseCutsPollsOffWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, p := newBroker()
		begun := time.Now()
		_, err := receiveFor(p, time.Second, 5)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		p.Close(ctx)
		assert.Equal(t, 3*time.Second, time.Since(begun))
		_, _, cut := b.seen()
		assert.Equal(t, 1, cut)
	})
}

func TestAPollThatIsLeftAfterCloseIsCutOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, p := newBroker()
		time.AfterFunc(time.Second, func() { p.Close(context.Background()) })
		begun := time.Now()
		_, err := receiveFor(p, 2*time.Second, 5)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		synctest.Wait()
		_, _, cut := b.seen()
		assert.Equal(t, 1, cut)
		assert.Equal(t, 2*time.Second, time.Since(begun))
	})
}

func TestAnErrorOfAPollIsItsCallers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		p := &remote.Polls[string]{Poll: func(context.Context, int) ([]string, error) { return nil, broken }}
		_, err := p.Receive(t.Context(), 1)
		assert.ErrorIs(t, err, broken)
		p.Close(t.Context())
	})
}

func TestAPollKnowsHowLongItsCallerWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var until time.Time
		var known, bounded bool
		p := &remote.Polls[string]{Poll: func(ctx context.Context, _ int) ([]string, error) {
			until, known = remote.Until(ctx)
			_, bounded = ctx.Deadline()
			return nil, nil
		}}
		_, err := receiveFor(p, 3*time.Second, 1)
		assert.NoError(t, err)
		assert.True(t, known)
		assert.Equal(t, 3*time.Second, time.Until(until))
		assert.False(t, bounded, "its end doesn't cut the poll off")
		_, err = p.Receive(t.Context(), 1)
		assert.NoError(t, err)
		assert.False(t, known)
		p.Close(t.Context())
	})
}

func TestAnEndedContextBeginsNoPoll(t *testing.T) {
	t.Parallel()
	b, p := newBroker()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := p.Receive(ctx, 1)
	assert.ErrorIs(t, err, context.Canceled)
	polls, _, _ := b.seen()
	assert.Empty(t, polls)
	p.Close(t.Context())
}

func TestGivingBackEndsWithTheContextOfClose(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		takes time.Duration // the poll, once Close has been called
	}{{"that has begun before", 0}, {"of a poll that was cut off", time.Hour}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, p := newBroker()
				p.Poll = func(ctx context.Context, _ int) ([]string, error) {
					select {
					case <-time.After(2*time.Second + c.takes):
					case <-ctx.Done():
					}
					return []string{"a"}, nil
				}
				p.GiveBack = func(ctx context.Context, items []string) {
					<-ctx.Done()
					b.giveBack(ctx, items)
				}
				_, err := receiveFor(p, time.Second, 5)
				assert.ErrorIs(t, err, context.DeadlineExceeded)
				time.Sleep(1500 * time.Millisecond)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				begun := time.Now()
				p.Close(ctx)
				assert.Equal(t, time.Second, time.Since(begun))
				_, returned, _ := b.seen()
				assert.Equal(t, []string{"a"}, returned)
			})
		})
	}
}
