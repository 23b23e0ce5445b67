// Package admin operates the queues of a configuration file, on whatever backends they
// are: it tells what's missing and creates it, counts, looks into queues, empties them,
// publishes to them, and moves dead letters back.
//
//	bus, err := config.Open(ctx, "queues.yaml", backends)
//	a, err := admin.New(ctx, bus, &admin.Options{Store: admin.FileStore("/var/lib/orders/redrives")})
//	plan, err := a.Plan(ctx, nil)
//	stats, err := a.Stats(ctx, "blast-*")
//	op, err := a.Redrive(ctx, admin.RedriveSpec{From: "orders-dlq", Try: 10, Rate: 100})
//	op, err = a.WaitRedrive(ctx, op.ID)
//
// Everything that [config.Bus] can do live with consumers (pause, resume, concurrency,
// their states) is there; this package needs no consumer in its process, and no handler.
//
// # Numbers
//
// Stats asks all queues side by side. What a broker doesn't tell is unknown, never 0;
// each answer says where it's from and of when. A queue that's missing, or a provider
// that's down, is an error of its own row. Collect does it at an interval.
//
// # Moving dead letters back
//
// Redrive begins an operation with an id, which goes on in the background: it can be
// paused, resumed and canceled, tells how far it is, and is resumed after a restart where
// it has a [Store] that survives one. What's moved is what was there at its start: what's
// dead-lettered later, or comes back, stays. Of a message that the broker itself has
// dead-lettered only the first enqueue is known, so that it may have come after the
// start all the same; Operation.Undated counts them.
//
// A message is removed from the dead-letter queue only after its copy is durable, so that
// a crash at any point loses none. It repeats at most the batch on its way: a hundred
// messages, or as many as the broker takes in a request.
//
// With RedriveSpec.Try the first few are moved as a test: a message that fails once
// comes back at once, where its consumers use middleware.DeadLetter (which a
// configuration file's dead_letter is), and the rest stays where it is. It's counted by
// going through the dead-letter queue, which costs a receive for each message that it has.
//
// With a [SharedStore], which [FileStore] is, an operation belongs to one process at a
// time. Others see it, pause it and cancel it, which takes about a second, and can't
// begin it again; when its process has ended, in whatever way, anybody can go on with it.
// An operation that's done or canceled stays in the Store until ForgetRedrive.
//
// # Who may call what
//
// All methods may be called concurrently. Nothing here asks who the caller is: that's
// for whatever offers it to people. Actor and Reason are written to the log, and kept
// with an operation.
package admin
