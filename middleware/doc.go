// Package middleware has policies for consumers and publishers, each a small
// piece that works alone and with the others.
//
// Around a handler, given to ConsumerOptions.Middleware:
//
//	Retry           backoff by failures, held by the broker; tries in place if asked
//	DeadLetter      gives up by failures, by age, and on what is rejected
//	Idempotent      skips what was handled before
//	Timeout         a deadline for the handler
//	Recover         a panic as an error, for middleware that looks at errors
//	Log             a line for each delivery
//
// Gates, which decide whether a delivery may start, and stop fetching rather
// than block a slot:
//
//	Limit           concurrency, shared by several consumers or for each tenant
//	RateLimit       starts in a second
//	CircuitBreaker  nothing, while what the handlers need is down
//
// Around a publisher, given to queue.WrapPublisher:
//
//	Delay           the default delay of a queue
//
// Invalid options make NewConsumer fail with queue.ErrInvalid. Middleware that's
// used with queue.Chain instead, which can't fail, then fails every delivery.
//
// # Order
//
// The first middleware is the outermost. In any order nothing is lost, and no
// delivery is settled twice; a panic is a failure wherever Recover stands. What
// the order does change:
//
//	Retry inside of DeadLetter            what Retry.If refuses is dead-lettered. Recommended
//	Retry outside of DeadLetter           it's unroutable: it comes back at the maximum backoff, for ever;
//	                                      and a delivery at its limit gets one try, not those in place
//	Idempotent inside of DeadLetter       a failing store counts as a failure. Recommended
//	Idempotent outside of DeadLetter      it's never given up for a failing store
//	Idempotent outside of Retry           one mark for all tries in place
//	Idempotent inside of Retry            one for each try. Recommended: a failing store is retried in
//	                                      place too
//	Timeout inside of Retry               it bounds each try in place. Recommended
//	Timeout outside of Retry              it bounds all of them together
//	Timeout inside of Idempotent          it bounds the handler alone. Recommended
//	Timeout outside of Idempotent         it bounds the store's first call too
//	Recover outside of own middleware     that sees panics, not errors
//	Log, Limit, RateLimit and             none: Log is told by the consumer, and gates are asked before the
//	CircuitBreaker, anywhere              start and told the result of the whole chain
//
// So, outermost first: Log, the gates, DeadLetter, Retry, Idempotent, Timeout,
// one's own, Recover.
package middleware
