package sqs_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

func deferral(d *queue.Delivery, by time.Duration) queue.Settlement {
	return queue.Settlement{Delivery: d, Kind: queue.Defer, Until: time.Now().Add(by)}
}

// settlements returns the errors of a Settle by index.
func settlements(t *testing.T, err error) map[int]error {
	t.Helper()
	var se *queue.SettleError
	require.ErrorAs(t, err, &se)
	out := map[int]error{}
	for _, e := range se.Failed {
		out[e.Index] = e.Err
	}
	return out
}

func TestAcknowledgementsDoNotWaitForADeferral(t *testing.T) {
	faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
		r.publish("m", 2)
		ds := receive(t, r.q, 2)
		r.fail(sqstest.Fault{Action: sendBatch, Code: "ThrottlingException"})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		failed := settlements(t, r.q.Settle(ctx, queue.Settlement{Delivery: ds[0]}, deferral(ds[1], 20*time.Hour)))
		assert.Len(t, failed, 1)
		assert.ErrorIs(t, failed[1], queue.ErrThrottled)
		assert.Equal(t, 1, r.server.Entries()[deleteBatch])
	})
}

func TestADeferralThatCannotBeSentMakesNoDuplicatesOfOthers(t *testing.T) {
	faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
		r.publish("m", 10)
		heal := r.server.Fail(sqstest.Fault{Action: sendBatch, Code: "ThrottlingException"})
		time.AfterFunc(45*time.Second, heal)
		c := r.consume(r.q, 10, func(_ context.Context, d *queue.Delivery) error {
			if string(d.Body) == "m0" {
				return queue.Snooze(13 * time.Hour)
			}
			return nil
		})
		time.Sleep(5 * time.Minute)
		c.end()
		for body, n := range r.handled {
			if body != "m0" {
				assert.Equal(t, 1, n, body)
			}
		}
	})
}

// While nothing can be sent the message comes again with each lease. None of these
// may still be sending when it can.
func TestADeferralMakesOneCopyHoweverOftenItIsTried(t *testing.T) {
	faulty(t, queue.QueueSpec{Lease: 5 * time.Second}, func(t *testing.T, r *rig) {
		r.publish("m", 1)
		heal := r.server.Fail(sqstest.Fault{Action: sendBatch, Code: "ThrottlingException"})
		time.AfterFunc(28*time.Second, heal)
		c := r.consume(r.q, 10, func(context.Context, *queue.Delivery) error { return queue.Snooze(13 * time.Hour) })
		time.Sleep(2 * time.Minute)
		c.end()
		assert.EqualValues(t, 1, r.count())
	})
}

func TestDeferralsOfAKeyKeepTheirOrder(t *testing.T) {
	faulty(t, queue.QueueSpec{Ordered: true}, func(t *testing.T, r *rig) {
		r.publish("m", 10)
		var ss []queue.Settlement
		for _, d := range receive(t, r.q, 10) {
			ss = append(ss, deferral(d, time.Second))
		}
		require.NoError(t, r.q.Settle(t.Context(), ss...))
		for i, b := range bodies(receive(t, r.q, 10)) {
			assert.Equal(t, fmt.Sprint("m", i), b)
		}
	})
}

// A FIFO queue drops the copy of the second try, as it has the same deduplication id.
func TestADeferralWhoseAnswerIsLostIsRepeatedWithoutASecondCopy(t *testing.T) {
	faulty(t, queue.QueueSpec{Ordered: true}, func(t *testing.T, r *rig) {
		r.publish("m", 1)
		d := receive(t, r.q, 1)[0]
		heal := r.server.Fail(sqstest.Fault{Action: sendBatch, Effect: sqstest.Unanswered})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, r.q.Settle(ctx, deferral(d, time.Second)), queue.ErrUnknownOutcome)
		heal()
		require.NoError(t, r.q.Settle(t.Context(), deferral(d, time.Second)))
		assert.EqualValues(t, 1, r.count())
	})
}

func TestADeliveryThatIsDeferredTwiceInOneCallHasOneCopy(t *testing.T) {
	faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
		r.publish("m", 1)
		s := deferral(receive(t, r.q, 1)[0], time.Hour)
		r.fail(sqstest.Fault{Action: deleteBatch, Code: "AccessDeniedException", Times: 1})
		failed := settlements(t, r.q.Settle(t.Context(), s, s))
		assert.Len(t, failed, 2, "both say what became of it")
		require.NoError(t, r.q.Settle(t.Context(), s, s))
		assert.Equal(t, 2, r.server.Entries()[sendBatch], "the message and its copy")
		assert.EqualValues(t, 1, r.count())
	})
}

