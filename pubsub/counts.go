package pubsub

import (
	"sync/atomic"

	"github.com/anyqueue/anyqueue/queue"
)

// Counts are the requests that a queue has made to publish and consume since it
// was opened, each try counted; what opening and administration take isn't among
// them.
type Counts struct {
	Publishes uint64
	Pulls     uint64
	Acks      uint64 // Acknowledge
	Modacks   uint64 // ModifyAckDeadline

	// Retried counts messages that were sent again after Pub/Sub had failed to take
	// them or hadn't answered.
	Retried uint64
	// Throttled counts requests to which Pub/Sub said that there are too many.
	Throttled uint64
	// Unread counts pulls whose answer nobody has read: cut off by Close, or broken.
	// Pub/Sub may hide messages for each, until their ack deadline ends.
	Unread uint64
}

// CountsOf returns the counts of a queue that this package has opened, also
// beneath wrappers that have Unwrap, and after Close. It may be called
// concurrently.
func CountsOf(q queue.Queue) (Counts, bool) {
	h, ok := queue.As[*handle](q)
	if !ok {
		return Counts{}, false
	}
	c := &h.counts
	return Counts{
		Publishes: c.publishes.Load(), Pulls: c.pulls.Load(), Acks: c.acks.Load(), Modacks: c.modacks.Load(),
		Retried: c.retried.Load(), Throttled: c.throttled.Load(), Unread: c.unread.Load(),
	}, true
}

type counts struct {
	publishes, pulls, acks, modacks, retried, throttled, unread atomic.Uint64
}
