package database_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/examples/internal/database"
	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
	"github.com/anyqueue/anyqueue/middleware"
)

func TestDatabaseSwapsInOneStep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db, ctx := database.NewMemory(nil), t.Context()
		swap := func(old, next string, ttl time.Duration) string {
			was, err := db.Swap(ctx, "k", old, next, ttl)
			require.NoError(t, err)
			return was
		}
		assert.Empty(t, swap("", "a", time.Minute))
		assert.Equal(t, "a", swap("", "b", 0), "taken")
		assert.Equal(t, "a", swap("x", "b", 0), "not what it was")
		assert.Equal(t, "a", swap("a", "a", 2*time.Minute), "lives longer")
		time.Sleep(90 * time.Second)
		assert.Equal(t, "a", swap("", "b", 0))
		time.Sleep(time.Minute)
		assert.Empty(t, swap("", "c", 0), "has run out")
		require.NoError(t, db.Put(ctx, "k", "d", 0))
		assert.Equal(t, "d", swap("d", "", 0))
		assert.Empty(t, swap("", "", 0), "removed")
	})
}

// Both databases, the one in this process and the one that's reached over HTTP,
// keep the promises of middleware.IdempotencyStore.
func TestRepeatsAreRemembered(t *testing.T) {
	t.Parallel()
	for name, choose := range map[string]func(*database.Memory) database.Database{
		"in the process": func(m *database.Memory) database.Database { return m },
		"over HTTP": func(m *database.Memory) database.Database {
			return &database.Client{URL: "http://db", HTTP: &http.Client{Transport: thirdparty.Network{"db": m.Handler()}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store, ctx := database.Repeats{DB: choose(database.NewMemory(nil))}, t.Context()
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

func TestTheOwnerSeesEachChange(t *testing.T) {
	t.Parallel()
	var seen []string
	db := database.NewMemory(func(key, value string) { seen = append(seen, key+"="+value) })
	_, err := db.Swap(t.Context(), "k", "", "a", 0)
	require.NoError(t, err)
	_, err = db.Swap(t.Context(), "k", "", "b", 0)
	require.NoError(t, err)
	require.NoError(t, db.Put(t.Context(), "k", "c", 0))
	assert.Equal(t, []string{"k=a", "k=c"}, seen, "what changes nothing isn't told")
}

func TestADatabaseThatFailsSaysSo(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		answer http.Handler
		want   string
	}{
		"it's down":         {thirdparty.Status(503, `{"message":"try later"}`), "try later"},
		"it's another":      {thirdparty.Status(200, `hello`), "200"},
		"it hangs up":       {http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), "unexpected EOF"},
		"nothing was asked": {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }), "404"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := &database.Client{URL: "http://db", HTTP: &http.Client{Transport: thirdparty.Network{"db": tc.answer}}}
			_, err := db.Swap(t.Context(), "k", "", "a", 0)
			require.ErrorContains(t, err, tc.want)
			require.ErrorContains(t, db.Put(t.Context(), "k", "a", 0), tc.want)
		})
	}
}

func TestADatabaseStopsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	db := database.NewMemory(nil)
	_, err := db.Swap(ctx, "k", "", "a", 0)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, db.Put(ctx, "k", "a", 0), context.Canceled)
	was, err := db.Swap(t.Context(), "k", "", "", 0)
	require.NoError(t, err)
	assert.Empty(t, was)
}
