package pubsub_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/anyqueue/anyqueue/queue"
)

func deferred(d *queue.Delivery, by time.Duration) queue.Settlement {
	return queue.Settlement{Delivery: d, Kind: queue.Defer, Until: time.Now().Add(by)}
}

// sharing adds another subscriber to the topic of "orders".
func (f *fake) sharing(t *testing.T) queue.Queue {
	t.Helper()
	f.subscribe(t, topicName("orders"), subscriptionName("billing"), nil)
	return f.open(t, "billing", &queue.OpenOptions{Address: "subscriptions/billing"})
}

// nothingIn asserts that a queue has no message.
func nothingIn(t *testing.T, q queue.Queue) {
	t.Helper()
	ds, err := q.Receive(t.Context(), 10)
	require.NoError(t, err)
	assert.Empty(t, bodies(ds))
}

func back(t *testing.T, q queue.Queue) func(ctx context.Context, msgs ...*queue.Message) error {
	t.Helper()
	r, ok := queue.As[queue.Redriver](q)
	require.True(t, ok)
	return r.PublishBack
}

func TestWhatIsPublishedAgainReachesNobodyElse(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		billing := f.sharing(t)
		require.NoError(t, q.Publish(t.Context(), message("hello")))
		assert.Equal(t, []string{"hello"}, bodies(receive(t, billing, 1)))
		d := receive(t, q, 1)[0]
		s := deferred(d, time.Hour)
		require.NoError(t, q.Settle(t.Context(), s))
		require.NoError(t, back(t, q)(t.Context(), message("redriven")))
		nothingIn(t, billing)
		for _, d := range receive(t, q, 2) {
			if string(d.Body) == "hello" {
				assert.WithinDuration(t, s.Until, d.Due(), time.Millisecond)
			}
		}
		assert.Equal(t, topicName("orders.return"), f.publishes()[1].GetTopic())
		assert.Equal(t, topicName("orders.return"), f.publishes()[2].GetTopic())
		time.Sleep(time.Minute)
		assert.ElementsMatch(t, []string{"hello", "redriven"}, bodies(receive(t, q, 2)), "the original is gone")
	})
}

func TestADeferThatIsRepeatedSendsOneCopy(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		require.NoError(t, q.Publish(t.Context(), message("hello")))
		d := receive(t, q, 1)[0]
		d.Body[0] = 'J' // by the handler
		f.on("Acknowledge", refuse(codes.Internal))
		s := deferred(d, time.Hour)
		got := refused(t, q.Settle(t.Context(), s, s))
		assert.Len(t, got, 2, "both are of the same delivery")
		f.heal()
		require.NoError(t, q.Settle(t.Context(), s))
		require.Len(t, f.publishes(), 2, "the message and its copy")
		assert.Equal(t, "hello", string(f.publishes()[1].GetMessages()[0].GetData()))
		require.NoError(t, q.Settle(t.Context(), s, s), "its copy is there, and it's gone")
		assert.Len(t, f.publishes(), 2)
	})
}

// As the engine does when the lease is nearly over: its copy is there already.
func TestAReleaseInsteadOfADeferWhoseCopyWasSentAcknowledges(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		require.NoError(t, q.Publish(t.Context(), message("hello")))
		d := receive(t, q, 1)[0]
		f.on("Acknowledge", refuse(codes.Internal))
		refused(t, q.Settle(t.Context(), deferred(d, time.Hour)))
		f.heal()
		require.NoError(t, q.Settle(t.Context(), queue.Settlement{Delivery: d, Kind: queue.Release}))
		require.Len(t, f.publishes(), 2, "the message and its copy")
		back := receive(t, q, 1)[0]
		assert.False(t, back.Due().IsZero(), "the copy")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		more, err := q.Receive(ctx, 1)
		if err != nil {
			assert.ErrorIs(t, err, context.DeadlineExceeded)
		}
		assert.Empty(t, more, "the original is gone")
	})
}

// The original stays until its copy is durable.
func TestADeferWhoseCopyFailsRemovesNothing(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer answer
		want   error
		copies int
	}{
		{"refused", refuse(codes.PermissionDenied), queue.ErrPermission, 1},
		{"in doubt", lose(codes.Internal), queue.ErrUnknownOutcome, 3 + 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				q := f.fresh(t, nil)
				require.NoError(t, q.Publish(t.Context(), message("a"), message("b")))
				ds := receive(t, q, 2)
				f.on("Publish", c.answer)
				got := refused(t, q.Settle(t.Context(), deferred(ds[0], time.Hour), queue.Settlement{Delivery: ds[1]}))
				assert.Len(t, got, 1, "the other is acknowledged")
				assert.ErrorIs(t, got[0], c.want)
				assert.Len(t, f.acks(), 1)
				f.heal()
				require.NoError(t, q.Settle(t.Context(), deferred(ds[0], time.Hour)))
				assert.Len(t, f.acks(), 2)
				assert.Len(t, f.published(), 2+c.copies)
			})
		})
	}
}

