package memory_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
)

// next waits for a message, over empty polls.
func next(t *testing.T, q queue.Queue) *queue.Delivery {
	t.Helper()
	for {
		ds, err := q.Receive(t.Context(), 1)
		require.NoError(t, err)
		if len(ds) > 0 {
			return ds[0]
		}
	}
}

func settle(q queue.Queue, d *queue.Delivery, k queue.SettleKind) error {
	return q.Settle(context.Background(), queue.Settlement{Delivery: d, Kind: k})
}

func TestUnsettledDeliveryComesBackWhenItsLeaseEnds(t *testing.T) {
	t.Parallel()
	tests := []struct {
		like      memory.Like
		lease     time.Duration
		staleAck  error
		staleRest error
		attempts  []int
		confirmed bool
	}{
		{memory.Portable, 30 * time.Second, queue.ErrLeaseLost, queue.ErrLeaseLost, []int{1, 2}, true},
		{memory.SQSStandard, 30 * time.Second, nil, queue.ErrLeaseLost, []int{1, 2}, false},
		{memory.SQSFIFO, 30 * time.Second, queue.ErrLeaseLost, queue.ErrLeaseLost, []int{1, 2}, true},
		{memory.PubSub, 10 * time.Second, nil, nil, []int{0, 0}, false},
	}
	for _, tc := range tests {
		t.Run(tc.like.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, q := open(t, &memory.Options{Like: tc.like}, tc.like == memory.SQSFIFO)
				assert.Equal(t, tc.lease, q.Capabilities().Lease)
				assert.Equal(t, tc.confirmed, q.Capabilities().SettleConfirmed)
				publish(t, q, "", "a")
				start := time.Now()
				first := next(t, q)
				second := next(t, q)
				assert.Equal(t, tc.lease, time.Since(start))
				assert.Equal(t, first.ID, second.ID)
				assert.Equal(t, tc.attempts, []int{first.Attempt, second.Attempt}) //nolint:testifylint // that is the order

				assert.ErrorIs(t, settle(q, first, queue.Ack), tc.staleAck)
				assert.ErrorIs(t, settle(q, first, queue.Release), tc.staleRest)
				granted, err := q.Extend(t.Context(), time.Minute, first)
				assert.ErrorIs(t, err, tc.staleRest)
				require.Len(t, granted, 1)
				assert.Equal(t, tc.staleRest != nil, granted[0].IsZero(), "what Pub/Sub grants isn't worth anything then")

				ms := b.Messages("orders")
				require.Len(t, ms, 1, "the stale acknowledgement had no effect")
				assert.True(t, ms[0].Deadline.Equal(second.Deadline), "nor had the extension")
				ack(t, q, second)
				assert.Empty(t, b.Messages("orders"))
			})
		})
	}
}

func TestKeyIsWithheldWhileItsHeadIsLeasedOrBacksOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, q := open(t, nil, true)
		publish(t, q, "k", "1", "2", "3")
		publish(t, q, "l", "x")
		ds := receive(t, q, 10)
		require.Equal(t, []string{"1", "x"}, bodies(ds))
		ack(t, q, ds[1])
		assert.Empty(t, receive(t, q, 10))
		release(t, q, ds[0], time.Minute)
		assert.Empty(t, receive(t, q, 10))
		time.Sleep(time.Minute)
		for _, want := range []string{"1", "2", "3"} {
			ds := receive(t, q, 10)
			require.Equal(t, []string{want}, bodies(ds))
			assert.Equal(t, "k", ds[0].OrderingKey)
			ack(t, q, ds...)
		}
	})
}

func TestFIFOHandsOutAKeyInOneBatchAndLocksItUntilAllAreDone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, q := open(t, &memory.Options{Like: memory.SQSFIFO}, true)
		publish(t, q, "k", "1", "2", "3", "4")
		ds := receive(t, q, 3)
		require.Equal(t, []string{"1", "2", "3"}, bodies(ds))
		release(t, q, ds[0], time.Minute)
		release(t, q, ds[1], 0)
		assert.Empty(t, receive(t, q, 10), "the third is still leased")
		ack(t, q, ds[2])
		assert.Empty(t, receive(t, q, 10), "the first backs off")
		time.Sleep(time.Minute)
		assert.Equal(t, []string{"1", "2", "4"}, bodies(receive(t, q, 10)))
	})
}

func TestPubSubSendsTheTailOfAKeyAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, q := open(t, &memory.Options{Like: memory.PubSub}, true)
		publish(t, q, "k", "1", "2", "3", "4")
		publish(t, q, "l", "x")
		ds := receive(t, q, 10)
		require.ElementsMatch(t, []string{"1", "2", "3", "4", "x"}, bodies(ds), "keys aren't locked")
		of := map[string]*queue.Delivery{}
		for _, d := range ds {
			of[string(d.Body)] = d
		}
		ack(t, q, of["1"], of["3"], of["x"])
		release(t, q, of["2"], 0)
		ds = receive(t, q, 10)
		require.Equal(t, []string{"2", "3", "4"}, bodies(ds), "also what was acknowledged; the first is done")
		ack(t, q, ds[1], ds[2])
		ack(t, q, ds[0])
		time.Sleep(time.Hour)
		assert.Empty(t, receive(t, q, 10))

		// The same when a lease runs out.
		publish(t, q, "k", "5", "6")
		ds = receive(t, q, 10)
		ack(t, q, ds[1])
		time.Sleep(10 * time.Second)
		assert.Equal(t, []string{"5", "6"}, bodies(receive(t, q, 10)))
	})
}

func TestReleaseComesBackAfterItsDelay(t *testing.T) {
	t.Parallel()
	tests := []struct {
		like          memory.Like
		delay, really time.Duration
	}{
		{memory.Portable, 0, 0},
		{memory.Portable, 1500 * time.Millisecond, 1500 * time.Millisecond},
		{memory.Portable, 1000 * time.Hour, 1000 * time.Hour},
		{memory.SQSStandard, 1500 * time.Millisecond, 2 * time.Second},
		{memory.SQSStandard, 11 * time.Hour, 11 * time.Hour},
		{memory.PubSub, 10 * time.Minute, 10 * time.Minute},
	}
	for _, tc := range tests {
		t.Run(fmt.Sprint(tc.like, tc.delay), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				_, q := open(t, &memory.Options{Like: tc.like}, false)
				publish(t, q, "", "a")
				start := time.Now()
				release(t, q, next(t, q), tc.delay)
				ack(t, q, next(t, q))
				assert.Equal(t, tc.really, time.Since(start))
			})
		})
	}
}

func TestReleaseBeyondTheLimitIsRefused(t *testing.T) {
	t.Parallel()
	tests := []struct {
		like  memory.Like
		delay time.Duration
	}{
		{memory.SQSStandard, 12*time.Hour + 1},
		{memory.PubSub, 10*time.Minute + 1},
	}
	for _, tc := range tests {
		_, q := open(t, &memory.Options{Like: tc.like}, false)
		publish(t, q, "", "a")
		d := next(t, q)
		err := q.Settle(t.Context(), queue.Settlement{Delivery: d, Kind: queue.Release, Delay: tc.delay})
		var limit *queue.LimitError
		require.ErrorAs(t, err, &limit, "it would come back too early")
		require.ErrorIs(t, q.Settle(t.Context(), queue.Settlement{Delivery: d, Kind: queue.Release, Delay: -1}), queue.ErrInvalid)
		ack(t, q, d)
	}
}

