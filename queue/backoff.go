package queue

import (
	"math"
	"math/rand/v2"
	"time"
)

// Backoff computes how long to wait before a delivery that failed is tried
// again: Min after the first failure, doubled for each further one, at most
// Max, half of it random. The zero value is usable.
type Backoff struct {
	Min    time.Duration // default 1 s
	Max    time.Duration // default 5 min
	Factor float64       // default 2; at least 1
	// Jitter is the share of the delay that is random, from 0 to 1: with 0.5 a
	// delay of 4 s becomes 2 s to 4 s. Default 0.5; negative: none.
	Jitter float64
}

// Delay returns the delay after the given number of failures, this one
// included; it's between 0 and Max. It may be called concurrently.
func (b Backoff) Delay(failures int) time.Duration {
	b = b.withDefaults()
	d := b.Max
	// Written so that +Inf and NaN are Max, too.
	if f := float64(b.Min) * math.Pow(b.Factor, float64(max(failures, 1)-1)); f < float64(b.Max) {
		d = time.Duration(f)
	}
	if b.Jitter > 0 {
		d -= time.Duration(float64(d) * b.Jitter * rand.Float64()) //nolint:gosec // spreads load; nothing secret
	}
	return max(d, 0)
}

// Validate fails with ErrInvalid when the settings contradict each other.
func (b Backoff) Validate() error {
	d := b.withDefaults()
	switch {
	case b.Min < 0 || b.Max < 0:
		return &InvalidError{"Backoff", "negative duration"}
	case d.Min > d.Max:
		return &InvalidError{"Backoff", "Min " + d.Min.String() + " is over Max " + d.Max.String()}
	case d.Factor < 1 || math.IsNaN(d.Factor) || math.IsInf(d.Factor, 0):
		return &InvalidError{"Backoff.Factor", "must be at least 1"}
	case !(b.Jitter <= 1): // also NaN
		return &InvalidError{"Backoff.Jitter", "must be at most 1"}
	}
	return nil
}

func (b Backoff) withDefaults() Backoff {
	if b.Min == 0 {
		b.Min = time.Second
		if b.Max > 0 && b.Max < b.Min {
			b.Min = b.Max
		}
	}
	if b.Max == 0 {
		b.Max = max(5*time.Minute, b.Min)
	}
	if b.Factor == 0 {
		b.Factor = 2
	}
	if b.Jitter == 0 {
		b.Jitter = 0.5
	}
	return b
}