func TestCopiesOfAKeyKeepTheirOrder(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, &queue.QueueSpec{Ordered: true})
		s := f.stage()
		for i := range 5 {
			s.add(mainSub, fmt.Sprint("k", i))
		}
		f.on("Acknowledge", refuse(codes.Internal))
		var todo []queue.Settlement
		for _, d := range receive(t, q, 5) {
			d.OrderingKey = "k"
			todo = append(todo, deferred(d, time.Hour))
		}
		f.on("Publish", times(1, refuse(codes.Unauthenticated)))
		assert.Len(t, refused(t, q.Settle(t.Context(), todo...)), 5)
		assert.Equal(t, []string{"k0", "k1", "k2", "k3", "k4"}, f.published())
	})
}

// Without a return topic there's the queue's own, as long as nobody else has it.
func TestWithoutAReturnTopicTheQueuesOwnWillDo(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.alone(t, nil, nil)
		require.NoError(t, q.Publish(t.Context(), message("a")))
		require.NoError(t, q.Settle(t.Context(), deferred(receive(t, q, 1)[0], time.Hour)))
		require.NoError(t, back(t, q)(t.Context(), message("b")))
		for _, p := range f.publishes() {
			assert.Equal(t, topicName("orders"), p.GetTopic())
		}
		assert.ElementsMatch(t, []string{"a", "b"}, bodies(receive(t, q, 2)))
		assert.Equal(t, 1, f.requests()["ListTopicSubscriptions"], "it's remembered")

		billing := f.sharing(t)
		time.Sleep(time.Minute + 1)
		assert.ErrorIs(t, back(t, q)(t.Context(), message("c")), queue.ErrUnsupported, "but not for ever")
		nothingIn(t, billing)
	})
}

func TestPublishingAgainIsRefusedWhereItWouldReachOthers(t *testing.T) {
	for _, c := range []struct {
		name string
		prep func(t *testing.T, f *fake)
		opts queue.OpenOptions
	}{
		{"others subscribe", func(t *testing.T, f *fake) { f.sharing(t) }, queue.OpenOptions{}},
		{"the same, to publish", func(t *testing.T, f *fake) { f.sharing(t) }, queue.OpenOptions{Mode: queue.ForPublish}},
		{"others may subscribe", func(_ *testing.T, f *fake) {
			f.on("ListTopicSubscriptions", refuse(codes.PermissionDenied))
		}, queue.OpenOptions{}},
		{"only a topic is known", func(*testing.T, *fake) {}, queue.OpenOptions{Mode: queue.ForPublish, Address: "topics/orders"}},
		{"there's a return topic without a subscription", func(t *testing.T, f *fake) {
			f.sharing(t)
			f.topic(t, topicName("orders.return"))
		}, queue.OpenOptions{}},
		{"the return subscription is another topic's", func(t *testing.T, f *fake) {
			f.sharing(t)
			f.topic(t, topicName("else"))
			f.subscribe(t, topicName("else"), backSub, nil)
		}, queue.OpenOptions{}},
		{"it belongs to another subscription", func(t *testing.T, f *fake) {
			f.topic(t, topicName("solo"))
			f.subscribe(t, topicName("solo"), subscriptionName("other"), nil)
		}, queue.OpenOptions{Mode: queue.ForPublish, Address: "topics/solo"}},
		{"the return subscription has a filter", func(t *testing.T, f *fake) {
			f.sharing(t)
			f.topic(t, topicName("orders.return"))
			f.subscribe(t, topicName("orders.return"), backSub, func(s *pubsubpb.Subscription) { s.Filter = "attributes:some" })
		}, queue.OpenOptions{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				f.alone(t, nil, nil)
				c.prep(t, f)
				q := f.open(t, "orders", &c.opts)
				err := back(t, q)(t.Context(), message("a"), message("b"))
				failed := failures(err, 2)
				assert.Len(t, failed, 2)
				assert.ErrorIs(t, failed[1], queue.ErrUnsupported)
				assert.ErrorContains(t, err, "pubsub: publish back to orders")
				if c.opts.Mode != queue.ForPublish {
					f.Publish(topicName("orders"), []byte("x"), nil)
					ds := receive(t, q, 1)
					got := refused(t, q.Settle(t.Context(), deferred(ds[0], time.Hour)))
					assert.ErrorIs(t, got[0], queue.ErrUnsupported)
					assert.Empty(t, f.acks())
				}
				assert.Empty(t, f.publishes())
			})
		})
	}
}

