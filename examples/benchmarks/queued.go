package main

import (
	"fmt"
	"runtime"
)

// peerQueued is how many messages the peers get: Watermill keeps two goroutines
// for each.
const peerQueued = 20_000

// measureQueued fills a queue that nobody reads and looks what a message costs
// beyond its payload: heap and stacks, less the bytes of body and attribute
// values. The values are strings of their own, as those that came from a request
// are; the names are the same in all messages.
func measureQueued(o options, cs []contender, r *report) error {
	fs := map[string]figures{}
	for _, c := range cs {
		n := o.queued
		if c.peer {
			n = min(n, peerQueued)
		}
		f, err := queued(c.open(), n)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		fs[c.name] = f
	}
	r.add("queued", fs)
	ours, ok := fs[oursName]
	if !ok {
		return nil
	}
	r.target(target{
		Name: "a queued message beyond its payload", Unit: "bytes", Want: 256, Got: ours["bytes/message"], Figure: ours["bytes/message"],
		Peer:  bestPeer(cs, fs, "bytes/message", func(a, b float64) bool { return a < b }),
		Floor: fs[floorName]["bytes/message"],
	})
	return nil
}

func queued(s system, n int) (figures, error) {
	goroutines := runtime.NumGoroutine()
	ses, err := s.start("queued", 0, nil)
	if err != nil {
		return nil, err
	}
	attrs := newAttributes()
	publish := ses.publisher(attrs)
	body := newBody()
	before := settledMem()
	payload := 0
	for i := range n {
		no := number(i)
		// Their lengths are those of Go's size classes, so that what's measured is
		// the queue, not the rounding up of these strings.
		attrs["tenant"], attrs["kind"], attrs["trace"] = no[:], no+no, no+no+no+no
		payload += len(body) + len(no) + 2*len(no) + 4*len(no)
		if err := publish(body); err != nil {
			return nil, err
		}
	}
	after := settledMem()
	held := int64(after.HeapAlloc+after.StackInuse) - int64(before.HeapAlloc+before.StackInuse)
	runtime.KeepAlive(ses)
	if err := ses.stop(); err != nil {
		return nil, err
	}
	f := figures{"messages": float64(n), "bytes/message": float64(held-int64(payload)) / float64(n)}
	return f, quiet(goroutines)
}

// settledMem is the memory that's in use, without what the garbage collector
// would take.
func settledMem() *runtime.MemStats {
	runtime.GC()
	runtime.GC() // what had a finalizer
	return readMem()
}
