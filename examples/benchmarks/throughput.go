package main

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// measureThroughput has 8 publishers and 16 handlers at full speed, from publish
// to acknowledged. How many messages may be published and not yet handled is
// bounded alike for all: otherwise the memory of a backlog would be measured,
// of whoever's publishers are faster than their handlers. A small window hurts
// who works in batches (gocloud.dev), a large one who has a goroutine for each
// message (Watermill); the default suits both.
func measureThroughput(o options, cs []contender, r *report) error {
	measure := throughputApart
	if o.together {
		measure = func(c contender, o options) (figures, error) { return throughput(c.open(), o) }
	}
	fs, err := compare(o.rounds, cs, func(c contender) (figures, error) { return measure(c, o) })
	if err != nil {
		return err
	}
	r.add("throughput", fs)
	ours, ok := fs[oursName]
	if !ok {
		return nil
	}
	less := func(a, b float64) bool { return a < b }
	better := bestPeer(cs, fs, "messages/s", func(a, b float64) bool { return a > b })
	r.target(target{
		Name: "throughput, times the better peer", Unit: "x", Atleast: true, Want: 6,
		Got: ratio(ours["messages/s"], better.value), Peer: better, Floor: fs[floorName]["messages/s"], Figure: ours["messages/s"], FigureUnit: "messages/s",
		missing: better.name == "",
	})
	r.target(target{
		Name: "allocations per message", Want: 8, Got: ours["allocs/message"], Figure: ours["allocs/message"],
		Peer:  bestPeer(cs, fs, "allocs/message", less),
		Floor: fs[floorName]["allocs/message"],
	})
	return nil
}

func throughput(s system, o options) (figures, error) {
	c := newCredits(o.window)
	var damaged atomic.Int64
	ses, err := s.start("throughput", handlers, func(body []byte, attrs map[string]string) error {
		if check(body, attrs) != nil {
			damaged.Add(1)
		}
		c.handled()
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := publishFor(ses, c, o.throughput/10); err != nil { // warms up
		return nil, err
	}
	before, n := readMem(), c.done.Load()
	cpu, err := cpuTime()
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	if err := publishFor(ses, c, o.throughput); err != nil {
		return nil, err
	}
	if err := ses.stop(); err != nil {
		return nil, err
	}
	took := time.Since(begun).Seconds()
	used, err := cpuTime()
	if err != nil {
		return nil, err
	}
	after := readMem()
	if damaged.Load() > 0 {
		return nil, errors.New("messages arrived damaged")
	}
	sent := float64(c.done.Load() - n)
	return figures{
		"messages/s":     sent / took,
		"CPU ns/message": float64((used - cpu).Nanoseconds()) / sent,
		"allocs/message": float64(after.Mallocs-before.Mallocs) / sent,
		"bytes/message":  float64(after.TotalAlloc-before.TotalAlloc) / sent,
	}, nil
}

// publishFor publishes for so long, then waits until all is handled.
func publishFor(ses session, c *credits, d time.Duration) error {
	var (
		wg   sync.WaitGroup
		errs [publishers]error
		sent atomic.Int64
	)
	end := time.Now().Add(d)
	sent.Store(c.done.Load())
	for p := range publishers {
		wg.Go(func() {
			body := newBody()
			publish := ses.publisher(newAttributes())
			for time.Now().Before(end) {
				c.take()
				for range creditChunk {
					if errs[p] = publish(body); errs[p] != nil {
						return
					}
				}
				sent.Add(creditChunk)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	c.wait(sent.Load())
	return nil
}

// creditChunk is how many messages a publisher may send for one credit, so that
// the window costs next to nothing for each.
const creditChunk = 16

// credits bound what's published and not yet handled.
type credits struct {
	done atomic.Int64 // messages handled

	mu      sync.Mutex
	free    int
	changed sync.Cond // a credit came back
	ended   sync.Cond // the same, for wait
}

func newCredits(window int) *credits {
	c := &credits{free: window / creditChunk}
	c.changed.L, c.ended.L = &c.mu, &c.mu
	return c
}

// take waits until creditChunk more messages may be sent.
func (c *credits) take() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.free == 0 {
		c.changed.Wait()
	}
	c.free--
}

// handled counts a message.
func (c *credits) handled() {
	if c.done.Add(1)%creditChunk != 0 {
		return
	}
	c.mu.Lock()
	c.free++
	c.changed.Signal()
	c.ended.Signal()
	c.mu.Unlock()
}

// wait returns when n messages were handled.
func (c *credits) wait(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.done.Load() < n {
		c.ended.Wait()
	}
}

func readMem() *runtime.MemStats {
	m := &runtime.MemStats{}
	runtime.ReadMemStats(m)
	return m
}
