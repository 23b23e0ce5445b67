package memory_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
)

func TestEnsureCreatesChangesAndReports(t *testing.T) {
	t.Parallel()
	b := memory.New(nil)
	ensure := func(s queue.QueueSpec) *queue.EnsureReport {
		t.Helper()
		r, err := b.Ensure(t.Context(), "orders", &s)
		require.NoError(t, err)
		return r
	}
	spec := queue.QueueSpec{Lease: time.Minute, DeadLetter: "orders-dead", BrokerMaxAttempts: 5}

	dry := spec
	dry.DryRun = true
	assert.Len(t, ensure(dry).Created, 2)
	assert.Empty(t, b.Queues(), "a dry run makes nothing")

	assert.Len(t, ensure(spec).Created, 2)
	assert.Equal(t, []string{"orders", "orders-dead"}, b.Queues())
	assert.Equal(t, &queue.EnsureReport{}, ensure(spec), "nothing to do any more")

	assert.Equal(t, &queue.EnsureReport{}, ensure(queue.QueueSpec{}), "what isn't named may be anything")

	spec.Lease, spec.BrokerMaxAttempts, spec.Ordered, spec.Tags = 2*time.Minute, 7, true, map[string]string{"team": "billing"}
	r := ensure(spec)
	assert.Empty(t, r.Created)
	assert.Empty(t, r.Changed, "only when it's asked to")
	assert.Equal(t, []string{
		"queue orders: ordered is false, not true, and can't be changed",
		"queue orders: lease is 1m0s, not 2m0s",
		"queue orders: attempts before the broker dead-letters is 5, not 7",
		`queue orders: tag "team" is "", not "billing"`,
	}, r.Differences)
	assert.Equal(t, time.Minute, openOn(t, b, "orders", false).Capabilities().Lease)

	spec.Update, spec.DryRun = true, true
	assert.Len(t, ensure(spec).Changed, 3)
	assert.Equal(t, time.Minute, openOn(t, b, "orders", false).Capabilities().Lease, "a dry run changes nothing")

	spec.DryRun = false
	r = ensure(spec)
	assert.Equal(t, []string{
		"queue orders: lease from 1m0s to 2m0s",
		"queue orders: attempts before the broker dead-letters from 5 to 7",
		`queue orders: tag "team" from "" to "billing"`,
	}, r.Changed)
	assert.Len(t, r.Differences, 1, "ordered can't be changed")
	q := openOn(t, b, "orders", false)
	assert.Equal(t, 2*time.Minute, q.Capabilities().Lease)
	assert.Equal(t, 7, q.Capabilities().BrokerMaxAttempts)
	assert.Len(t, ensure(spec).Differences, 1)
	assert.Empty(t, ensure(spec).Changed, "nothing to do any more")
}

func TestEnsureRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		like memory.Like
		spec queue.QueueSpec
		want error
	}{
		{"negative lease", memory.Portable, queue.QueueSpec{Lease: -1}, queue.ErrInvalid},
		{"negative retention", memory.Portable, queue.QueueSpec{Retention: -1}, queue.ErrInvalid},
		{"retention of SQS", memory.SQSStandard, queue.QueueSpec{Retention: 15 * 24 * time.Hour}, queue.ErrInvalid},
		{"attempts without a dead-letter queue", memory.Portable, queue.QueueSpec{BrokerMaxAttempts: 3}, queue.ErrInvalid},
		{"negative attempts", memory.Portable, queue.QueueSpec{BrokerMaxAttempts: -3, DeadLetter: "dead"}, queue.ErrInvalid},
		{"itself", memory.Portable, queue.QueueSpec{BrokerMaxAttempts: 3, DeadLetter: "orders"}, queue.ErrInvalid},
		{"a bad name", memory.Portable, queue.QueueSpec{BrokerMaxAttempts: 3, DeadLetter: "a b"}, queue.ErrInvalid},
		{"ordered on SQS standard", memory.SQSStandard, queue.QueueSpec{Ordered: true}, queue.ErrUnsupported},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := memory.New(&memory.Options{Like: tc.like})
			_, err := b.Ensure(t.Context(), "orders", &tc.spec)
			require.ErrorIs(t, err, tc.want)
			assert.Empty(t, b.Queues())
		})
	}
}

func TestEnsureTakesTheNearestLimitOfAttempts(t *testing.T) {
	t.Parallel()
	for like, want := range map[memory.Like][2]int{memory.PubSub: {5, 100}, memory.SQSStandard: {1, 1000}, memory.Portable: {1, 5000}} {
		b := memory.New(&memory.Options{Like: like})
		for i, n := range []int{1, 5000} {
			r, err := b.Ensure(t.Context(), "orders", &queue.QueueSpec{DeadLetter: "orders-dead", BrokerMaxAttempts: n, Update: true})
			require.NoError(t, err)
			assert.Len(t, r.Differences, min(1, max(want[i]-n, n-want[i])), "it's said: %v", r)
			q, err := b.Open(t.Context(), "orders", nil)
			require.NoError(t, err)
			assert.Equal(t, want[i], q.Capabilities().BrokerMaxAttempts)
			require.NoError(t, q.Close(t.Context()))
		}
	}
}

