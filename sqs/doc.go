// Package sqs is the Amazon SQS backend of package queue, for standard and FIFO
// queues. It takes a ready client of the AWS SDK; sqs/awsclient makes one from the
// environment.
//
//	client := awssqs.NewFromConfig(cfg)
//	q, err := sqs.New(client, nil).Open(ctx, "orders", nil)
//
// Its tests run on sqs/sqstest, LocalStack and ElasticMQ. It hasn't been run
// against AWS itself yet.
//
// # Opening
//
// The queue "orders" is the SQS queue "orders", or "orders.fifo" when it's opened
// with OpenOptions.Ordered. OpenOptions.Address may be a queue URL or an ARN; then
// the name only stands in logs. A queue that doesn't exist is an
// ErrQueueNotFound; credentials that SQS doesn't know, or that don't allow the
// call, are an ErrPermission. The queue's settings are read once; those that may
// not be read are assumed and named in Capabilities.Assumed. Each receive asks for
// the lease of the OpenOptions, or for the one that was read: a visibility timeout
// that's changed later takes effect when the queue is opened again.
//
// The client should allow as many connections as there are requests at a time:
// Publish makes up to 64, a consumer up to 64 receives. The SDK's default keeps ten
// idle ones, and dials anew beyond.
//
// # Publishing
//
// A lone Publish leaves at once, as one SendMessageBatch. What's published while
// requests are under way goes along with others, ten messages and 1 MiB in a
// request: a full request leaves at once, one that isn't full waits for at most a
// third of what a request usually takes, and 20 ms. A request that's refused as a
// whole, for its size or for one of its messages, is sent in halves. Up to 10,000
// messages and 64 MiB are held; further calls wait.
//
// Each message has its own result. What may pass is tried again until the
// context ends, with pauses of 50 ms to 5 s, in company with others: single
// entries of a request that SQS didn't take, and whole requests that were
// throttled, failed or got no answer within 10 s (and a second for each 64 KiB). A
// delay runs from the call to Publish, not from the try. A message that may have
// arrived is sent three times at most to a standard queue, which then has it up to
// three times; a FIFO queue drops the repeats, as they have the same deduplication
// id, for which four minutes are allowed. If there was never an answer, the error is
// an ErrUnknownOutcome.
//
// When a message of a key fails, Publish doesn't send the later ones of that key
// that it still holds. It's tried again only as long as none of them is known to
// have overtaken it. One case is known too late: SQS takes only some messages of a
// request, and the answer that would say so is lost. The repeat puts those it had
// refused behind the others, and only the SequenceNumbers tell. Publish compares
// them: messages that have overtaken an earlier one fail with ErrUnknownOutcome, the
// earlier one is durable, and later ones of the key aren't sent. Who publishes what
// has failed again has everything at least once, and in order at last. That relies
// on SQS answering a repeat with the number of the first.
//
// [TenantID] puts a message into a tenant's share of a fair queue; [TraceHeader]
// is X-Ray's.
//
// # Consuming
//
// A lease lasts at most 12 hours from its receive, and so does the delay of a
// redelivery. SQS counts them from when it sent the message off, which isn't known
// here: what it refuses near that limit is asked for once more with 30 s less.
// Attempts count receives, also of what was released unstarted. [InfoOf] tells what SQS says of a delivery. Attributes of other producers keep their types
// (Number, Binary) when a message is sent again; [UnwrapSNS] takes notifications of
// SNS out of their envelopes.
//
// SQS may hand a message to a poll whose connection is gone, and hides it until its
// lease ends. So a receive that ends early doesn't cut its poll off: it goes on for
// the next receive, and Close waits for it, for at most Options.Wait. What it brings
// when nobody waits any more is given back at once. A process that ends without
// Close, or whose Close isn't given that time, may delay a message by a lease:
// [CountsOf] counts those polls as Unread. ConsumerStats.CutReceives, which is
// about the consumer alone, counts more.
//
// An answer to Settle or Extend that's lost is an ErrUnknownOutcome; a consumer
// repeats the call. A Defer that's repeated on a delivery sends no second copy to a
// FIFO queue for five minutes, but may to a standard one.
//
// The SDK's own retries aren't used for sending, receiving, deleting and changing
// leases: they would repeat a request as it was, with a delay that's over, and
// multiply what's tried again here and by the consumer. The client's retryer still
// limits its rate, if it's an adaptive one, and a wrong clock is corrected.
//
// # Delay
//
// SQS counts in whole seconds: leases, delays and backoffs are rounded up. One
// publish can be delayed by 15 minutes; longer delays travel in the metadata and are
// sent again on the way. A FIFO queue can't delay a single message. A queue with a
// delay of its own (DelaySeconds) applies that to messages without one, as SQS takes
// no 0 for it: they come that much later, also at the end of a longer delay. Open logs
// a warning.
//
// # Ordering
//
// OrderingKey is the MessageGroupId of a FIFO queue; standard queues refuse it. A
// message without a key goes to a FIFO queue in a group of its own, so that it waits
// for nobody. A failed delivery blocks its key until its backoff ends: that is how
// SQS keeps the order. Requests with messages of one key go one after the other.
//
// # Dead letters
//
// middleware.DeadLetter needs nothing but a second queue, FIFO for a FIFO queue. Ensure
// sets SQS's own redrive policy only where QueueSpec.BrokerMaxAttempts asks for it.
// queue.Redrive moves messages back; [Mover] has SQS do it, where that serves.
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
//	Long delays      sqs:SendMessage on the consumer's own queue too; without it what isn't due is hidden again and again
//	Dead letters     sqs:SendMessage on the dead-letter queue
//	Redrive          those of Consume on the dead-letter queue, sqs:SendMessage on the other
//	Stats            sqs:GetQueueAttributes
//	Peek             sqs:ReceiveMessage, sqs:ChangeMessageVisibility, sqs:GetQueueAttributes (else it's refused
//	                 unless it's confirmed)
//	Purge            sqs:PurgeQueue
//	Ensure           sqs:CreateQueue, sqs:GetQueueUrl, sqs:GetQueueAttributes; with tags sqs:TagQueue, sqs:ListQueueTags;
//	                 to change what exists sqs:SetQueueAttributes
//	Mover            sqs:StartMessageMoveTask, sqs:ListMessageMoveTasks, sqs:CancelMessageMoveTask,
//	                 sqs:ListDeadLetterSourceQueues, sqs:GetQueueAttributes, and those of Redrive;
//	                 sqs:GetQueueAttributes on MoveOptions.To as well
//
// A queue that's encrypted with a key of KMS needs kms:GenerateDataKey to publish and
// kms:Decrypt for both.
//
// # Testing
//
// Unit tests use package memory with Options.Like SQSStandard or SQSFIFO, which have
// these limits. sqs/sqstest is a server for tests that want this package and the
// SDK, too: in the process, on virtual time, with faults. The tests of this
// package run on any SQS server whose endpoint is in ANYQUEUE_TEST_SQS_LOCALSTACK or
// ANYQUEUE_TEST_SQS_ELASTICMQ, too.
//
// # Differences
//
// A nil from Settle on a standard queue is no promise: SQS accepts the handle of a
// lease that was lost, and may not delete. A standard queue may deliver a message
// twice, and in any order. A consumer that only waits makes three requests a
// minute.
package sqs
