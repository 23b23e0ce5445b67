package remote

import "sync"

// Unseen counts the deliveries of messages that a poll has brought when nobody
// waited for it any more. Brokers count them as attempts, but nobody has attempted
// anything: unknown to the engine they'd pass for failures. The zero value is
// ready; its methods may be called concurrently.
type Unseen struct {
	mu    sync.Mutex
	times map[string]int // by the broker's id
}

// maxUnseen bounds what's remembered; such deliveries are rare.
const maxUnseen = 1000

// Add notes one.
func (u *Unseen) Add(id string) {
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

// Count returns how many were noted.
func (u *Unseen) Count(id string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.times[id]
}
