package broker

import (
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type item = Item[int]

func TestListInsertKeepsTheOrderOfSending(t *testing.T) {
	t.Parallel()
	for range 50 {
		var l list[int]
		for _, seq := range rand.Perm(20) {
			l.insert(&item{seq: uint64(seq)})
		}
		require.Equal(t, 20, l.n)
		for want := range 20 {
			assert.EqualValues(t, want, l.pop().seq)
		}
		assert.Nil(t, l.pop())
		assert.Nil(t, l.tail)
	}
}

func TestRingGivesTheEarliestWhereverItemsLeave(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	var r ring[int]
	var model []*item
	at := Instant(0)
	for step := range 20_000 {
		if rnd.IntN(100) < 52 || len(model) == 0 {
			at += Instant(rnd.IntN(3))
			it := &item{at: at, seq: uint64(step)}
			require.True(t, r.fits(at))
			r.push(it)
			model = append(model, it)
		} else {
			i := rnd.IntN(len(model))
			if rnd.IntN(3) == 0 {
				i = 0
			}
			r.remove(model[i])
			model = slices.Delete(model, i, i+1)
		}
		require.Equal(t, len(model), r.live)
		if len(model) == 0 {
			require.Nil(t, r.first())
		} else {
			require.Same(t, model[0], r.first())
		}
	}
	assert.LessOrEqual(t, len(r.buf), 4096, "the ring grows with what it holds, not with what has passed through")
}

func TestRingStaysSmallBehindOneLongLease(t *testing.T) {
	t.Parallel()
	var r ring[int]
	r.push(&item{at: 1})
	for i := range 100_000 {
		it := &item{at: Instant(i + 2)}
		r.push(it)
		r.remove(it)
	}
	assert.LessOrEqual(t, len(r.buf), 64)
	assert.EqualValues(t, 1, r.first().at)
}

func TestRingRefusesAnEarlierEnd(t *testing.T) {
	t.Parallel()
	var r ring[int]
	assert.True(t, r.fits(-5), "an empty ring takes anything")
	r.push(&item{at: 10})
	assert.False(t, r.fits(9))
	assert.True(t, r.fits(10))
}

func TestHeapGivesTheEarliestAndThenTheFirstSent(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(3, 4))
	var h heap[int]
	var model []*item
	for step := range 5_000 {
		if rnd.IntN(100) < 55 || len(model) == 0 {
			it := &item{at: Instant(rnd.IntN(50)), seq: uint64(step)}
			h.push(it)
			model = append(model, it)
		} else {
			i := rnd.IntN(len(model))
			h.remove(model[i])
			model = slices.Delete(model, i, i+1)
		}
		require.Len(t, h, len(model))
		if len(model) == 0 {
			continue
		}
		want := slices.MinFunc(model, func(a, b *item) int {
			if a.at != b.at {
				return int(a.at - b.at)
			}
			return int(a.seq) - int(b.seq)
		})
		require.Same(t, want, h.first())
	}
}

func TestItemStaysSmall(t *testing.T) {
	t.Parallel()
	assert.LessOrEqual(t, unsafe.Sizeof(Item[struct{}]{}), uintptr(80), "there may be millions")
}