// A consumer that may not publish can't defer; it hides the message instead, for
// as long as SQS can, and needn't hurry.
func TestADeferralWithoutPermissionToPublishIsARelease(t *testing.T) {
	faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
		m := message("later")
		m.DeliverAt = time.Now().Add(3 * time.Hour)
		require.NoError(t, r.q.Publish(t.Context(), m))
		r.fail(sqstest.Fault{Action: sendBatch, Code: "AccessDeniedException"})
		r.server.ResetCounts()
		var at time.Time
		c := r.consume(r.q, 1, func(context.Context, *queue.Delivery) error { at = time.Now(); return nil })
		time.Sleep(4 * time.Hour)
		c.end()
		assert.Len(t, r.order, 1)
		assert.False(t, at.Before(m.DeliverAt))
		assert.Less(t, at.Sub(m.DeliverAt), 10*time.Second)
		assert.Equal(t, 1, r.server.Requests()[sendBatch])
	})
}

func TestAReleaseIsForTwelveHoursAtMostHoweverLong(t *testing.T) {
	for _, delay := range []time.Duration{13 * time.Hour, 100 * 365 * 24 * time.Hour, (1<<32 + 1) * time.Second, math.MaxInt64} {
		t.Run(delay.String(), func(t *testing.T) {
			faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
				r.publish("m", 1)
				require.NoError(t, r.q.Settle(t.Context(), queue.Settlement{Delivery: receive(t, r.q, 1)[0], Kind: queue.Release, Delay: delay}))
				time.Sleep(11*time.Hour + 50*time.Minute)
				ds, err := r.q.Receive(t.Context(), 1)
				require.NoError(t, err)
				assert.Empty(t, ds)
			})
		})
	}
}

// The 12 hours count from when SQS handed the message over: near them it refuses
// what would do if the answer had been quick.
func TestTwelveHoursOnASlowNetwork(t *testing.T) {
	for _, latency := range []time.Duration{100 * time.Millisecond, 1500 * time.Millisecond, 4 * time.Second} {
		t.Run(latency.String(), func(t *testing.T) {
			faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
				r.publish("m", 3)
				r.server.SetLatency(latency)
				ds := receive(t, r.q, 3)
				asked := time.Now()
				require.NoError(t, r.q.Settle(t.Context(), queue.Settlement{Delivery: ds[0], Kind: queue.Release, Delay: 12 * time.Hour}))
				granted, err := r.q.Extend(t.Context(), 12*time.Hour, ds[1], ds[2])
				require.NoError(t, err)
				for _, until := range granted {
					assert.WithinRange(t, until, asked.Add(12*time.Hour-time.Minute), asked.Add(12*time.Hour))
				}
				time.Sleep(time.Until(granted[0]))
				require.NoError(t, r.q.Settle(t.Context(), queue.Settlement{Delivery: ds[1]}), "it's still leased")
			})
		})
	}
}

func TestALeaseThatIsLostIsSaidNearTwelveHoursToo(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	q := open(t, f, nil)
	f.answers[receiving] = bringing("hello", nil)
	d := receive(t, q, 1)[0]
	f.answers[changeBatch] = failEach("InvalidParameterValue")
	granted, err := q.Extend(t.Context(), 12*time.Hour, d)
	assert.ErrorIs(t, err, queue.ErrLeaseLost)
	assert.True(t, granted[0].IsZero())
	assert.Len(t, f.made(changeBatch), 2, "and no more")
	_, err = q.Extend(t.Context(), time.Minute, d)
	assert.ErrorIs(t, err, queue.ErrLeaseLost)
	assert.Len(t, f.made(changeBatch), 3, "far from the limit there's no doubt")
}

func TestASnoozeOfTwelveHoursOnASlowNetworkIsOne(t *testing.T) {
	faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
		r.publish("m", 1)
		r.server.SetLatency(1500 * time.Millisecond)
		c := r.consume(r.q, 1, func(context.Context, *queue.Delivery) error { return queue.Snooze(12 * time.Hour) })
		time.Sleep(5 * time.Minute)
		c.end()
		assert.Len(t, r.order, 1)
	})
}

