// Package config reads a YAML file that says what queues an application has and
// how each is consumed, and runs them all: the Bus.
//
//	backend: ${QUEUE_BACKEND:-memory}     # a key of Backends
//	ensure:  ${QUEUE_ENSURE:-false}       # create on first use: for development
//	defaults:
//	  retry: {min: 1s, max: 5m}
//	limits:
//	  crm: {concurrency: 40, rate: 100/s} # shared by the queues that name it
//	queues:
//	  crm-leads:
//	    concurrency: 20
//	    delay: 5s
//	    limit: crm
//	    dead_letter: {queue: crm-leads-dlq, max_age: 24h}
//	  crm-leads-dlq: {}
//
// The program hands over the backends that it has; those that no queue uses
// aren't touched:
//
//	bus, err := config.Open(ctx, "queues.yaml", config.Backends{"memory": memory.New(&memory.Options{Create: true})})
//	bus.Handle("crm-leads", queue.JSON(updateLead))
//	err = queue.PublishJSON(ctx, bus.Publisher("crm-leads"), lead)
//	err = bus.Run(ctx)
//
// # The file
//
// At the top:
//
//	backend    the backend of the queues that name none
//	ensure     true or false: whether a queue that's missing is created when
//	           it's first used, after its dead-letter queue. Default false
//	defaults   the keys of a queue but backend and address; each queue inherits
//	           what it doesn't set itself, key by key
//	limits     limits by name, each with one or both of
//	             concurrency   most handlers at once
//	             rate          handler starts, such as 50/s, 100/m, 1000/h
//	           together over all consumers in the process whose queue names it
//	queues     the queues by their portable name (queue.CheckName)
//
// Of a queue:
//
//	backend        a key of Backends. Default: the one at the top
//	address        where the queue is when its name doesn't say: a URL, an ARN, a
//	               full resource name. Such a queue isn't created by ensure.
//	               Default, also when empty: by its name
//	ordered        true or false: keep the order of messages with an ordering
//	               key. Its dead-letter queue must be ordered too. Default false
//	concurrency    most handlers at once in this process; at most 1,000,000.
//	               Default 16
//	max_hold       most deliveries that wait in this process for their time, their
//	               key or a limit; more are given back to the broker. Default 1000
//	delay          how long a message isn't handled after it was published, if
//	               it says nothing about its time. Not for an ordered queue.
//	               Default: none
//	lease          how long a delivery is ours before it's extended. Default:
//	               what the queue says
//	retention      how long the broker keeps a message that nobody has handled.
//	               Default: the service's; of a dead-letter queue its longest
//	tags           texts by name, for people, searches and bills: SQS's tags,
//	               Pub/Sub's labels; added to those of the defaults. Default: none
//	limit          the shared limit that it counts against. Default: none
//	rate           handler starts, such as 50/s. Default: no limit
//	timeout        for one try of a handler; at most max_extension. Default: none
//	drain_timeout  how long running handlers may go on when Run ends; 0s: not
//	               at all. Default 20s
//	receive_grace  how long an open poll may go on when Run ends, as one that's cut
//	               off may hide messages until their lease ends; 0s: not at all.
//	               Default 1s
//	max_extension  how long a lease is kept for one delivery. Default 1h
//	retry
//	  min          delay after the first failure. Default 1s
//	  max          longest delay. Default 5m
//	  factor       by how much it grows with each failure, 1 to 1000. Default 2
//	  jitter       share of it that's random, 0 to 1. Default 0.5
//	  in_place     tries more at once, before the delivery goes back to the
//	               broker. Default 0
//	dead_letter    where a message goes that's rejected or given up. Default: none
//	  queue        a queue of the file
//	  max_age      age since its publishing at which a failing message is given
//	               up. Default 24h, or half the queue's retention if shorter
//	  max_failures failure at which it's given up. Ensure also has the broker move
//	               it, at ten times as many deliveries: without that Pub/Sub doesn't
//	               count at all. Default: any number
//	  on_exhausted skip or block: whether an ordered message that's given up is
//	               moved, or goes on failing so that nothing overtakes it.
//	               Default skip
//
// Retention and tags are set when a queue is made, by ensure or Bus.Ensure, and
// otherwise compared with what's there; a queue with an address is neither made nor
// compared. Durations are written as in Go, with days besides: 500ms, 30s, 1h30m,
// 2d. The word off, in place of a value, undoes a default of delay, retention, tags,
// limit, rate, timeout, dead_letter, max_age or max_failures. A dead-letter queue
// inherits no dead_letter and no retention.
//
// In a single value ${NAME} is replaced by a variable of the environment, and
// ${NAME:-default} by the default where that's unset or empty. It's done after
// parsing, so a variable can't add keys; inside of {} and [] YAML wants quotes
// around it. A dollar sign is written $$. A variable without a value or default
// is an error.
//
// # What's refused
//
// A file is refused with everything that's wrong at once, each with its file,
// line, column, and what was probably meant: unknown keys, keys given twice, a
// second document, values of the wrong kind or without a unit, and what
// contradicts itself: a delay on an ordered queue, a dead-letter queue that isn't
// in the file or leads back to its source, a retry min over its max, a timeout
// over the max_extension, two queues with one address, a delay, a lease, a retry max
// or a max_age that no message lives to see, as the retention is shorter, and a
// retention of a dead-letter queue that's shorter than its source's. Open and
// OpenFile also refuse what the service behind a backend is known not to allow:
//
//	           lease       retention    delay     max_age     timeout   tags
//	SQS        1s to 12h   1m to 14d    to 14d    under 14d   to 12h    50
//	Pub/Sub    1s to 10m   10m to 31d   to 31d    under 31d   any       64 labels, in lower case
//
// What only the broker knows (that a queue is missing, or can't do what's asked) is
// found when the queue is opened.
//
// # Editors
//
// Schema is a JSON Schema of the file, made of the same tables that the parser reads
// it with: it explains each key, and underlines unknown keys and wrong values. It's
// the file schema.json beside this source. An editor with the YAML language server,
// such as VS Code with its YAML extension, finds it by the file's first line:
//
//	# yaml-language-server: $schema=https://raw.githubusercontent.com/anyqueue/anyqueue/main/queue/config/schema.json
//
// A path works too, from the file's folder or absolute: $schema=../../schema.json.
//
// # Composing by hand
//
// The file does nothing that a program can't do itself. Of a queue's settings,
// backend, address, ordered and lease are given to Backend.Open, retention and tags
// to Ensure; concurrency, max_hold, retry but in_place, drain_timeout, receive_grace
// and max_extension to queue.NewConsumer; delay is middleware.Delay around the
// publisher, inside of Options.PublisherMiddleware. The rest is middleware, in this
// order from the outside:
//
//	Options.Middleware
//	middleware.Limit and RateLimit    the shared limit
//	middleware.RateLimit              rate
//	middleware.DeadLetter             dead_letter
//	middleware.Retry                  retry.in_place
//	middleware.Timeout                timeout, for each try
//	the middleware given to Handle
package config
