package sqs_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs"
)

func mover(t *testing.T, q queue.Queue) sqs.Mover {
	t.Helper()
	m, ok := queue.As[sqs.Mover](q)
	require.True(t, ok)
	return m
}

// pair makes a queue whose messages SQS itself dead-letters at their second
// receive.
func (s *server) pair(t *testing.T) (q, dead queue.Queue) {
	t.Helper()
	deadName := unique("dead")
	q = s.fresh(t, "q", &queue.QueueSpec{DeadLetter: deadName, BrokerMaxAttempts: 1})
	return q, s.open(t, deadName, false)
}

// deadLetter has SQS move n messages, and waits until it has.
func (s *server) deadLetter(t *testing.T, q, dead queue.Queue, n int) {
	t.Helper()
	for i := range n {
		require.NoError(t, q.Publish(t.Context(), message(fmt.Sprint("m", i))))
	}
	for _, d := range receive(t, q, n) {
		require.NoError(t, q.Settle(t.Context(), queue.Settlement{Delivery: d, Kind: queue.Release}))
	}
	in := inspector(t, dead)
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		ds, err := q.Receive(t.Context(), 10) // SQS moves when somebody asks
		require.NoError(c, err)
		require.Empty(t, ds)
		got, err := in.Stats(t.Context())
		require.NoError(c, err)
		assert.EqualValues(c, n, *got.Ready)
	}, patience, 50*time.Millisecond)
}

func TestServerAMoveTakesBackWhatSQSDeadLettered(t *testing.T) {
	onServers(t, func(t *testing.T, s *server) { movesBack(t, s, func(queue.Queue) queue.Queue { return nil }) })
}

func TestServerAMoveToAQueue(t *testing.T) {
	onServers(t, func(t *testing.T, s *server) { movesBack(t, s, func(q queue.Queue) queue.Queue { return q }) })
}

func movesBack(t *testing.T, s *server, destination func(q queue.Queue) queue.Queue) {
	t.Helper()
	q, dead := s.pair(t)
	s.deadLetter(t, q, dead, 3)
	m, to := mover(t, dead), destination(q)
	task, err := m.StartMove(t.Context(), &sqs.MoveOptions{To: to})
	require.NoError(t, err)
	assert.NotEmpty(t, task)
	var last sqs.Move
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		moves, err := m.Moves(t.Context())
		require.NoError(c, err)
		require.Len(c, moves, 1)
		last = moves[0]
		assert.False(c, last.Running())
	}, patience, 50*time.Millisecond)
	assert.Equal(t, "COMPLETED", last.State, last.Reason)
	assert.EqualValues(t, 3, last.Moved)
	assert.Contains(t, last.From, dead.Capabilities().Source.Name)
	assert.Equal(t, to != nil, last.To != "")
	assert.False(t, last.StartedAt.IsZero())
	got := map[string]bool{}
	for _, d := range receive(t, q, 3) {
		got[string(d.Body)] = true
	}
	assert.Equal(t, map[string]bool{"m0": true, "m1": true, "m2": true}, got)
}

func TestServerAMoveCanBeCancelled(t *testing.T) {
	onServers(t, func(t *testing.T, s *server) {
		q, dead := s.pair(t)
		s.deadLetter(t, q, dead, 5)
		m := mover(t, dead)
		task, err := m.StartMove(t.Context(), &sqs.MoveOptions{Rate: 1})
		require.NoError(t, err)
		moves, err := m.Moves(t.Context())
		require.NoError(t, err)
		require.Len(t, moves, 1)
		assert.True(t, moves[0].Running(), moves[0].State)
		assert.Equal(t, 1, moves[0].Rate)
		assert.Equal(t, task, moves[0].Handle)
		_, err = m.StartMove(t.Context(), nil)
		require.Error(t, err, "one at a time")
		assert.NotErrorIs(t, err, queue.ErrUnsupported, "later it can")
		n, err := m.CancelMove(t.Context(), task)
		require.NoError(t, err)
		assert.Less(t, n, int64(5))
	})
}

func TestServerAMoveFromAQueueThatNoPolicyNamesIsRefused(t *testing.T) {
	onServers(t, func(t *testing.T, s *server) {
		q := s.fresh(t, "plain", nil)
		ctx, cancel := t.Context(), func() {}
		if s.silent {
			ctx, cancel = context.WithTimeout(ctx, 3*time.Second)
		}
		defer cancel()
		_, err := mover(t, q).StartMove(ctx, nil)
		if s.silent { // so that only Moves can tell
			assert.ErrorIs(t, err, queue.ErrUnknownOutcome)
			assert.ErrorIs(t, err, context.DeadlineExceeded)
		} else {
			assert.ErrorIs(t, err, queue.ErrUnsupported)
		}
		moves, err := mover(t, q).Moves(t.Context())
		require.NoError(t, err)
		assert.Empty(t, moves)
	})
}

func TestAMoveIsCheckedBeforeItsStart(t *testing.T) {
	t.Parallel()
	q := open(t, newFake(t), nil)
	other, err := memory.New(&memory.Options{Create: true}).Open(t.Context(), "orders", nil)
	require.NoError(t, err)
	for _, c := range []struct {
		name string
		opts sqs.MoveOptions
	}{
		{"a rate beyond 500", sqs.MoveOptions{Rate: 501}},
		{"a negative rate", sqs.MoveOptions{Rate: -1}},
		{"to a queue of another system", sqs.MoveOptions{To: other}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := mover(t, q).StartMove(t.Context(), &c.opts)
			assert.ErrorIs(t, err, queue.ErrInvalid)
		})
	}
}

func TestALostAnswerToTheStartOfAMoveIsSaid(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.answers["GetQueueAttributes"] = func(map[string]any) any {
		return map[string]any{"Attributes": map[string]string{
			"VisibilityTimeout": "30", "MessageRetentionPeriod": "86400", "MaximumMessageSize": "1048576", "QueueArn": "arn:aws:sqs:us-east-1:1:orders",
		}}
	}
	f.answers["ListDeadLetterSourceQueues"] = func(map[string]any) any { return map[string]any{"queueUrls": []any{"http://sqs.test/1/main"}} }
	q := open(t, f, nil)
	n := 0
	f.answers["StartMessageMoveTask"] = func(map[string]any) any {
		if n++; n == 1 {
			return cut{}
		}
		return failure{http.StatusBadRequest, "InvalidParameterValue"} // there's a task: the first try's
	}
	_, err := mover(t, q).StartMove(t.Context(), nil)
	assert.ErrorIs(t, err, queue.ErrUnknownOutcome)
	assert.Equal(t, 2, n)
	_, err = mover(t, q).StartMove(t.Context(), nil)
	require.Error(t, err)
	assert.NotErrorIs(t, err, queue.ErrUnknownOutcome)
}
