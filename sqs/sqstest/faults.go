package sqstest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// Effect is what a Fault does.
type Effect int

const (
	// Refuse answers with an error and does nothing else.
	Refuse Effect = iota
	// RefuseEntry makes entries of a batch fail, and the rest of it work. A call
	// that isn't a batch fails as with Refuse.
	RefuseEntry
	// Unanswered lets the call take effect, and then cuts the connection; if
	// Fault.Code is set, it answers with that error instead.
	Unanswered
	// Cut cuts the connection without any other effect.
	Cut
	// Slow makes the call take Fault.Delay longer before it takes effect. Another
	// Fault may hit the same call.
	Slow
)

// A Fault makes calls go wrong, for tests. See Server.Fail.
type Fault struct {
	// Action is which calls go wrong, such as "SendMessageBatch". Default: all.
	Action string
	// Queue is the name of the queue whose calls go wrong. Default: all calls.
	Queue string
	// Effect says how. Default: Refuse.
	Effect Effect
	// Code is the error of Refuse, RefuseEntry and Unanswered: the name of a type
	// of the SDK, such as "RequestThrottled" or "QueueDoesNotExist", or one
	// of "ThrottlingException", "AccessDeniedException", "InternalFailure" (500)
	// and "ServiceUnavailable" (503); any other is a client's error (400).
	// Default: InternalFailure, but none for Unanswered.
	Code string
	// SenderFault is what RefuseEntry says about the entry: that the fault is the
	// caller's, so that trying again is useless.
	SenderFault bool
	// Delay is of Slow.
	Delay time.Duration
	// Skip is how many calls pass before, and Times how many are hit then; 0:
	// all until it's healed. RefuseEntry counts entries.
	Skip, Times int
	// Match chooses the entries of RefuseEntry by the message's body. Default: all.
	Match func(body string) bool
}

func (f *Fault) validate() error {
	invalid := func(field, format string, args ...any) error {
		return &queue.InvalidError{Field: "sqstest.Fault." + field, Reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case f.Action != "" && actionOf(f.Action) == nil:
		return invalid("Action", "there is no %q", f.Action)
	case f.Effect < Refuse || f.Effect > Slow:
		return invalid("Effect", "unknown")
	case f.Effect == RefuseEntry && f.Action != "" && !hasEntries(f.Action):
		return invalid("Effect", "%s isn't about single messages", f.Action)
	case f.Effect != RefuseEntry && (f.Match != nil || f.SenderFault):
		return invalid("Effect", "Match and SenderFault are of RefuseEntry")
	case (f.Effect == Slow) != (f.Delay > 0):
		return invalid("Delay", "it's of Slow, and positive")
	case f.Effect >= Cut && f.Code != "":
		return invalid("Code", "nothing is answered with it")
	case f.Skip < 0 || f.Times < 0:
		return invalid("Times", "negative")
	}
	return nil
}

// hasEntries reports whether an action sends or settles messages.
func hasEntries(action string) bool {
	switch strings.TrimSuffix(action, "Batch") {
	case "SendMessage", "DeleteMessage", "ChangeMessageVisibility":
		return true
	}
	return false
}

// Fail makes calls go wrong from now on, until they have done so f.Times times
// or heal is called. Several faults may be in force; the first that applies is
// used up. A long poll that already waits is hit no more. A Fault that can't be
// meant makes all calls fail, with an error that says why.
func (s *Server) Fail(f Fault) (heal func()) {
	if err := f.validate(); err != nil {
		f = Fault{Code: invalidParameter}
		f.Match = nil
		return s.inject(&fault{Fault: f, left: -1, reason: err.Error()})
	}
	n := &fault{Fault: f, left: f.Times, reason: "an injected fault"}
	if f.Times == 0 {
		n.left = -1
	}
	if f.Code == "" && f.Effect <= RefuseEntry {
		n.Code = internalFailure
	}
	return s.inject(n)
}

func (s *Server) inject(n *fault) (heal func()) {
	change := func(change func([]*fault) []*fault) {
		s.mu.Lock()
		defer s.mu.Unlock()
		var old []*fault
		if fs := s.faults.Load(); fs != nil {
			old = slices.Clone(fs.list)
		}
		s.faults.Store(&faults{list: change(old)})
	}
	change(func(fs []*fault) []*fault { return append(fs, n) })
	return func() {
		change(func(fs []*fault) []*fault {
			return slices.DeleteFunc(fs, func(x *fault) bool { return x == n })
		})
	}
}

type fault struct {
	Fault
	reason string

	mu   sync.Mutex
	skip int // passed so far
	left int // to hit; negative: no end
}

// use reports whether the fault hits now, and counts.
func (f *fault) use() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.skip < f.Skip {
		f.skip++
		return false
	}
	if f.left == 0 {
		return false
	}
	if f.left > 0 {
		f.left--
	}
	return true
}

func (f *fault) err() *apiError { return fail(f.Code, "%s", f.reason) }

type faults struct{ list []*fault }

// hits is what the faults do to one call.
type hits struct {
	slow          time.Duration
	before, after *response
	entries       []*fault
}

func (fs *faults) hit(c *call) hits {
	var h hits
	if fs == nil || len(fs.list) == 0 {
		return h
	}
	name := ""
	for _, f := range fs.list {
		if f.Action != "" && f.Action != c.action {
			continue
		}
		if f.Queue != "" {
			if name == "" {
				name = queueIn(c.body)
			}
			if name != f.Queue {
				continue
			}
		}
		switch {
		case f.Effect == RefuseEntry:
			if hasEntries(c.action) {
				h.entries = append(h.entries, f)
			}
		case f.Effect == Slow:
			if h.slow == 0 && f.use() {
				h.slow = f.Delay
			}
		case h.before != nil || h.after != nil || !f.use():
		case f.Effect == Refuse:
			h.before = f.err().answer()
		case f.Effect == Cut:
			h.before = &response{cut: true}
		case f.Code != "":
			h.after = f.err().answer()
		default:
			h.after = &response{cut: true}
		}
	}
	return h
}

// queueIn finds the name of the queue in a request's parameters.
func queueIn(body []byte) string {
	var in struct{ QueueUrl, QueueName string } //nolint:revive // as it's called
	if json.Unmarshal(body, &in) != nil {
		return "" // the action itself says so
	}
	if in.QueueName != "" {
		return in.QueueName
	}
	return in.QueueUrl[strings.LastIndexByte(in.QueueUrl, '/')+1:]
}

// entry returns the failure that the faults want of one entry, or nil.
func (h *hits) entry(body string) *entryError {
	for _, f := range h.entries {
		if (f.Match == nil || f.Match(body)) && f.use() {
			return &entryError{apiError: f.err(), sender: f.SenderFault}
		}
	}
	return nil
}
