// Package sqs is the Amazon SQS backend of package queue, for standard and FIFO
// queues. It takes a ready client of the AWS SDK:
//
//	client := awssqs.NewFromConfig(cfg)
//	q, err := sqs.New(client, nil).Open(ctx, "orders", nil)
//
// Early: core only. It publishes, receives, settles, keeps leases and creates
// queues; what's missing: retries of the entries of a partly failed batch,
// gathering of concurrent publishes into one request, stats, peek and purge,
// SQS's own move tasks, fair-queue tenants and other options of SQS, warnings
// about a short retention. What isn't there is refused with queue.ErrUnsupported
// or isn't found by queue.As. It has been run against LocalStack and ElasticMQ,
// not yet against AWS.
//
// # Opening
//
// The queue "orders" is the SQS queue "orders", or "orders.fifo" when it's opened
// with OpenOptions.Ordered. OpenOptions.Address may be a queue URL or an ARN; then
// the name only stands in logs. A queue that doesn't exist is an
// ErrQueueNotFound.
//
// # Publishing
//
// Messages of one call go in batches of ten, cut by bytes too. Each entry has its
// own result. When SQS refuses one message of a key, Publish doesn't send the later
// ones of that key that it still holds; what went in the same request may have
// overtaken it.
//
// # Consuming
//
// A lease lasts at most 12 hours from its receive, and so does the delay of a
// redelivery. Attempts count receives, also of what was released unstarted.
//
// SQS may hand a message to a poll whose connection is gone, and hides it until its
// lease ends. So a receive that ends early doesn't cut its poll off: it goes on for
// the next receive, and Close waits for it, for at most Options.Wait. A process that
// ends without Close, or whose Close isn't given that time, may delay a message by a
// lease.
//
// # Delay
//
// SQS counts in whole seconds: leases, delays and backoffs are rounded up. One
// publish can be delayed by 15 minutes; longer delays travel in the metadata and are
// sent again on the way. A FIFO queue can't delay a single message.
//
// # Ordering
//
// OrderingKey is the MessageGroupId of a FIFO queue; standard queues refuse it. A
// message without a key goes to a FIFO queue in a group of its own, so that it waits
// for nobody. A failed delivery blocks its key until its backoff ends: that is how
// SQS keeps the order.
//
// # Dead letters
//
// middleware.DeadLetter needs nothing but a second queue, FIFO for a FIFO queue. Ensure
// sets SQS's own redrive policy only where QueueSpec.BrokerMaxAttempts asks for it.
//
// # Limits
//
// Those of queue.SQSWire: 1 MiB, or what the queue allows, and ten attributes. A body
// that isn't text travels as base64 and says so in an attribute.
//
// # Permissions
//
//	Open             sqs:GetQueueUrl (not with a URL as the address), sqs:GetQueueAttributes (else the defaults are assumed)
//	Publish          sqs:SendMessage
//	Consume          sqs:ReceiveMessage, sqs:DeleteMessage, sqs:ChangeMessageVisibility
//	Long delays      sqs:SendMessage on the consumer's own queue too
//	Ensure           sqs:CreateQueue, sqs:GetQueueUrl, sqs:GetQueueAttributes
//
// # Testing
//
// Unit tests use package memory with Options.Like SQSStandard or SQSFIFO, which have
// these limits. The tests of this package run on any SQS server whose endpoint is in
// ANYQUEUE_TEST_SQS_LOCALSTACK or ANYQUEUE_TEST_SQS_ELASTICMQ.
//
// # Differences
//
// A nil from Settle on a standard queue is no promise: SQS accepts the handle of a
// lease that was lost, and may not delete. A standard queue may deliver a message
// twice, and in any order.
package sqs
