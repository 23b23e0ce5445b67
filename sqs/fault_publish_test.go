package sqs_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

const (
	sendBatch   = "SendMessageBatch"
	deleteBatch = "DeleteMessageBatch"
	changeBatch = "ChangeMessageVisibilityBatch"
	receiving   = "ReceiveMessage"
)

func body(want string) func(string) bool { return func(got string) bool { return got == want } }

func TestAnEntryOfASendThatFailsIsSentAgainAlone(t *testing.T) {
	faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
		r.fail(sqstest.Fault{Action: sendBatch, Effect: sqstest.RefuseEntry, Match: body("m3"), Times: 2})
		r.publish("m", 10)
		assert.Equal(t, 3, r.server.Requests()[sendBatch])
		assert.Equal(t, 10, r.server.Entries()[sendBatch])
		c := r.consume(r.q, 10, nil)
		r.await(10)
		c.end()
		assert.Zero(t, r.duplicates())
		assert.EqualValues(t, 2, r.same(r.q).Retried)
	})
}

func TestAnEntryThatIsItsSendersFaultIsNamed(t *testing.T) {
	faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
		r.fail(sqstest.Fault{Action: sendBatch, Effect: sqstest.RefuseEntry, Match: body("m3"), SenderFault: true, Code: "InvalidMessageContents"})
		failed := failures(t, r.q.Publish(t.Context(), r.messages("m", 10)...))
		assert.Len(t, failed, 1)
		assert.ErrorContains(t, failed[3], "InvalidMessageContents")
		assert.NotErrorIs(t, failed[3], queue.ErrUnknownOutcome, "SQS said no")
		c := r.consume(r.q, 10, nil)
		r.await(9)
		c.end()
		assert.Zero(t, r.duplicates())
		assert.Zero(t, r.same(r.q).Retried)
	})
}

// On FIFO a failed entry is tried again only if none of its group has overtaken
// it; and what follows it waits.
func TestAnEntryOfAGroupThatFailsKeepsTheOrder(t *testing.T) {
	faulty(t, queue.QueueSpec{Ordered: true}, func(t *testing.T, r *rig) {
		r.fail(sqstest.Fault{Action: sendBatch, Effect: sqstest.RefuseEntry, Match: body("m9"), Times: 3})
		r.publish("m", 25)
		c := r.consume(r.q, 10, nil)
		r.await(25)
		c.end()
		assert.Zero(t, r.duplicates())
		for i, m := range r.messages("m", 25) {
			assert.Equal(t, string(m.Body), r.order[i])
		}
		r.same(r.q)
	})
}

func TestWhatFollowsAFailedMessageOfAGroupIsNotSent(t *testing.T) {
	faulty(t, queue.QueueSpec{Ordered: true}, func(t *testing.T, r *rig) {
		r.fail(sqstest.Fault{Action: sendBatch, Effect: sqstest.RefuseEntry, Match: body("m3"), Times: 1})
		failed := failures(t, r.q.Publish(t.Context(), r.messages("m", 25)...))
		assert.Len(t, failed, 16)
		assert.ErrorContains(t, failed[3], "InternalFailure")
		for i := 10; i < 25; i++ {
			assert.ErrorContains(t, failed[i], "not sent")
		}
		assert.Equal(t, 1, r.server.Requests()[sendBatch])
	})
}

func TestCallsThatFailForAWhileAreMadeAgain(t *testing.T) {
	for _, code := range []string{"InternalFailure", "ServiceUnavailable", "ThrottlingException", "RequestThrottled"} {
		t.Run(code, func(t *testing.T) {
			faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
				for _, action := range []string{sendBatch, receiving, deleteBatch} {
					r.fail(sqstest.Fault{Action: action, Code: code, Times: 2})
				}
				r.publish("m", 25)
				c := r.consume(r.q, 10, nil)
				r.await(25)
				c.end()
				assert.Zero(t, r.duplicates())
				counts := r.same(r.q)
				if code == "ThrottlingException" || code == "RequestThrottled" {
					assert.EqualValues(t, 6, counts.Throttled)
				} else {
					assert.Zero(t, counts.Throttled)
				}
			})
		})
	}
}

// Many publishers don't make it worse.
func TestAThrottledQueueIsAskedLess(t *testing.T) {
	faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
		r.server.SetLatency(5 * time.Millisecond)
		heal := r.server.Fail(sqstest.Fault{Action: sendBatch, Code: "ThrottlingException"})
		time.AfterFunc(5*time.Second, heal)
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() { assert.NoError(t, r.q.Publish(t.Context(), message("m"))) })
		}
		wg.Wait()
		assert.Less(t, r.server.Requests()[sendBatch], 40)
		assert.Equal(t, 64, r.server.Entries()[sendBatch])
		c := r.consume(r.q, 10, nil)
		r.await(1)
		c.end()
		assert.Equal(t, 63, r.duplicates(), "they are all alike, and each is there once")
		assert.NotZero(t, r.same(r.q).Throttled)
	})
}

func TestAnAnswerThatIsLostIsExplained(t *testing.T) {
	for _, c := range []struct {
		name       string
		spec       queue.QueueSpec
		duplicates int
	}{
		{"a standard queue has them twice", queue.QueueSpec{}, 10},
		{"a FIFO queue drops the repeats", queue.QueueSpec{Ordered: true}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			faulty(t, c.spec, func(t *testing.T, r *rig) {
				r.fail(sqstest.Fault{Action: sendBatch, Effect: sqstest.Unanswered, Times: 1})
				r.publish("m", 20)
				run := r.consume(r.q, 10, nil)
				r.await(20)
				run.end()
				assert.Equal(t, c.duplicates, r.duplicates())
				assert.EqualValues(t, 10, r.same(r.q).Retried)
			})
		})
	}
}

