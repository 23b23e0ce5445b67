package sqstest

import (
	"sync"
	"sync/atomic"
)

// counters count calls.
type counters struct {
	m sync.Map // action -> *counter
}

type counter struct{ calls, entries atomic.Int64 }

func (c *counters) of(action string) *counter {
	if x, ok := c.m.Load(action); ok {
		return x.(*counter)
	}
	x, _ := c.m.LoadOrStore(action, &counter{})
	return x.(*counter)
}

func (c *counters) call(action string) { c.of(action).calls.Add(1) }

func (c *counters) done(action string, entries int) {
	x := c.of(action)
	x.entries.Add(int64(entries))
}

func (c *counters) each(f func(*counter) *atomic.Int64) map[string]int {
	out := map[string]int{}
	c.m.Range(func(action, x any) bool {
		if n := f(x.(*counter)).Load(); n > 0 {
			out[action.(string)] = int(n)
		}
		return true
	})
	return out
}

// Requests returns how many requests there were of each action, such as
// "SendMessageBatch", also those that a Fault has hit. One that an SDK has sent
// again counts again. Long polls count when they begin.
func (s *Server) Requests() map[string]int {
	return s.counts.each(func(c *counter) *atomic.Int64 { return &c.calls })
}

// Entries returns how many messages the requests of each action were about: what
// was sent, received, deleted or changed, without what was refused. Requests that
// a Fault has kept from being served have none.
func (s *Server) Entries() map[string]int {
	return s.counts.each(func(c *counter) *atomic.Int64 { return &c.entries })
}

// ResetCounts lets Requests and Entries begin anew.
func (s *Server) ResetCounts() { s.counts.m.Clear() }
