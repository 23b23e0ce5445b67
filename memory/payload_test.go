package memory

import (
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"

	"github.com/anyqueue/anyqueue/internal/broker"
)

func TestStoredMessageStaysInItsSizeClass(t *testing.T) {
	t.Parallel()
	assert.LessOrEqual(t, unsafe.Sizeof(broker.Item[payload]{}), uintptr(144), "there may be millions of them")
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

func TestAttributesOfAnyLengthAreUnpackedAsTheyWere(t *testing.T) {
	t.Parallel()
	long := func(n int) string { return strings.Repeat("x", n) }
	for _, attrs := range []map[string]string{
		nil,
		{"a": "b"},
		{"": ""},
		{"kind": "order", "tenant": "acme", "trace": long(64)},
		{long(127): long(128), long(129): long(127), "c": long(16383)},
		{"a": long(16384), "b": long(1 << 21), long(300): "c"},
		{"a": long(100), "b": long(100), "c": long(100), "d": "e"},
	} {
		for _, body := range [][]byte{nil, {}, []byte("hello")} {
			var p payload
			size := len(body)
			for k, v := range attrs {
				size += len(k) + len(v)
			}
			assert.Equal(t, size, p.keepMap(body, attrs, nil))
			for range 2 {
				b, a := p.content()
				assert.Equal(t, body, b)
				assert.Equal(t, attrs, a)
				if len(b) > 0 {
					b[0] = 'x' // it's a copy
				}
			}
		}
	}
}
