package sqstest

import (
	"maps"
	"slices"
	"time"

	"github.com/anyqueue/anyqueue/internal/broker"
)

// State is where a message is.
type State string

// The states of a message.
const (
	Visible  State = "visible"   // can be received, unless its group is locked
	InFlight State = "in flight" // was received, and is hidden
	Delayed  State = "delayed"   // isn't due
)

// Message is a message as it is in a queue.
type Message struct {
	ID         string
	Body       string
	Attributes map[string]Attribute
	GroupID    string
	DedupID    string // of a FIFO queue
	State      State
	Receives   int       // how many times it was received
	SentAt     time.Time // by the real clock; see Server.SetClock
}

// Attribute is an attribute of a message.
type Attribute struct {
	Type  string // String, Number or Binary, which may be followed by a point and a label
	Value string // the bytes of a binary one
}

// Messages returns what's in a queue, in the order in which it was sent, without
// any effect on it; nothing if there's no such queue.
func (s *Server) Messages(name string) []Message {
	q, err := s.queueNamed(name)
	if err != nil {
		return nil
	}
	snapshot := q.q.Snapshot(s.now(), 0, false)
	out := make([]Message, 0, len(snapshot))
	for _, x := range snapshot {
		p := x.Item.Payload
		m := Message{ID: p.id, Body: p.body, GroupID: p.group, DedupID: p.dedup, State: stateOf(x.State), Receives: x.Receives, SentAt: x.Enqueued}
		for _, a := range p.attrs {
			if m.Attributes == nil {
				m.Attributes = map[string]Attribute{}
			}
			m.Attributes[a.name] = Attribute{Type: a.dataType, Value: a.value}
		}
		out = append(out, m)
	}
	return out
}

func stateOf(s broker.State) State {
	if s == broker.Leased {
		return InFlight
	}
	if s == broker.Delayed {
		return Delayed
	}
	return Visible
}

// Queues returns the names of all queues, in their order.
func (s *Server) Queues() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Sorted(maps.Keys(s.queues))
}

// EndVisibility makes everything that's in flight in a queue visible, as if its
// visibility timeout had ended, and returns how much that was.
func (s *Server) EndVisibility(name string) int {
	q, err := s.queueNamed(name)
	if err != nil {
		return 0
	}
	return q.q.LoseLeases(s.now())
}
