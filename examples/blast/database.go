package main

import (
	"context"
	"fmt"
	"time"

	"github.com/anyqueue/anyqueue/examples/internal/database"
)

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
type SendLog struct{ db database.Database }

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
