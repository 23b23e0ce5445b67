package main

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// crowd is how many publish at once.
const crowd = 64

// crowdRound has a crowd that each publish one message after the other, as the
// requests that an application serves do, for so long and a tenth more to warm
// up. sent is what has gone out.
func crowdRound(p cloudPublisher, d time.Duration, sent func() calls) (figures, error) {
	if _, err := crowdFor(p, d/10); err != nil {
		return nil, err
	}
	calls := sent()
	mem, cpu, err := usage()
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	took, err := crowdFor(p, d)
	if err != nil {
		return nil, err
	}
	lasted := time.Since(begun).Seconds()
	after, used, err := usage()
	if err != nil {
		return nil, err
	}
	if err := p.stop(); err != nil {
		return nil, err
	}
	n := float64(len(took))
	all := sent()
	if got := all.entries - calls.entries; got != len(took) {
		return nil, fmt.Errorf("%d messages were published, %d went to the server", len(took), got)
	}
	return figures{
		"messages/s":       n / lasted,
		"requests/message": float64(all.requests-calls.requests) / n,
		"p50 ms":           quantile(took, 0.5),
		"p99 ms":           quantile(took, 0.99),
		"allocs/message":   float64(after-mem) / n,
		"CPU µs/message":   float64((used - cpu).Microseconds()) / n,
	}, nil
}

// crowdFor publishes for so long, and returns how many milliseconds each took.
func crowdFor(p cloudPublisher, d time.Duration) ([]float64, error) {
	var (
		wg   sync.WaitGroup
		took [crowd][]float64
		errs [crowd]error
	)
	end := time.Now().Add(d)
	for i := range crowd {
		wg.Go(func() {
			body := newBody()
			for before := time.Now(); before.Before(end); {
				if errs[i] = p.publish(body); errs[i] != nil {
					return
				}
				now := time.Now()
				took[i] = append(took[i], milliseconds(now.Sub(before)))
				before = now
			}
		})
	}
	wg.Wait()
	var all []float64
	for i := range took {
		all = append(all, took[i]...)
	}
	return all, errors.Join(errs[:]...)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// usage is how often this process has allocated, and the CPU time that it has used.
func usage() (mallocs uint64, cpu time.Duration, err error) {
	cpu, err = cpuTime()
	return readMem().Mallocs, cpu, err
}
