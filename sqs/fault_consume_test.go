package sqs_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs"
	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

func TestAnEntryOfADeleteThatFailsIsDeletedAlone(t *testing.T) {
	faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
		r.publish("m", 10)
		r.fail(sqstest.Fault{Action: deleteBatch, Effect: sqstest.RefuseEntry, Match: body("m3"), Times: 2})
		c := r.consume(r.q, 10, nil)
		r.await(10)
		c.end()
		assert.Zero(t, r.duplicates())
		assert.EqualValues(t, 2, c.Stats().SettleErrors)
		assert.Zero(t, c.Stats().SettleLost)
		r.same(r.q)
		assert.Equal(t, 10, r.server.Entries()[deleteBatch])
	})
}

func TestALostAnswerToASettlementCostsNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		spec queue.QueueSpec
	}{{"standard", queue.QueueSpec{}}, {"FIFO", queue.QueueSpec{Ordered: true}}} {
		t.Run(c.name, func(t *testing.T) {
			faulty(t, c.spec, func(t *testing.T, r *rig) {
				r.publish("m", 10)
				r.fail(sqstest.Fault{Action: deleteBatch, Effect: sqstest.Unanswered, Times: 1})
				r.fail(sqstest.Fault{Action: changeBatch, Effect: sqstest.Unanswered, Times: 1})
				var failed atomic.Bool
				run := r.consume(r.q, 10, func(_ context.Context, d *queue.Delivery) error {
					if string(d.Body) == "m7" && failed.CompareAndSwap(false, true) {
						return queue.RetryAfter(3*time.Second, errWork)
					}
					return nil
				})
				r.await(10)
				run.end()
				assert.Equal(t, 1, r.duplicates(), "the one that failed")
				r.same(r.q)
			})
		})
	}
}

// What an unread answer held is hidden for its lease, and counted.
func TestAReceiveWhoseAnswerIsLost(t *testing.T) {
	faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
		r.publish("m", 10)
		r.fail(sqstest.Fault{Action: receiving, Effect: sqstest.Unanswered, Times: 1})
		begun := time.Now()
		c := r.consume(r.q, 10, nil)
		r.await(10)
		c.end()
		assert.Zero(t, r.duplicates())
		assert.GreaterOrEqual(t, time.Since(begun), 30*time.Second)
		assert.EqualValues(t, 1, r.same(r.q).Unread)
		assert.EqualValues(t, 1, c.Stats().ReceiveErrors)
	})
}

// A receipt is stale once somebody else has the message: what it says must not
// take it from them.
func TestAStaleReceipt(t *testing.T) {
	for _, c := range []struct {
		name string
		spec queue.QueueSpec
		lost bool // it's said
	}{
		{"a standard queue takes it for a hint", queue.QueueSpec{Lease: 2 * time.Second}, false},
		{"a FIFO queue says that the lease is lost", queue.QueueSpec{Ordered: true, Lease: 2 * time.Second}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			faulty(t, c.spec, func(t *testing.T, r *rig) {
				r.publish("m", 1)
				stale := receive(t, r.q, 1)[0]
				time.Sleep(3 * time.Second)
				rival := r.open()
				fresh := receive(t, rival, 1)[0]
				err := r.q.Settle(t.Context(), queue.Settlement{Delivery: stale})
				if c.lost {
					assert.ErrorIs(t, err, queue.ErrLeaseLost)
				} else {
					assert.NoError(t, err, "SQS says yes, and deletes nothing")
				}
				_, err = r.q.Extend(t.Context(), time.Minute, stale)
				assert.ErrorIs(t, err, queue.ErrLeaseLost)
				messages := r.server.Messages(r.name())
				require.Len(t, messages, 1, "its owner still has it")
				require.NoError(t, r.q.Settle(t.Context(), queue.Settlement{Delivery: fresh}))
				assert.Empty(t, r.server.Messages(r.name()))
				r.same(r.q, rival)
			})
		})
	}
}

func TestAHandlerFiveTimesLongerThanTheLease(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault *sqstest.Fault
	}{
		{"keeps it", nil},
		{"keeps it though half of the extensions fail", &sqstest.Fault{Action: changeBatch, Times: 4}},
		{"keeps it though answers are lost", &sqstest.Fault{Action: changeBatch, Effect: sqstest.Unanswered, Times: 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			faulty(t, queue.QueueSpec{Lease: 4 * time.Second}, func(t *testing.T, r *rig) {
				r.publish("m", 25)
				if c.fault != nil {
					r.fail(*c.fault)
				}
				other := r.open()
				rival := r.consume(other, 10, func(context.Context, *queue.Delivery) error {
					time.Sleep(20 * time.Second)
					return nil
				})
				run := r.consume(r.q, 25, func(context.Context, *queue.Delivery) error {
					time.Sleep(20 * time.Second)
					return nil
				})
				r.await(25)
				run.end()
				rival.end()
				assert.Zero(t, r.duplicates())
				assert.Zero(t, run.Stats().LeasesLost+rival.Stats().LeasesLost)
				r.same(r.q, other)
			})
		})
	}
}

func TestARivalConsumer(t *testing.T) {
	for _, c := range []struct {
		name string
		spec queue.QueueSpec
	}{{"standard", queue.QueueSpec{}}, {"FIFO", queue.QueueSpec{Ordered: true}}} {
		t.Run(c.name, func(t *testing.T) {
			faulty(t, c.spec, func(t *testing.T, r *rig) {
				r.server.SetLatency(5 * time.Millisecond)
				work := func(context.Context, *queue.Delivery) error {
					time.Sleep(20 * time.Millisecond)
					return nil
				}
				rival := r.open()
				one, two := r.consume(r.q, 20, work), r.consume(rival, 20, work)
				r.publish("m", 300)
				r.await(300)
				one.end()
				two.end()
				assert.Zero(t, r.duplicates())
				if c.spec.Ordered {
					for i, m := range r.messages("m", 300) {
						assert.Equal(t, string(m.Body), r.order[i])
					}
				} else {
					assert.NotZero(t, one.Stats().Succeeded)
					assert.NotZero(t, two.Stats().Succeeded)
				}
				r.same(r.q, rival)
			})
		})
	}
}

