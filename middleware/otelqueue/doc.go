// Package otelqueue makes OpenTelemetry traces and metrics of publishing and
// consuming, with the names of the conventions for messaging (v1.44.0, in
// development), and carries the trace context from producer to consumer in the
// attributes traceparent and tracestate of each message, on every backend.
//
//	tel, err := otelqueue.New(nil) // the global providers
//	pub := queue.WrapPublisher(q, tel.Publisher())
//	c, err := queue.NewConsumer(q, handler, &queue.ConsumerOptions{Middleware: []queue.Middleware{tel.Consumer()}})
//
// With a Bus, config.Options.Middleware takes tel.Consumer() for all its consumers, and
// config.Options.PublisherMiddleware takes tel.Publisher() for all its publishers.
//
// Any producer that writes a traceparent attribute is continued, and any consumer can
// read it. On SQS a context takes one of the ten attributes, two with a tracestate; a
// message without room for it, in number or in bytes, goes without.
//
// # Spans
//
//	send <queue>      producer; of each Publish. Of several messages it's of kind client, with links to
//	create <queue>    producer; one for each of these messages
//	receive <queue>   client; of each receive that has brought something, with links to the messages' contexts
//	process <queue>   consumer; of each handler, as a part of the trace that the message carries
//	settle <queue>    client; of each call that settles
//
// A handler made by queue.Batch has a span for each message, from when that came to the
// batch; Telemetry.Batch adds one for what's done for all of them, with links to theirs.
//
// Receives and settlements are traces of their own, as they are of many messages: a
// sampler that's asked by name can leave them out. A snoozed delivery is no error. What
// became of a delivery that wasn't a success is in anyqueue.outcome.
//
// # Metrics
//
//	messaging.client.operation.duration    s, of send, receive (not of empty ones), settle
//	messaging.client.sent.messages
//	messaging.client.consumed.messages
//	messaging.process.duration             s, of handlers
//
// and, as there's no convention for them:
//
//	anyqueue.consumer.wait.duration        s, from the receive to the handler's start
//	anyqueue.consumer.outcomes             messages, by anyqueue.outcome: success, failed, retry, rejected, dead_lettered, ...
//	anyqueue.consumer.concurrency.limit    handlers
//	anyqueue.consumer.concurrency.in_use   handlers
//	anyqueue.consumer.held                 messages that wait for a slot, a gate, their key or their time
//	anyqueue.consumer.leases_lost          messages
//	anyqueue.consumer.settlements          messages, by anyqueue.settlement.kind
//	anyqueue.consumer.settlements.failed   messages, the same
//	anyqueue.queue.messages                messages, by anyqueue.message.state; from RecordStats
//	anyqueue.queue.oldest_message.age      s; from RecordStats
//
// error.type is a word such as throttled, lease_lost or timeout, or the type of the
// innermost error.
//
// On SQS there are aws.sqs.queue.url, and server.address and server.port as they stand in
// it. On Pub/Sub there's messaging.destination.subscription.name on the consumer's side,
// and of single messages their ordering_key and, where the subscription has a dead-letter
// policy, their delivery_attempt. What the backend keeps to itself isn't told: the
// server's address and the ack ids; an extension of leases has no span.
package otelqueue
