package sqs_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// bodies returns what deliveries say.
func bodies(ds []*queue.Delivery) []string {
	out := make([]string, len(ds))
	for i, d := range ds {
		out[i] = string(d.Body)
	}
	return out
}

// count returns how many messages a queue has.
func (r *rig) count() int64 {
	r.t.Helper()
	in, ok := queue.As[queue.Inspector](r.q)
	require.True(r.t, ok)
	s, err := in.Stats(r.t.Context())
	require.NoError(r.t, err)
	return *s.Ready + *s.Delayed + *s.InFlight
}

// A FIFO queue knows for five minutes that it has a message. Sent again later it
// would be there twice, and nobody told.
func TestWhatAFIFOQueueMayHaveForgottenIsNotSentAgain(t *testing.T) {
	for _, c := range []struct {
		name string
		gone bool
	}{{"the queue is throttled meanwhile", false}, {"the endpoint is gone meanwhile", true}} {
		t.Run(c.name, func(t *testing.T) {
			faulty(t, queue.QueueSpec{Ordered: true}, func(t *testing.T, r *rig) {
				r.fail(sqstest.Fault{Action: sendBatch, Effect: sqstest.Unanswered, Times: 1})
				if c.gone {
					time.AfterFunc(10*time.Millisecond, func() { r.gate.down.Store(true) })
				} else {
					r.fail(sqstest.Fault{Action: sendBatch, Code: "ThrottlingException"})
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				begun := time.Now()
				assert.ErrorIs(t, r.q.Publish(ctx, keyed("k", "once")), queue.ErrUnknownOutcome)
				assert.Less(t, time.Since(begun), 5*time.Minute)
				r.gate.down.Store(false)
				assert.EqualValues(t, 1, r.count())
			})
		})
	}
}

// SQS refuses the first of three, takes the others, and its answer is lost. The
// repeat is taken behind the others: they are named, so that who sends them again
// has all in order at last.
func TestMessagesThatHaveOvertakenAnEarlierOneAreNamed(t *testing.T) {
	faulty(t, queue.QueueSpec{Ordered: true}, func(t *testing.T, r *rig) {
		r.fail(sqstest.Fault{Action: sendBatch, Effect: sqstest.RefuseEntry, Match: body("m0"), Times: 1})
		r.fail(sqstest.Fault{Action: sendBatch, Effect: sqstest.Unanswered, Times: 1})
		failed := failures(t, r.q.Publish(t.Context(), r.messages("m", 12)...))
		assert.Len(t, failed, 11)
		for i := 1; i < 12; i++ {
			switch {
			case i < 10:
				assert.ErrorIs(t, failed[i], queue.ErrUnknownOutcome)
				assert.ErrorContains(t, failed[i], "before an earlier message")
			default:
				assert.ErrorContains(t, failed[i], "not sent")
			}
		}
		assert.Equal(t, []string{"m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "m9", "m0"}, bodies(receive(t, r.q, 10)))
	})
}

func TestALostAnswerAloneBreaksNoOrder(t *testing.T) {
	faulty(t, queue.QueueSpec{Ordered: true}, func(t *testing.T, r *rig) {
		r.fail(sqstest.Fault{Action: sendBatch, Effect: sqstest.Unanswered, Times: 3})
		r.publish("m", 25)
		c := r.consume(r.q, 10, nil)
		r.await(25)
		c.end()
		assert.Zero(t, r.duplicates())
		for i, m := range r.messages("m", 25) {
			assert.Equal(t, string(m.Body), r.order[i])
		}
	})
}

// A FIFO request that's too long is sent in halves, the second one only if nothing
// of its keys is left in the first.
func TestTheHalvesOfARequestKeepTheOrder(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	n := 0
	f.answers[sendBatch] = func(in map[string]any) any {
		n++
		switch {
		case len(entries(in)) > 5:
			return failure{http.StatusBadRequest, "com.amazonaws.sqs#BatchRequestTooLong"}
		case n == 2:
			return failure{http.StatusBadRequest, "ThrottlingException"}
		}
		return sendAll(in)
	}
	q := open(t, f, &queue.OpenOptions{Ordered: true})
	var msgs []*queue.Message
	for i := range 10 {
		msgs = append(msgs, keyed("k", fmt.Sprint("m", i)))
	}
	require.NoError(t, q.Publish(t.Context(), msgs...))
	var order []string
	for _, in := range f.made(sendBatch)[2:] { // after the one that's too long, and the one that's throttled
		if len(entries(in)) > 5 {
			continue
		}
		for _, e := range entries(in) {
			order = append(order, e["MessageBody"].(string))
		}
	}
	for i, m := range msgs {
		assert.Equal(t, string(m.Body), order[i])
	}
}

// A request that's refused as a whole for one message fails neither those of other
// callers, nor those of other keys.
func TestAMessageForWhichItsRequestIsRefusedFailsAlone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		key  func(i int) string // nil: a standard queue
		fail []int
	}{
		{"on a standard queue", nil, []int{3}},
		{"on a FIFO queue with other keys", func(i int) string { return fmt.Sprint("k", i) }, []int{3}},
		{"but for those behind it", func(i int) string { return fmt.Sprint("k", i%2) }, []int{3, 5, 7, 9}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			taken := map[string]bool{}
			f.answers[sendBatch] = func(in map[string]any) any {
				for _, e := range entries(in) {
					if e["MessageBody"] == "m3" {
						return failure{http.StatusBadRequest, "com.amazonaws.sqs#InvalidMessageContents"}
					}
				}
				for _, e := range entries(in) {
					taken[e["MessageBody"].(string)] = true
				}
				return sendAll(in)
			}
			var msgs []*queue.Message
			for i := range 10 {
				m := message(fmt.Sprint("m", i))
				if c.key != nil {
					m.OrderingKey = c.key(i)
				}
				msgs = append(msgs, m)
			}
			failed := failures(t, open(t, f, &queue.OpenOptions{Ordered: c.key != nil}).Publish(t.Context(), msgs...))
			assert.Equal(t, c.fail, slices.Sorted(maps.Keys(failed)))
			assert.ErrorContains(t, failed[3], "InvalidMessageContents")
			assert.NotErrorIs(t, failed[3], queue.ErrUnknownOutcome)
			assert.Len(t, taken, 10-len(c.fail), "each that didn't fail")
		})
	}
}

