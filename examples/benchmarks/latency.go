package main

import (
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	latencyRate = 500 // messages a second
	latencyWarm = 20  // messages that don't count
	latencyWait = 30 * time.Second
)

// measureLatency sends evenly, far below what any of them can do, and takes the
// time from just before a publish to the start of the handler. Between two
// messages everything sleeps: the time to wake up is part of it, as it is in
// an application.
func measureLatency(o options, cs []contender, r *report) error {
	fs, err := compare(o.rounds, cs, func(c contender) (figures, error) { return latency(c.open(), o.latency) })
	if err != nil {
		return err
	}
	r.add("latency", fs)
	ours, ok := fs[oursName]
	if !ok {
		return nil
	}
	r.target(target{
		Name: "publish to handler, p50", Unit: "µs", Want: 50, Got: ours["p50 µs"], Figure: ours["p50 µs"],
		Peer:  bestPeer(cs, fs, "p50 µs", func(a, b float64) bool { return a < b }),
		Floor: fs[floorName]["p50 µs"],
	})
	return nil
}

func latency(s system, d time.Duration) (figures, error) {
	n := latencyWarm + int(d.Seconds()*latencyRate)
	sent, started := make([]time.Time, n), make([]time.Time, n)
	var left atomic.Int64
	left.Store(int64(n))
	done := make(chan struct{})
	var damaged atomic.Int64
	ses, err := s.start("latency", handlers, func(body []byte, _ map[string]string) error {
		now := time.Now()
		i, err := strconv.Atoi(string(body[:numberWidth]))
		if err != nil || i >= n || !started[i].IsZero() {
			damaged.Add(1)
		} else {
			started[i] = now
		}
		if left.Add(-1) == 0 {
			close(done)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	body := newBody()
	publish := ses.publisher(newAttributes())
	begun := time.Now()
	for i := range n {
		copy(body, number(i))
		// The same sleep for all. A tick that's late isn't made up for by two at once.
		time.Sleep(time.Until(begun.Add(time.Duration(i) * time.Second / latencyRate)))
		sent[i] = time.Now()
		if err := publish(body); err != nil {
			return nil, err
		}
	}
	select {
	case <-done:
	case <-time.After(latencyWait):
		return nil, fmt.Errorf("%d of %d messages didn't arrive", left.Load(), n)
	}
	if err := ses.stop(); err != nil {
		return nil, err
	}
	if damaged.Load() > 0 {
		return nil, errors.New("messages arrived damaged or twice")
	}
	took := make([]float64, 0, n)
	for i := latencyWarm; i < n; i++ {
		took = append(took, float64(started[i].Sub(sent[i]))/float64(time.Microsecond))
	}
	return figures{"p50 µs": quantile(took, 0.5), "p99 µs": quantile(took, 0.99)}, nil
}

const numberWidth = 8

func number(i int) string { return fmt.Sprintf("%0*d", numberWidth, i) }
