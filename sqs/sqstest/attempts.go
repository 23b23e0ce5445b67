package sqstest

import (
	"slices"
	"time"

	"github.com/anyqueue/anyqueue/internal/broker"
)

// attempts remembers what receives with an attempt id have got, so that one whose
// answer was lost can be repeated. It's guarded by core.mu.
type attempts map[string]attemptResult

type attemptResult struct {
	until  time.Time
	at     broker.Instant
	leases []broker.Lease[*message]
}

func (q *core) rememberAttempt(id string, leases []broker.Lease[*message], at broker.Instant) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	if q.attempts == nil {
		q.attempts = attempts{}
	}
	for old, a := range q.attempts {
		if !a.until.After(now) {
			delete(q.attempts, old)
		}
	}
	q.attempts[id] = attemptResult{now.Add(dedupWindow), at, slices.Clone(leases)}
}

// repeatAttempt returns what the attempt has got before, with its visibility
// timeout begun anew, and when that was; nothing if some of it was deleted, made visible, or has
// become visible.
func (c *call) repeatAttempt(q *core, id string, visibility time.Duration) ([]broker.Lease[*message], broker.Instant) {
	q.mu.Lock()
	a, ok := q.attempts[id]
	q.mu.Unlock()
	if !ok || !a.until.After(time.Now()) {
		return nil, 0
	}
	ops := make([]broker.Op[*message], len(a.leases))
	for i, l := range a.leases {
		ops[i] = broker.Op[*message]{Item: l.Item, Gen: l.Gen, Kind: broker.Extend, For: visibility}
	}
	q.q.Settle(c.now(), false, ops)
	for _, op := range ops {
		if op.Err != nil {
			return nil, 0
		}
	}
	return a.leases, a.at
}