func TestExtendGrantsWhatTheSystemAllows(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		like       memory.Like
		after, ask time.Duration
		end        time.Duration // from the receive
	}{
		{"portable", memory.Portable, 10 * time.Second, 100 * time.Hour, 100*time.Hour + 10*time.Second},
		{"to the second on SQS", memory.SQSStandard, 10 * time.Second, 1500 * time.Millisecond, 12 * time.Second},
		{"to 12 hours in all on SQS", memory.SQSStandard, 10 * time.Second, 12 * time.Hour, 12 * time.Hour},
		{"10 minutes at once on Pub/Sub", memory.PubSub, 5 * time.Second, time.Hour, 10*time.Minute + 5*time.Second},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				_, q := open(t, &memory.Options{Like: tc.like}, false)
				publish(t, q, "", "a")
				start := time.Now()
				first := next(t, q)
				time.Sleep(tc.after)
				granted, err := q.Extend(t.Context(), tc.ask, first)
				require.NoError(t, err)
				assert.Equal(t, tc.end, granted[0].Sub(start))
				next(t, q)
				assert.Equal(t, tc.end, time.Since(start))
			})
		})
	}
}

func TestSettlingWhatIsNotFromHereIsInvalid(t *testing.T) {
	t.Parallel()
	b, q := open(t, nil, false)
	other := openOn(t, b, "others", false)
	publish(t, q, "", "a", "b")
	ds := receive(t, q, 2)
	for name, d := range map[string]*queue.Delivery{"nil": nil, "empty": {}, "a copy": b.Messages("orders")[0]} {
		err := q.Settle(t.Context(), queue.Settlement{Delivery: d}, queue.Settlement{Delivery: ds[0]})
		var se *queue.SettleError
		require.ErrorAs(t, err, &se, name)
		require.Len(t, se.Failed, 1, name)
		assert.Equal(t, 0, se.Failed[0].Index, name)
		assert.ErrorIs(t, err, queue.ErrInvalid, name)
	}
	require.ErrorIs(t, settle(other, ds[1], queue.Ack), queue.ErrInvalid)
	require.ErrorIs(t, settle(q, ds[1], queue.SettleKind(9)), queue.ErrInvalid)
	_, err := q.Extend(t.Context(), 0, ds[1])
	require.ErrorIs(t, err, queue.ErrInvalid)
	_, err = q.Receive(t.Context(), 0)
	require.ErrorIs(t, err, queue.ErrInvalid)

	// A copy of the delivery that a middleware made is as good as the delivery.
	cp := *ds[1]
	ack(t, q, &cp)
	assert.Empty(t, b.Messages("orders"))
}

func TestSettlementOnAnotherHandleOfTheSameQueueWorks(t *testing.T) {
	t.Parallel()
	b, q := open(t, nil, false)
	again := openOn(t, b, "orders", false)
	publish(t, q, "", "a")
	ack(t, again, receive(t, q, 1)...)
	assert.Empty(t, b.Messages("orders"))
}

func TestEmptyPollOfTheCloudsEndsAfter20Seconds(t *testing.T) {
	t.Parallel()
	for _, like := range []memory.Like{memory.SQSStandard, memory.SQSFIFO, memory.PubSub} {
		synctest.Test(t, func(t *testing.T) {
			_, q := open(t, &memory.Options{Like: like}, like == memory.SQSFIFO)
			start := time.Now()
			ds, err := q.Receive(t.Context(), 1)
			require.NoError(t, err)
			assert.Empty(t, ds)
			assert.Equal(t, 20*time.Second, time.Since(start))
		})
	}
}

func TestReceiveEndsWithItsContextAndWithTheQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(&memory.Options{Create: true})
		q, err := b.Open(t.Context(), "orders", nil)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 1000*time.Hour)
		defer cancel()
		_, err = q.Receive(ctx, 1)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = q.Receive(ctx, 1)
		require.ErrorIs(t, err, context.DeadlineExceeded, "ended before")

		ended := make(chan error)
		go func() {
			_, err := q.Receive(t.Context(), 1)
			ended <- err
		}()
		synctest.Wait()
		closing := make(chan error)
		go func() { closing <- q.Close(t.Context()) }()
		require.ErrorIs(t, <-ended, queue.ErrClosed)
		require.NoError(t, <-closing)
	})
}