// A standard queue isn't filled with copies: after three answers that were lost
// the caller is told.
func TestAnswersThatAreAlwaysLost(t *testing.T) {
	faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
		heal := r.server.Fail(sqstest.Fault{Action: sendBatch, Effect: sqstest.Unanswered})
		begun := time.Now()
		err := r.q.Publish(t.Context(), message("m"))
		assert.ErrorIs(t, err, queue.ErrUnknownOutcome)
		assert.Less(t, time.Since(begun), time.Second)
		assert.Equal(t, 3, r.server.Requests()[sendBatch])
		heal()
		c := r.consume(r.q, 10, nil)
		r.await(1)
		c.end()
		assert.Equal(t, 2, r.duplicates())
		r.same(r.q)
	})
}

func TestOutcomesOfPublish(t *testing.T) {
	for _, c := range []struct {
		name    string
		fault   sqstest.Fault
		is      []error
		unknown bool
		tries   int // 0: until the context ends
	}{
		{"no permission", sqstest.Fault{Code: "AccessDeniedException"}, []error{queue.ErrPermission}, false, 1},
		{"wrong credentials", sqstest.Fault{Code: "InvalidClientTokenId"}, []error{queue.ErrPermission}, false, 1},
		{"the queue is gone", sqstest.Fault{Code: "QueueDoesNotExist"}, []error{queue.ErrQueueNotFound}, false, 1},
		{"a URL of another region", sqstest.Fault{Code: "InvalidAddress"}, []error{queue.ErrQueueNotFound}, false, 1},
		{"a request that's wrong", sqstest.Fault{Code: "InvalidParameterValue"}, nil, false, 1},
		{"throttled", sqstest.Fault{Code: "ThrottlingException"}, []error{queue.ErrThrottled, context.DeadlineExceeded}, false, 0},
		{"an internal error", sqstest.Fault{Code: "InternalFailure"}, nil, true, 3},
		{"an answer that's lost", sqstest.Fault{Effect: sqstest.Unanswered}, nil, true, 3},
		{"no answer at all", sqstest.Fault{Effect: sqstest.Slow, Delay: time.Hour}, []error{context.DeadlineExceeded}, true, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
				c.fault.Action = sendBatch
				heal := r.server.Fail(c.fault)
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				err := r.q.Publish(ctx, message("a"))
				require.Error(t, err)
				for _, want := range c.is {
					assert.ErrorIs(t, err, want)
				}
				if c.unknown {
					assert.ErrorIs(t, err, queue.ErrUnknownOutcome)
				} else {
					assert.NotErrorIs(t, err, queue.ErrUnknownOutcome)
				}
				if tries := r.server.Requests()[sendBatch]; c.tries > 0 {
					assert.Equal(t, c.tries, tries)
				} else {
					assert.Greater(t, tries, 3)
				}
				heal()
			})
		})
	}
}

// The delay runs from the call: what's sent later is delayed less.
func TestADelayIsKeptOverTries(t *testing.T) {
	faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
		heal := r.server.Fail(sqstest.Fault{Action: sendBatch, Code: "ThrottlingException"})
		time.AfterFunc(10*time.Second, heal)
		m := message("later")
		m.Delay = 30 * time.Second
		due := time.Now().Add(m.Delay)
		require.NoError(t, r.q.Publish(t.Context(), m))
		assert.Greater(t, time.Until(due), time.Duration(0))
		var late time.Duration
		c := r.consume(r.q, 1, func(context.Context, *queue.Delivery) error {
			late = time.Since(due)
			return nil
		})
		r.await(1)
		c.end()
		assert.GreaterOrEqual(t, late, time.Duration(0), "never early")
		assert.Less(t, late, 2*time.Second)
		r.same(r.q)
	})
}

func TestAPublishEndsWithItsContext(t *testing.T) {
	faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
		r.down.Store(true)
		for _, wait := range []time.Duration{0, 3 * time.Second} { // 0: the default
			ctx, want := t.Context(), queue.DefaultPublishTimeout
			if wait > 0 {
				limited, cancel := context.WithTimeout(ctx, wait)
				defer cancel()
				ctx, want = limited, wait
			}
			begun := time.Now()
			err := r.q.Publish(ctx, message("m"))
			assert.ErrorIs(t, err, context.DeadlineExceeded)
			assert.ErrorContains(t, err, "connection refused", "it says what was in the way")
			assert.NotErrorIs(t, err, queue.ErrUnknownOutcome, "nobody was there")
			assert.Equal(t, want, time.Since(begun))
		}
	})
}

func TestCloseWaitsForPublishers(t *testing.T) {
	for _, c := range []struct {
		name  string
		grace time.Duration
		lost  bool
	}{{"that have the time", time.Minute, false}, {"or cuts them off", time.Second, true}} {
		t.Run(c.name, func(t *testing.T) {
			faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
				r.server.SetLatency(5 * time.Second)
				published := make(chan error, 1)
				go func() { published <- r.q.Publish(t.Context(), r.messages("m", 3)...) }()
				time.Sleep(time.Second)
				ctx, cancel := context.WithTimeout(t.Context(), c.grace)
				defer cancel()
				err := r.q.Close(ctx)
				if c.lost {
					assert.ErrorIs(t, err, context.DeadlineExceeded)
					assert.ErrorIs(t, <-published, queue.ErrUnknownOutcome)
				} else {
					assert.NoError(t, err)
					assert.NoError(t, <-published)
				}
				assert.ErrorIs(t, r.q.Publish(t.Context(), message("late")), queue.ErrClosed)
			})
		})
	}
}
