package memory_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
)

var errOutage = errors.New("outage")

func three(q queue.Queue) []error {
	return queue.PublishErrors(q.Publish(context.Background(),
		&queue.Message{Body: []byte("a")}, &queue.Message{Body: []byte("b")}, &queue.Message{Body: []byte("c")}), 3)
}

func TestPublishFaults(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		like  memory.Like
		fault memory.Fault
		want  [3]error // of a publish of a, b and c
		there []string // then
	}{
		{"one of a call is refused", memory.Portable,
			memory.Fault{Skip: 1, Times: 1}, [3]error{nil, memory.ErrInjected, nil}, []string{"a", "c"}},
		{"all are refused", memory.Portable,
			memory.Fault{Err: errOutage}, [3]error{errOutage, errOutage, errOutage}, nil},
		{"one is chosen", memory.Portable,
			memory.Fault{Match: func(m *queue.Message) bool { return string(m.Body) == "c" }}, [3]error{nil, nil, memory.ErrInjected}, []string{"a", "b"}},
		{"the answer is lost", memory.Portable,
			memory.Fault{Effect: memory.Unanswered, Times: 2}, [3]error{queue.ErrUnknownOutcome, queue.ErrUnknownOutcome, nil}, []string{"a", "b", "c"}},
		{"published twice", memory.Portable,
			memory.Fault{Effect: memory.Twice, Skip: 2, Times: 1}, [3]error{}, []string{"a", "b", "c", "c"}},
		{"another queue", memory.Portable,
			memory.Fault{Queue: "others"}, [3]error{}, []string{"a", "b", "c"}},
		{"another call", memory.Portable,
			memory.Fault{Call: memory.OnReceive, Effect: memory.LoseLease}, [3]error{}, []string{"a", "b", "c"}},
		{"Pub/Sub fails as a whole", memory.PubSub,
			memory.Fault{Skip: 1, Times: 1}, [3]error{memory.ErrInjected, memory.ErrInjected, memory.ErrInjected}, nil},
		{"Pub/Sub loses the answer as a whole", memory.PubSub,
			memory.Fault{Effect: memory.Unanswered, Times: 1}, [3]error{queue.ErrUnknownOutcome, queue.ErrUnknownOutcome, queue.ErrUnknownOutcome}, []string{"a", "b", "c"}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b, q := open(t, &memory.Options{Like: tc.like}, false)
			heal := b.Fail(tc.fault)
			for i, err := range three(q) {
				assert.ErrorIs(t, err, tc.want[i], "message %d", i)
			}
			assert.ElementsMatch(t, tc.there, bodies(b.Messages("orders")))
			if tc.fault.Times > 0 { // then it has healed
				for _, err := range three(q) {
					require.NoError(t, err)
				}
			}
			heal()
			for _, err := range three(q) {
				require.NoError(t, err)
			}
		})
	}
}

func TestLostAnswerTellsBothWhatHappenedAndWhy(t *testing.T) {
	t.Parallel()
	b, q := open(t, nil, false)
	b.Fail(memory.Fault{Effect: memory.Unanswered, Err: errOutage})
	err := q.Publish(t.Context(), &queue.Message{})
	require.ErrorIs(t, err, queue.ErrUnknownOutcome)
	require.ErrorIs(t, err, errOutage)
}

func TestInvalidMessageUsesUpNoFault(t *testing.T) {
	t.Parallel()
	b, q := open(t, nil, false)
	b.Fail(memory.Fault{Times: 1, Err: errOutage})
	err := q.Publish(t.Context(), nil, &queue.Message{OrderingKey: "refused anyway"})
	require.ErrorIs(t, err, queue.ErrInvalid)
	require.NotErrorIs(t, err, errOutage)
	require.ErrorIs(t, q.Publish(t.Context(), &queue.Message{}), errOutage)
}

func TestReceiveFaults(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, q := open(t, nil, false)
		publish(t, q, "", "a", "b")

		b.Fail(memory.Fault{Call: memory.OnReceive, Times: 2, Err: errOutage})
		for range 2 {
			_, err := q.Receive(t.Context(), 10)
			require.ErrorIs(t, err, errOutage)
		}
		ds := receive(t, q, 10)
		require.Equal(t, []string{"a", "b"}, bodies(ds), "it took nothing, and has healed")
		assert.Equal(t, 1, ds[0].Attempt)
		release(t, q, ds[0], 0)
		release(t, q, ds[1], 0)

		b.Fail(memory.Fault{Call: memory.OnReceive, Effect: memory.Unanswered, Times: 1})
		_, err := q.Receive(t.Context(), 1)
		require.ErrorIs(t, err, memory.ErrInjected)
		assert.Equal(t, []string{"b"}, bodies(receive(t, q, 10)), "the first stays hidden")
		time.Sleep(30 * time.Second)
		ds = receive(t, q, 10)
		assert.Equal(t, []string{"a", "b"}, bodies(ds))
		assert.Equal(t, 3, ds[0].Attempt)
		ack(t, q, ds...)

		publish(t, q, "", "c", "d")
		b.Fail(memory.Fault{Call: memory.OnReceive, Effect: memory.Twice, Skip: 1, Times: 1})
		ds = receive(t, q, 10)
		require.Equal(t, []string{"c", "d"}, bodies(ds))
		again := receive(t, q, 10)
		require.Equal(t, []string{"d"}, bodies(again))
		assert.Equal(t, ds[1].BrokerID, again[0].BrokerID, "the same message")
		ack(t, q, ds...)
		ack(t, q, again...)

		publish(t, q, "", "e")
		b.Fail(memory.Fault{Call: memory.OnReceive, Effect: memory.LoseLease, Times: 1})
		lost := receive(t, q, 10)
		again = receive(t, q, 10)
		require.Equal(t, []string{"e"}, bodies(again))
		require.ErrorIs(t, settle(q, lost[0], queue.Ack), queue.ErrLeaseLost)
		ack(t, q, again...)
		assert.Empty(t, b.Messages("orders"))
	})
}

