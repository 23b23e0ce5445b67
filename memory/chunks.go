package memory

import "sync"

// chunks is where the messages of a queue are stored while there are many of them:
// several in one piece of memory, that's used again when they're all gone. What
// the garbage collector has to find its way to, and to sweep, are a few chunks
// then instead of thousands of bodies, each far from the next one.
//
// A chunk lives as long as one of its messages. So that those who stay for long
// don't keep the memory of all those who were published beside them, they are
// stored alone: what's delayed, what waits for its key, and what's given back (see
// payload.moveOut). Held back by a lease is what's with consumers, and in the end a
// message whose lease has expired, as its holder may still read it.
type chunks struct {
	pool *chunkPool

	mu  sync.Mutex
	cur *chunk // has room
}

// A chunk is filled from its beginning. Everything but the bytes is guarded by the
// mutex of those who have it.
type chunk struct {
	live int32 // pieces that somebody may still read
	used int32
	buf  [chunkSize - 8]byte
}

const (
	chunkSize = 32 << 10
	// maxInChunk is the longest piece that's not stored alone: what's left at the end
	// of a chunk is wasted.
	maxInChunk = chunkSize / 8
	// manyMessages are so many that a chunk isn't much beside them.
	manyMessages = 16
)

// take returns n bytes, with whatever was in them; alone, without a chunk, where
// that's better, or c is nil.
func (c *chunks) take(n int) ([]byte, *chunk) {
	if c == nil || n > maxInChunk || n == 0 {
		return make([]byte, n), nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.cur
	if k == nil || int(k.used)+n > len(k.buf) {
		// The full one comes back when its last piece does.
		k = c.pool.get()
		c.cur = k
	}
	at := int(k.used)
	k.used += int32(n) //nolint:gosec // at most maxInChunk
	k.live++
	return k.buf[at : at+n : at+n], k
}

// reclaim takes back the memory of messages that are gone.
func (c *chunks) reclaim(ops []op) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range ops {
		if ops[i].Freed {
			c.endLocked(ops[i].Item.Payload.from)
		}
	}
}

// end takes back one piece of a chunk.
func (c *chunks) end(k *chunk) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(k)
}

func (c *chunks) endLocked(k *chunk) {
	if k == nil {
		return
	}
	if k.live--; k.live > 0 {
		return
	}
	if c.cur == k { // an idle queue has none
		c.cur = nil
	}
	c.pool.put(k)
}

// chunkPool has the chunks that are free, for all queues of a broker.
type chunkPool struct {
	mu   sync.Mutex
	free []*chunk
}

const maxFreeChunks = 4 << 20 / chunkSize

// get returns an empty chunk.
func (p *chunkPool) get() *chunk {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.free) - 1
	if last < 0 {
		return &chunk{}
	}
	k := p.free[last]
	p.free[last] = nil
	p.free = p.free[:last]
	return k
}

func (p *chunkPool) put(k *chunk) {
	k.used = 0
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) < maxFreeChunks {
		p.free = append(p.free, k)
	}
}
