package main

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"
)

// figures are what one round has measured, by name.
type figures map[string]float64

// interleave runs each function once per round, one after the other, and returns
// the median of each figure. What disturbs the machine for a second or two so
// hits a round or two of everybody. Each round has another order by chance: a server
// still has to do with what the one before has given it.
func interleave(rounds int, fns ...func() (figures, error)) ([]figures, error) {
	all := make([]map[string][]float64, len(fns))
	for i := range all {
		all[i] = map[string][]float64{}
	}
	for range rounds {
		for _, i := range rand.Perm(len(fns)) {
			runtime.GC() // what others have left behind
			f, err := fns[i]()
			if err != nil {
				return nil, err
			}
			for k, v := range f {
				all[i][k] = append(all[i][k], v)
			}
		}
	}
	out := make([]figures, len(fns))
	for i, m := range all {
		out[i] = figures{}
		for k, v := range m {
			out[i][k] = median(v)
		}
	}
	return out, nil
}

// A contestant is a contender, or one on SQS or Pub/Sub.
type contestant interface {
	called() string
	isPeer() bool
}

// compare interleaves a measurement of several systems.
func compare[C contestant](rounds int, cs []C, fn func(C) (figures, error)) (map[string]figures, error) {
	fns := make([]func() (figures, error), len(cs))
	for i, c := range cs {
		fns[i] = func() (figures, error) {
			f, err := fn(c)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.called(), err)
			}
			return f, nil
		}
	}
	fs, err := interleave(rounds, fns...)
	if err != nil {
		return nil, err
	}
	out := map[string]figures{}
	for i, c := range cs {
		out[c.called()] = fs[i]
	}
	return out, nil
}

// quiet waits until no more goroutines are left than there were before: what's
// left of a system that was measured isn't to be counted as the next one's.
func quiet(before int) error {
	for range 2000 {
		if runtime.NumGoroutine() <= before {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("%d goroutines are left, before there were %d", runtime.NumGoroutine(), before)
}

func median(v []float64) float64 { return quantile(v, 0.5) }

// quantile returns the value below which a share q of the values lies.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	at := q * float64(len(s)-1)
	i := int(at)
	if i+1 == len(s) {
		return s[i]
	}
	return s[i] + (s[i+1]-s[i])*(at-float64(i))
}
