package pubsub_test

import (
	"bytes"
	"context"
	"log/slog"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
)

func TestOpenReadsTheSubscriptionsSettings(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.ensure(t, "orders", &queue.QueueSpec{Ordered: true, Lease: 40 * time.Second, Retention: 24 * time.Hour})
		caps := f.open(t, "orders", nil).Capabilities()
		assert.Equal(t, queue.Capabilities{
			Source:  queue.Endpoint{System: "gcp_pubsub", Name: "orders"},
			Address: subscriptionName("orders"),
			Wire:    queue.PubSubWire(), MaxReceive: 1000, MaxSettle: 1000,
			Lease: 40 * time.Second, MaxExtension: 10 * time.Minute,
			Delays: true, MaxRedeliveryDelay: 10 * time.Minute, Retention: 24 * time.Hour,
			Ordering: true,
		}, caps)
		shorter := f.open(t, "orders", &queue.OpenOptions{Lease: 1500 * time.Millisecond}).Capabilities()
		assert.Equal(t, 2*time.Second, shorter.Lease, "leases are whole seconds")
	})
}

func TestAQueueWithoutSettingsHasTheDefaults(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.topic(t, topicName("plain"))
		f.subscribe(t, topicName("plain"), subscriptionName("plain"), nil)
		caps := f.open(t, "plain", nil).Capabilities()
		assert.Equal(t, 10*time.Second, caps.Lease)
		assert.Equal(t, 7*24*time.Hour, caps.Retention)
		assert.False(t, caps.Ordering || caps.KeyLocked || caps.Dedup || caps.SettleConfirmed || caps.ReleaseCounts)
		assert.Equal(t, queue.AttemptsUnknown, caps.Attempts)
		assert.Empty(t, caps.Assumed)
	})
}

func TestADeadLetterPolicyCountsAttempts(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.ensure(t, "orders", &queue.QueueSpec{DeadLetter: "dead", BrokerMaxAttempts: 7})
		caps := f.open(t, "orders", nil).Capabilities()
		assert.Equal(t, queue.AttemptsApproximate, caps.Attempts)
		assert.True(t, caps.ReleaseCounts)
		assert.Equal(t, 7, caps.BrokerMaxAttempts)
	})
}

// A nil from Settle is the service's word only if it is for everything that the
// queue receives from.
func TestSettlingIsConfirmedWhereBothSubscriptionsDoIt(t *testing.T) {
	for _, c := range []struct {
		name string
		back func(*pubsubpb.Subscription)
		want bool
		log  string
	}{
		{"both", confirming, true, ""},
		{"not the return subscription", nil, false, "the return subscription has no exactly-once delivery"},
	} {
		t.Run(c.name, func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				for name, change := range map[string]func(*pubsubpb.Subscription){"orders": confirming, "orders.return": c.back} {
					f.topic(t, topicName(name))
					f.subscribe(t, topicName(name), subscriptionName(name), change)
				}
				log, opts := logged()
				assert.Equal(t, c.want, f.open(t, "orders", opts).Capabilities().SettleConfirmed)
				if c.log == "" {
					assert.Empty(t, log.String())
				} else {
					assert.Contains(t, log.String(), c.log)
				}
			})
		})
	}
	t.Run("there's no return subscription", func(t *testing.T) {
		onFake(t, func(t *testing.T, f *fake) {
			f.topic(t, topicName("orders"))
			f.subscribe(t, topicName("orders"), subscriptionName("orders"), confirming)
			assert.True(t, f.open(t, "orders", nil).Capabilities().SettleConfirmed)
		})
	})
}

// logged returns options with a log of their own.
func logged() (*bytes.Buffer, *queue.OpenOptions) {
	var log bytes.Buffer
	return &log, &queue.OpenOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))}
}