// The console redrives into queues that it doesn't consume.
func TestAHandleThatOnlyPublishesFindsTheReturnTopic(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		billing := f.sharing(t)
		for _, opts := range []queue.OpenOptions{{Mode: queue.ForPublish}, {Mode: queue.ForPublish, Address: "subscriptions/orders"}} {
			p := f.open(t, "orders", &opts)
			f.forget()
			require.NoError(t, back(t, p)(t.Context(), message("a")))
			require.NoError(t, back(t, p)(t.Context(), message("b")))
			assert.Equal(t, map[string]int{"GetSubscription": 1, "Publish": 2}, f.requests(), "it's looked for once")
		}
		receive(t, q, 4)
		nothingIn(t, billing)
	})
}

// What couldn't be found out is asked for again, however it failed.
func TestAWayBackThatIsNotKnownIsAskedForAgain(t *testing.T) {
	for _, c := range []struct {
		method string
		code   codes.Code
	}{
		{"GetSubscription", codes.Internal}, {"GetSubscription", codes.Unauthenticated},
		{"ListTopicSubscriptions", codes.Internal}, {"ListTopicSubscriptions", codes.Unauthenticated},
	} {
		t.Run(c.method+" "+c.code.String(), func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				q := f.alone(t, nil, nil)
				f.on(c.method, refuse(c.code))
				err := back(t, q)(t.Context(), message("a"))
				require.Error(t, err)
				assert.NotErrorIs(t, err, queue.ErrUnsupported)
				f.heal()
				assert.NoError(t, back(t, q)(t.Context(), message("a")))
			})
		})
	}
}

// Each caller waits for as long as it wants to, not for as long as another one.
func TestLookingForTheWayBackEndsWithItsContext(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.alone(t, nil, nil)
		f.on("GetSubscription", hang)
		begun := time.Now()
		done := make(chan time.Duration, 1)
		go func() {
			assert.ErrorIs(t, back(t, q)(t.Context(), message("a")), context.DeadlineExceeded)
			done <- time.Since(begun)
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.ErrorIs(t, back(t, q)(ctx, message("b")), context.DeadlineExceeded)
		assert.Equal(t, time.Second, time.Since(begun))
		assert.Equal(t, queue.DefaultPublishTimeout, <-done, "without a deadline it's that of Publish")
	})
}

// Nothing may be published to a return topic whose subscription was deleted: it would
// be lost.
func TestAReturnSubscriptionThatWasDeletedIsNoWayBack(t *testing.T) {
	for _, mode := range []queue.OpenMode{queue.ForBoth, queue.ForPublish} {
		for _, shared := range []bool{true, false} {
			t.Run(fmt.Sprint("mode ", mode, ", shared ", shared), func(t *testing.T) {
				onFake(t, func(t *testing.T, f *fake) {
					f.ensure(t, "orders", nil)
					if shared {
						f.subscribe(t, topicName("orders"), subscriptionName("billing"), nil)
					}
					q := f.open(t, "orders", &queue.OpenOptions{Mode: mode})
					require.NoError(t, back(t, q)(t.Context(), message("before")))
					require.NoError(t, f.client.SubscriptionAdminClient.DeleteSubscription(t.Context(), &pubsubpb.DeleteSubscriptionRequest{Subscription: backSub}))
					time.Sleep(time.Minute + 1) // so long it counts
					f.forget()
					err := back(t, q)(t.Context(), message("after"))
					for _, p := range f.publishes() {
						assert.Equal(t, topicName("orders"), p.GetTopic(), "the other topic has no subscription any more")
					}
					if shared {
						assert.ErrorIs(t, err, queue.ErrUnsupported)
					} else {
						assert.NoError(t, err, "to the topic, as nobody else subscribes to it")
					}
				})
			})
		}
	}
}

// What isn't known any more for want of an answer is taken for what it was.
func TestAWayBackThatCannotBeLookedAtStaysTheWay(t *testing.T) {
	for _, c := range []struct {
		name string
		says answer
	}{{"no permission", refuse(codes.PermissionDenied)}, {"not reached", refuse(codes.Unavailable)}, {"no answer", hang}} {
		t.Run(c.name, func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				q := f.fresh(t, nil)
				f.sharing(t)
				time.Sleep(time.Minute + 1)
				f.on("GetSubscription", c.says)
				require.NoError(t, back(t, q)(t.Context(), message("a")))
				f.heal()
				assert.Equal(t, []string{"a"}, bodies(receive(t, q, 1)))
			})
		})
	}
}

// Nobody waits for ever, also where the caller has named no time.
func TestADeferEndsWithoutADeadline(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		require.NoError(t, q.Publish(t.Context(), message("a")))
		d := receive(t, q, 1)[0]
		f.on("Publish", refuse(codes.ResourceExhausted))
		begun := time.Now()
		got := refused(t, q.Settle(t.Context(), deferred(d, time.Hour)))
		assert.ErrorIs(t, got[0], context.DeadlineExceeded)
		assert.Equal(t, queue.DefaultPublishTimeout, time.Since(begun))
		assert.Empty(t, f.acks())
	})
}
