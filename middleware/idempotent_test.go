package middleware_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
)

var errStore = errors.New("connection refused")

// faultyStore is a MemoryStore whose calls fail as told.
type faultyStore struct {
	*middleware.MemoryStore
	mu                   sync.Mutex
	begin, done, release int // how many of the next calls fail
	calls                []string
}

func newStore() *faultyStore { return &faultyStore{MemoryStore: middleware.NewMemoryStore(0)} }

func (s *faultyStore) fail(name string, n *int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, name)
	if *n > 0 {
		*n--
		return errStore
	}
	return nil
}

func (s *faultyStore) set(n *int, v int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*n = v
}

func (s *faultyStore) Begin(ctx context.Context, key, token string, ttl time.Duration) (middleware.Mark, error) {
	if err := s.fail("begin", &s.begin); err != nil {
		return 0, err
	}
	return s.MemoryStore.Begin(ctx, key, token, ttl)
}

func (s *faultyStore) Done(ctx context.Context, key string, ttl time.Duration) error {
	if err := s.fail("done", &s.done); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.MemoryStore.Done(ctx, key, ttl)
}

func (s *faultyStore) Release(ctx context.Context, key, token string) error {
	if err := s.fail("release", &s.release); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.MemoryStore.Release(ctx, key, token)
}

func TestIdempotentSkipsARepeatOfASuccess(t *testing.T) {
	t.Parallel()
	calls := 0
	h := queue.Chain(func(_ context.Context, d *queue.Delivery) error {
		calls++
		d.ID, d.Source.Name = "changed by the handler", "too"
		return nil
	}, middleware.Idempotent(middleware.NewMemoryStore(0), middleware.IdempotentOptions{}))
	for range 3 {
		require.NoError(t, h(t.Context(), delivery("a", 0)))
	}
	assert.Equal(t, 1, calls)
	require.NoError(t, h(t.Context(), delivery("b", 0)))
	assert.Equal(t, 2, calls)
	forwarded := delivery("a", 0)
	forwarded.Source.Name = "invoices"
	require.NoError(t, h(t.Context(), forwarded))
	assert.Equal(t, 3, calls, "a message that went on to another queue keeps its ID and isn't a repeat there")
}

func TestIdempotentRemembersOnlySuccess(t *testing.T) {
	t.Parallel()
	for name, result := range map[string]error{
		"failure":       errDown,
		"retry after":   queue.RetryAfter(time.Hour, errDown),
		"reject":        queue.Reject(errDown),
		"drop":          queue.Drop(errDown),
		"snooze":        queue.Snooze(time.Hour),
		"dead-lettered": queue.WithDeadLettered("dlq", errDown),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newStore()
			results := []error{result, nil, nil}
			calls := 0
			h := queue.Chain(func(context.Context, *queue.Delivery) error {
				calls++
				return results[calls-1]
			}, middleware.Idempotent(store, middleware.IdempotentOptions{}))
			assert.Equal(t, result, h(t.Context(), delivery("a", 0)))
			assert.Zero(t, store.Len(), "the key isn't free for the next attempt")
			require.NoError(t, h(t.Context(), delivery("a", 1)))
			require.NoError(t, h(t.Context(), delivery("a", 1)))
			assert.Equal(t, 2, calls)
		})
	}
}

func TestIdempotentFreesTheKeyAfterAPanic(t *testing.T) {
	t.Parallel()
	store := newStore()
	h := queue.Chain(panics, middleware.Idempotent(store, middleware.IdempotentOptions{}))
	var pe *queue.PanicError
	require.ErrorAs(t, h(t.Context(), delivery("a", 0)), &pe)
	assert.Zero(t, store.Len())
}

func TestIdempotentFreesTheKeyAfterAGoexit(t *testing.T) {
	t.Parallel()
	store := newStore()
	h := queue.Chain(func(context.Context, *queue.Delivery) error { runtime.Goexit(); return nil },
		middleware.Idempotent(store, middleware.IdempotentOptions{}))
	var wg sync.WaitGroup
	wg.Go(func() { _ = h(t.Context(), delivery("a", 0)) })
	wg.Wait()
	assert.Zero(t, store.Len())
}

func TestIdempotentFreesTheKeyAfterAShutdown(t *testing.T) {
	t.Parallel()
	store := newStore()
	ctx, cancel := context.WithCancelCause(t.Context())
	h := queue.Chain(func(ctx context.Context, _ *queue.Delivery) error {
		cancel(queue.ErrDraining)
		<-ctx.Done()
		return ctx.Err()
	}, middleware.Idempotent(store, middleware.IdempotentOptions{}))
	assert.True(t, queue.Interrupted(ctx, h(ctx, delivery("a", 0))))
	assert.Zero(t, store.Len())
}

