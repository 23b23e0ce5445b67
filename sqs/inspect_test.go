package sqs_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs"
)

func inspector(t *testing.T, q queue.Queue) queue.Inspector {
	t.Helper()
	in, ok := queue.As[queue.Inspector](q)
	require.True(t, ok)
	return in
}

func TestServerStatsCountEveryState(t *testing.T) {
	onServers(t, func(t *testing.T, s *server) {
		q := s.fresh(t, "stats", nil)
		for i := range 4 {
			require.NoError(t, q.Publish(t.Context(), message(fmt.Sprint("m", i))))
		}
		late := message("late")
		late.Delay = time.Minute
		require.NoError(t, q.Publish(t.Context(), late))
		receive(t, q, 1)
		in := inspector(t, q)
		require.EventuallyWithT(t, func(c *assert.CollectT) {
			got, err := in.Stats(t.Context())
			require.NoError(c, err)
			require.True(c, got.Ready != nil && got.InFlight != nil && got.Delayed != nil)
			assert.Equal(c, []int64{3, 1, 1}, []int64{*got.Ready, *got.InFlight, *got.Delayed})
		}, patience, 50*time.Millisecond)
	})
}

func TestStatsNeverTurnTheUnknownIntoZero(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	q := open(t, f, nil)
	f.answers["GetQueueAttributes"] = func(map[string]any) any {
		return map[string]any{"Attributes": map[string]string{"ApproximateNumberOfMessages": "7"}}
	}
	before := time.Now()
	got, err := inspector(t, q).Stats(t.Context())
	require.NoError(t, err)
	assert.Equal(t, int64(7), *got.Ready)
	assert.Nil(t, got.InFlight)
	assert.Nil(t, got.Delayed)
	assert.Nil(t, got.OldestAge, "SQS doesn't tell it")
	assert.True(t, got.Approximate)
	assert.Equal(t, "sqs:GetQueueAttributes", got.Source)
	assert.False(t, got.AsOf.Before(before))
	f.answers["GetQueueAttributes"] = func(map[string]any) any { return failure{http.StatusForbidden, "AccessDeniedException"} }
	_, err = inspector(t, q).Stats(t.Context())
	assert.ErrorIs(t, err, queue.ErrPermission)
}

func TestServerPeekShowsAndGivesBackAtOnce(t *testing.T) {
	onServers(t, func(t *testing.T, s *server) {
		q, want := s.twelve(t, false)
		if got := look(t, q); s.lags {
			assert.Subset(t, want, got, "SQS itself may bring less than there is")
		} else {
			assert.Equal(t, want, got)
		}
		takesAll(t, q, want)
	})
}

func TestServerPeekIntoAFIFOQueueShowsAndGivesBackAtOnce(t *testing.T) {
	onServers(t, func(t *testing.T, s *server) {
		q, want := s.twelve(t, true)
		assert.Subset(t, want, look(t, q), "a key's later messages may be withheld meanwhile")
		takesAll(t, q, want)
	})
}

// twelve opens a queue with twelve messages of three keys, and long leases.
func (s *server) twelve(t *testing.T, order bool) (q queue.Queue, bodies map[string]bool) {
	t.Helper()
	q = s.fresh(t, "peek", &queue.QueueSpec{Ordered: order, Lease: 5 * time.Minute})
	bodies = map[string]bool{}
	var msgs []*queue.Message
	for i := range 12 {
		m := message(fmt.Sprint("m", i))
		m.Attributes = map[string]string{"n": fmt.Sprint(i)}
		if order {
			m.OrderingKey = fmt.Sprint("key", i%3)
		}
		msgs, bodies[string(m.Body)] = append(msgs, m), true
	}
	require.NoError(t, q.Publish(t.Context(), msgs...))
	return q, bodies
}

// look peeks and returns the bodies.
func look(t *testing.T, q queue.Queue) map[string]bool {
	t.Helper()
	ds, err := inspector(t, q).Peek(t.Context(), 12)
	require.NoError(t, err)
	require.NotEmpty(t, ds)
	got := map[string]bool{}
	for _, d := range ds {
		assert.False(t, got[string(d.Body)], "%s was shown twice", d.Body)
		got[string(d.Body)] = true
		assert.Equal(t, "m"+d.Attributes["n"], string(d.Body))
		assert.Equal(t, q.Capabilities().Ordering, d.OrderingKey != "")
		assert.Zero(t, d.Deadline, "it isn't leased")
		info, ok := sqs.InfoOf(d)
		assert.True(t, ok)
		assert.Equal(t, d.BrokerID, info.MessageID)
	}
	return got
}