func TestSettleFaults(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, q := open(t, nil, false)
		publish(t, q, "", "a", "b", "c")
		ds := receive(t, q, 3)
		settleAll := func() []error {
			var ss []queue.Settlement
			for _, d := range ds {
				ss = append(ss, queue.Settlement{Delivery: d})
			}
			errs := make([]error, len(ds))
			if se, ok := errors.AsType[*queue.SettleError](q.Settle(t.Context(), ss...)); ok {
				for _, f := range se.Failed {
					errs[f.Index] = f.Err
				}
			}
			return errs
		}
		b.Fail(memory.Fault{Call: memory.OnSettle, Skip: 1, Times: 1})
		errs := settleAll()
		require.NoError(t, errs[0])
		require.ErrorIs(t, errs[1], memory.ErrInjected)
		require.NoError(t, errs[2])
		assert.Equal(t, []string{"b"}, bodies(b.Messages("orders")))

		b.Fail(memory.Fault{Call: memory.OnSettle, Effect: memory.Unanswered, Times: 1, Match: isBody("b")})
		require.ErrorIs(t, settle(q, ds[1], queue.Ack), memory.ErrInjected)
		assert.Empty(t, b.Messages("orders"), "it took effect")
		require.NoError(t, settle(q, ds[1], queue.Ack), "and may be repeated")

		publish(t, q, "", "d", "e")
		ds = receive(t, q, 2)
		b.Fail(memory.Fault{Call: memory.OnSettle, Effect: memory.Twice, Times: 1, Match: isBody("d")})
		b.Fail(memory.Fault{Call: memory.OnSettle, Effect: memory.LoseLease, Times: 1, Match: isBody("e")})
		errs = settleAll()
		require.NoError(t, errs[0])
		require.ErrorIs(t, errs[1], queue.ErrLeaseLost)
		again := receive(t, q, 10)
		assert.ElementsMatch(t, []string{"d", "e"}, bodies(again), "both come again")
		ack(t, q, again...)

		// What's long gone can't: its memory may hold something else by now.
		publish(t, q, "", "f")
		gone := receive(t, q, 1)[0]
		ack(t, q, gone)
		b.Fail(memory.Fault{Call: memory.OnSettle, Effect: memory.Twice, Times: 1, Match: isBody("f")})
		ack(t, q, gone)
		assert.Empty(t, receive(t, q, 1))
	})
}

func isBody(s string) func(*queue.Message) bool {
	return func(m *queue.Message) bool { return string(m.Body) == s }
}

func TestExtendFaults(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, q := open(t, nil, false)
		publish(t, q, "", "a", "b", "c", "d")
		ds := receive(t, q, 4)
		b.Fail(memory.Fault{Call: memory.OnExtend, Times: 1, Match: isBody("a")})
		b.Fail(memory.Fault{Call: memory.OnExtend, Effect: memory.Unanswered, Times: 1, Match: isBody("b")})
		b.Fail(memory.Fault{Call: memory.OnExtend, Effect: memory.LoseLease, Times: 1, Match: isBody("c")})
		granted, err := q.Extend(t.Context(), time.Hour, ds...)
		var se *queue.SettleError
		require.ErrorAs(t, err, &se)
		require.Len(t, se.Failed, 3)
		require.ErrorIs(t, se.Failed[0].Err, memory.ErrInjected)
		require.ErrorIs(t, se.Failed[1].Err, memory.ErrInjected)
		require.ErrorIs(t, se.Failed[2].Err, queue.ErrLeaseLost)
		require.Len(t, granted, 4)
		for i, g := range granted {
			assert.Equal(t, i != 3, g.IsZero(), "entry %d", i)
		}
		time.Sleep(30 * time.Second)
		assert.ElementsMatch(t, []string{"a", "c"}, bodies(receive(t, q, 10)), "the second was extended")
	})
}

