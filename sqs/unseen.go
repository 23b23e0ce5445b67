package sqs

import "sync"

// unseen counts the receives of messages that a poll has brought when nobody
// waited for it any more. SQS counts them as attempts, but nobody has attempted
// anything: unknown to the engine they'd pass for failures.
type unseen struct {
	mu    sync.Mutex
	times map[string]int // by the broker's id
}

// maxUnseen bounds what's remembered; such receives are rare.
const maxUnseen = 1000

func (u *unseen) add(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.times == nil {
		u.times = map[string]int{}
	}
	if _, known := u.times[id]; !known && len(u.times) >= maxUnseen {
		for other := range u.times { // any
			delete(u.times, other)
			break
		}
	}
	u.times[id]++
}

func (u *unseen) count(id string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.times[id]
}