// takesAll expects that nothing waits for the end of a lease of five minutes.
func takesAll(t *testing.T, q queue.Queue, want map[string]bool) {
	t.Helper()
	begun := time.Now()
	for len(want) > 0 {
		d := receive(t, q, 1)[0]
		require.True(t, want[string(d.Body)])
		delete(want, string(d.Body))
		require.NoError(t, q.Settle(t.Context(), queue.Settlement{Delivery: d, Kind: queue.Ack}))
	}
	assert.Less(t, time.Since(begun), time.Minute)
}

func TestServerPeekIntoNothingFindsNothing(t *testing.T) {
	onServers(t, func(t *testing.T, s *server) {
		ds, err := inspector(t, s.fresh(t, "peek", nil)).Peek(t.Context(), 3)
		assert.NoError(t, err)
		assert.Empty(t, ds)
	})
}

func TestServerPeekIsRefusedWhereReceivesCountUnlessConfirmed(t *testing.T) {
	onServers(t, func(t *testing.T, s *server) {
		q := s.fresh(t, "peek", &queue.QueueSpec{DeadLetter: unique("dead"), BrokerMaxAttempts: 5})
		require.NoError(t, q.Publish(t.Context(), message("m")))
		_, err := inspector(t, q).Peek(t.Context(), 1)
		require.ErrorIs(t, err, queue.ErrUnsupported)
		require.ErrorContains(t, err, "after 5 receives", "it says what would happen")

		in, ok := queue.As[queue.PeekConfirmer](q)
		require.True(t, ok)
		ds, err := in.PeekConfirmed(t.Context(), 1)
		require.NoError(t, err)
		require.Len(t, ds, 1)
		assert.Equal(t, "m", string(ds[0].Body))
		other := s.open(t, q.Capabilities().Source.Name, false) // as another process does
		assert.Equal(t, 2, receive(t, other, 1)[0].Attempt, "the refused Peek hasn't received, and the other has")
	})
}

func TestServerPeekIsNoAttemptToWhoeverHasPeeked(t *testing.T) {
	onServers(t, func(t *testing.T, s *server) {
		q := s.fresh(t, "peek", nil)
		require.NoError(t, q.Publish(t.Context(), message("m")))
		_, err := inspector(t, q).Peek(t.Context(), 1)
		require.NoError(t, err)
		assert.Equal(t, 1, receive(t, q, 1)[0].Attempt)
	})
}

func TestPeekIsRefusedWhereAPolicyMayNotBeRead(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	q := open(t, f, nil)
	f.answers["GetQueueAttributes"] = func(map[string]any) any { return failure{http.StatusForbidden, "AccessDeniedException"} }
	f.answers["ReceiveMessage"] = bringing("m", nil)
	_, err := inspector(t, q).Peek(t.Context(), 1)
	assert.ErrorIs(t, err, queue.ErrUnsupported)
	assert.Empty(t, f.made("ReceiveMessage"))
}

func TestPeekHidesForTwoSecondsAndGivesBack(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	q := open(t, f, nil)
	f.answers["ReceiveMessage"] = bringing("m", nil)
	in, _ := queue.As[queue.PeekConfirmer](q)
	ds, err := in.PeekConfirmed(t.Context(), 1)
	require.NoError(t, err)
	asked := f.made("ReceiveMessage")[0]
	assert.EqualValues(t, 2, asked["VisibilityTimeout"])
	assert.EqualValues(t, 1, asked["MaxNumberOfMessages"])
	assert.EqualValues(t, 1, asked["WaitTimeSeconds"], "0 isn't sent, and then the queue's own wait would hold")
	back := entries(f.made("ChangeMessageVisibilityBatch")[0])
	assert.Equal(t, "r-m", back[0]["ReceiptHandle"])
	assert.EqualValues(t, 0, back[0]["VisibilityTimeout"])

	_, err = in.PeekConfirmed(t.Context(), 0)
	assert.ErrorIs(t, err, queue.ErrInvalid)

	for _, kind := range []queue.SettleKind{queue.Ack, queue.Release} {
		assert.ErrorIs(t, q.Settle(t.Context(), queue.Settlement{Delivery: ds[0], Kind: kind}), queue.ErrInvalid, "what was only looked at can't be settled")
	}
	assert.Empty(t, f.made("DeleteMessageBatch"))
}

