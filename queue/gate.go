package queue

import "time"

// A Gate is middleware that decides whether a delivery may start: a limit on
// concurrency or rate, a circuit breaker. The engine asks Room before it
// receives, so that a closed gate stops fetching instead of burning attempts,
// and Enter for each delivery before it takes a slot. A delivery that a gate
// holds back waits, leased, without a slot; others flow past it.
//
// One Gate may serve several consumers; all methods may be called concurrently
// and must not block.
type Gate interface {
	Middleware

	// Attach registers a consumer. wake must be called, from any goroutine and
	// without the gate's locks held, whenever room may have appeared otherwise
	// than by the passing of a time that Room or Enter has named. detach ends it.
	Attach(wake func()) (detach func())

	// Room tells how many deliveries could start now. A Gate that decides by
	// delivery (by tenant, say) returns no limit.
	Room() Room

	// Enter asks to start d. The engine calls Leave exactly once for each
	// Enter that was admitted.
	Enter(d *Delivery) Entry

	// Leave ends what Enter admitted.
	Leave(ticket any, result GateResult)
}

// Room is a Gate's answer before a receive.
type Room struct {
	N     int       // how many could start; negative: no limit
	Until time.Time // when N is 0: when to ask again, unless woken; zero: only when woken
}

// Unlimited is the Room of a Gate that doesn't limit fetching.
var Unlimited = Room{N: -1}

// Entry is a Gate's answer for one delivery.
type Entry struct {
	OK     bool
	Until  time.Time // when not OK: when to ask again, unless woken; zero: only when woken
	Ticket any       // when OK: given back to Leave
}

// GateResult tells a Gate how it ended.
type GateResult struct {
	Started     bool  // false: the delivery was admitted, but its handler was never called
	Interrupted bool  // cut short by a shutdown or a lost lease: says nothing about the work
	Err         error // what the handler returned
}
