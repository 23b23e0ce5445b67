package broker

import (
	"errors"
	"time"
)

// ErrBubble says that a broker that was made inside a testing/synctest bubble
// is used outside of it, or the other way round. The two have different
// clocks, so that leases would never end or end at once.
var ErrBubble = errors.New("the broker was made on the other side of a testing/synctest bubble's border: make it and use it on the same side")

// Instant is a time in nanoseconds since a Clock was made. It's a third of the
// size of a time.Time, of which a message would need several.
type Instant int64

// never is later than every time that can be reached.
const never = Instant(1<<63 - 1)

// Add returns i+d, and never where that overflows.
func (i Instant) Add(d time.Duration) Instant {
	if s := i + Instant(d); d < 0 || s >= i {
		return s
	}
	return never
}

// Clock tells the time to all queues of a broker. It's a monotonic one, so that
// leases and delays don't mind when somebody sets the clock on the wall.
type Clock struct {
	base time.Time
	mono bool
}

// NewClock returns a clock that belongs to the synctest bubble it's made in, or
// to none.
func NewClock() *Clock {
	now := time.Now()
	return &Clock{base: now, mono: monotonic(now)}
}

// Now returns the time, or ErrBubble.
func (c *Clock) Now() (Instant, error) {
	if !c.mono {
		_, now, err := c.Read()
		return now, err
	}
	// Real elapsed time is never negative. It is by decades when base is real
	// and now comes from a bubble, whose clock starts in the year 2000.
	d := time.Since(c.base)
	if d < 0 {
		return 0, ErrBubble
	}
	return Instant(d), nil
}

// Read is Now, together with the same time on the wall.
func (c *Clock) Read() (time.Time, Instant, error) {
	now := time.Now()
	d := now.Sub(c.base)
	// Inside a bubble times have no monotonic reading.
	if d < 0 || monotonic(now) != c.mono {
		return now, 0, ErrBubble
	}
	return now, Instant(d), nil
}

// Time converts an Instant to a time to measure with.
func (c *Clock) Time(i Instant) time.Time { return c.base.Add(time.Duration(i)) }

func monotonic(t time.Time) bool { return t != t.Round(0) }
