package middleware_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
)

func begin(t *testing.T, s *middleware.MemoryStore, key, token string, ttl time.Duration) middleware.Mark {
	t.Helper()
	m, err := s.Begin(t.Context(), key, token, ttl)
	require.NoError(t, err)
	return m
}

func TestMemoryStoreMarks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := middleware.NewMemoryStore(10)
		assert.Equal(t, middleware.MarkStarted, begin(t, s, "k", "one", time.Minute))
		assert.Equal(t, middleware.MarkInProgress, begin(t, s, "k", "two", time.Minute))
		time.Sleep(40 * time.Second)
		assert.Equal(t, middleware.MarkStarted, begin(t, s, "k", "one", time.Minute), "renewed")
		time.Sleep(40 * time.Second)
		assert.Equal(t, middleware.MarkInProgress, begin(t, s, "k", "two", time.Minute))
		time.Sleep(20 * time.Second)
		assert.Equal(t, middleware.MarkStarted, begin(t, s, "k", "two", time.Minute), "the mark of one has run out")
		require.NoError(t, s.Release(t.Context(), "k", "one"))
		assert.Equal(t, middleware.MarkInProgress, begin(t, s, "k", "three", time.Minute), "one came too late")
		require.NoError(t, s.Release(t.Context(), "k", "two"))
		assert.Equal(t, middleware.MarkStarted, begin(t, s, "k", "three", time.Minute))
		require.NoError(t, s.Done(t.Context(), "k", time.Hour))
		require.NoError(t, s.Release(t.Context(), "k", "three"))
		require.NoError(t, s.Release(t.Context(), "k", ""))
		assert.Equal(t, middleware.MarkDone, begin(t, s, "k", "three", time.Minute))
		assert.Equal(t, 1, s.Len())
		time.Sleep(time.Hour)
		assert.Equal(t, 0, s.Len())
		assert.Equal(t, middleware.MarkStarted, begin(t, s, "k", "four", time.Minute))
	})
}

func TestMemoryStoreIsBounded(t *testing.T) {
	t.Parallel()
	s := middleware.NewMemoryStore(3)
	for i := range 10 {
		require.NoError(t, s.Done(t.Context(), fmt.Sprint(i), time.Hour))
	}
	assert.Equal(t, 3, s.Len())
	assert.Equal(t, middleware.MarkDone, begin(t, s, "9", "x", time.Hour))
	assert.Equal(t, middleware.MarkStarted, begin(t, s, "0", "x", time.Hour), "the oldest was forgotten")
	begin(t, s, "1", "x", time.Hour)
	begin(t, s, "2", "x", time.Hour)
	_, err := s.Begin(t.Context(), "3", "x", time.Hour)
	require.ErrorIs(t, err, queue.ErrFull, "what is running may not be forgotten")
	require.ErrorIs(t, s.Done(t.Context(), "4", time.Hour), queue.ErrFull)
	require.NoError(t, s.Done(t.Context(), "1", time.Hour))
	assert.Equal(t, 3, s.Len())
}

func TestMemoryStoreMakesRoomByForgettingWhatHasRunOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := middleware.NewMemoryStore(2)
		begin(t, s, "a", "x", time.Second)
		begin(t, s, "b", "x", time.Second)
		time.Sleep(time.Second)
		assert.Equal(t, middleware.MarkStarted, begin(t, s, "c", "x", time.Second))
	})
}

func TestMemoryStoreLetsOneStart(t *testing.T) {
	t.Parallel()
	s := middleware.NewMemoryStore(0)
	var startedCount atomic.Int64
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if m, err := s.Begin(t.Context(), "k", fmt.Sprint(i), time.Hour); err == nil && m == middleware.MarkStarted {
				startedCount.Add(1)
			}
		})
	}
	wg.Wait()
	assert.Equal(t, int64(1), startedCount.Load())
}

func TestTheZeroMemoryStoreIsUsable(t *testing.T) {
	t.Parallel()
	var s middleware.MemoryStore
	mark, err := s.Begin(t.Context(), "key", "token", time.Minute)
	require.NoError(t, err)
	assert.Equal(t, middleware.MarkStarted, mark)
	require.NoError(t, s.Done(t.Context(), "key", time.Minute))
	mark, err = s.Begin(t.Context(), "key", "another", time.Minute)
	require.NoError(t, err)
	assert.Equal(t, middleware.MarkDone, mark)
	assert.Equal(t, 1, s.Len())
}
