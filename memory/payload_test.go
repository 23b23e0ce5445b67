package memory

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"

	"github.com/anyqueue/anyqueue/internal/broker"
)

func TestStoredMessageStaysInItsSizeClass(t *testing.T) {
	t.Parallel()
	assert.LessOrEqual(t, unsafe.Sizeof(broker.Item[payload]{}), uintptr(224), "there may be millions of them")
}

func TestIDsAreRenderedInAnyOrder(t *testing.T) {
	t.Parallel()
	g := ids{prefix: randomPrefix(12345)}
	seen := map[string]uint64{}
	for _, seq := range []uint64{1, 2, 63, 64, 65, 1000, 3, 64, 1 << 47, 999} {
		id := g.of(seq)
		assert.Len(t, id, idLength)
		if other, ok := seen[id]; ok {
			assert.Equal(t, seq, other)
		}
		seen[id] = seq
		assert.Equal(t, id, g.of(seq), "the same id each time")
	}
	assert.Len(t, seen, 9)
	assert.Equal(t, string(g.prefix[:])+"-0000000003e8", g.of(1000))
}

func TestBodiesAreBounded(t *testing.T) {
	t.Parallel()
	var p bodies
	reclaim := func(n int) {
		it := &broker.Item[payload]{}
		it.Payload.body = make([]byte, n)
		p.reclaim([]op{{Item: it, Freed: true}})
	}
	for range 10_000 {
		reclaim(1024)
	}
	assert.LessOrEqual(t, p.bytes, maxFreeBodies)
	before := p.bytes
	got := p.copyOf(make([]byte, 1024))
	assert.Len(t, got, 1024)
	assert.Equal(t, before-1024, p.bytes, "taken from there")
	reclaim(0)
	reclaim(1 << 20)
	assert.Equal(t, before-1024, p.bytes, "neither nothing nor too much is kept")

	assert.Nil(t, p.copyOf(nil))
	assert.Equal(t, []byte{}, p.copyOf([]byte{}))
	b := p.copyOf([]byte("hello"))
	assert.Equal(t, "hello", string(b))
	p.reclaim([]op{{Item: &broker.Item[payload]{Payload: payload{body: b}}, Freed: false}})
	assert.NotSame(t, &b[0], &p.copyOf([]byte("world"))[0], "what isn't free isn't used")
}
