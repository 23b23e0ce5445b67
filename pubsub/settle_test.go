package pubsub_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/anyqueue/anyqueue/queue"
)

// refused spreads the error of a Settle or Extend over its entries.
func refused(t *testing.T, err error) map[int]error {
	t.Helper()
	out := map[int]error{}
	if err == nil {
		return out
	}
	settle, ok := errors.AsType[*queue.SettleError](err)
	require.True(t, ok, "%v", err)
	for _, e := range settle.Failed {
		out[e.Index] = e.Err
	}
	return out
}

func settlements(kind queue.SettleKind, ds ...*queue.Delivery) []queue.Settlement {
	out := make([]queue.Settlement, len(ds))
	for i, d := range ds {
		out[i] = queue.Settlement{Delivery: d, Kind: kind}
	}
	return out
}

func TestSettlementsShareRequests(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.alone(t, nil, nil)
		require.NoError(t, q.Publish(t.Context(), many(2007)...))
		ds := receive(t, q, 2007)
		s := settlements(queue.Ack, ds[:2003]...)
		for i, delay := range []time.Duration{1100 * time.Millisecond, 2 * time.Second, time.Hour, 0} {
			s = append(s, queue.Settlement{Delivery: ds[2003+i], Kind: queue.Release, Delay: delay})
		}
		require.NoError(t, q.Settle(t.Context(), s...))
		var acked []int
		for _, r := range f.acks() {
			acked = append(acked, len(r.GetAckIds()))
		}
		assert.ElementsMatch(t, []int{1000, 1000, 3}, acked)
		released := map[int32]int{}
		for _, r := range f.modacks() {
			released[r.GetAckDeadlineSeconds()] += len(r.GetAckIds())
		}
		assert.Equal(t, map[int32]int{2: 2, 600: 1, 0: 1}, released, "rounded up, and 10 minutes at most")
		assert.Len(t, f.modacks(), 3)
		c := countsOf(t, q)
		assert.EqualValues(t, 3, c.Acks)
		assert.EqualValues(t, 3, c.Modacks)
	})
}

func TestWhatWasAcknowledgedIsGoneAndWhatWasReleasedComesAgain(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.alone(t, nil, nil)
		require.NoError(t, q.Publish(t.Context(), message("done"), message("again")))
		for _, d := range receive(t, q, 2) {
			s := queue.Settlement{Delivery: d}
			if string(d.Body) == "again" {
				s.Kind = queue.Release
			}
			require.NoError(t, q.Settle(t.Context(), s))
		}
		assert.Equal(t, []string{"again"}, bodies(receive(t, q, 1)))
		time.Sleep(time.Minute)
		assert.Equal(t, []string{"again"}, bodies(receive(t, q, 1)), "its lease has ended; the other has none")
	})
}

func TestWhatCannotBeSettledFailsAlone(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.alone(t, nil, nil)
		f.ensure(t, "elsewhere", nil)
		other := f.open(t, "elsewhere", nil)
		require.NoError(t, other.Publish(t.Context(), message("theirs")))
		theirs := receive(t, other, 1)[0]
		require.NoError(t, q.Publish(t.Context(), many(3)...))
		ds := receive(t, q, 3)
		got := refused(t, q.Settle(t.Context(),
			queue.Settlement{Delivery: ds[0]},
			queue.Settlement{Delivery: theirs},
			queue.Settlement{},
			queue.Settlement{Delivery: &queue.Delivery{}},
			queue.Settlement{Delivery: ds[1], Kind: queue.Release, Delay: -1},
			queue.Settlement{Delivery: ds[1], Kind: 99},
			queue.Settlement{Delivery: ds[2], Kind: queue.Release, Delay: time.Minute},
		))
		assert.Len(t, got, 5)
		for i := 1; i <= 5; i++ {
			assert.ErrorIs(t, got[i], queue.ErrInvalid)
		}
		assert.Len(t, f.acks()[0].GetAckIds(), 1)
		assert.EqualValues(t, 60, f.modacks()[0].GetAckDeadlineSeconds())
	})
}

// Several processes, or parts of one, may have the same queue open.
func TestAnotherHandleOfTheQueueMaySettle(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.alone(t, nil, nil)
		require.NoError(t, q.Publish(t.Context(), message("a")))
		d := receive(t, q, 1)[0]
		require.NoError(t, f.open(t, "orders", nil).Settle(t.Context(), queue.Settlement{Delivery: d}))
		assert.Len(t, f.acks(), 1)
	})
}

