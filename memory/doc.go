// Package memory is a message broker within the process, behind the interfaces
// of package queue. It's for unit tests, for development without any server, and
// for programs whose queues needn't outlive them. It keeps messages as a real
// broker would: what's published is copied, what's received is leased, and what
// isn't acknowledged comes back.
//
// # Opening
//
// [New] makes a [Broker], which is a queue.Backend. It starts without queues;
// Broker.Ensure makes them. With Options.Create, Broker.Open makes what's
// missing. All handles of one name share one queue; messages stay in it while no
// handle is open, and are gone with the Broker.
//
//	broker := memory.New(&memory.Options{Create: true})
//	q, err := broker.Open(ctx, "orders", nil)
//
// # Publishing
//
// Publish copies the messages and returns; it never waits. An unbounded queue
// grows as long as nobody consumes: Options.MaxMessages and MaxBytes bound each
// queue, and Publish fails with queue.ErrFull beyond. "Durable" means here that
// the message is in the broker's memory. An unbounded queue of 128 KiB or more
// stores what comes then, but for the large, the delayed and what has a key or a
// DedupID, in chunks of 32 KiB, and a Broker keeps up to 4 MiB of chunks whose
// messages are gone, to use them again. A message that's with a handler for long, or
// that was peeked at, keeps its chunk; one that comes back doesn't.
//
// # Consuming
//
// Receive waits until there's a message; each message wakes one receiver. A
// delivery is leased for 30 seconds, unless Options, Ensure or Open say
// otherwise. Attempts are counted exactly, also those of deliveries that were
// released without having been started. Acknowledging after the lease was lost
// fails with queue.ErrLeaseLost. [InfoOf] tells what only this broker knows.
//
// # Delay
//
// Delays and due times are exact and have no limit. A message that's released
// with a delay comes back then, whatever happens to the process that
// released it, but not to the process that the Broker is in.
//
// # Ordering
//
// An ordered queue must be opened with OpenOptions.Ordered. It hands out one
// message of an ordering key at a time: the key is locked while a message of it
// is leased or backs off. Messages without a key have no order among
// themselves and aren't held up.
//
// # Dead letters
//
// The library's policies (middleware.DeadLetter) need nothing but a second
// queue. QueueSpec.BrokerMaxAttempts is the broker's own limit: a message that
// was received that often moves to the dead-letter queue instead of being
// received once more.
//
// # Limits
//
// Those of queue.PortableWire, which every backend can carry: 1 MiB, ten
// attributes with values up to 1,024 bytes. See Differences for others.
//
// # Permissions
//
// There are none.
//
// # Testing
//
// A Broker that's made inside a testing/synctest bubble lives on its virtual
// time: an hour of retries passes in a millisecond. Using a Broker on the other
// side of a bubble's border is an error that says so.
//
// Broker.WaitIdle waits until everything was handled. Broker.Messages shows what
// a queue holds. Broker.Fail makes calls go wrong: refused, unanswered,
// delivered twice, lease lost. Options.Duplicate and Reorder, with Seed, do what
// the clouds do now and then.
//
// # Differences
//
// Options.Like gives the limits and semantics of a service, so that what would
// fail there fails in the unit test:
//
//	                         Portable         SQSStandard     SQSFIFO         PubSub
//	limits of a message      all services'    1 MiB, 10       1 MiB, 10       10 MB, 100
//	                                          attributes      attributes      attributes
//	lease, at most           30 s, any        30 s, 12 h      30 s, 12 h      10 s, 10 min
//	                                          in all          in all          at once
//	ordered queues           yes              no              always          yes
//	a key is locked          one message      -               a batch         no: the tail is
//	                         at a time                        at a time       sent again
//	DedupID                  no               no              5 minutes       no
//	native delay             any; none if     15 minutes      none            none
//	                         ordered
//	longer delays            -                by hops         refused         by hops
//	delay of a redelivery    any              12 h            12 h            10 min
//	attempts are counted     when received    when received   when received   when failed, with
//	                                                                          a limit only
//	ack after lost lease     ErrLeaseLost     no error        ErrLeaseLost    no error
//	a publish that fails     by message       by message      by message      as a whole
//	Receive                  any number,      10, returns     10, returns     1,000, returns
//	                         waits on         after 20 s      after 20 s      after 20 s
//	in flight, at most       any              120,000: error  120,000: waits  any
//	retention                for ever         4 days          4 days          7 days
//
// Options of messages that are meant for the service (an sqs or pubsub option)
// are accepted, kept for InfoOf, and have no effect.
//
// What isn't imitated: the services' latency, throttling and permissions (Fail
// can), statistics that lag behind, several subscriptions of a topic,
// dead-letter queues that lose messages, Pub/Sub's pausing of a key after a
// failed publish.
package memory
