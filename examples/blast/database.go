package main

import (
	"context"
	"fmt"
	"time"

	"github.com/anyqueue/anyqueue/middleware"
)

// A Database is what the program needs of its own database: two statements,
// each atomic. "" stands for no value.
type Database interface {
	// Swap replaces the value of a key if it's still old, and returns what it was.
	Swap(ctx context.Context, key, old, next string, ttl time.Duration) (was string, err error)
	Put(ctx context.Context, key, value string, ttl time.Duration) error
}

// What a SendLog says about a mail.
const (
	sendNothing = ""         // not sent
	sendBegun   = "begun"    // about to be sent: after a crash nobody knows whether it was
	sendDone    = "done"     // the mail API has it
	sendInDoubt = "in_doubt" // held, for people to decide
)

// keepSends is longer than any message may come again.
const keepSends = 30 * 24 * time.Hour

// A SendLog remembers for each mail how far its sending got. It's what keeps a
// mail from being sent twice when the program dies between sending and
// acknowledging: the mail API, as most, has no idempotency key.
type SendLog struct{ db Database }

// Begin writes down that the mail is about to be sent, unless something was
// written before, and returns what that was.
func (l *SendLog) Begin(ctx context.Context, mail string) (earlier string, err error) {
	earlier, err = l.db.Swap(ctx, "mail/"+mail, sendNothing, sendBegun, keepSends)
	if err != nil {
		return "", fmt.Errorf("send log: %w", err)
	}
	return earlier, nil
}

// End writes down what became of it.
func (l *SendLog) End(ctx context.Context, mail, state string) error {
	if err := l.db.Put(ctx, "mail/"+mail, state, keepSends); err != nil {
		return fmt.Errorf("send log: %w", err)
	}
	return nil
}

// repeats is a middleware.IdempotencyStore in the program's database: a key
// holds the token of who has it in progress, or "done".
type repeats struct{ db Database }

const handled = "done"

func (s repeats) Begin(ctx context.Context, key, token string, ttl time.Duration) (middleware.Mark, error) {
	key = "repeat/" + key
	was, err := s.db.Swap(ctx, key, "", token, ttl)
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
	was, err = s.db.Swap(ctx, key, token, token, ttl) // ours: its time begins anew
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

func (s repeats) Done(ctx context.Context, key string, ttl time.Duration) error {
	return s.db.Put(ctx, "repeat/"+key, handled, ttl)
}

func (s repeats) Release(ctx context.Context, key, token string) error {
	_, err := s.db.Swap(ctx, "repeat/"+key, token, "", 0)
	return err
}