// What couldn't be read is asked for with each receive, so that it's true.
func TestALeaseThatWasAssumedIsTheOneThatIsGiven(t *testing.T) {
	for _, c := range []struct {
		name, timeout string
		denied        bool
	}{{"the queue has none", "0", false}, {"the queue's may not be read", "2", true}} {
		t.Run(c.name, func(t *testing.T) {
			faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
				_, err := r.server.Client().SetQueueAttributes(t.Context(), &awssqs.SetQueueAttributesInput{
					QueueUrl: aws.String(r.q.Capabilities().Address), Attributes: map[string]string{"VisibilityTimeout": c.timeout},
				})
				require.NoError(t, err)
				if c.denied {
					r.fail(sqstest.Fault{Action: "GetQueueAttributes", Code: "AccessDeniedException", Times: 1})
				}
				q, err := r.backend().Open(t.Context(), "orders", &queue.OpenOptions{Logger: slog.New(slog.DiscardHandler)})
				require.NoError(t, err)
				t.Cleanup(func() { assert.NoError(t, q.Close(context.Background())) })
				assert.Equal(t, []string{"VisibilityTimeout"}, q.Capabilities().Assumed[:1])
				r.publish("m", 1)
				d := receive(t, q, 1)[0]
				assert.Equal(t, 30*time.Second, time.Until(d.Deadline))
				time.Sleep(8 * time.Second)
				again, err := r.q.Receive(t.Context(), 1)
				require.NoError(t, err)
				assert.Empty(t, again)
			})
		})
	}
}

func TestALostAnswerToASettlementIsSaid(t *testing.T) {
	for _, c := range []struct {
		name   string
		action string
		do     func(context.Context, queue.Queue, *queue.Delivery) error
	}{
		{"an acknowledgement", deleteBatch, func(ctx context.Context, q queue.Queue, d *queue.Delivery) error {
			return q.Settle(ctx, queue.Settlement{Delivery: d})
		}},
		{"a release", changeBatch, func(ctx context.Context, q queue.Queue, d *queue.Delivery) error {
			return q.Settle(ctx, queue.Settlement{Delivery: d, Kind: queue.Release})
		}},
		{"an extension", changeBatch, func(ctx context.Context, q queue.Queue, d *queue.Delivery) error {
			_, err := q.Extend(ctx, time.Minute, d)
			return err
		}},
	} {
		for _, f := range []struct {
			name    string
			fault   sqstest.Fault
			unknown bool
			also    error
		}{
			{"is lost", sqstest.Fault{Effect: sqstest.Unanswered}, true, nil},
			{"is late", sqstest.Fault{Effect: sqstest.Slow, Delay: time.Hour}, true, context.DeadlineExceeded},
			{"is no", sqstest.Fault{Code: "AccessDeniedException"}, false, queue.ErrPermission},
		} {
			t.Run(c.name+" "+f.name, func(t *testing.T) {
				faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
					r.publish("m", 1)
					d := receive(t, r.q, 1)[0]
					f.fault.Action = c.action
					f.fault.Times = 1
					r.fail(f.fault)
					err := c.do(t.Context(), r.q, d)
					require.Error(t, err)
					if f.unknown {
						assert.ErrorIs(t, err, queue.ErrUnknownOutcome)
					} else {
						assert.NotErrorIs(t, err, queue.ErrUnknownOutcome)
					}
					if f.also != nil {
						assert.ErrorIs(t, err, f.also)
					}
				})
			})
		}
	}
}

func TestAnExtensionByNothingIsInvalid(t *testing.T) {
	faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
		r.publish("m", 1)
		d := receive(t, r.q, 1)[0]
		for _, by := range []time.Duration{0, -time.Second} {
			granted, err := r.q.Extend(t.Context(), by, d)
			var invalid *queue.InvalidError
			assert.ErrorAs(t, err, &invalid)
			assert.NotErrorIs(t, err, queue.ErrLeaseLost)
			assert.Equal(t, []time.Time{{}}, granted)
		}
		assert.Zero(t, r.server.Requests()[changeBatch])
		assert.NoError(t, r.q.Settle(t.Context(), queue.Settlement{Delivery: d}))
	})
}

// What a poll without a caller brings is given back; when that hangs, Close goes
// no later than its context.
func TestCloseEndsWithItsContextAlsoWhileGivingBack(t *testing.T) {
	faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := r.q.Receive(ctx, 10)
		require.ErrorIs(t, err, context.Canceled)
		r.fail(sqstest.Fault{Action: changeBatch, Effect: sqstest.Slow, Delay: time.Hour})
		r.publish("m", 1)
		time.Sleep(time.Second)
		require.Equal(t, 1, r.server.Requests()[changeBatch])
		ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		begun := time.Now()
		require.NoError(t, r.q.Close(ctx))
		assert.Equal(t, 100*time.Millisecond, time.Since(begun))
	})
}