func TestIdempotentRemembersASuccessAfterAShutdown(t *testing.T) {
	t.Parallel()
	store := newStore()
	ctx, cancel := context.WithCancelCause(t.Context())
	calls := 0
	h := queue.Chain(func(context.Context, *queue.Delivery) error {
		calls++
		cancel(queue.ErrDraining)
		return nil
	}, middleware.Idempotent(store, middleware.IdempotentOptions{}))
	require.NoError(t, h(ctx, delivery("a", 0)))
	require.NoError(t, h(t.Context(), delivery("a", 0)))
	assert.Equal(t, 1, calls)
}

func TestIdempotentMakesARepeatWaitWhileTheFirstIsRunning(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := middleware.NewMemoryStore(0)
		calls := 0
		h := queue.Chain(func(context.Context, *queue.Delivery) error {
			calls++
			time.Sleep(10 * time.Minute) // ten times longer than a mark lasts
			return nil
		}, middleware.Idempotent(store, middleware.IdempotentOptions{AskAgain: 7 * time.Second}))
		go func() { assert.NoError(t, h(t.Context(), delivery("a", 0))) }()
		synctest.Wait()
		for range 9 {
			err := h(t.Context(), delivery("a", 0))
			require.Equal(t, queue.Outcome{Kind: queue.Snoozed, Delay: 7 * time.Second}, queue.OutcomeOf(err))
			time.Sleep(time.Minute)
		}
		time.Sleep(time.Minute + 1)
		require.NoError(t, h(t.Context(), delivery("a", 0)))
		assert.Equal(t, 1, calls)
	})
}

func TestIdempotentRunsAgainAfterACrash(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := middleware.NewMemoryStore(0)
		mark, err := store.Begin(t.Context(), "orders/a", "a process that dies", time.Minute)
		require.NoError(t, err)
		require.Equal(t, middleware.MarkStarted, mark)
		calls := 0
		h := queue.Chain(func(context.Context, *queue.Delivery) error { calls++; return nil },
			middleware.Idempotent(store, middleware.IdempotentOptions{}))
		assert.Equal(t, queue.Snoozed, queue.OutcomeOf(h(t.Context(), delivery("a", 0))).Kind)
		time.Sleep(time.Minute)
		require.NoError(t, h(t.Context(), delivery("a", 0)))
		assert.Equal(t, 1, calls)
	})
}

func TestIdempotentForgetsAfterItsTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		h := queue.Chain(func(context.Context, *queue.Delivery) error { calls++; return nil },
			middleware.Idempotent(middleware.NewMemoryStore(0), middleware.IdempotentOptions{Remember: time.Hour}))
		require.NoError(t, h(t.Context(), delivery("a", 0)))
		time.Sleep(time.Hour - 1)
		require.NoError(t, h(t.Context(), delivery("a", 0)))
		assert.Equal(t, 1, calls)
		time.Sleep(time.Nanosecond)
		require.NoError(t, h(t.Context(), delivery("a", 0)))
		assert.Equal(t, 2, calls)
	})
}

func TestIdempotentNeverRunsUnguarded(t *testing.T) {
	t.Parallel()
	called := false
	h := func(context.Context, *queue.Delivery) error { called = true; return nil }
	store := newStore()
	store.begin = 1
	err := queue.Chain(h, middleware.Idempotent(store, middleware.IdempotentOptions{}))(t.Context(), delivery("a", 0))
	require.ErrorIs(t, err, errStore)
	assert.Equal(t, queue.Failed, queue.OutcomeOf(err).Kind)

	err = queue.Chain(h, middleware.Idempotent(store, middleware.IdempotentOptions{}))(t.Context(), delivery("", 0))
	require.ErrorIs(t, err, queue.ErrInvalid, "a delivery without an id")
	assert.False(t, called)
}

func TestIdempotentAcknowledgesASuccessThatCannotBeRemembered(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ failing, wantTries, wantLines int }{{1, 2, 1}, {2, 3, 2}, {99, 3, 3}} {
		t.Run(fmt.Sprint(tc.failing), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newStore()
				store.done = tc.failing
				var log bytes.Buffer
				h := queue.Chain(ok, middleware.Idempotent(store, middleware.IdempotentOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))}))
				require.NoError(t, h(t.Context(), delivery("a", 0)), "it would be handled twice for certain")
				tries := 0
				for _, c := range store.calls {
					if c == "done" {
						tries++
					}
				}
				assert.Equal(t, tc.wantTries, tries)
				assert.Equal(t, tc.wantLines, bytes.Count(log.Bytes(), []byte(`msg=idempotency_store op=done id=a key=orders/a err="connection refused"`)))
			})
		})
	}
}

