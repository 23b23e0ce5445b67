package queue

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"
)

// A Backend opens queues of one messaging system. It connects and needs
// credentials only when something is opened. It may be used concurrently.
type Backend interface {
	// System is the name of the messaging system: "aws_sqs", "gcp_pubsub" or
	// "memory".
	System() string

	// Open opens a queue by its portable name. A queue that doesn't exist is an
	// ErrQueueNotFound, never created. Nil options are the defaults.
	Open(ctx context.Context, name string, opts *OpenOptions) (Queue, error)
}

// OpenMode says what a queue is opened for, so that no permission is needed for
// what isn't done.
type OpenMode int

// The modes.
const (
	ForBoth    OpenMode = iota // publishing and consuming
	ForPublish                 // publishing only
	ForConsume                 // consuming only
)

// OpenOptions are the settings of Backend.Open that every backend understands.
// The zero value is usable.
type OpenOptions struct {
	Mode OpenMode

	// Ordered says that the queue keeps the order of messages with an
	// OrderingKey. On SQS the queue's name gets the suffix ".fifo".
	Ordered bool

	// Address overrides where the queue is: a URL, an ARN, a full resource name.
	Address string

	// Lease is how long a delivery is ours before it must be extended. Default:
	// what the queue says.
	Lease time.Duration

	// Logger gets the warnings of opening (assumed settings, short retention).
	// Default: slog.Default().
	Logger *slog.Logger
}

var portableName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{2,74}$`)

// CheckName fails with ErrInvalid when name isn't a portable queue name: 3 to
// 75 letters, digits, hyphens and underscores, beginning with a letter and not
// with "goog".
func CheckName(name string) error {
	if !portableName.MatchString(name) {
		return &InvalidError{Field: "queue name", Reason: fmt.Sprintf("%q isn't 3 to 75 letters, digits, - and _, beginning with a letter", name)}
	}
	if strings.HasPrefix(strings.ToLower(name), "goog") {
		return &InvalidError{Field: "queue name", Reason: fmt.Sprintf("%q begins with goog, which is reserved by Google", name)}
	}
	return nil
}
