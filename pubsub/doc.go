// Package pubsub is the Google Cloud Pub/Sub backend of package queue. It takes
// a ready client:
//
//	client, err := gcp.NewClient(ctx, "my-project") // cloud.google.com/go/pubsub/v2
//	q, err := pubsub.New(client, nil).Open(ctx, "orders", nil)
//
// Early: core only. It publishes, receives by unary pulls, settles, keeps leases
// and creates topics and subscriptions; what's missing: streaming pulls,
// gathering of concurrent publishes into one request, the private return topic
// (so redrive, and backoffs and snoozes beyond 10 minutes, are refused where
// others subscribe to the topic, see below), subscriptions with exactly-once
// delivery, stats, peek and purge, QueueSpec.BrokerMaxAttempts, warnings about a
// short retention. What isn't there is refused with queue.ErrUnsupported or
// isn't found by queue.As. It has been run against Google's emulator, not yet
// against Google Cloud.
//
// # Opening
//
// The queue "orders" is the topic "orders" and the subscription "orders" of the
// client's project. OpenOptions.Address may be the full name of a subscription,
// whose topic is then published to, or, to publish only, of a topic. What doesn't
// exist is an ErrQueueNotFound.
//
// # Publishing
//
// When Pub/Sub refuses a message of a key, Publish doesn't send the later ones of
// that key that it still holds.
//
// # Consuming
//
// Leases are rounded up to whole seconds. Without a dead-letter policy Pub/Sub
// counts no attempts.
//
// Pub/Sub may hand messages to a pull whose connection is gone (its emulator does),
// and hides them until the subscription's deadline. So a receive that ends early
// doesn't cut its pull off: it goes on for the next receive, and Close waits for
// it, for at most Options.Wait.
//
// # Delay
//
// Pub/Sub can't delay: the due time travels in the metadata, and the consumer waits
// for it. A failed delivery stays hidden for at most 10 minutes; for longer, it's
// published again with its due time, which other subscriptions of the topic would
// see too, so that it's refused where there are any when the queue is opened (the
// delivery is then released in steps of at most 10 minutes).
//
// # Ordering
//
// OrderingKey works when the subscription has message ordering. Pub/Sub doesn't lock
// keys: the consumer holds what it has fetched of a key while the key's first
// message backs off.
//
// # Dead letters
//
// middleware.DeadLetter gives up by age; by failures only where the subscription has a
// dead-letter policy, as else nobody counts.
//
// # Limits
//
// Those of queue.PubSubWire: 10 MB and 100 attributes with values up to 1,024 bytes.
// They are checked here, as no local server does.
//
// # Permissions
//
//	Open       pubsub.subscriptions.get (else the defaults are assumed), pubsub.topics.listSubscriptions
//	Publish    pubsub.topics.publish
//	Consume    pubsub.subscriptions.consume
//	Ensure     pubsub.topics.create, pubsub.topics.get, pubsub.topics.attachSubscription, pubsub.subscriptions.create, pubsub.subscriptions.get
//
// # Testing
//
// Unit tests use package memory with Options.Like PubSub, which has these limits. The
// tests of this package run on the emulator whose address is in
// ANYQUEUE_TEST_PUBSUB_EMULATOR.
//
// # Differences
//
// A nil from Settle is no promise. A redelivery may bring messages of a key again
// that were acknowledged. Subscriptions with exactly-once delivery are refused.
package pubsub
