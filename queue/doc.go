// Package queue is one small interface over message queues: Amazon SQS, Google
// Cloud Pub/Sub and a broker in memory.
//
// An application publishes with a [Publisher] and consumes with a [Handler]. A
// [Consumer] is the engine between a backend's [Subscriber] and the handler: it
// fetches, keeps leases, bounds concurrency, keeps keys in order, backs off,
// settles and drains, in the same way on every backend.
//
//	q, err := backend.Open(ctx, "orders", nil)
//	c, err := queue.NewConsumer(q, queue.JSON(func(ctx context.Context, o Order, d *queue.Delivery) error {
//		return ship(ctx, o)
//	}), nil)
//	err = c.Run(ctx) // until ctx ends, then drains
//
// # Delivery
//
// Delivery is at least once. A message leaves its queue only after its handler
// succeeded, or after a copy is confirmed elsewhere (a dead-letter queue, a
// delay hop). Every doubtful case ends in a redelivery: handlers must be
// idempotent, with Delivery.ID as the key.
//
// What a handler returns says what becomes of its delivery: nil acknowledges
// it; an error makes it come back after a backoff; [RetryAfter], [Reject],
// [Drop] and [Snooze] say more.
//
// # Same words, same meaning
//
// What a backend can't do is emulated honestly or refused with a typed error
// when the queue is opened or the message published. [Capabilities] tells what
// a queue can do. Every bound on size, delay and keys is checked before a
// request is sent.
//
// # On the wire
//
// The bytes on the wire are the user's: there is no envelope, and any program in
// any language can produce or consume. Metadata ([MetaAttribute]) is added only
// when there is some.
package queue
