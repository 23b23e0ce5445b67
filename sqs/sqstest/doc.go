// Package sqstest is an Amazon SQS server for tests: in the process, on virtual
// time, or over HTTP for programs in any language (examples/sqsserver). It answers
// the AWS SDKs as SQS does, its errors and limits included, and makes calls go
// wrong when told to.
//
//	server := sqstest.New(nil)
//	defer server.Close()
//	client := server.Client() // *sqs.Client of the AWS SDK
//
// # Ways to the server
//
// Client and Config call it within the process, without a network. Inside a bubble
// of testing/synctest they live by the bubble's clock: a message that's delayed for
// 15 minutes comes at once when nobody has anything else to do. Pipe is HTTP
// over net.Pipe, for who wants to see real connections break, there too. Start
// listens on a TCP address. The server is also an http.Handler.
//
// It speaks the AWS JSON protocol 1.0, not the query protocol of SDKs from before
// 2023. Signatures aren't checked, but for their date. There are no permissions:
// AddPermission, RemovePermission and the attributes Policy and Kms* are refused.
// So are parameters that it doesn't know, which AWS would ignore: nothing is
// silently without effect.
//
// # What can be tested with it
//
//   - Faults: Fail makes calls fail, lose their answer, break, or take long, and
//     refuses single entries of batches. SetLatency slows everything down, SetClock
//     sets the server's clock wrong, EndVisibility ends leases.
//   - Costs: Requests and Entries count the calls, and the messages in them.
//   - Outcomes: Messages shows what's in a queue, without an effect on it.
//
// # What's as on SQS
//
// Standard and FIFO queues; visibility timeouts, at most 12 hours from the receive;
// delays; retention; long and short polls, also polls whose caller has gone, which
// take the next message all the same (Options.EndCutPolls); at most 120,000
// messages in flight; deduplication for five minutes by id or body, in the queue
// or in the group; locked groups; repeated receives by their attempt id; receive
// counts, which go along to the dead-letter queue; RedrivePolicy, whose move takes
// place at the receive after the last, and RedriveAllowPolicy; move tasks; the 60
// seconds after a purge and after the delete of a queue; tags; sizes of
// messages and batches, attributes and their checksums, characters, names.
//
// Errors have the codes and, where known, the texts that AWS was recorded to
// answer with. Where the documentation leaves a choice, the server takes what's
// harder for the caller: a receipt handle whose visibility timeout is over can't
// change the visibility any more (MessageNotInflight; AWS was also seen to say yes).
//
// # What isn't as on SQS
//
//   - A short poll finds everything that's there; on AWS it may miss some. Counts
//     of messages are exact, and settings take effect at once.
//   - A purge is done when it returns, and takes nothing that's sent after it.
//   - Messages come once and in order unless Options say otherwise.
//   - Fair queues: a tenant (MessageGroupId on a standard queue) with 30 messages in
//     flight and more than a tenth of all waits until nobody else has messages. AWS
//     also looks at how long they take.
//   - FIFO queues aren't throttled at 300 calls a second, however
//     FifoThroughputLimit is set; Fail can throttle. Every message of a group is
//     found, not only among the first 120,000.
//   - A new DelaySeconds of a FIFO queue doesn't concern what's already there.
//   - StartMessageMoveTask may be called any number of times in an account.
//
// # Differences from other servers
//
// The same requests were sent to LocalStack 4.14.0 and to ElasticMQ 1.7.1
// (foreign_test.go). They answer otherwise in these cases:
//
//	                                     sqstest, as SQS          LocalStack              ElasticMQ
//	second purge within 60 s             PurgeQueueInProgress     done                    done
//	queue created after its delete       QueueDeletedRecently     created                 created
//	queue attribute out of range         InvalidAttributeValue    taken                   taken
//	visibility changed beyond 12 h       InvalidParameterValue    taken                   taken
//	visibility changed after timeout     MessageNotInflight       yes, without effect     hidden again
//	visibility changed after delete      InvalidParameterValue    the same                ReceiptHandleIsInvalid
//	deleted twice                        yes                      the same                ReceiptHandleIsInvalid
//	deleted with the handle before       yes, without effect      deleted                 ReceiptHandleIsInvalid
//	deleted after timeout, FIFO          InvalidParameterValue    the same                deleted
//	group: a later one made visible      waits for the first      overtakes it            the same
//	ReceiveRequestAttemptId              repeats the answer       ignored                 the same
//	move task: message id                new                      kept                    kept
//	move task: receive count             from 1                   goes on                 from 1
//	move task: DeadLetterQueueSourceArn  gone                     still there             still there
//	move task of no dead-letter queue    InvalidParameterValue    the same                503 after 20 s
//	poisoned entry of a batch            SenderFault true         false                   InvalidAttributeValue
//	delay of 901 s                       InvalidParameterValue    taken                   the same
//	eleven attributes                    InvalidParameterValue    taken                   InvalidAttributeValue
//	attribute name of 256, of 257        taken, refused           refused, refused        taken, taken
//	name with two points                 refused                  taken                   taken
//	name with a space, or AWS.x          refused                  the same                taken
//	Number that is none                  InvalidParameterValue    taken                   InvalidAttributeValue
//	type Strings                         refused                  taken                   taken
//	empty body                           MissingParameter         the same                InvalidAttributeValue
//	NUL, U+FFFF in a body                InvalidMessageContents   the same                InvalidAttributeValue, InvalidAction
//	NUL in a value, empty value          InvalidParameterValue    the same                InvalidAttributeValue
//	1 MiB and a byte                     InvalidParameterValue    the same                InvalidAttributeValue
//
// ElasticMQ doesn't tell the names of the query protocol (x-amzn-query-error).
package sqstest
