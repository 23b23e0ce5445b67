package main

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/middleware"
)

// Both databases, the one in this process and the one that's reached over HTTP,
// keep the promises of middleware.IdempotencyStore.
func TestRepeatsAreRemembered(t *testing.T) {
	t.Parallel()
	for name, choose := range map[string]func(w *world) Database{
		"in the process": func(w *world) Database { return w.fakes.Database },
		"over HTTP":      func(w *world) Database { return w.services.db },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store, ctx := repeats{choose(newWorld(t))}, t.Context()
				begin := func(token string) middleware.Mark {
					m, err := store.Begin(ctx, "k", token, time.Minute)
					require.NoError(t, err)
					return m
				}
				assert.Equal(t, middleware.MarkStarted, begin("a"))
				assert.Equal(t, middleware.MarkInProgress, begin("b"))
				time.Sleep(50 * time.Second)
				assert.Equal(t, middleware.MarkStarted, begin("a"), "renewed")
				time.Sleep(50 * time.Second)
				assert.Equal(t, middleware.MarkInProgress, begin("b"))
				require.NoError(t, store.Release(ctx, "k", "b"))
				assert.Equal(t, middleware.MarkInProgress, begin("b"), "it wasn't theirs to release")
				require.NoError(t, store.Release(ctx, "k", "a"))
				assert.Equal(t, middleware.MarkStarted, begin("b"))
				time.Sleep(61 * time.Second)
				assert.Equal(t, middleware.MarkStarted, begin("c"), "b's mark has run out")
				require.NoError(t, store.Done(ctx, "k", time.Hour))
				assert.Equal(t, middleware.MarkDone, begin("b"))
				require.NoError(t, store.Release(ctx, "k", "c"))
				assert.Equal(t, middleware.MarkDone, begin("c"))
				time.Sleep(61 * time.Minute)
				assert.Equal(t, middleware.MarkStarted, begin("b"), "forgotten")
			})
		})
	}
}