func TestSettingsThatMayNotBeReadAreAssumedAndSaid(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.ensure(t, "orders", &queue.QueueSpec{Ordered: true, Lease: time.Minute, Retention: time.Hour})
		f.on("GetSubscription", refuse(codes.PermissionDenied))
		log, opts := logged()
		opts.Ordered = true
		caps := f.open(t, "orders", opts).Capabilities()
		assert.Equal(t, []string{
			"ack_deadline", "message_retention_duration", "enable_message_ordering", "enable_exactly_once_delivery", "dead_letter_policy",
			"retry_policy", "filter",
			"that " + subscriptionName("orders.return") + " exists",
		}, caps.Assumed)
		assert.Equal(t, 10*time.Second, caps.Lease)
		assert.Equal(t, 7*24*time.Hour, caps.Retention)
		assert.True(t, caps.Ordering, "as it was asked for")
		assert.Equal(t, 1, bytes.Count(log.Bytes(), []byte("level=WARN")))
		assert.Contains(t, log.String(), "ack_deadline")
		assert.Contains(t, log.String(), "the fake says no")
	})
}

func TestWhatCannotBeOpened(t *testing.T) {
	for _, c := range []struct {
		name  string
		prep  func(t *testing.T, f *fake)
		queue string // default: orders
		opts  queue.OpenOptions
		want  error
		says  string
	}{
		{name: "a missing queue", queue: "missing", want: queue.ErrQueueNotFound},
		{name: "a missing topic", queue: "missing", opts: queue.OpenOptions{Mode: queue.ForPublish}, want: queue.ErrQueueNotFound},
		{name: "a missing subscription to publish by", opts: queue.OpenOptions{Mode: queue.ForPublish, Address: "subscriptions/missing"}, want: queue.ErrQueueNotFound},
		{name: "a topic without a subscription", prep: func(t *testing.T, f *fake) { f.topic(t, topicName("lonely")) },
			queue: "lonely", opts: queue.OpenOptions{Mode: queue.ForPublish}, want: queue.ErrQueueNotFound, says: "would be lost"},
		{name: "a subscription of another topic", prep: func(t *testing.T, f *fake) {
			f.topic(t, topicName("crossed"))
			f.subscribe(t, topicName("orders"), subscriptionName("crossed"), nil)
		}, queue: "crossed", want: queue.ErrInvalid, says: "belongs to " + topicName("orders")},
		{name: "a subscription whose topic was deleted", prep: func(_ *testing.T, f *fake) {
			f.on("GetSubscription", says(subscriptionName("orders"), func(s *pubsubpb.Subscription) { s.Topic = "_deleted-topic_" }))
		}, want: queue.ErrQueueNotFound, says: "was deleted"},
		{name: "the same to publish", prep: func(_ *testing.T, f *fake) {
			f.on("GetSubscription", says(subscriptionName("orders"), func(s *pubsubpb.Subscription) { s.Topic = "_deleted-topic_" }))
		}, opts: queue.OpenOptions{Mode: queue.ForPublish, Address: "subscriptions/orders"}, want: queue.ErrQueueNotFound, says: "was deleted"},
		{name: "a subscription that was detached", prep: func(_ *testing.T, f *fake) {
			f.on("GetSubscription", says(subscriptionName("orders"), func(s *pubsubpb.Subscription) { s.Detached = true }))
		}, want: queue.ErrQueueNotFound, says: "detached"},
		{name: "a subscription that pushes", prep: func(_ *testing.T, f *fake) {
			f.on("GetSubscription", says(subscriptionName("orders"), func(s *pubsubpb.Subscription) {
				s.PushConfig = &pubsubpb.PushConfig{PushEndpoint: "https://example.com"}
			}))
		}, want: queue.ErrUnsupported, says: "pushes"},
		{name: "a subscription that exports to BigQuery", prep: func(_ *testing.T, f *fake) {
			f.on("GetSubscription", says(subscriptionName("orders"), func(s *pubsubpb.Subscription) {
				s.BigqueryConfig = &pubsubpb.BigQueryConfig{Table: "p.d.t"}
			}))
		}, want: queue.ErrUnsupported, says: "exports to BigQuery"},
		{name: "one that exports to Cloud Storage", prep: func(_ *testing.T, f *fake) {
			f.on("GetSubscription", says(subscriptionName("orders"), func(s *pubsubpb.Subscription) {
				s.CloudStorageConfig = &pubsubpb.CloudStorageConfig{Bucket: "b"}
			}))
		}, opts: queue.OpenOptions{Mode: queue.ForConsume}, want: queue.ErrUnsupported, says: "exports to Cloud Storage"},
		{name: "one that exports to Bigtable", prep: func(_ *testing.T, f *fake) {
			f.on("GetSubscription", says(subscriptionName("orders"), func(s *pubsubpb.Subscription) {
				s.BigtableConfig = &pubsubpb.BigtableConfig{Table: "t"}
			}))
		}, want: queue.ErrUnsupported, says: "exports to Bigtable"},
		{name: "a topic that only others subscribe to, by name", prep: func(t *testing.T, f *fake) {
			f.topic(t, topicName("audited"))
			f.subscribe(t, topicName("audited"), subscriptionName("audited-audit"), nil)
		}, queue: "audited", opts: queue.OpenOptions{Mode: queue.ForPublish}, want: queue.ErrQueueNotFound, says: "in Address: " + topicName("audited")},
		{name: "the same where subscriptions may only be listed", prep: func(t *testing.T, f *fake) {
			f.topic(t, topicName("audited"))
			f.subscribe(t, topicName("audited"), subscriptionName("audited-audit"), nil)
			f.on("GetSubscription", refuse(codes.PermissionDenied))
		}, queue: "audited", opts: queue.OpenOptions{Mode: queue.ForPublish}, want: queue.ErrQueueNotFound, says: subscriptionName("audited") + " doesn't exist"},
		{name: "an unordered subscription as an ordered queue", opts: queue.OpenOptions{Ordered: true}, want: queue.ErrInvalid},
		{name: "the same to publish", opts: queue.OpenOptions{Ordered: true, Mode: queue.ForPublish}, want: queue.ErrInvalid},
		{name: "a name that isn't portable", queue: "a.b", want: queue.ErrInvalid},
		{name: "a lease of half a second", opts: queue.OpenOptions{Lease: time.Second / 2}, want: queue.ErrInvalid},
		{name: "a lease of an hour", opts: queue.OpenOptions{Lease: time.Hour}, want: queue.ErrInvalid},
		{name: "a topic to consume from", opts: queue.OpenOptions{Address: topicName("orders")}, want: queue.ErrInvalid, says: "name its subscription"},
		{name: "two subscriptions", opts: queue.OpenOptions{Address: "subscriptions/a,subscriptions/b"}, want: queue.ErrInvalid, says: "two of a kind"},
		{name: "an address that isn't one", opts: queue.OpenOptions{Address: "orders"}, want: queue.ErrInvalid},
		{name: "a snapshot", opts: queue.OpenOptions{Address: "projects/p/snapshots/s"}, want: queue.ErrInvalid},
		{name: "credentials that aren't accepted", prep: func(_ *testing.T, f *fake) {
			f.on("GetSubscription", refuse(codes.Unauthenticated))
		}, want: queue.ErrPermission},
		{name: "the same to publish", prep: func(_ *testing.T, f *fake) {
			f.on("ListTopicSubscriptions", refuse(codes.Unauthenticated))
			f.on("GetSubscription", refuse(codes.Unauthenticated))
		}, opts: queue.OpenOptions{Mode: queue.ForPublish}, want: queue.ErrPermission},
		{name: "a subscription whose topic may not be known, also to publish", prep: func(_ *testing.T, f *fake) {
			f.on("GetSubscription", refuse(codes.PermissionDenied))
		}, opts: queue.OpenOptions{Address: "subscriptions/orders"}, want: queue.ErrPermission, says: "the topic of " + mainSub + " isn't known"},
		{name: "the same, only to publish", prep: func(_ *testing.T, f *fake) {
			f.on("GetSubscription", refuse(codes.PermissionDenied))
		}, opts: queue.OpenOptions{Mode: queue.ForPublish, Address: "subscriptions/orders"}, want: queue.ErrPermission, says: "the topic of " + mainSub + " isn't known"},
		{name: "a return subscription about which there's no answer", prep: func(_ *testing.T, f *fake) {
			f.on("GetSubscription", func(_ context.Context, in any, forward func() (any, error)) (any, error) {
				if in.(*pubsubpb.GetSubscriptionRequest).GetSubscription() == subscriptionName("orders.return") {
					return nil, status.Error(codes.InvalidArgument, "no")
				}
				return forward()
			})
		}, says: "InvalidArgument"},
	} {
		t.Run(c.name, func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				f.ensure(t, "orders", nil)
				if c.prep != nil {
					c.prep(t, f)
				}
				name := c.queue
				if name == "" {
					name = "orders"
				}
				_, err := f.backend.Open(t.Context(), name, &c.opts)
				require.Error(t, err)
				assert.ErrorContains(t, err, "pubsub: open "+name)
				if c.want != nil {
					assert.ErrorIs(t, err, c.want)
				}
				assert.ErrorContains(t, err, c.says)
			})
		})
	}
}

