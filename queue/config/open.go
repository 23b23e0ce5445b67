package config

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// Backends are the messaging systems that a program has, by the name that files
// give them. One that no queue uses isn't touched.
type Backends map[string]queue.Backend

// Options are the settings of OpenFile. Nil and the zero value are usable.
type Options struct {
	// Middleware wraps every handler, outside of what the file says. Default:
	// none.
	Middleware []queue.Middleware

	// PublisherMiddleware wraps what Bus.Publisher returns, outside of the file's
	// delay: a message whose time it sets has one of its own. It's applied once for
	// each queue, by the first Publish, when the queue is open, so that it can ask for
	// its Capabilities; a Publish whose queue can't be opened doesn't reach it. Dead
	// letters and redrives don't go through it, as they are what they were. Default:
	// none.
	PublisherMiddleware []queue.PublisherMiddleware

	// Only are patterns of path.Match (blast-*) for the queues that Run consumes, so that
	// one program can run any part of a file. One that matches no queue is refused.
	// Default: all that have a handler.
	Only []string

	// DrainTimeout is the most that a queue gets for draining, whatever the file says: all
	// drain at once, so that Run then ends within it and a few seconds. Give it what the
	// platform leaves a process before it's killed, less those. Default: what the file says.
	DrainTimeout time.Duration

	// Hooks are given to every consumer. Default: none.
	Hooks *queue.Hooks

	// Logger is given to backends and consumers, and gets a line when a consumer
	// stops and when it's tried again. Default: slog.Default().
	Logger *slog.Logger
}

// Open reads the file at path with the variables of the process's environment,
// and returns a Bus for it with the default Options. Nothing is connected yet:
// each queue is opened when it's first used. It fails with an *Error that lists
// everything that's wrong with the file.
//
// It reads a file and the environment; Parse and OpenFile do the same without. Else
// only backends do that make a client of their own (pubsub.NewBackend, awsclient).
func Open(ctx context.Context, path string, backends Backends) (*Bus, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("config: open %s: %w", path, err)
	}
	data, err := os.ReadFile(path) //nolint:gosec // the application says which file is its configuration
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	f, err := check(path, data, os.LookupEnv, backends) //nolint:forbidigo // what Open is for; Parse takes a function
	if err != nil {
		return nil, err
	}
	return OpenFile(f, backends, nil)
}

// Check tells whether Open would take a file: it's Parse and what OpenFile checks in
// one, so that its *Error has everything that's wrong, at once and in the order of the
// file. Nothing is connected.
func Check(name string, data []byte, lookup func(string) (string, bool), backends Backends) error {
	_, err := check(name, data, lookup, backends)
	return err
}

func check(name string, data []byte, lookup func(string) (string, bool), backends Backends) (*File, error) {
	f, problems := parse(name, data, lookup)
	if err := newError(slices.Concat(problems, f.checkBackends(backends))); err != nil {
		return nil, err
	}
	return f, nil
}
