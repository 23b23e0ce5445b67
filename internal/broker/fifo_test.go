package broker

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func seqs(f *fifo[int]) []uint64 {
	var got []uint64
	for it := range f.all {
		got = append(got, it.seq)
	}
	return got
}

func TestFifoGivesWhatItGotInOrder(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	var f fifo[int]
	var model []uint64
	for step := range uint64(20_000) {
		// Now longer, now shorter, and empty again and again.
		if more := 45 + int(step/500%2)*10; rnd.IntN(100) < more {
			f.push(&item{seq: step})
			model = append(model, step)
		} else if len(model) == 0 {
			require.Nil(t, f.pop())
		} else {
			require.Equal(t, model[0], f.pop().seq)
			model = model[1:]
		}
		require.Equal(t, len(model), f.n)
		if len(model) == 0 {
			require.Nil(t, f.first())
		} else {
			require.Equal(t, model[0], f.first().seq)
		}
		if step%100 == 0 {
			require.True(t, slices.Equal(model, seqs(&f)))
		}
	}
}

func TestFifoFilterKeepsTheRestInOrder(t *testing.T) {
	t.Parallel()
	var f fifo[int]
	var want []uint64
	for i := range uint64(1000) {
		f.push(&item{seq: i})
		if i%3 == 0 {
			want = append(want, i)
		}
	}
	for range 100 { // from within a block
		f.pop()
	}
	f.filter(func(it *item) bool { return it.seq%3 == 0 })
	assert.Equal(t, want[34:], seqs(&f))
	f.filter(func(*item) bool { return false })
	assert.Zero(t, f.n)
	assert.Nil(t, f.first())
	f.push(&item{seq: 7})
	assert.Equal(t, []uint64{7}, seqs(&f))
}

func TestFifoHoldsNothingThatHasLeft(t *testing.T) {
	t.Parallel()
	var f fifo[int]
	for i := range uint64(1000) {
		f.push(&item{seq: i})
	}
	for range 999 {
		f.pop()
	}
	blocks, held := 0, 0
	for _, b := range []*block[int]{f.head, f.spare} {
		for ; b != nil; b = b.next {
			blocks++
			for _, it := range b.items {
				if it != nil {
					held++
				}
			}
		}
	}
	assert.Equal(t, 1, held)
	assert.LessOrEqual(t, blocks, 2)
}

func TestFifoStopsWhereItsReaderDoes(t *testing.T) {
	t.Parallel()
	var f fifo[int]
	for i := range uint64(10) {
		f.push(&item{seq: i})
	}
	n := 0
	for range f.all {
		if n++; n == 3 {
			break
		}
	}
	assert.Equal(t, 3, n)
}
