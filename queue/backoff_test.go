package queue

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestBackoffDoublesBetweenItsBounds(t *testing.T) {
	t.Parallel()
	exact := Backoff{Jitter: -1}
	want := []int{1, 1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300}
	for i, seconds := range want {
		assert.Equal(t, time.Duration(seconds)*time.Second, exact.Delay(i-1), "after %d failures", i-1)
	}
	assert.Equal(t, 5*time.Minute, exact.Delay(math.MaxInt))
	assert.Equal(t, time.Second, exact.Delay(math.MinInt))
}

func TestBackoffJitterStaysInItsShare(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		b        Backoff
		low, top time.Duration
	}{
		"default": {Backoff{}, 2 * time.Second, 4 * time.Second},
		"whole":   {Backoff{Jitter: 1}, 0, 4 * time.Second},
		"tenth":   {Backoff{Jitter: 0.1}, 3600 * time.Millisecond, 4 * time.Second},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lowest, highest := c.top, c.low
			for range 2000 {
				d := c.b.Delay(3)
				lowest, highest = min(lowest, d), max(highest, d)
			}
			span := c.top - c.low
			assert.GreaterOrEqual(t, lowest, c.low)
			assert.LessOrEqual(t, highest, c.top)
			assert.Less(t, lowest, c.low+span/10, "all of the range is used")
			assert.Greater(t, highest, c.top-span/10, "all of the range is used")
		})
	}
}

func TestBackoffNeverOverflows(t *testing.T) {
	t.Parallel()
	for _, b := range []Backoff{
		{Max: math.MaxInt64, Jitter: -1}, {Min: math.MaxInt64, Max: math.MaxInt64, Jitter: -1}, {Max: math.MaxInt64},
		{Factor: math.MaxFloat64, Jitter: -1}, {Factor: math.Inf(1)}, {Factor: math.NaN()}, {Min: -time.Hour, Max: -time.Second}, {Jitter: 7},
	} {
		for _, n := range []int{0, 1, 2, 64, 1000, math.MaxInt} {
			d := b.Delay(n)
			assert.GreaterOrEqual(t, d, time.Duration(0), "%+v after %d", b, n)
			assert.LessOrEqual(t, d, max(b.withDefaults().Max, 0), "%+v after %d", b, n)
		}
	}
	assert.Equal(t, time.Duration(math.MaxInt64), Backoff{Max: math.MaxInt64, Jitter: -1}.Delay(1000))
}

func TestBackoffDefaultsFitTogether(t *testing.T) {
	t.Parallel()
	assert.Equal(t, Backoff{Min: time.Second, Max: 5 * time.Minute, Factor: 2, Jitter: 0.5}, Backoff{}.withDefaults())
	assert.Equal(t, 100*time.Millisecond, Backoff{Max: 100 * time.Millisecond}.withDefaults().Min)
	assert.Equal(t, time.Hour, Backoff{Min: time.Hour}.withDefaults().Max)
}

func TestBackoffValidate(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]Backoff{
		"zero": {}, "only Max below the default Min": {Max: time.Millisecond}, "only Min above the default Max": {Min: time.Hour},
		"no jitter": {Jitter: -1}, "whole jitter": {Jitter: 1}, "constant": {Factor: 1, Min: time.Second, Max: time.Second},
	} {
		assert.NoError(t, b.Validate(), name)
	}
	for name, b := range map[string]Backoff{
		"negative Min": {Min: -1}, "negative Max": {Max: -1}, "Min over Max": {Min: 2, Max: 1}, "shrinking": {Factor: 0.5},
		"Factor NaN": {Factor: math.NaN()}, "Factor infinite": {Factor: math.Inf(1)}, "Jitter over 1": {Jitter: 1.1}, "Jitter NaN": {Jitter: math.NaN()},
	} {
		assert.ErrorIs(t, b.Validate(), ErrInvalid, name)
	}
}
