package queue

import (
	"math"
	"time"
)

// Prepared is a message that Prepare has accepted.
type Prepared struct {
	// Message is the message to send: the one given to Prepare, or a copy with
	// metadata. Encoding it can't fail. Its Delay and DeliverAt are already
	// taken into account; its DedupID and OrderingKey are to be sent as they
	// stand in it.
	Message *Message
	// Delay is the native delay to ask the broker for, rounded up to its unit.
	Delay time.Duration
	// Due is the time before which the message mustn't be handled; zero: at once.
	Due time.Time
	// Plain says that Encode would change nothing: Message goes as it is, without
	// anything of the library. It may be false of a message that's plain, too.
	Plain bool
	// Options are the message's options for this system.
	Options []MessageOption
}

// Prepare checks a message against what a queue can do, before anything is
// sent, and works out its delay. What a broker can't delay natively travels as
// a due time in the metadata. It's for backends.
//
// It fails with an *InvalidError, an *UnsupportedError or a *LimitError, each of
// which trying again can't help. What the library publishes again (a dead
// letter, a redrive) it accepts whenever the system can have carried the
// original.
func (c *Capabilities) Prepare(m *Message, now time.Time) (Prepared, error) {
	return c.PrepareEach(m, now, nil)
}

// PrepareEach is Prepare, and calls each, unless that's nil, with every attribute
// of m: going over a map costs more than copying what's in it, so a backend that
// keeps a copy does both at once. When it fails, or the message that it returns
// has metadata, each may have been called for none or some of them.
func (c *Capabilities) PrepareEach(m *Message, now time.Time, each func(name, value string)) (Prepared, error) {
	if m == nil {
		return Prepared{}, &InvalidError{"message", "nil"}
	}
	p := Prepared{Message: m}
	md := m.meta
	library := md != nil && md.library
	if m.OrderingKey != "" {
		var err error
		if !c.Ordering {
			err = &UnsupportedError{"an OrderingKey", c.system() + " for this queue, which isn't an ordered one"}
		} else if library {
			err = c.Wire.checkKey("ordering key", m.OrderingKey)
		}
		switch {
		case err != nil && library && !(md.exact && c.Ordering): // redrive restores it
			p.Message = withKeyInMetadata(m)
		case err != nil:
			return p, err
		}
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
	switch {
	case m.Delay != 0 || !m.DeliverAt.IsZero():
		if err := c.delay(m, now, &p); err != nil {
			return p, err
		}
	case library && md.due.After(now):
		// A delay hop: the rest of the way, as far as the broker can.
		if err := c.delayable(md.due.Sub(now)); err != nil && md.exact {
			return p, err
		}
		p.Due = md.due
		p.Delay = c.nativeDelay(md.due.Sub(now))
	}
	if md != nil && !library {
		p.Message = forwarded(p.Message, now)
	}
	var err error
	p.Plain, err = c.Wire.check(p.Message, each)
	return p, err
}

// minAgedDelay is the least native delay whose end is told to the consumer, so
// that the age of the message counts from there. Less isn't worth an attribute.
const minAgedDelay = time.Minute

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
	d, due, field := m.Delay, now.Add(m.Delay), "Delay"
	if !m.DeliverAt.IsZero() {
		d, due, field = m.DeliverAt.Sub(now), m.DeliverAt, "DeliverAt"
		if d <= 0 {
			return nil
		}
	}
	if m.OrderingKey != "" {
		return &UnsupportedError{"a delay with an OrderingKey", c.system()}
	}
	if err := c.delayable(d); err != nil {
		return err
	}
	if due.UnixMilli() >= maxMilli {
		return &InvalidError{field, "after the year 9999"}
	}
	p.Due = due
	p.Delay = c.nativeDelay(d)
	// A due time in the metadata is for what the broker can't do: delay for so
	// long, or to a point in time, which is judged by the consumer's clock.
	native := p.Delay >= d && (m.DeliverAt.IsZero() || c.DelayUnit == 0)
	if native && d < minAgedDelay {
		return nil
	}
	cp := *m
	md := metadata{}
	if m.meta != nil {
		md = *m.meta
	}
	if native {
		md.ageFrom = due
	} else {
		md.due = due
	}
	cp.meta = &md
	cp.Delay, cp.DeliverAt = 0, time.Time{}
	p.Message = &cp
	return nil
}

// nativeDelay is how much of a delay to ask the broker for: what it can do, and not so
// much that it may have dropped the message, or nearly, when the delay is over.
func (c *Capabilities) nativeDelay(d time.Duration) time.Duration {
	most := c.MaxDelay
	if c.Retention > 0 {
		most = min(most, roundUp(c.Retention/2, c.DelayUnit))
	}
	return min(roundUp(d, c.DelayUnit), most)
}

func (c *Capabilities) delayable(d time.Duration) error {
	switch {
	case !c.Delays:
		why := " for this queue"
		if c.Ordering {
			why = " for a queue that keeps an order"
		}
		return &UnsupportedError{"a delay", c.system() + why}
	case c.Retention > 0 && d > c.Retention:
		return &LimitError{Field: "delay beyond the queue's retention", Got: int64(d), Max: int64(c.Retention), System: c.system()}
	}
	return nil
}

// withKeyInMetadata returns the library's copy of a message for a queue that
// can't carry its OrderingKey.
func withKeyInMetadata(m *Message) *Message {
	cp, md := *m, *m.meta
	md.key = m.OrderingKey
	cp.OrderingKey, cp.meta = "", &md
	return &cp
}

// forwarded returns m as it goes to another queue on a user's request: a
// message that once was a dead letter keeps its history, but its age counts from
// now.
func forwarded(m *Message, now time.Time) *Message {
	md := *m.meta
	md.failures = 0
	if !md.enqueuedAt.IsZero() {
		md.ageFrom = later(md.ageFrom, now) // or when its delay ends
	}
	cp := *m
	cp.meta = &md
	return &cp
}

func roundUp(d, unit time.Duration) time.Duration {
	if unit <= 0 || d%unit == 0 {
		return d
	}
	up := d - d%unit
	if up > math.MaxInt64-unit {
		return math.MaxInt64
	}
	return up + unit
}

// hopMessage is the message to publish again for a delivery that comes back at
// until.
func hopMessage(d *Delivery, until time.Time, failures int) *Message {
	m := d.Message
	if o, ok := d.Native.(Original); ok { // whatever the handler has done to its delivery
		m.Body, m.Attributes = o.Original()
	}
	md := metadata{library: true, enqueuedAt: d.EnqueuedAt, due: until, failures: failures}
	if c := d.carried; c != nil {
		md.ageFrom, md.deadLetter, md.types, md.key = c.ageFrom, c.deadLetter, c.types, c.key
	} else if d.meta != nil {
		md.types = d.meta.types
	}
	if !until.IsZero() { // coming back later doesn't make it younger
		md.ageFrom = d.AgeFrom()
	}
	m.meta = &md
	m.DedupID, m.Options = "", nil
	if o, ok := d.Native.(OriginalOptions); ok {
		m.Options = o.OriginalOptions()
	}
	m.Delay, m.DeliverAt = 0, time.Time{}
	return &m
}
