package database

import (
	"context"
	"time"

	"github.com/anyqueue/anyqueue/middleware"
)

// Repeats is a middleware.IdempotencyStore in a Database: what one process has
// handled, or is at, all of them know. A key holds the token of who has it in
// progress, or "done". It may be used concurrently.
type Repeats struct{ DB Database }

const handled = "done"

// Begin implements middleware.IdempotencyStore.
func (s Repeats) Begin(ctx context.Context, key, token string, ttl time.Duration) (middleware.Mark, error) {
	key = "repeat/" + key
	was, err := s.DB.Swap(ctx, key, "", token, ttl)
	switch {
	case err != nil:
		return 0, err
	case was == "":
		return middleware.MarkStarted, nil
	case was == handled:
		return middleware.MarkDone, nil
	case was != token:
		return middleware.MarkInProgress, nil
	}
	was, err = s.DB.Swap(ctx, key, token, token, ttl) // ours: its time begins anew
	switch {
	case err != nil:
		return 0, err
	case was == token:
		return middleware.MarkStarted, nil
	case was == handled:
		return middleware.MarkDone, nil
	}
	return middleware.MarkInProgress, nil
}

// Done implements middleware.IdempotencyStore.
func (s Repeats) Done(ctx context.Context, key string, ttl time.Duration) error {
	return s.DB.Put(ctx, "repeat/"+key, handled, ttl)
}

// Release implements middleware.IdempotencyStore.
func (s Repeats) Release(ctx context.Context, key, token string) error {
	_, err := s.DB.Swap(ctx, "repeat/"+key, token, "", 0)
	return err
}
