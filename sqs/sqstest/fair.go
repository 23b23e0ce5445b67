package sqstest

import "github.com/anyqueue/anyqueue/internal/broker"

// A tenant of a standard queue is noisy when it has so many messages in flight,
// and so large a part of all.
const (
	noisyCount = 30
	noisyShare = 10 // percent
)

// beFair lets noisy tenants wait until nobody else has messages. It walks the
// queue, but only one with tenants in which enough is in flight.
func (q *core) beFair(now broker.Instant) {
	if !q.tenants.Load() {
		return
	}
	if _, leased := q.q.Totals(now); leased < noisyCount {
		return
	}
	inFlight, total := map[string]int{}, 0
	q.q.EachLeased(now, func(m *message) {
		total++
		if m.group != "" { // who has no name is a tenant by itself
			inFlight[m.group]++
		}
	})
	noisy := map[string]bool{}
	for tenant, n := range inFlight {
		if n >= noisyCount && n*100 > noisyShare*total {
			noisy[tenant] = true
		}
	}
	if len(noisy) > 0 {
		q.q.PassOver(now, func(m *message) bool { return noisy[m.group] })
	}
}
