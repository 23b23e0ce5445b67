package memory

import (
	"math/bits"
	"sync"
)

// bodies keeps the memory of bodies that are gone for the next ones: a third of
// what a busy broker would allocate otherwise. Only what nobody can see any more
// gets here: see broker.Op.Freed.
type bodies struct {
	mu    sync.Mutex
	free  [maxBodyClass][][]byte // by the length of their capacity in bits
	bytes int                    // of all in free
}

const (
	maxBodyClass  = 17 // bodies of 64 KiB or more are left to the garbage collector
	maxFreeBodies = 4 << 20
)

// copyOf returns a copy of b. Its capacity may be up to twice its length.
func (p *bodies) copyOf(b []byte) []byte {
	class := bits.Len(uint(len(b)))
	if len(b) == 0 || class >= maxBodyClass {
		return clone(b)
	}
	p.mu.Lock()
	var c []byte
	if free := p.free[class]; len(free) > 0 {
		last := len(free) - 1
		c, free[last] = free[last], nil
		p.free[class] = free[:last]
		p.bytes -= cap(c)
	}
	p.mu.Unlock()
	if cap(c) < len(b) {
		return clone(b)
	}
	c = c[:len(b)]
	copy(c, b)
	return c
}

// reclaim takes back the bodies of messages that are gone.
func (p *bodies) reclaim(ops []op) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range ops {
		if !ops[i].Freed {
			continue
		}
		b := ops[i].Item.Payload.body
		class := bits.Len(uint(cap(b)))
		if cap(b) > 0 && class < maxBodyClass && p.bytes+cap(b) <= maxFreeBodies {
			p.bytes += cap(b)
			p.free[class] = append(p.free[class], b)
		}
	}
}