// What's wrong with every request isn't looked for in its messages.
func TestARequestIsNotCutForWhatIsCommonToAll(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		code   string
		cut    bool
	}{
		{http.StatusBadRequest, "com.amazonaws.sqs#InvalidMessageContents", true},
		{http.StatusBadRequest, "InvalidParameterValue", true},
		{http.StatusForbidden, "AccessDeniedException", false},
		{http.StatusForbidden, "ExpiredToken", false},
		{http.StatusForbidden, "SomethingNew", false},
		{http.StatusBadRequest, "SomethingNew", true},
		{http.StatusBadRequest, "ExpiredTokenException", false},
		{http.StatusBadRequest, "com.amazonaws.sqs#KmsDisabled", false},
		{http.StatusBadRequest, "com.amazonaws.sqs#QueueDoesNotExist", false},
		{http.StatusBadRequest, "com.amazonaws.sqs#UnsupportedOperation", false},
	} {
		t.Run(fmt.Sprint(c.status, " ", c.code), func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.answers[sendBatch] = func(map[string]any) any { return failure{c.status, c.code} }
			failed := failures(t, open(t, f, nil).Publish(t.Context(), message("a"), message("b"), message("c"), message("d")))
			assert.Len(t, failed, 4)
			want := 1
			if c.cut {
				want = 7
			}
			assert.Len(t, f.made(sendBatch), want)
		})
	}
}