func TestIdempotentKeepsTheResultWhenTheKeyCannotBeFreed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newStore()
		store.release = 1
		var log bytes.Buffer
		h := bind(t, middleware.Idempotent(store, middleware.IdempotentOptions{}), queue.ConsumerInfo{
			Name: "orders", Logger: slog.New(slog.NewTextHandler(&log, nil)),
		}).Wrap(fails)
		assert.Equal(t, errDown, h(t.Context(), delivery("a", 0)))
		assert.Contains(t, log.String(), "op=release")
		assert.Equal(t, queue.Snoozed, queue.OutcomeOf(h(t.Context(), delivery("a", 1))).Kind)
		time.Sleep(time.Minute)
		assert.Equal(t, errDown, h(t.Context(), delivery("a", 1)), "the mark has run out")
	})
}

func TestIdempotentKeepsTheMarkWhileTheStoreComesAndGoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newStore()
		h := queue.Chain(func(ctx context.Context, _ *queue.Delivery) error {
			store.set(&store.begin, 2) // 20 s and 30 s after the start
			time.Sleep(65 * time.Second)
			require.NoError(t, ctx.Err(), "a renewal that fails for a moment ends the handler")
			mark, err := store.MemoryStore.Begin(ctx, "orders/a", "another", time.Minute)
			require.NoError(t, err)
			assert.Equal(t, middleware.MarkInProgress, mark)
			return nil
		}, middleware.Idempotent(store, middleware.IdempotentOptions{Logger: quiet()}))
		require.NoError(t, h(t.Context(), delivery("a", 0)))
	})
}

func TestIdempotentThatLostItsKeyLeavesTheNewHolderAlone(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		result   func(ctx context.Context) error
		wantKind queue.OutcomeKind
		wantMark middleware.Mark
	}{
		"fails":             {context.Cause, queue.Snoozed, middleware.MarkInProgress},
		"rejects":           {func(context.Context) error { return queue.Reject(errDown) }, queue.Rejected, middleware.MarkInProgress},
		"succeeds all same": {func(context.Context) error { return nil }, queue.Success, middleware.MarkDone},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newStore()
				h := queue.Chain(func(ctx context.Context, _ *queue.Delivery) error {
					// The process was frozen for so long that its mark ran out.
					require.NoError(t, store.Done(ctx, "orders/a", 1))
					time.Sleep(time.Nanosecond)
					mark, err := store.MemoryStore.Begin(ctx, "orders/a", "another", time.Hour)
					require.NoError(t, err)
					assert.Equal(t, middleware.MarkStarted, mark)
					<-ctx.Done()
					require.ErrorIs(t, context.Cause(ctx), middleware.ErrMarkLost)
					return tc.result(ctx)
				}, middleware.Idempotent(store, middleware.IdempotentOptions{}))
				err := h(t.Context(), delivery("a", 0))
				assert.Equal(t, tc.wantKind, queue.OutcomeOf(err).Kind)
				mark, err := store.MemoryStore.Begin(t.Context(), "orders/a", "a third", time.Hour)
				require.NoError(t, err)
				assert.Equal(t, tc.wantMark, mark)
			})
		})
	}
}

func TestIdempotentEndsARenewalThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &hangingStore{MemoryStore: middleware.NewMemoryStore(0)}
		h := queue.Chain(func(context.Context, *queue.Delivery) error {
			time.Sleep(21 * time.Second) // the renewal began a second ago
			return nil
		}, middleware.Idempotent(store, middleware.IdempotentOptions{StoreTimeout: time.Hour}))
		start := time.Now()
		require.NoError(t, h(t.Context(), delivery("a", 0)))
		assert.Equal(t, 21*time.Second, time.Since(start))
	})
}

// hangingStore answers the first Begin only.
type hangingStore struct {
	*middleware.MemoryStore
	begun bool
}

func (s *hangingStore) Begin(ctx context.Context, key, token string, ttl time.Duration) (middleware.Mark, error) {
	if s.begun {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	s.begun = true
	return s.MemoryStore.Begin(ctx, key, token, ttl)
}

func TestIdempotentByAKeyOfOnesOwn(t *testing.T) {
	t.Parallel()
	calls := 0
	h := queue.Chain(func(context.Context, *queue.Delivery) error { calls++; return nil },
		middleware.Idempotent(middleware.NewMemoryStore(0), middleware.IdempotentOptions{Key: tenant}))
	require.NoError(t, h(t.Context(), of("x", "a")))
	require.NoError(t, h(t.Context(), of("x", "b")))
	assert.Equal(t, 1, calls)
	require.NoError(t, h(t.Context(), of("", "a")))
	require.NoError(t, h(t.Context(), of("", "b")))
	require.NoError(t, h(t.Context(), of("", "b")))
	assert.Equal(t, 3, calls, "without a key of its own a delivery has the default one")
}
