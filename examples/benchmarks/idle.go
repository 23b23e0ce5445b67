package main

import (
	"fmt"
	"runtime"
	"time"
)

// idleCPU is what counts as none, of each second: a thousandth of a core for all
// queues together. A process that only sleeps differs by as much.
const idleCPU = time.Millisecond

// measureIdle opens many queues with a consumer each that has nothing to do.
// Ours is ready for 16 handlers at once; the peers, whose handlers each need a
// goroutine that waits, get one.
func measureIdle(o options, cs []contender, r *report) error {
	fs := map[string]figures{}
	for _, c := range cs {
		n := 1
		if c.name == oursName {
			n = handlers
		}
		f, err := idle(c.open(), o.idleQueues, n, o.idle)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		fs[c.name] = f
	}
	r.add("idle", fs)
	ours, ok := fs[oursName]
	if !ok {
		return nil
	}
	less := func(a, b float64) bool { return a < b }
	for _, t := range []struct {
		name, unit, figure string
		want               float64
	}{
		{"an idle queue with its consumer", "KiB", "KiB/queue", 16},
		{"goroutines of an idle queue", "", "goroutines/queue", 3},
		{"CPU of all idle queues, a second", "ms", "CPU ms/s", idleCPU.Seconds() * 1000},
	} {
		r.target(target{
			Name: t.name, Unit: t.unit, Want: t.want, Got: ours[t.figure], Figure: ours[t.figure],
			Peer: bestPeer(cs, fs, t.figure, less), Floor: fs[floorName][t.figure],
		})
	}
	return nil
}

func idle(s system, queues, n int, d time.Duration) (figures, error) {
	base, err := cpuOver(d)
	if err != nil {
		return nil, err
	}
	before, goroutines := settledMem(), runtime.NumGoroutine()
	sessions := make([]session, queues)
	for i := range sessions {
		if sessions[i], err = s.start(fmt.Sprintf("idle-%d", i), n, check); err != nil {
			return nil, err
		}
	}
	time.Sleep(time.Second) // until all of them wait
	after, more := settledMem(), runtime.NumGoroutine()
	cpu, err := cpuOver(d)
	if err != nil {
		return nil, err
	}
	for _, ses := range sessions {
		if err := ses.stop(); err != nil {
			return nil, err
		}
	}
	held := int64(after.HeapAlloc+after.StackInuse) - int64(before.HeapAlloc+before.StackInuse)
	if err := quiet(goroutines); err != nil {
		return nil, err
	}
	return figures{
		"KiB/queue":        float64(held) / 1024 / float64(queues),
		"goroutines/queue": float64(more-goroutines) / float64(queues),
		"CPU ms/s":         max((cpu-base).Seconds()*1000, 0),
	}, nil
}

// idleSlices is into how many parts the time is divided in which CPU is measured.
const idleSlices = 5

// cpuOver is the CPU time that this process uses in a second of so much sleep. It's the
// median of slices: what a consumer does again and again is in all of them, what
// the runtime does once (giving memory back) in one or two.
func cpuOver(d time.Duration) (time.Duration, error) {
	runtime.GC()
	var used []float64
	for range idleSlices {
		before, err := cpuTime()
		if err != nil {
			return 0, err
		}
		begun := time.Now()
		time.Sleep(d / idleSlices)
		after, err := cpuTime()
		if err != nil {
			return 0, err
		}
		used = append(used, (after-before).Seconds()/time.Since(begun).Seconds())
	}
	return time.Duration(median(used) * float64(time.Second)), nil
}