// What was fetched by a rate that's gone must not wait for slow handlers.
func TestASlowDownAfterManyFastMessages(t *testing.T) {
	faulty(t, queue.QueueSpec{Lease: 10 * time.Second}, func(t *testing.T, r *rig) {
		r.server.SetLatency(20 * time.Millisecond)
		r.publish("m", 3200)
		var n atomic.Int64
		c := r.consume(r.q, 16, func(context.Context, *queue.Delivery) error {
			if n.Add(1) > 3000 {
				time.Sleep(2 * time.Second)
			}
			return nil
		})
		r.await(3200)
		c.end()
		assert.Zero(t, r.duplicates())
		assert.Zero(t, c.Stats().Expired, "given back in time")
		r.same(r.q)
	})
}

// The end of a process with an open long poll: it's quick, and what a cut poll
// may have swallowed is counted; with the time for it, nothing is.
func TestAShutdownWithAnOpenPoll(t *testing.T) {
	for _, c := range []struct {
		name    string
		grace   time.Duration // of Close
		unread  uint64
		handled time.Duration // by the next process, at most
	}{
		{"in a hurry", 2 * time.Second, 1, 31 * time.Second},
		{"with the time of a poll", time.Minute, 0, 20 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
				run := r.consume(r.q, 10, nil)
				time.Sleep(5 * time.Second)
				begun := time.Now()
				run.end()
				assert.Equal(t, time.Second, time.Since(begun), "ReceiveGrace")
				next := r.open()
				published := time.Now()
				if c.unread == 0 {
					require.NoError(t, next.Publish(t.Context(), message("m"))) // while it's still open
				}
				ctx, cancel := context.WithTimeout(t.Context(), c.grace)
				defer cancel()
				require.NoError(t, r.q.Close(ctx))
				if c.unread > 0 {
					require.NoError(t, next.Publish(t.Context(), message("m"))) // into the cut poll
				}
				counts, ok := sqs.CountsOf(r.q)
				assert.True(t, ok)
				assert.Equal(t, c.unread, counts.Unread)
				after := r.consume(next, 10, nil)
				for r.different() == 0 {
					time.Sleep(time.Second)
					require.Less(t, time.Since(published), time.Minute)
				}
				assert.LessOrEqual(t, time.Since(published), c.handled+c.grace)
				after.end()
				r.same(next, r.q)
			})
		})
	}
}

func TestTheEndpointIsGoneForHalfAMinute(t *testing.T) {
	faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
		r.server.SetLatency(5 * time.Millisecond)
		c := r.consume(r.q, 10, func(context.Context, *queue.Delivery) error {
			time.Sleep(100 * time.Millisecond)
			return nil
		})
		time.AfterFunc(5*time.Second, func() { r.down.Store(true) })
		time.AfterFunc(35*time.Second, func() { r.down.Store(false) })
		done := make(chan error, 60)
		for i := range 60 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			go func() {
				defer cancel()
				done <- r.q.Publish(ctx, message(fmt.Sprint("m", i)))
			}()
			time.Sleep(time.Second)
		}
		for range 60 {
			assert.NoError(t, <-done)
		}
		r.await(60)
		c.end()
		assert.Zero(t, r.duplicates(), "nothing was sent while nobody was there")
		assert.Zero(t, c.Stats().LeasesLost)
		r.same(r.q)
	})
}

// A clock that's wrong by minutes is what a signature may be; one that's wrong by
// more the SDK corrects, from the first answer on.
func TestAClockThatIsOff(t *testing.T) {
	for _, off := range []time.Duration{5 * time.Minute, -5 * time.Minute, 40 * time.Minute, -40 * time.Minute} {
		t.Run(off.String(), func(t *testing.T) {
			faulty(t, queue.QueueSpec{Lease: 4 * time.Second}, func(t *testing.T, r *rig) {
				r.server.SetClock(off)
				later := message("later")
				later.Delay = 30 * time.Second
				due := time.Now().Add(later.Delay)
				require.NoError(t, r.q.Publish(t.Context(), append(r.messages("m", 5), later)...))
				c := r.consume(r.q, 10, func(_ context.Context, d *queue.Delivery) error {
					if string(d.Body) == "later" {
						assert.False(t, time.Now().Before(due), "early")
						assert.Less(t, time.Since(due), 2*time.Second)
					}
					time.Sleep(10 * time.Second) // leases are kept
					return nil
				})
				r.await(6)
				c.end()
				assert.Zero(t, r.duplicates())
				assert.Zero(t, c.Stats().LeasesLost+c.Stats().Expired+c.Stats().SettleErrors)
				r.same(r.q)
			})
		})
	}
}

func TestAnIdleQueueCostsThreeRequestsAMinute(t *testing.T) {
	faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
		c := r.consume(r.q, 100, nil)
		time.Sleep(10 * time.Minute)
		assert.LessOrEqual(t, r.server.Requests()[receiving], 31)
		begun := time.Now()
		r.publish("m", 1)
		for r.different() == 0 {
			time.Sleep(time.Millisecond)
		}
		assert.LessOrEqual(t, time.Since(begun), 50*time.Millisecond)
		c.end()
		synctest.Wait()
	})
}