func TestFaultThatCannotBeMeantIsSaid(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		fault memory.Fault
	}{
		{"Call", memory.Fault{Call: 9}},
		{"Effect", memory.Fault{Effect: 9}},
		{"lease", memory.Fault{Effect: memory.LoseLease}},
		{"Match", memory.Fault{Call: memory.OnReceive, Match: isBody("x")}},
		{"Times", memory.Fault{Times: -1}},
	}
	for _, tc := range tests {
		b, q := open(t, nil, false)
		publish(t, q, "", "a")
		d := receive(t, q, 1)[0]
		heal := b.Fail(tc.fault)
		err := q.Publish(t.Context(), &queue.Message{})
		switch tc.fault.Call {
		case memory.OnReceive:
			_, err = q.Receive(t.Context(), 1)
		case 9:
			_, err = q.Extend(t.Context(), time.Second, d)
		}
		require.ErrorIs(t, err, queue.ErrInvalid, tc.name)
		assert.Contains(t, err.Error(), tc.name)
		heal()
		require.NoError(t, q.Publish(t.Context(), &queue.Message{}))
	}
}

func TestLoseLeasesEndsThemAll(t *testing.T) {
	t.Parallel()
	for _, like := range []memory.Like{memory.Portable, memory.PubSub} {
		b, q := open(t, &memory.Options{Like: like}, true)
		publish(t, q, "k", "1", "2")
		publish(t, q, "", "3")
		ds := receive(t, q, 10)
		assert.Equal(t, len(ds), b.LoseLeases("orders"))
		again := receive(t, q, 10)
		assert.ElementsMatch(t, bodies(ds), bodies(again))
		assert.Zero(t, b.LoseLeases("no-such-queue"))
	}
}

func TestDeliveredTwiceKeepsTheOrderOfItsKey(t *testing.T) {
	t.Parallel()
	for _, like := range []memory.Like{memory.Portable, memory.SQSFIFO, memory.PubSub} {
		synctest.Test(t, func(t *testing.T) {
			b, q := open(t, &memory.Options{Like: like}, true)
			b.Fail(memory.Fault{Call: memory.OnSettle, Effect: memory.Twice, Times: 1})
			publish(t, q, "k", "1", "2")
			var got []string
			for range 3 {
				d := next(t, q)
				assert.Equal(t, "k", d.OrderingKey)
				got = append(got, string(d.Body))
				ack(t, q, d)
			}
			if like == memory.PubSub { // which promises no more than this
				assert.ElementsMatch(t, []string{"1", "1", "2"}, got)
			} else {
				assert.Equal(t, []string{"1", "1", "2"}, got)
			}
			assert.Empty(t, b.Messages("orders"))
		})
	}
}

// The engine lets body and attributes be copied late; a fault is chosen before.
func TestAFaultThatIsSetWhileAConsumerWaitsSeesWhatItChoosesFrom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(&memory.Options{Create: true})
		q, err := b.Open(t.Context(), "work", nil)
		require.NoError(t, err)
		var n atomic.Int32
		stop := consume(t, q, func(context.Context, *queue.Delivery) error { n.Add(1); return nil }, nil)
		synctest.Wait() // it waits in Receive
		b.Fail(memory.Fault{Call: memory.OnReceive, Effect: memory.Twice, Times: 1, Match: func(m *queue.Message) bool {
			return string(m.Body) == "twice" && m.Attributes["a"] == "b"
		}})
		require.NoError(t, q.Publish(t.Context(), &queue.Message{Body: []byte("twice"), Attributes: map[string]string{"a": "b"}}))
		time.Sleep(time.Minute)
		assert.EqualValues(t, 2, n.Load())
		stop()
	})
}

func TestAFaultSeesWhatIsGivenBackUnstarted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(&memory.Options{Create: true, Like: memory.PubSub})
		q, err := b.Open(t.Context(), "work", &queue.OpenOptions{Ordered: true})
		require.NoError(t, err)
		hang := make(chan struct{})
		for range 5 { // the first one's handler runs, the others wait behind it
			require.NoError(t, q.Publish(t.Context(), &queue.Message{Body: []byte("body"), Attributes: map[string]string{"a": "b"}, OrderingKey: "k"}))
		}
		var c *queue.Consumer
		stop := consume(t, q, func(context.Context, *queue.Delivery) error { <-hang; return nil }, &c)
		synctest.Wait()
		var seen atomic.Int32
		b.Fail(memory.Fault{Call: memory.OnSettle, Effect: memory.Refuse, Times: 1, Match: func(m *queue.Message) bool {
			seen.Add(1)
			assert.Equal(t, "body", string(m.Body))
			assert.Equal(t, map[string]string{"a": "b"}, m.Attributes)
			return false
		}})
		c.Pause() // gives back what hasn't started
		synctest.Wait()
		assert.EqualValues(t, 4, seen.Load())
		close(hang)
		stop()
	})
}

// consume runs a consumer until the function that it returns is called.
func consume(t *testing.T, q queue.Queue, h queue.Handler, to **queue.Consumer) (stop func()) {
	c, err := queue.NewConsumer(q, h, &queue.ConsumerOptions{Concurrency: 5})
	require.NoError(t, err)
	if to != nil {
		*to = c
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	return func() {
		cancel()
		assert.NoError(t, <-done)
	}
}