func TestBrokerDeadLettersAfterItsLimit(t *testing.T) {
	t.Parallel()
	tests := []struct {
		like     memory.Like
		late     bool // it moves only when the message would be received once more
		keepsAge bool
	}{
		{memory.Portable, true, true},
		{memory.SQSStandard, true, true},
		{memory.SQSFIFO, true, false},
		{memory.PubSub, false, true},
	}
	for _, tc := range tests {
		t.Run(tc.like.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := memory.New(&memory.Options{Like: tc.like})
				ordered := tc.like != memory.SQSStandard
				_, err := b.Ensure(t.Context(), "orders", &queue.QueueSpec{DeadLetter: "orders-dead", BrokerMaxAttempts: 5, Ordered: ordered})
				require.NoError(t, err)
				q := openOn(t, b, "orders", ordered)
				dead := openOn(t, b, "orders-dead", ordered)
				key := ""
				if ordered {
					key = "k"
				}
				publish(t, q, key, "bad", "good")
				sent := time.Now()
				time.Sleep(time.Minute)
				var d *queue.Delivery
				for i := range 5 {
					for d == nil || string(d.Body) != "bad" {
						if d != nil {
							release(t, q, d, 0)
						}
						d = next(t, q)
					}
					assert.Equal(t, i+1, d.Attempt)
					if i < 4 {
						release(t, q, d, time.Second)
						d = nil
						time.Sleep(time.Second)
					}
				}
				assert.Empty(t, b.Messages("orders-dead"))
				release(t, q, d, 0)
				if tc.late {
					assert.Empty(t, b.Messages("orders-dead"), "not before the next receive")
				} else {
					assert.Len(t, b.Messages("orders-dead"), 1)
				}
				assert.Equal(t, []string{"good"}, bodies(receive(t, q, 10)), "its key goes on")
				got := receive(t, dead, 10)
				require.Equal(t, []string{"bad"}, bodies(got))
				assert.Equal(t, key, got[0].OrderingKey)
				assert.Equal(t, tc.keepsAge, got[0].EnqueuedAt.Equal(sent))
				assert.NoError(t, settle(dead, got[0], queue.Ack))
				assert.Empty(t, b.Messages("orders-dead"))
			})
		})
	}
}

func TestExpiredMessagesAreGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, q := open(t, &memory.Options{Retention: time.Hour, MaxMessages: 2}, false)
		publish(t, q, "", "old", "older")
		time.Sleep(59 * time.Minute)
		assert.Len(t, b.Messages("orders"), 2)
		time.Sleep(time.Minute)
		assert.Empty(t, b.Messages("orders"))
		publish(t, q, "", "new", "newer") // there's room again
		time.Sleep(2 * time.Hour)
		publish(t, q, "", "newest")
		assert.Equal(t, []string{"newest"}, bodies(receive(t, q, 10)))
		var limit *queue.LimitError
		require.ErrorAs(t, q.Publish(t.Context(), &queue.Message{Delay: 2 * time.Hour}), &limit, "it would be gone before it's due")
	})
}

func TestExpiredMessageOfAKeyDoesNotHoldTheKey(t *testing.T) {
	t.Parallel()
	for _, like := range []memory.Like{memory.Portable, memory.SQSFIFO, memory.PubSub} {
		synctest.Test(t, func(t *testing.T) {
			_, q := open(t, &memory.Options{Like: like, Retention: time.Hour}, true)
			publish(t, q, "k", "1", "2")
			time.Sleep(30 * time.Minute)
			publish(t, q, "k", "3")
			time.Sleep(30 * time.Minute)
			assert.Equal(t, []string{"3"}, bodies(receive(t, q, 1)), "%v", like)
		})
	}
}

func TestStatsCountEveryState(t *testing.T) {
	t.Parallel()
	for _, like := range []memory.Like{memory.Portable, memory.SQSStandard, memory.PubSub} {
		synctest.Test(t, func(t *testing.T) {
			_, q := open(t, &memory.Options{Like: like}, false)
			in, ok := queue.As[queue.Inspector](q)
			require.True(t, ok)
			publish(t, q, "", "a", "b", "c", "d")
			ds := receive(t, q, 2)
			release(t, q, ds[0], time.Hour/6)
			time.Sleep(5 * time.Second)
			s, err := in.Stats(t.Context())
			require.NoError(t, err)
			assert.Equal(t, []int64{2, 1, 1}, []int64{*s.Ready, *s.InFlight, *s.Delayed})
			assert.Equal(t, like != memory.Portable, s.Approximate)
			if like == memory.SQSStandard {
				assert.Nil(t, s.OldestAge)
			} else {
				assert.Equal(t, 5*time.Second, s.OldestAge.Truncate(time.Second))
			}
			assert.True(t, s.AsOf.Equal(time.Now()))
			assert.Equal(t, "memory", s.Source)
		})
	}
}

