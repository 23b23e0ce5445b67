package queue

import (
	"time"
)

// Prepared is a message that Prepare has accepted.
type Prepared struct {
	// Message is the message to send: the one given to Prepare, or a copy with
	// metadata. Its Delay and DeliverAt are already taken into account.
	Message *Message
	// Delay is the native delay to ask the broker for, rounded up to its unit.
	Delay time.Duration
	// Due is the time before which the message mustn't be handled; zero: at once.
	Due time.Time
	// Options are the message's options for this system.
	Options []MessageOption
}

// Prepare checks a message against what a queue can do, before anything is
// sent, and works out its delay. What a broker can't delay natively travels as
// a due time in the metadata. It's for backends.
func (c *Capabilities) Prepare(m *Message, now time.Time) (Prepared, error) {
	if m == nil {
		return Prepared{}, &InvalidError{"message", "nil"}
	}
	p := Prepared{Message: m}
	if m.OrderingKey != "" && !c.Ordering {
		return p, &UnsupportedError{"an OrderingKey", c.system() + " for this queue"}
	}
	if m.DedupID != "" && !c.Dedup {
		return p, &UnsupportedError{"a DedupID", c.system() + " for this queue"}
	}
	if len(m.Options) > 0 {
		o, err := OptionsFor(c.system(), m)
		if err != nil {
			return p, err
		}
		p.Options = o
	}
	if m.Delay != 0 || !m.DeliverAt.IsZero() {
		if err := c.delay(m, now, &p); err != nil {
			return p, err
		}
	} else if md := m.meta; md != nil && md.library && md.due.After(now) {
		// A delay hop: the rest of the way, as far as the broker can.
		p.Due = md.due
		p.Delay = min(roundUp(md.due.Sub(now), c.DelayUnit), c.MaxDelay)
	}
	if md := m.meta; md != nil && !md.library {
		p.Message = forwarded(p.Message, now)
	}
	library := m.meta != nil && m.meta.library
	if err := c.Wire.check(p.Message, false, library); err != nil {
		return p, err
	}
	return p, nil
}

func (c *Capabilities) system() string {
	if c.Source.System != "" {
		return c.Source.System
	}
	return c.Wire.System
}

func (c *Capabilities) delay(m *Message, now time.Time, p *Prepared) error {
	if m.Delay != 0 && !m.DeliverAt.IsZero() {
		return &InvalidError{"Delay", "Delay and DeliverAt exclude each other"}
	}
	if m.Delay < 0 {
		return &InvalidError{"Delay", "negative"}
	}
	d := m.Delay
	if !m.DeliverAt.IsZero() {
		d = m.DeliverAt.Sub(now)
		if d <= 0 {
			return nil
		}
	}
	if m.OrderingKey != "" {
		return &UnsupportedError{"a delay with an OrderingKey", c.system()}
	}
	if !c.Delays {
		return &UnsupportedError{"a delay", c.system() + " for this queue"}
	}
	if c.Retention > 0 && d > c.Retention {
		return &LimitError{Field: "delay beyond the queue's retention", Got: int64(d), Max: int64(c.Retention), System: c.system()}
	}
	p.Due = now.Add(d)
	rounded := roundUp(d, c.DelayUnit)
	if rounded <= c.MaxDelay && m.DeliverAt.IsZero() {
		p.Delay = rounded
		return nil
	}
	p.Delay = min(rounded, c.MaxDelay)
	if rounded <= c.MaxDelay && c.DelayUnit == 0 {
		return nil // exact, and by the broker's clock
	}
	cp := *m
	md := metadata{}
	if m.meta != nil {
		md = *m.meta
	}
	md.due = p.Due
	cp.meta = &md
	cp.Delay, cp.DeliverAt = 0, time.Time{}
	p.Message = &cp
	return nil
}

// forwarded returns m as it goes to another queue on a user's request: a
// message that once was a dead letter keeps its history, but its age counts from
// now.
func forwarded(m *Message, now time.Time) *Message {
	md := *m.meta
	md.failures = 0
	if !md.enqueuedAt.IsZero() {
		md.ageFrom = now
	}
	cp := *m
	cp.meta = &md
	return &cp
}

func roundUp(d, unit time.Duration) time.Duration {
	if unit <= 0 || d%unit == 0 {
		return d
	}
	return d - d%unit + unit
}

// hopMessage is the message to publish again for a delivery that comes back at
// until.
func hopMessage(d *Delivery, until time.Time, failures int) *Message {
	m := d.Message
	md := metadata{library: true, enqueuedAt: d.EnqueuedAt, due: until, failures: failures}
	if c := d.carried; c != nil {
		md.ageFrom, md.deadLetter, md.types = c.ageFrom, c.deadLetter, c.types
	} else if d.meta != nil {
		md.types = d.meta.types
	}
	m.meta = &md
	m.DedupID, m.Options = "", nil
	m.Delay, m.DeliverAt = 0, time.Time{}
	return &m
}