func TestWrongArgumentsAreSaidByOpen(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.ensure(t, "orders", nil)
		for name, b := range map[string]*pubsub.Backend{
			"no client":             pubsub.New(nil, nil),
			"the zero value":        {},
			"a wait beyond 1 m":     pubsub.New(f.client, &pubsub.Options{Wait: time.Minute + 1}),
			"a wait below 1 s":      pubsub.New(f.client, &pubsub.Options{Wait: time.Second - 1}),
			"the same, self-dialed": pubsub.NewBackend(&pubsub.Options{Wait: time.Hour, ClientOptions: f.network.options()}),
		} {
			_, err := b.Open(t.Context(), "orders", nil)
			assert.ErrorIs(t, err, queue.ErrInvalid, name)
			_, err = b.Ensure(t.Context(), "orders", nil)
			assert.ErrorIs(t, err, queue.ErrInvalid, name)
			assert.Equal(t, "gcp_pubsub", b.System())
		}
	})
}

func TestAddressesOfEveryForm(t *testing.T) {
	billing, shop := subscriptionName("billing"), topicName("shop")
	other := "projects/" + otherProject
	for _, c := range []struct {
		name, address       string
		mode                queue.OpenMode
		topic, subscription string // that are used
	}{
		{"a subscription by its full name", billing, queue.ForBoth, shop, billing},
		{"a subscription of the client's project", "subscriptions/billing", queue.ForBoth, shop, billing},
		{"a subscription of another project", other + "/subscriptions/far", queue.ForBoth, other + "/topics/far", other + "/subscriptions/far"},
		{"topic and subscription", "topics/shop, subscriptions/billing", queue.ForBoth, shop, billing},
		{"subscription and topic", billing + "," + shop, queue.ForBoth, shop, billing},
		{"a topic to publish to", shop, queue.ForPublish, shop, ""},
		{"a topic of the client's project", "topics/shop", queue.ForPublish, shop, ""},
		{"a subscription to publish to its topic", "subscriptions/billing", queue.ForPublish, shop, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				f.topic(t, shop)
				f.subscribe(t, shop, billing, nil)
				f.topic(t, other+"/topics/far")
				f.subscribe(t, other+"/topics/far", other+"/subscriptions/far", nil)
				q := f.open(t, "Billing of the shop", &queue.OpenOptions{Address: c.address, Mode: c.mode})
				require.NoError(t, q.Publish(t.Context(), message("a")))
				assert.Equal(t, c.topic, f.publishes()[0].GetTopic())
				assert.Equal(t, "Billing of the shop", q.Capabilities().Source.Name)
				if c.mode == queue.ForPublish {
					assert.Equal(t, c.topic, q.Capabilities().Address)
					return
				}
				assert.Equal(t, c.subscription, q.Capabilities().Address)
				receive(t, q, 1)
				assert.Equal(t, c.subscription, f.pulls()[0].GetSubscription())
			})
		})
	}
}