func TestReceiveTakesNoMoreThanAskedForAndAllowed(t *testing.T) {
	t.Parallel()
	for like, most := range map[memory.Like]int{memory.Portable: 50, memory.SQSStandard: 10, memory.PubSub: 50} {
		_, q := open(t, &memory.Options{Like: like}, false)
		for range 60 {
			publish(t, q, "", "x")
		}
		assert.Len(t, receive(t, q, 3), 3)
		assert.Len(t, receive(t, q, 50), most)
	}
}

func TestDeferReplacesTheMessage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, q := open(t, &memory.Options{MaxMessages: 1}, false)
		require.NoError(t, q.Publish(t.Context(), &queue.Message{ID: "id", Body: []byte("a"), Attributes: map[string]string{"k": "v"}}))
		start := time.Now()
		first := next(t, q)
		copy(first.Body, "b")
		until := start.Add(20 * time.Hour)
		require.NoError(t, q.Settle(t.Context(), queue.Settlement{Delivery: first, Kind: queue.Defer, Until: until}))
		require.Len(t, b.Messages("orders"), 1, "also in a full queue")
		second := next(t, q)
		assert.Equal(t, until, time.Now())
		assert.Equal(t, "id", second.ID)
		assert.Equal(t, "a", string(second.Body), "the original, whatever the handler did")
		assert.Equal(t, map[string]string{"k": "v"}, second.Attributes)
		assert.True(t, second.EnqueuedAt.Equal(first.EnqueuedAt))
		assert.NotEqual(t, first.BrokerID, second.BrokerID)
		assert.Equal(t, 1, second.Attempt)

		require.ErrorIs(t, q.Settle(t.Context(), queue.Settlement{Delivery: first, Kind: queue.Defer, Until: until}), queue.ErrLeaseLost)
		assert.Len(t, b.Messages("orders"), 1)
	})
}

func TestDuplicatesAndDisorderAreTheSameForTheSameSeed(t *testing.T) {
	t.Parallel()
	run := func() (got []string) {
		_, q := open(t, &memory.Options{Like: memory.SQSStandard, Duplicate: 0.2, Reorder: 0.3, Seed: 7}, false)
		for i := range 50 {
			publish(t, q, "", fmt.Sprint(i))
		}
		for ds := receive(t, q, 10); len(ds) > 0; ds = receive(t, q, 10) {
			for _, d := range ds {
				got = append(got, string(d.Body)+" "+d.BrokerID)
			}
			ack(t, q, ds...)
		}
		return got
	}
	first := run()
	assert.Equal(t, first, run())
	assert.Greater(t, len(first), 52, "some twice")
	count := map[string]int{}
	inversions := 0
	for i, m := range first {
		count[m]++
		if i > 0 && number(t, m) < number(t, first[i-1]) {
			inversions++
		}
	}
	assert.Len(t, count, 50, "every message, and a duplicate has the same id")
	assert.Positive(t, inversions)
}

func number(t *testing.T, s string) (n int) {
	t.Helper()
	_, err := fmt.Sscan(s, &n)
	require.NoError(t, err)
	return n
}

func TestInFlightMessagesAreBounded(t *testing.T) {
	t.Parallel()
	for like, want := range map[memory.Like]error{memory.SQSStandard: queue.ErrThrottled, memory.SQSFIFO: context.DeadlineExceeded} {
		t.Run(like.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				_, q := open(t, &memory.Options{Like: like}, like == memory.SQSFIFO)
				batch := make([]*queue.Message, 1000)
				for i := range batch {
					batch[i] = &queue.Message{Body: []byte("x")}
				}
				for range 121 {
					require.NoError(t, q.Publish(t.Context(), batch...))
				}
				var last []*queue.Delivery
				for n := 0; n < 120_000; n += len(last) {
					var err error
					last, err = q.Receive(t.Context(), 10)
					require.NoError(t, err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := q.Receive(ctx, 10)
				require.ErrorIs(t, err, want, "FIFO queues are silent about it")
				ack(t, q, last[0])
				ds, err := q.Receive(t.Context(), 10)
				require.NoError(t, err)
				assert.Len(t, ds, 1)
			})
		})
	}
}
