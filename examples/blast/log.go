package main

import (
	"context"
	"io"
	"log/slog"
)

// newLogger logs to w what went wrong with the queues. What becomes of single
// deliveries is logged only when verbose: the timeline tells it by the thousand.
func newLogger(w io.Writer, verbose bool) *slog.Logger {
	if verbose {
		return slog.New(slog.NewTextHandler(w, nil))
	}
	return slog.New(notEach{slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn})})
}

// notEach leaves out the lines that consumers log about a delivery, and those
// of the circuit breaker.
type notEach struct{ slog.Handler }

func (h notEach) Handle(ctx context.Context, r slog.Record) error {
	switch r.Message {
	case "retry", "dead_letter", "circuit_breaker":
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

func (h notEach) WithAttrs(attrs []slog.Attr) slog.Handler {
	return notEach{h.Handler.WithAttrs(attrs)}
}
func (h notEach) WithGroup(name string) slog.Handler { return notEach{h.Handler.WithGroup(name)} }