func TestOptionsNameAnotherProject(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		b := pubsub.New(f.client, &pubsub.Options{Project: otherProject})
		_, err := b.Ensure(t.Context(), "orders", nil)
		require.NoError(t, err)
		q, err := b.Open(t.Context(), "orders", nil)
		require.NoError(t, err)
		assert.Equal(t, "projects/"+otherProject+"/subscriptions/orders", q.Capabilities().Address)
		require.NoError(t, q.Close(t.Context()))
		_, err = f.backend.Open(t.Context(), "orders", nil)
		assert.ErrorIs(t, err, queue.ErrQueueNotFound, "in the client's project there's none")
	})
}

// Whoever may do nothing but what a queue is opened for can open it, and do that.
func TestOpenNeedsOnlyThePermissionOfWhatIsDone(t *testing.T) {
	for _, c := range []struct {
		name  string
		opts  queue.OpenOptions
		may   []string
		tries []string // what Open asks for
	}{
		{"to publish", queue.OpenOptions{Mode: queue.ForPublish}, []string{"Publish"}, []string{"ListTopicSubscriptions"}},
		{"to consume", queue.OpenOptions{Mode: queue.ForConsume, Address: "subscriptions/orders"}, []string{"Pull", "Acknowledge", "ModifyAckDeadline"}, []string{"GetSubscription"}},
		{"both", queue.OpenOptions{}, []string{"Publish", "Pull", "Acknowledge", "ModifyAckDeadline"}, []string{"GetSubscription"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				f.fresh(t, nil)
				may := map[string]bool{}
				for _, m := range c.may {
					may[m] = true
				}
				for _, m := range []string{"GetTopic", "GetSubscription", "ListTopicSubscriptions", "Publish", "Pull", "Acknowledge", "ModifyAckDeadline"} {
					if !may[m] {
						f.on(m, refuse(codes.PermissionDenied))
					}
				}
				q := f.open(t, "orders", &c.opts)
				for m := range f.requests() {
					assert.Contains(t, c.tries, m)
				}
				f.Publish(topicName("orders"), []byte("raw"), nil)
				if may["Publish"] {
					require.NoError(t, q.Publish(t.Context(), message("a")))
				}
				if may["Pull"] {
					d := receive(t, q, 1)[0]
					_, err := q.Extend(t.Context(), time.Minute, d)
					require.NoError(t, err)
					require.NoError(t, q.Settle(t.Context(), queue.Settlement{Delivery: d}))
				}
			})
		})
	}
}

