// Package pubsub is the Google Cloud Pub/Sub backend of package queue. It takes a
// ready client, or makes its own:
//
//	client, err := gcp.NewClient(ctx, "my-project") // cloud.google.com/go/pubsub/v2
//	q, err := pubsub.New(client, nil).Open(ctx, "orders", nil)
//
//	backend := pubsub.NewBackend(nil) // from the environment, when a queue is opened
//
// Its tests run on pstest, on virtual time, and on Google's emulator. It hasn't been
// run against Google Cloud itself yet.
//
// # Opening
//
// The queue "orders" is the topic "orders" with the subscription "orders", in the
// project of the Options or of the client. OpenOptions.Address may be the name of a
// subscription, whose topic is then published to, of a topic, to publish only, or of
// both with a comma between them: full names
// (projects/other/subscriptions/billing), or subscriptions/billing and topics/orders
// within the project; then the queue's name only stands in logs. A subscription that may
// not be read doesn't tell its topic: opened to consume, what's published then fails
// with an ErrPermission; else Open does. What doesn't exist is
// an ErrQueueNotFound, also a subscription that was detached or whose topic was
// deleted; credentials that aren't accepted or don't allow the call are an
// ErrPermission. A subscription that pushes, or exports to BigQuery, Cloud Storage or
// Bigtable, can't be received from.
//
// The subscription's settings are read once, and decide what the queue can do:
// message ordering, exactly-once delivery, a dead-letter policy, filter, ack deadline,
// retention. Those that may not be read are assumed and named in
// Capabilities.Assumed. Opened to publish, the queue's subscription must exist, as
// Pub/Sub drops what nobody subscribes to; by the address of a topic, any subscription
// of it will do.
//
// A subscription with a filter drops what doesn't match, while Publish returns nil: it's
// in Capabilities.Filter, and opening warns. Where it's the topic's only subscription
// the topic can't be published to, as one without any: opening fails with an
// ErrQueueNotFound, unless it's ForConsume. A retry policy, which many Terraform
// modules set, adds its own backoff (10 s at least by default) to each pause that the
// consumer asks for: opening warns, and Ensure with QueueSpec.Update removes it.
//
// A queue also has a return topic and subscription with the suffix ".return", which
// Ensure makes as the main subscription is (order, lease, retention, dead-letter policy,
// exactly-once delivery): see Delay and Dead letters. What differs is said when the queue
// is opened; the shorter retention of the two counts. One that's made later is received
// from within about a minute. Each further subscription of a topic is a queue of its own,
// opened by its address; Ensure, called with its name, makes its return topic and nothing
// else.
//
// A topic that's published to by its address is judged by its subscriptions, the first 20
// of them: the shortest retention counts, and one at least must have no filter.
//
// # Publishing
//
// A lone Publish leaves at once. What's published while requests are under way goes
// along with others, 1,000 messages and 10 MB in a request: a full request leaves at
// once, one that isn't full waits for at most a third of what a request usually
// takes, and 20 ms. Messages with an OrderingKey go in requests of their own key, one
// after the other. Up to 10,000 messages and 64 MiB are held; further calls wait.
//
// Every message is checked before it joins a request, as no local server does, and the
// service fails a request as a whole. One that it refuses as invalid all the same,
// such as for a message that doesn't match the topic's schema, is sent in halves, so
// that only what's wrong fails.
//
// Each message has its own result. What may pass is tried again until the context
// ends, with pauses of 50 ms to 5 s: requests that were throttled, failed, or got no
// answer within 10 s (and a second for each 64 KiB). A message that may have arrived
// is sent three times at most: Pub/Sub then has it up to three times, with different
// ids. If there was never an answer, the error is an ErrUnknownOutcome. When a message
// of a key fails, Publish doesn't send the later ones of that key that it still holds;
// the next Publish of the key goes on, nothing needs to be resumed.
//
// # Consuming
//
// Messages are received by unary pulls, several at a time when there's a backlog and no
// message ordering: they
// bring exactly what can start soon, so that concurrency is exact and changed live.
// Both ways were measured with the generated client on Google's emulator: unary pulls
// made 67,500 messages a second with no-op handlers, streaming pulls 53,800, and that
// only with forty of them, as each brings a hundred messages every 50 ms; with handlers
// of 10 ms both made 9,000. The service may differ: a pull there may bring fewer
// messages than asked for, which more pulls side by side make up for, and Google says
// that streams reach a higher throughput
// (https://docs.cloud.google.com/pubsub/docs/pull).
//
// Lease lengths are those of the subscription, or of OpenOptions.Lease, then with one
// more request for each pull; they're rounded up to whole seconds. The service's
// default of 10 s is short: a minute (QueueSpec.Lease) outlasts a slow network and needs
// fewer extensions; what a process had leased that was killed comes back that much
// later. Without a
// dead-letter policy Pub/Sub counts no attempts. [InfoOf] tells what it says of a
// delivery.
//
// With exactly-once delivery settled means confirmed: an acknowledgement that comes
// too late fails with ErrLeaseLost, and so does an extension, which ends the
// handler's context. Otherwise nobody tells. The subscription and its return
// subscription both need it, or Capabilities.SettleConfirmed is false: Ensure makes
// the latter like the former. It holds within one region: what's consumed in another one
// than before may come again.
//
// Pub/Sub may hand messages to a pull whose connection is gone (its emulator does),
// and hides them until the ack deadline. So a receive that ends early doesn't cut its
// pull off: it goes on for the next receive, and Close waits for it, for at most
// Options.Wait, 20 s by default, also when the queue is idle. Close with a context of a
// few seconds: a pull that's cut off by it is no error, and what it may have been handed
// comes again after the ack deadline. [CountsOf] counts such pulls as Unread.
//
// # Delay
//
// Pub/Sub can't delay: the due time travels in the metadata, and the consumer waits
// for it. Up to MaxHold deliveries are held with their leases; what's more goes back
// for ten minutes at a time, without a handler or a failure, which costs a request for
// up to a thousand messages. With a dead-letter policy that counts as an attempt, so
// that what has gone back once hops through the return topic instead. A raw consumer, and
// another subscription of the topic, gets a delayed message at once, with "due" (Unix
// milliseconds) in the attribute queue-meta.
//
// A failed delivery stays hidden for at most 10 minutes. For longer (RetryAfter,
// Snooze) it's published again with its due time, to the return topic, so that other
// subscriptions don't see it. That this has its subscription is looked at once a minute,
// as messages without one are lost. Without a return topic it goes to the topic itself,
// unless others subscribe to that, or may: then it's hidden again and again instead,
// and its time is remembered by the process alone.
//
// # Ordering
//
// OrderingKey works when the subscription has message ordering, which can't be
// changed later. Pub/Sub doesn't promise to lock keys: the consumer pulls once at a
// time, as two answers could overtake each other, handles a key's messages one at a
// time, and holds what it has fetched of a key while the key's first message backs
// off. Two processes can't be kept apart for one key. The order holds for what's
// published in one region: publishers of a key belong in one, or use a client with a
// regional endpoint. After a redelivery Pub/Sub may send everything of the key again that
// came after it, also what was acknowledged. Google's emulator does so, where a lease runs
// out, for messages without a key too, and isn't fair between keys: under a backlog one
// may wait until others are through.
//
// # Dead letters
//
// middleware.DeadLetter gives up by age; by failures only where the subscription has a
// dead-letter policy, as else nobody counts: NewConsumer refuses MaxFailures there.
// Ensure sets such a policy where QueueSpec.BrokerMaxAttempts asks for it, as a net:
// 5 to 100 attempts. It works only if Pub/Sub's own service account may publish to the
// dead-letter topic and subscribe to the subscription; Ensure says what's missing.
//
// What the service itself has dead-lettered says where it failed, how often it was
// delivered and when it was published first (the attributes CloudPubSubDeadLetterSource…,
// which only InfoOf still shows): that's in Delivery.DeadLetter, with ReasonBroker, and in
// EnqueuedAt. Its Source is the name of the subscription: where a queue was opened by its
// address with another name, Redrive needs AnySource.
//
// queue.Redrive moves messages back through the return topic, so that other
// subscriptions of the topic never see them again. Without one it's refused with
// ErrUnsupported where others subscribe, or may.
//
// # Limits
//
// Those of queue.PubSubWire: 10 MB and 100 attributes with names up to 256 and values
// up to 1,024 bytes. They are checked here, as no local server does.
//
// # Administration
//
// Pub/Sub doesn't tell how many messages a subscription has: without Options.Metrics
// (package cloudmonitoring) Stats says that everything is unknown. Peek receives, and
// gives back: it's refused unless confirmed where that has consequences. Purge seeks
// both subscriptions to the present.
//
// Ensure may be called by several processes at once, and again. Creating a subscription
// isn't atomic on Google's emulator: when two processes make the same one at once there,
// messages may go to one that nobody sees. Within one Backend that can't happen. It makes
// a topic before the topic's subscription, as the service wants: where a topic was
// deleted, a publisher that's still open loses what it publishes in between.
//
// # Permissions
//
//	Open        pubsub.subscriptions.get on the subscription and its return subscription (else the defaults
//	            are assumed); to publish pubsub.topics.get on the topic, which lists its subscriptions
//	            (roles/pubsub.subscriber and roles/pubsub.publisher have neither; roles/pubsub.viewer has both)
//	Publish     pubsub.topics.publish
//	Consume     pubsub.subscriptions.consume on both subscriptions
//	Long waits  pubsub.topics.publish on the return topic too; without it they're hidden again and again.
//	            pubsub.subscriptions.get on the return subscription (else it's taken to be there still)
//	Dead letters, Redrive
//	            pubsub.topics.publish on the dead-letter topic; on the return topic, with those of Consume on the
//	            dead-letter subscription
//	Stats       monitoring.timeSeries.list
//	Peek        pubsub.subscriptions.consume, pubsub.subscriptions.get (else it's refused unless it's confirmed)
//	Purge       pubsub.subscriptions.consume
//	Ensure      pubsub.topics.create, pubsub.topics.get, pubsub.topics.attachSubscription,
//	            pubsub.subscriptions.create, pubsub.subscriptions.get; with a policy pubsub.topics.getIamPolicy,
//	            pubsub.subscriptions.getIamPolicy; to change what exists pubsub.topics.update, pubsub.subscriptions.update
//
// A consumer with roles/pubsub.subscriber alone can't see that there's a dead-letter
// policy or exactly-once delivery, and takes both to be absent: DeadLetter.MaxFailures is
// then refused, and what's given back counts for the policy all the same. Grant
// roles/pubsub.viewer on both subscriptions, too.
//
// # What it costs
//
// Publishes and what pulls bring are billed by volume, with 1,000 bytes for a request at
// least (https://cloud.google.com/pubsub/pricing): a lone small message costs as much as
// one of 1,000 bytes, twice. An idle consumer has two pulls open, each asked for again
// after Options.Wait: some 8,600 requests a day. Acknowledgements and extensions are
// free. A delayed message beyond MaxHold is pulled, and billed, again every ten minutes; with a
// dead-letter policy it's also published again.
//
// # Testing
//
// Unit tests use package memory with Options.Like PubSub, which has these limits.
// Google's pstest serves tests that want this package and the client too: see the
// example. The tests of this package run on the emulator whose address is in
// ANYQUEUE_TEST_PUBSUB_EMULATOR, too.
//
// # Differences
//
// A nil from Settle is no promise without exactly-once delivery. With it, an answer may
// name the messages that have failed, and doesn't say what became of the others: they're
// asked for once more, and one that Pub/Sub doesn't know then any more is taken for
// settled by the first request. That's so on Google's emulator, and isn't documented for
// the service. Attempts count
// redeliveries, and only with a dead-letter policy. A subscription that Google makes
// by default is deleted after 31 days without activity; those of Ensure never are.
// An idle consumer has two pulls open, one for each subscription.
package pubsub
