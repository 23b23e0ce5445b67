package pubsub_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/anyqueue/anyqueue/queue"
)

// ofKey returns n messages of a key with the bodies key0 to key(n-1).
func ofKey(key string, n int) []*queue.Message {
	msgs := make([]*queue.Message, n)
	for i := range msgs {
		msgs[i] = keyed(key, fmt.Sprint(key, i))
	}
	return msgs
}

func bodiesOf(msgs []*queue.Message) []string {
	out := make([]string, len(msgs))
	for i, m := range msgs {
		out[i] = string(m.Body)
	}
	return out
}

// ordered runs a test on a queue that keeps order.
func ordered(t *testing.T, test func(t *testing.T, f *fake, q queue.Queue)) {
	t.Helper()
	onFake(t, func(t *testing.T, f *fake) { test(t, f, f.fresh(t, &queue.QueueSpec{Ordered: true})) })
}

// A request may hold one key only, says the service's API.
func TestARequestHoldsOneKey(t *testing.T) {
	ordered(t, func(t *testing.T, f *fake, q queue.Queue) {
		var msgs []*queue.Message
		for i := range 60 {
			msgs = append(msgs, keyed([]string{"a", "b", ""}[i%3], fmt.Sprint(i)))
		}
		f.on("Publish", late(30*time.Millisecond))
		require.NoError(t, q.Publish(t.Context(), msgs...))
		assert.Equal(t, []int{20, 20, 20}, f.sizes())
		for _, r := range f.publishes() {
			for i, m := range r.GetMessages() {
				assert.Equal(t, r.GetMessages()[0].GetOrderingKey(), m.GetOrderingKey())
				if i > 0 && m.GetOrderingKey() != "" {
					var before, after int
					_, _ = fmt.Sscan(string(r.GetMessages()[i-1].GetData()), &before)
					_, _ = fmt.Sscan(string(m.GetData()), &after)
					assert.Less(t, before, after)
				}
			}
		}
	})
}

func TestALongRunOfOneKeyKeepsItsOrder(t *testing.T) {
	ordered(t, func(t *testing.T, f *fake, q queue.Queue) {
		f.on("Publish", late(30*time.Millisecond))
		msgs := ofKey("k", 2500)
		require.NoError(t, q.Publish(t.Context(), msgs...))
		assert.Equal(t, []int{1000, 1000, 500}, f.sizes())
		assert.Equal(t, bodiesOf(msgs), f.published())
	})
}

// The requests of a key don't overtake each other, nor do they hold up another key.
func TestAKeyHasOneRequestUnderWay(t *testing.T) {
	ordered(t, func(t *testing.T, f *fake, q queue.Queue) {
		f.on("Publish", with("k0", late(5*time.Second)))
		var wg sync.WaitGroup
		for _, m := range ofKey("k", 5) {
			wg.Go(func() { assert.NoError(t, q.Publish(t.Context(), m)) })
			synctest.Wait()
		}
		begun := time.Now()
		require.NoError(t, q.Publish(t.Context(), keyed("other", "x"), message("y")))
		assert.Less(t, time.Since(begun), time.Second)
		wg.Wait()
		assert.ElementsMatch(t, []string{"x", "y"}, f.published()[:2])
		assert.Equal(t, []string{"k0", "k1", "k2", "k3", "k4"}, f.published()[2:])
		assert.Len(t, f.sizes(), 4, "what waited behind the first goes together")
	})
}

func TestWhatFollowsAFailedMessageOfItsKeyIsKeptBack(t *testing.T) {
	ordered(t, func(t *testing.T, f *fake, q queue.Queue) {
		f.on("Publish", with("k0", refuse(codes.PermissionDenied)))
		failed := failures(q.Publish(t.Context(), append(ofKey("k", 1500), ofKey("other", 5)...)...), 1505)
		assert.Len(t, failed, 1500)
		assert.ErrorIs(t, failed[0], queue.ErrPermission)
		assert.ErrorContains(t, failed[1499], "not sent: an earlier message")
		assert.NotErrorIs(t, failed[1499], queue.ErrUnknownOutcome)
		assert.Equal(t, bodiesOf(ofKey("other", 5)), f.published())
		f.heal()
		require.NoError(t, q.Publish(t.Context(), keyed("k", "next")), "the next call goes on")
		assert.Equal(t, "next", f.published()[5])
	})
}