func TestErrorsOfSettlementsHaveTheirMeaning(t *testing.T) {
	for _, c := range []struct {
		name    string
		answer  answer
		want    error
		unknown bool
		gone    bool // it was done all the same
	}{
		{"no permission", refuse(codes.PermissionDenied), queue.ErrPermission, false, false},
		{"the subscription is gone", refuse(codes.NotFound), queue.ErrQueueNotFound, false, false},
		{"throttled", refuse(codes.ResourceExhausted), queue.ErrThrottled, false, false},
		{"an answer that's lost", lose(codes.Unavailable), nil, true, true},
		{"no answer within 10 s", hang, nil, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				q := f.alone(t, nil, nil)
				require.NoError(t, q.Publish(t.Context(), many(3)...))
				ds := receive(t, q, 3)
				f.on("Acknowledge", c.answer)
				begun := time.Now()
				got := refused(t, q.Settle(t.Context(),
					queue.Settlement{Delivery: ds[0]}, queue.Settlement{Delivery: ds[1], Kind: queue.Release, Delay: time.Minute}, queue.Settlement{Delivery: ds[2]}))
				assert.LessOrEqual(t, time.Since(begun), 10*time.Second)
				assert.Len(t, got, 2, "the release is another request")
				for _, i := range []int{0, 2} {
					if c.want != nil {
						assert.ErrorIs(t, got[i], c.want)
					}
					assert.Equal(t, c.unknown, errors.Is(got[i], queue.ErrUnknownOutcome), "%v", got[i])
					assert.NotErrorIs(t, got[i], queue.ErrLeaseLost, "trying again may help")
				}
				f.heal()
				if c.gone {
					return
				}
				require.NoError(t, q.Settle(t.Context(), settlements(queue.Ack, ds[0], ds[2])...))
			})
		})
	}
}

func TestExtendSaysWhatWasGranted(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.alone(t, nil, nil)
		require.NoError(t, q.Publish(t.Context(), message("a")))
		d := receive(t, q, 1)[0]
		for _, c := range []struct {
			ask, granted time.Duration
		}{{time.Minute, time.Minute}, {1500 * time.Millisecond, 2 * time.Second}, {time.Hour, 10 * time.Minute}} {
			f.forget()
			granted, err := q.Extend(t.Context(), c.ask, &queue.Delivery{}, d)
			assert.Len(t, refused(t, err), 1)
			assert.ErrorIs(t, refused(t, err)[0], queue.ErrInvalid, "the first isn't ours")
			assert.True(t, granted[0].IsZero())
			assert.Equal(t, time.Now().Add(c.granted), granted[1])
			assert.EqualValues(t, c.granted/time.Second, f.modacks()[0].GetAckDeadlineSeconds())
		}
		for _, ask := range []time.Duration{0, -time.Second} {
			_, err := q.Extend(t.Context(), ask, d)
			assert.ErrorIs(t, err, queue.ErrInvalid, "that would give it back")
		}
		f.on("ModifyAckDeadline", refuse(codes.PermissionDenied))
		granted, err := q.Extend(t.Context(), time.Minute, d)
		assert.ErrorIs(t, refused(t, err)[0], queue.ErrPermission)
		assert.True(t, granted[0].IsZero())
	})
}

// What's granted counts from before the request: a slow answer doesn't make a lease
// longer than it is.
func TestAGrantCountsFromBeforeItsRequest(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.alone(t, nil, nil)
		require.NoError(t, q.Publish(t.Context(), message("a")))
		d := receive(t, q, 1)[0]
		f.on("ModifyAckDeadline", late(3*time.Second))
		begun := time.Now()
		granted, err := q.Extend(t.Context(), time.Minute, d)
		require.NoError(t, err)
		assert.Equal(t, begun.Add(time.Minute), granted[0])
	})
}

func TestExtensionsShareRequests(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.alone(t, nil, nil)
		require.NoError(t, q.Publish(t.Context(), many(1500)...))
		ds := receive(t, q, 1500)
		_, err := q.Extend(t.Context(), time.Minute, ds...)
		require.NoError(t, err)
		assert.Len(t, f.modacks(), 2)
	})
}

func TestCallsThatAreCutOffSaySo(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.alone(t, nil, nil)
		require.NoError(t, q.Publish(t.Context(), message("a")))
		d := receive(t, q, 1)[0]
		f.on("Acknowledge", hang)
		f.on("ModifyAckDeadline", hang)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		err := q.Settle(ctx, queue.Settlement{Delivery: d})
		assert.ErrorIs(t, err, queue.ErrUnknownOutcome)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = q.Extend(ctx, time.Minute, d)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, time.Second, time.Since(begun))
	})
}
