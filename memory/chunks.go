package memory

import (
	"sync"
	"sync/atomic"
)

// chunks is where the messages of a queue are stored while there are many of them:
// several in one piece of memory, that's used again when they're all gone. What
// the garbage collector has to find its way to, and to sweep, are a few chunks
// then instead of thousands of bodies, each far from the next one.
//
// A chunk lives as long as one of its messages. So that those who stay for long
// don't keep the memory of all those who were published beside them, they are
// stored alone: what's delayed, what waits for its key, and whatever comes back
// (payload.moveOut). Only what's with a consumer for long keeps its chunk meanwhile,
// and what was peeked at until it's delivered.
type chunks struct {
	pool *chunkPool
	many atomic.Bool // so much is in the queue that chunks are worth while

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
	// muchStored is so much that a chunk isn't much beside it.
	muchStored = 4 * chunkSize
)

// take returns n bytes, with whatever was in them; alone, without a chunk, where
// that's better, or c is nil.
func (c *chunks) take(n int) ([]byte, *chunk) {
	if c == nil || n > maxInChunk || n == 0 || !c.many.Load() {
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

// stored says how much is in the queue now.
func (c *chunks) stored(bytes int64) {
	switch {
	case bytes < muchStored:
		c.leave()
	case !c.many.Load():
		c.many.Store(true)
	}
}

// leave is for a queue with little in it, or nothing: its chunk is then only that of
// the messages in it, and of who may still read them.
func (c *chunks) leave() {
	if !c.many.Load() {
		return
	}
	c.many.Store(false)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cur = nil
}

// reclaim takes back the memory of messages that are gone.
func (c *chunks) reclaim(ops []op) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range ops {
		if ops[i].Freed {
			p := &ops[i].Item.Payload
			c.endLocked(p.from)
			p.forget() // a delivery that somebody keeps mustn't show what's there next
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
	if c.cur == k {
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