func TestPeekTakesNothing(t *testing.T) {
	t.Parallel()
	_, q := open(t, nil, false)
	in, ok := queue.As[queue.Inspector](q)
	require.True(t, ok)
	publish(t, q, "", "a", "b", "c", "d")
	held := receive(t, q, 1)
	for range 3 {
		ds, err := in.Peek(t.Context(), 2)
		require.NoError(t, err)
		assert.Equal(t, []string{"b", "c"}, bodies(ds))
		assert.Zero(t, ds[0].Attempt)
		info, ok := memory.InfoOf(ds[0])
		require.True(t, ok)
		assert.Equal(t, "ready", info.State)
		copy(ds[0].Body, "x")
	}
	release(t, q, held[0], 0)
	assert.Equal(t, []string{"b", "c", "d", "a"}, bodies(receive(t, q, 10)))
	_, err := in.Peek(t.Context(), 0)
	require.ErrorIs(t, err, queue.ErrInvalid)
}

func TestMessagesTellTheirState(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, q := open(t, nil, true)
		publish(t, q, "k", "leased", "waits for its key")
		publish(t, q, "l", "backs off")
		ds := receive(t, q, 2)
		release(t, q, ds[1], time.Hour)
		var got []memory.Info
		ms := b.Messages("orders")
		for _, d := range ms {
			info, ok := memory.InfoOf(d)
			require.True(t, ok)
			got = append(got, info)
		}
		assert.Equal(t, []string{"leased", "waits for its key", "backs off"}, bodies(ms))
		assert.Equal(t, []memory.Info{
			{State: "leased", Receives: 1},
			{State: "ready"},
			{State: "delayed", Receives: 1, Until: time.Now().Add(time.Hour)},
		}, got)
		assert.True(t, ms[0].Deadline.Equal(ds[0].Deadline))
		assert.Equal(t, "k", ms[1].OrderingKey)
		assert.Nil(t, b.Messages("no-such-queue"))
		_, ok := memory.InfoOf(&queue.Delivery{})
		assert.False(t, ok)
	})
}

func TestPurgeRemovesEverything(t *testing.T) {
	t.Parallel()
	for _, like := range []memory.Like{memory.Portable, memory.SQSFIFO, memory.PubSub} {
		synctest.Test(t, func(t *testing.T) {
			b, q := open(t, &memory.Options{Like: like}, true)
			purger, ok := queue.As[queue.Purger](q)
			require.True(t, ok)
			publish(t, q, "k", "1", "2", "3")
			publish(t, q, "", "4", "5")
			ds := receive(t, q, 3)
			release(t, q, ds[0], time.Minute)
			require.NoError(t, purger.Purge(t.Context()))
			assert.Empty(t, b.Messages("orders"))
			time.Sleep(time.Hour)
			assert.Empty(t, receive(t, q, 10), "nothing comes back")
			publish(t, q, "k", "new")
			assert.Equal(t, []string{"new"}, bodies(receive(t, q, 10)), "its key isn't held up")

			require.NoError(t, purger.Purge(t.Context()))
			err := purger.Purge(t.Context())
			if like == memory.SQSFIFO {
				require.ErrorIs(t, err, queue.ErrThrottled)
				time.Sleep(time.Minute)
				err = purger.Purge(t.Context())
			}
			require.NoError(t, err)
		})
	}
}

func TestPublishBackPublishes(t *testing.T) {
	t.Parallel()
	_, q := open(t, nil, false)
	r, ok := queue.As[queue.Redriver](q)
	require.True(t, ok)
	require.NoError(t, r.PublishBack(t.Context(), &queue.Message{Body: []byte("a")}))
	assert.Equal(t, []string{"a"}, bodies(receive(t, q, 10)))
}