func TestPeekGivesBackAlsoWhatACancelledCallHasReceived(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	q := open(t, f, nil)
	ctx, cancel := context.WithCancel(t.Context())
	bring := bringing("m", nil)
	f.answers["ReceiveMessage"] = func(in map[string]any) any {
		if len(f.made("ReceiveMessage")) > 1 {
			cancel()
		}
		return bring(in)
	}
	in, _ := queue.As[queue.PeekConfirmer](q)
	ds, err := in.PeekConfirmed(ctx, 5)
	require.NoError(t, err)
	assert.Len(t, ds, 1, "the same message twice is one")
	assert.Len(t, entries(f.made("ChangeMessageVisibilityBatch")[0]), 1)
}

func TestServerPurgeRemovesEverything(t *testing.T) {
	onServers(t, func(t *testing.T, s *server) {
		q := s.fresh(t, "purge", nil)
		for i := range 3 {
			require.NoError(t, q.Publish(t.Context(), message(fmt.Sprint(i))))
		}
		receive(t, q, 1)
		p, ok := queue.As[queue.Purger](q)
		require.True(t, ok)
		require.NoError(t, p.Purge(t.Context()))
		in := inspector(t, q)
		require.EventuallyWithT(t, func(c *assert.CollectT) {
			got, err := in.Stats(t.Context())
			require.NoError(c, err)
			assert.Equal(c, []int64{0, 0}, []int64{*got.Ready, *got.InFlight})
		}, patience, 50*time.Millisecond)
	})
}

func TestErrorsOfPurge(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	q := open(t, f, nil)
	p, _ := queue.As[queue.Purger](q)
	for _, c := range []struct {
		name, code string
		want       error
	}{
		{"twice within a minute", "com.amazonaws.sqs#PurgeQueueInProgress", queue.ErrThrottled},
		{"a queue that's gone", "com.amazonaws.sqs#QueueDoesNotExist", queue.ErrQueueNotFound},
		{"not permitted", "AccessDeniedException", queue.ErrPermission},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.answers["PurgeQueue"] = func(map[string]any) any { return failure{http.StatusForbidden, c.code} }
			assert.ErrorIs(t, p.Purge(t.Context()), c.want)
		})
	}
}

func TestALostAnswerToAPurgeIsSaid(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	q := open(t, f, nil)
	p, _ := queue.As[queue.Purger](q)
	n := 0
	f.answers["PurgeQueue"] = func(map[string]any) any {
		if n++; n == 1 {
			return cut{}
		}
		return failure{http.StatusForbidden, "com.amazonaws.sqs#PurgeQueueInProgress"} // by the first try
	}
	err := p.Purge(t.Context())
	assert.ErrorIs(t, err, queue.ErrUnknownOutcome)
	assert.ErrorIs(t, err, queue.ErrThrottled)
	err = p.Purge(t.Context())
	assert.ErrorIs(t, err, queue.ErrThrottled)
	assert.NotErrorIs(t, err, queue.ErrUnknownOutcome)
}

func TestAdministrationAfterCloseIsRefused(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	q, err := sqs.New(f.client(), nil).Open(t.Context(), "orders", nil)
	require.NoError(t, err)
	require.NoError(t, q.Close(t.Context()))
	in := inspector(t, q)
	p, _ := queue.As[queue.Purger](q)
	m, _ := queue.As[sqs.Mover](q)
	for name, call := range map[string]func() error{
		"Stats":      func() error { _, err := in.Stats(t.Context()); return err },
		"Peek":       func() error { _, err := in.Peek(t.Context(), 1); return err },
		"Purge":      func() error { return p.Purge(t.Context()) },
		"StartMove":  func() error { _, err := m.StartMove(t.Context(), nil); return err },
		"Moves":      func() error { _, err := m.Moves(t.Context()); return err },
		"CancelMove": func() error { _, err := m.CancelMove(t.Context(), "x"); return err },
	} {
		t.Run(name, func(t *testing.T) { assert.ErrorIs(t, call(), queue.ErrClosed) })
	}
}