// Who may consume needn't be allowed to know the topic. What would be published to it
// fails before any request, with words.
func TestAConsumerThatMayNotKnowTheTopicSaysSo(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.alone(t, nil, nil)
		f.on("GetSubscription", refuse(codes.PermissionDenied))
		q := f.open(t, "orders", &queue.OpenOptions{Mode: queue.ForConsume, Address: "subscriptions/orders"})
		f.forget()
		for _, msgs := range [][]*queue.Message{{message("a")}, {message("a"), message("b")}} {
			err := q.Publish(t.Context(), msgs...)
			failed := failures(err, len(msgs))
			assert.Len(t, failed, len(msgs))
			for _, err := range failed {
				assert.ErrorIs(t, err, queue.ErrPermission)
				assert.NotErrorIs(t, err, queue.ErrUnknownOutcome)
				assert.ErrorContains(t, err, "the topic of "+mainSub+" isn't known")
				assert.ErrorContains(t, err, "Address")
			}
		}
		require.NoError(t, q.Publish(t.Context()), "nothing")
		failed := failures(back(t, q)(t.Context(), message("a")), 1)
		assert.ErrorIs(t, failed[0], queue.ErrUnsupported)

		f.Publish(topicName("orders"), []byte("x"), nil)
		d := receive(t, q, 1)[0]
		got := refused(t, q.Settle(t.Context(), deferred(d, time.Hour)))
		assert.ErrorIs(t, got[0], queue.ErrUnsupported, "so that the consumer hides it for longer")
		require.NoError(t, q.Settle(t.Context(), queue.Settlement{Delivery: d}))
		assert.Zero(t, f.requests()["Publish"]+f.requests()["ListTopicSubscriptions"])
	})
}

