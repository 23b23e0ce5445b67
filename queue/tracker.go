package queue

import "time"

// tracker remembers, for messages that came back, what the broker's count of
// deliveries doesn't tell: which of them were no failures (released, snoozed,
// interrupted), and, where the broker doesn't count, how many were. It's best
// effort: bounded, and gone with the process.
type tracker struct {
	young, old map[string]track
}

type track struct {
	failures int       // attempts that failed, in this process
	others   int       // deliveries that the broker counted and that were no failures
	until    time.Time // not to be handled before: the broker couldn't hold it back that long
}

// A generation holds this many messages; two are kept.
const trackerSize = 16384

func (t *tracker) empty() bool { return len(t.young) == 0 && len(t.old) == 0 }

func (t *tracker) get(id string) track {
	if v, ok := t.young[id]; ok {
		return v
	}
	return t.old[id]
}

func (t *tracker) add(id string, failures, others int) {
	if id == "" || failures == 0 && others == 0 {
		return
	}
	v := t.get(id)
	v.failures += failures
	v.others += others
	t.put(id, v)
}

// notBefore notes a time that the broker couldn't be told.
func (t *tracker) notBefore(id string, until time.Time) {
	if id == "" {
		return
	}
	v := t.get(id)
	v.until = until
	t.put(id, v)
}

// waited notes that d, which isn't due yet, has done nothing but wait.
func (t *tracker) waited(d *Delivery) {
	if d.BrokerID == "" || d.Attempt <= 1 {
		return
	}
	v := t.get(d.BrokerID)
	v.failures, v.others = 0, d.Attempt-1
	t.put(d.BrokerID, v)
}

func (t *tracker) put(id string, v track) {
	if t.young == nil {
		t.young = map[string]track{}
	}
	t.young[id] = v
	if len(t.young) >= trackerSize {
		t.young, t.old = nil, t.young
	}
}

// due tells what notBefore has noted.
func (t *tracker) due(d *Delivery) time.Time {
	if d.Attempt == 1 || t.empty() {
		return time.Time{}
	}
	return t.get(d.BrokerID).until
}

func (t *tracker) forget(id string) {
	if t.empty() {
		return
	}
	delete(t.young, id)
	delete(t.old, id)
}

// failures tells how many earlier attempts of d failed, as far as known: what
// its metadata carries, and the broker's count less what is known to be none.
func (t *tracker) failures(d *Delivery) int {
	n := d.Failures
	if d.Attempt == 1 || t.empty() {
		return n + max(d.Attempt-1, 0)
	}
	v := t.get(d.BrokerID)
	if d.Attempt > 1 {
		return n + max(d.Attempt-1-v.others, 0)
	}
	return n + v.failures
}
