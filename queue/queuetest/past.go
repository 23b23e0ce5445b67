package queuetest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// past keeps what has happened to messages, by their IDs, so that a test that misses
// one can tell its story.
type past struct {
	begun time.Time
	mu    sync.Mutex
	lines map[string][]string // nil: nobody will ask
}

func newPast() *past { return &past{begun: time.Now(), lines: map[string][]string{}} }

func (p *past) note(id, format string, args ...any) {
	line := fmt.Sprintf("%10.3fs ", time.Since(p.begun).Seconds()) + fmt.Sprintf(format, args...)
	p.mu.Lock()
	defer p.mu.Unlock()
	if lines, ok := p.lines[id]; !ok || lines != nil {
		p.lines[id] = append(lines, line)
	}
}

// forget is for a message that won't be missed.
func (p *past) forget(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines[id] = nil
}

func (p *past) received(ds []*queue.Delivery) {
	for _, d := range ds {
		p.note(d.ID, "received as %s, attempt %d, until %.3fs", d.BrokerID, d.Attempt, d.Deadline.Sub(p.begun).Seconds())
	}
}

// settling notes what is asked for; the function returned, what has become of it.
func (p *past) settling(ss []queue.Settlement) func(error) {
	ids := make([]string, len(ss)) // the engine may use the slice again
	for i, s := range ss {
		ids[i] = s.Delivery.ID
		p.note(ids[i], "settling: %v of %s with a delay of %v", s.Kind, s.Delivery.BrokerID, s.Delay)
	}
	return func(err error) {
		for i, e := range entryErrors(err, len(ids)) {
			p.note(ids[i], "settled: %v", e)
		}
	}
}

// tell logs the past of some messages.
func (p *past) tell(t testing.TB, ids []string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range ids {
		t.Logf("%s:", id)
		for _, line := range p.lines[id] {
			t.Log(line)
		}
	}
}
