package batcher

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// Whoever leaves a request puts its items in doubt, while Send reads how many
// doubts there were before: a matter for the race detector.
func TestLeavingARequestDoesNotDisturbItsSend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, 0)
		asked, answer := make(chan struct{}), make(chan struct{})
		var before []int
		b.Send = func(_ context.Context, batch []*Item[string]) Report {
			asked <- struct{}{}
			for _, it := range batch {
				before = append(before, it.Doubts())
			}
			<-answer
			return all(len(batch), Result{})
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stays, leaves := make(chan []error, 1), make(chan []error, 1)
		b.Batcher.mu.Lock() // as if a request were under way: the two wait for each other
		b.part, b.rtt, b.MaxItems = 1, time.Hour, 2
		b.Batcher.mu.Unlock()
		go func() { stays <- b.publish(t.Context(), "stays") }()
		go func() { leaves <- b.publish(ctx, "leaves") }()
		<-asked
		cancel()
		assert.ErrorIs(t, (<-leaves)[0], context.Canceled)
		close(answer)
		assert.Equal(t, none(1), <-stays)
		assert.Equal(t, []int{0, 0}, before)
	})
}

func TestACallerWithSeveralRequestsThatIgnoreTheirContextComesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, 0)
		b.MaxItems = 1
		b.Send = func(_ context.Context, batch []*Item[string]) Report {
			time.Sleep(time.Hour)
			return all(len(batch), Result{})
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		for _, err := range b.publish(ctx, "a", "b", "c") {
			assert.ErrorIs(t, err, context.DeadlineExceeded)
		}
		assert.Equal(t, time.Second+cutGrace, time.Since(begun))
	})
}

// Who waits for room is let in by the one before it, also when that one has
// nothing to send any more.
func TestRoomThatIsNotUsedIsTheNextOnes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, 100*time.Millisecond)
		b.MaxHeld = 1
		b.answer = failing(func(_ int, v string) bool { return v == "k/1" }, Result{Err: errNo})
		broken := make(chan []error, 1)
		go func() { broken <- b.publish(t.Context(), "k/1", "k/2") }() // k/2 waits for room
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		begun := time.Now()
		assert.Equal(t, none(1), b.publish(ctx, "other"))
		assert.Equal(t, 200*time.Millisecond, time.Since(begun))
		assert.Equal(t, []error{errNo, ErrOvertaking}, <-broken)
	})
}

func TestWhatMayBeOvertakenIsNotSentAgain(t *testing.T) {
	t.Parallel()
	unanswered := errors.New("no answer")
	again, doubt := Result{Err: errNo, Again: true}, Result{Err: unanswered, Again: true, Doubt: true}
	for _, c := range []struct {
		name    string
		results []Result
		want    []error
		sent    int
	}{
		{"a refused one before one in doubt", []Result{again, doubt}, []error{errNo, unanswered}, 1},
		{"one in doubt before a refused one", []Result{doubt, again}, none(2), 2},
		{"both in doubt", []Result{doubt, doubt}, none(2), 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBroker(t, time.Millisecond)
				b.answer = func(n int, batch []string) Report {
					if n == 0 {
						return Report{Results: c.results}
					}
					return all(len(batch), Result{})
				}
				for i, err := range b.publish(t.Context(), "k/a", "k/b") {
					assert.ErrorIs(t, err, c.want[i])
				}
				assert.Len(t, b.sent(), c.sent)
			})
		})
	}
}