// Its followers in the same call are kept back, what was before it is taken, and other
// calls go on with the key.
func TestARefusedMessageOfAKey(t *testing.T) {
	ordered(t, func(t *testing.T, f *fake, q queue.Queue) {
		f.on("Publish", with("first", late(30*time.Millisecond)))
		var wg sync.WaitGroup
		wg.Go(func() { assert.NoError(t, q.Publish(t.Context(), keyed("k", "first"))) })
		synctest.Wait() // those that come now go together
		f.on("Publish", with("k37", refuse(codes.InvalidArgument)))
		wg.Go(func() {
			failed := failures(q.Publish(t.Context(), ofKey("k", 100)...), 100)
			assert.Len(t, failed, 63)
			assert.ErrorContains(t, failed[37], "InvalidArgument")
			for i := 38; i < 100; i++ {
				assert.ErrorContains(t, failed[i], "not sent")
			}
		})
		synctest.Wait()
		another := []*queue.Message{keyed("k", "x0"), keyed("k", "x1"), keyed("k", "x2")}
		wg.Go(func() { assert.NoError(t, q.Publish(t.Context(), another...)) })
		wg.Wait()
		assert.Contains(t, f.sizes(), 103, "they had shared a request")
		want := append([]string{"first"}, bodiesOf(ofKey("k", 37))...)
		assert.Equal(t, append(want, bodiesOf(another)...), f.published())
	})
}

// Whatever goes wrong, nobody's message of a key comes before an earlier one of that
// caller; a copy may come again.
func TestNothingOvertakesWhatIsTriedAgain(t *testing.T) {
	for name, fault := range map[string]answer{
		"refused for a moment": refuse(codes.Unauthenticated),
		"throttled":            refuse(codes.ResourceExhausted),
		"not answered":         lose(codes.Unavailable),
		"not taken":            refuse(codes.Internal),
	} {
		t.Run(name, func(t *testing.T) {
			ordered(t, func(t *testing.T, f *fake, q queue.Queue) {
				flaky := with("k3", times(2, fault))
				f.on("Publish", func(ctx context.Context, in any, forward func() (any, error)) (any, error) {
					return late(10*time.Millisecond)(ctx, in, func() (any, error) { return flaky(ctx, in, forward) })
				})
				var wg sync.WaitGroup
				for _, m := range ofKey("k", 10) {
					wg.Go(func() { assert.NoError(t, q.Publish(t.Context(), m)) })
					time.Sleep(3 * time.Millisecond)
				}
				wg.Wait()
				got := f.published()
				first := slices.Clone(got[:0])
				for _, b := range got {
					if !slices.Contains(first, b) {
						first = append(first, b)
					}
				}
				assert.Equal(t, bodiesOf(ofKey("k", 10)), first)
				assert.LessOrEqual(t, uint64(len(got)-10), countsOf(t, q).Retried)
			})
		})
	}
}

func TestADoubtfulMessageOfAKeyKeepsItsFollowersBack(t *testing.T) {
	ordered(t, func(t *testing.T, f *fake, q queue.Queue) {
		f.on("Publish", with("k0", lose(codes.Internal)))
		msgs := ofKey("k", 1001)
		failed := failures(q.Publish(t.Context(), msgs...), 1001)
		require.Len(t, failed, 1001)
		assert.ErrorIs(t, failed[0], queue.ErrUnknownOutcome)
		assert.ErrorIs(t, failed[999], queue.ErrUnknownOutcome, "it was in the same requests")
		assert.ErrorContains(t, failed[1000], "not sent")
		assert.NotErrorIs(t, failed[1000], queue.ErrUnknownOutcome)
		assert.Len(t, f.published(), 3000, "three doubtful sends")
	})
}

// Who gives up waiting doesn't leave the key stuck for others.
func TestAKeyWhoseCallerHasGoneGoesOn(t *testing.T) {
	ordered(t, func(t *testing.T, f *fake, q queue.Queue) {
		f.on("Publish", with("k0", hang))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			failed := failures(q.Publish(ctx, ofKey("k", 1200)...), 1200)
			assert.Len(t, failed, 1200)
			assert.ErrorIs(t, failed[0], queue.ErrUnknownOutcome)
			assert.ErrorIs(t, failed[1199], context.DeadlineExceeded)
			assert.NotErrorIs(t, failed[1199], queue.ErrUnknownOutcome, "it never left")
		})
		synctest.Wait()
		begun := time.Now()
		require.NoError(t, q.Publish(t.Context(), keyed("k", "next")))
		assert.Less(t, time.Since(begun), 2*time.Second)
		wg.Wait()
		assert.Equal(t, []string{"next"}, f.published())
	})
}