// The queue's own subscription says for how long it's kept, and whether it's in
// order; another one of the topic, where that isn't known.
func TestAPublisherLearnsFromASubscription(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.topic(t, topicName("orders"))
		f.subscribe(t, topicName("orders"), subscriptionName("a-first"), func(s *pubsubpb.Subscription) { s.EnableMessageOrdering = true })
		publisher := &queue.OpenOptions{Mode: queue.ForPublish}
		caps := f.open(t, "orders", &queue.OpenOptions{Mode: queue.ForPublish, Address: topicName("orders")}).Capabilities()
		assert.True(t, caps.Ordering)
		assert.Equal(t, 7*24*time.Hour, caps.Retention)
		f.ensure(t, "orders", &queue.QueueSpec{Retention: time.Hour})
		caps = f.open(t, "orders", publisher).Capabilities()
		assert.False(t, caps.Ordering)
		assert.Equal(t, time.Hour, caps.Retention)

		f.on("GetSubscription", refuse(codes.PermissionDenied))
		caps = f.open(t, "orders", publisher).Capabilities()
		assert.Equal(t, []string{"message_retention_duration", "filter"}, caps.Assumed)
		f.on("ListTopicSubscriptions", refuse(codes.PermissionDenied))
		caps = f.open(t, "orders", publisher).Capabilities()
		assert.Equal(t, []string{"that the topic has a subscription", "message_retention_duration", "filter"}, caps.Assumed)
	})
}

// A setting that couldn't be read this time isn't assumed for the life of a queue.
func TestAPublisherAssumesNothingFromAFailure(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.ensure(t, "orders", &queue.QueueSpec{Ordered: true})
		f.on("GetSubscription", refuse(codes.Internal))
		_, err := f.backend.Open(t.Context(), "orders", &queue.OpenOptions{Mode: queue.ForPublish})
		assert.ErrorContains(t, err, "Internal")
	})
}

func TestATopicOfAPushSubscriptionCanBePublishedTo(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.ensure(t, "orders", nil)
		f.on("GetSubscription", says(subscriptionName("orders"), func(s *pubsubpb.Subscription) {
			s.PushConfig = &pubsubpb.PushConfig{PushEndpoint: "https://example.com"}
		}))
		for _, address := range []string{"", "subscriptions/orders"} {
			q := f.open(t, "orders", &queue.OpenOptions{Mode: queue.ForPublish, Address: address})
			assert.NoError(t, q.Publish(t.Context(), message("a")))
		}
	})
}

func TestWhatWasOpenedToPublishCannotConsume(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.fresh(t, nil)
		q := f.open(t, "orders", &queue.OpenOptions{Mode: queue.ForPublish})
		_, err := q.Receive(t.Context(), 1)
		assert.ErrorIs(t, err, queue.ErrUnsupported)
		assert.ErrorIs(t, q.(queue.Purger).Purge(t.Context()), queue.ErrUnsupported)
		_, err = q.(queue.Inspector).Peek(t.Context(), 1)
		assert.ErrorIs(t, err, queue.ErrUnsupported)
		assert.ErrorIs(t, q.Settle(t.Context(), queue.Settlement{Delivery: &queue.Delivery{}}), queue.ErrInvalid)
	})
}

// Who waits for a queue to be opened, with more patience, should hear why it isn't.
func TestOpenSaysWhyItCannotBeAskedBeforeItsCallersDeadline(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.ensure(t, "orders", nil)
		for method, mode := range map[string]queue.OpenMode{"GetSubscription": queue.ForBoth, "ListTopicSubscriptions": queue.ForPublish} {
			f.on(method, refuse(codes.Unavailable))
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			begun := time.Now()
			_, err := f.backend.Open(ctx, "orders", &queue.OpenOptions{Mode: mode})
			require.ErrorContains(t, err, "the fake says no", method)
			assert.Less(t, time.Since(begun), 25*time.Second, method)
			assert.Greater(t, time.Since(begun), 9*time.Second, method)
			cancel()
		}
	})
}
