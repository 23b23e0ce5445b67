package admin

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Store keeps operations, so that they can go on after a restart. Save replaces what it
// has of the same ID, and is durable when it returns. Load returns all that it has; what
// it can't read is an *UnreadableError, beside the others. Remove forgets an operation;
// one that isn't there is no error. Its methods may be called concurrently.
type Store interface {
	Save(ctx context.Context, op Operation) error
	Load(ctx context.Context) ([]Operation, error)
	Remove(ctx context.Context, id string) error
}

// SharedStore is a Store that several processes use at once. It's optional: with a Store
// that isn't one, an Admin takes what's under way for its own, or for interrupted.
type SharedStore interface {
	Store

	// Lock takes a name for this process until release, or until the process ends,
	// however it does; held says that somebody else has it, which isn't waited for. A
	// name is the ID of an operation, or "queue." and the name of a dead-letter queue.
	Lock(ctx context.Context, name string) (release func(), held bool, err error)

	// Ask leaves a request for whoever has an operation under way, in the place of an
	// earlier one.
	Ask(ctx context.Context, id string, r Request) error

	// Asked takes the request that was left, if there's one.
	Asked(ctx context.Context, id string) (r Request, ok bool, err error)
}

// Request is what somebody wants of an operation that another process has under way.
type Request struct {
	Status Status `json:"status"` // Paused or Canceled
	By
}

// UnreadableError says which operations a Store has, but can't read.
type UnreadableError struct{ Operations map[string]error } // by ID

// Error names all of them.
func (e *UnreadableError) Error() string {
	lines := make([]string, 0, len(e.Operations))
	for _, id := range slices.Sorted(maps.Keys(e.Operations)) {
		lines = append(lines, fmt.Sprintf("the operation %s can't be read: %v", id, e.Operations[id]))
	}
	return strings.Join(lines, "\n")
}

// nowhere is the Store of those who need none.
type nowhere struct{}

func (nowhere) Save(context.Context, Operation) error     { return nil }
func (nowhere) Load(context.Context) ([]Operation, error) { return nil, nil }
func (nowhere) Remove(context.Context, string) error      { return nil }