func TestDeadLetterHistorySurvives(t *testing.T) {
	t.Parallel()
	b, q := open(t, nil, false)
	dead := openOn(t, b, "orders-dead", false)
	require.NoError(t, q.Publish(t.Context(), &queue.Message{ID: "id", Body: []byte("a"), Attributes: map[string]string{"k": "v"}}))
	d := receive(t, q, 1)[0]
	cause := assert.AnError
	require.NoError(t, dead.Publish(t.Context(), queue.NewDeadLetter(d, cause, queue.ReasonRejected, time.Now())))
	for range 2 { // a handler can't change it for the next one
		got := receive(t, dead, 1)[0]
		require.NotNil(t, got.DeadLetter)
		assert.Equal(t, cause.Error(), got.DeadLetter.Error)
		assert.Equal(t, queue.ReasonRejected, got.DeadLetter.Reason)
		assert.Equal(t, d.Source, got.DeadLetter.Source)
		assert.Equal(t, "id", got.ID)
		assert.Equal(t, "a", string(got.Body))
		assert.Equal(t, map[string]string{"k": "v"}, got.Attributes)
		got.DeadLetter.Error = "changed"
		release(t, dead, got, 0)
	}
}

func TestWaitIdleWaitsForQueuesThatAreReceivedFrom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, q := open(t, nil, false)
		dead := openOn(t, b, "orders-dead", false)
		require.NoError(t, b.WaitIdle(t.Context()), "nothing was published")
		publish(t, q, "", "a", "b")
		publish(t, dead, "", "nobody reads this")
		require.NoError(t, q.Publish(t.Context(), &queue.Message{Body: []byte("late"), Delay: time.Hour}))

		start := time.Now()
		idle := make(chan error, 1)
		go func() { idle <- b.WaitIdle(t.Context()) }()
		synctest.Wait()
		assert.Empty(t, idle, "nobody receives yet")

		for range 2 {
			d := next(t, q)
			synctest.Wait()
			assert.Empty(t, idle)
			time.Sleep(time.Second)
			release(t, q, d, 0)
			d = next(t, q)
			ack(t, q, d)
		}
		synctest.Wait()
		assert.Empty(t, idle, "one is delayed")
		d := next(t, q)
		synctest.Wait()
		assert.Empty(t, idle, "it's being handled")
		ack(t, q, d)
		require.NoError(t, <-idle)
		assert.Equal(t, time.Hour, time.Since(start).Truncate(time.Second))
		require.NoError(t, b.WaitIdle(t.Context()))
	})
}

func TestWaitIdleFollowsMessagesFromQueueToQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(&memory.Options{Create: true})
		var qs []queue.Queue
		for _, n := range []string{"third", "second", "first"} { // against the order of creation
			qs = append([]queue.Queue{openOn(t, b, n, false)}, qs...)
		}
		var handled [3]int
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for i := range qs {
			go func() {
				for {
					ds, err := qs[i].Receive(ctx, 1)
					if err != nil {
						return
					}
					handled[i]++
					time.Sleep(time.Millisecond)
					if i+1 < len(qs) {
						assert.NoError(t, qs[i+1].Publish(ctx, &queue.Message{Body: ds[0].Body}))
					}
					assert.NoError(t, qs[i].Settle(ctx, queue.Settlement{Delivery: ds[0]}))
				}
			}()
		}
		for range 20 {
			publish(t, qs[0], "", "x")
		}
		require.NoError(t, b.WaitIdle(t.Context()))
		assert.Equal(t, [3]int{20, 20, 20}, handled)
	})
}

func TestWaitIdleCountsWhatTheBrokerMoves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		_, err := b.Ensure(t.Context(), "orders", &queue.QueueSpec{DeadLetter: "orders-dead", BrokerMaxAttempts: 1})
		require.NoError(t, err)
		q := openOn(t, b, "orders", false)
		publish(t, q, "", "a")
		release(t, q, next(t, q), 0)
		idle := make(chan error, 1)
		go func() { idle <- b.WaitIdle(t.Context()) }()
		synctest.Wait()
		assert.Empty(t, idle)
		assert.Empty(t, receive(t, q, 1))
		require.NoError(t, <-idle)
		assert.Len(t, b.Messages("orders-dead"), 1)
	})
}

func TestWaitIdleForNamedQueues(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, q := open(t, nil, false)
		other := openOn(t, b, "others", false)
		publish(t, q, "", "a")
		publish(t, other, "", "b")
		receive(t, q, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := b.WaitIdle(ctx, "others")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "1 in others", "it says what's left")
		ack(t, other, receive(t, other, 1)...)
		require.NoError(t, b.WaitIdle(t.Context(), "others"))
		require.ErrorIs(t, b.WaitIdle(t.Context(), "no-such-queue"), queue.ErrQueueNotFound)
	})
}

func TestWaitIdleForgetsAConsumerWhoseQueueIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, q := open(t, nil, false)
		receive(t, q, 1)
		closing, err := b.Open(t.Context(), "others", nil)
		require.NoError(t, err)
		publish(t, closing, "", "a")
		receive(t, closing, 1)
		idle := make(chan error, 1)
		go func() { idle <- b.WaitIdle(t.Context()) }()
		synctest.Wait()
		assert.Empty(t, idle)
		require.NoError(t, closing.Close(t.Context()))
		require.NoError(t, <-idle)
	})
}
