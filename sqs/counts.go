package sqs

import (
	"sync/atomic"

	"github.com/anyqueue/anyqueue/queue"
)

// Counts are the requests that a queue has made to publish and consume since it
// was opened, each try counted; what opening and administration take isn't among
// them.
type Counts struct {
	Sends    uint64 // SendMessageBatch
	Receives uint64 // ReceiveMessage
	Deletes  uint64 // DeleteMessageBatch
	Changes  uint64 // ChangeMessageVisibilityBatch

	// Retried counts messages that were sent again after SQS had failed to take
	// them or hadn't answered.
	Retried uint64
	// Throttled counts requests to which SQS said that there are too many.
	Throttled uint64
	// Unread counts receives whose answer nobody has read: cut off by Close, timed
	// out, or broken. SQS may hide up to ten messages for each, until their
	// visibility timeout ends.
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
		Sends: c.sends.Load(), Receives: c.receives.Load(), Deletes: c.deletes.Load(), Changes: c.changes.Load(),
		Retried: c.retried.Load(), Throttled: c.throttled.Load(), Unread: c.unread.Load(),
	}, true
}

type counts struct {
	sends, receives, deletes, changes, retried, throttled, unread atomic.Uint64
}
