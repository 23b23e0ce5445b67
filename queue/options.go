package queue

import (
	"fmt"
	"log/slog"
	"time"
)

// ConsumerOptions are the settings of a Consumer. The zero value is usable.
type ConsumerOptions struct {
	// Name stands in log lines and errors. Default: the queue's name.
	Name string

	// Concurrency is the most handlers that run at once. Default 16; it can be
	// changed live with SetConcurrency. At most MaxConcurrency.
	Concurrency int

	// Middleware wraps the handler; the first is the outermost. Gates and
	// Binders must be given here rather than with Chain.
	Middleware []Middleware

	// Backoff is the delay of a delivery that failed and that neither the error
	// nor middleware gave one. Default: 1 s to 5 min.
	Backoff Backoff

	// DrainTimeout is how long running handlers may go on after Run's context
	// has ended, before their contexts are cancelled too. Default 20 s;
	// negative: cancelled at once.
	DrainTimeout time.Duration

	// ReceiveGrace is how long an open receive may go on after Run's context
	// has ended. A receive that's cut off may leave messages hidden until their
	// lease ends; where it can't (Capabilities.CancelSafe) it's cut off at once.
	// Default 1 s; negative: cut off at once.
	ReceiveGrace time.Duration

	// MaxExtension is how long a lease is kept for one handler, counted from
	// the receive, as far as the broker keeps it that long. A quarter of the lease's
	// usual length before it runs out, at most 5 s, the handler's context is cancelled;
	// the cause is context.DeadlineExceeded. A handler that returns in time has failed as any
	// other; one that doesn't has lost its lease, and what it returns isn't settled.
	// Default 1 h; a handler can ask for more with ExtendLease.
	MaxExtension time.Duration

	// HandlerTimeout cancels a handler's context that long after its start;
	// the cause is context.DeadlineExceeded. At most MaxExtension. Default: none.
	HandlerTimeout time.Duration

	// MaxHold is the most deliveries that wait, leased, for something other
	// than a free slot: a gate, their key, their due time. More are released.
	// Default 1,000.
	MaxHold int

	// Logger gets one line at the start, and one when something doesn't go its
	// usual way. Default: slog.Default().
	Logger *slog.Logger

	// Hooks are called as things happen. Default: none.
	Hooks *Hooks
}

// Defaults of ConsumerOptions.
const (
	DefaultConcurrency  = 16
	DefaultDrainTimeout = 20 * time.Second
	DefaultReceiveGrace = time.Second
	DefaultMaxExtension = time.Hour
	DefaultMaxHold      = 1000

	MaxConcurrency = 1_000_000 // largest Concurrency
)

// maxWait keeps sums of durations from overflowing.
const maxWait = 100 * 365 * 24 * time.Hour

// validate fills in the defaults and refuses what can't be meant.
func (o ConsumerOptions) validate() (ConsumerOptions, error) {
	switch {
	case o.Concurrency < 0:
		return o, &InvalidError{"Concurrency", fmt.Sprintf("%d is negative", o.Concurrency)}
	case o.Concurrency > MaxConcurrency:
		return o, &InvalidError{"Concurrency", fmt.Sprintf("%d is over %d", o.Concurrency, MaxConcurrency)}
	case o.MaxExtension < 0:
		return o, &InvalidError{"MaxExtension", "negative"}
	case o.HandlerTimeout < 0:
		return o, &InvalidError{"HandlerTimeout", "negative"}
	case o.MaxHold < 0:
		return o, &InvalidError{"MaxHold", "negative"}
	}
	if err := o.Backoff.Validate(); err != nil {
		return o, err
	}
	o.Backoff = o.Backoff.withDefaults()
	setDefault(&o.Concurrency, DefaultConcurrency)
	setDefault(&o.DrainTimeout, DefaultDrainTimeout)
	setDefault(&o.ReceiveGrace, DefaultReceiveGrace)
	setDefault(&o.MaxExtension, DefaultMaxExtension)
	setDefault(&o.MaxHold, DefaultMaxHold)
	if o.HandlerTimeout > o.MaxExtension {
		return o, &InvalidError{"HandlerTimeout", fmt.Sprintf("%v is over MaxExtension, %v, at which the lease ends", o.HandlerTimeout, o.MaxExtension)}
	}
	o.DrainTimeout = min(max(o.DrainTimeout, 0), maxWait)
	o.ReceiveGrace = min(max(o.ReceiveGrace, 0), maxWait)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o, nil
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// ConsumerInfo tells a Binder where it's used.
type ConsumerInfo struct {
	Name         string
	Capabilities Capabilities
	Concurrency  int
	Backoff      Backoff // with its defaults
	Logger       *slog.Logger
	// Stats is the consumer's, which isn't complete yet while it binds.
	Stats func() ConsumerStats
}

// GiveUp is a policy by which messages leave a queue for a dead-letter queue.
type GiveUp struct {
	To          string // the dead-letter queue
	MaxFailures int
	MaxAge      time.Duration
}

// ConsumerStats is the state of a Consumer at a time, and its counts since it
// was made.
type ConsumerStats struct {
	Name        string
	Running     bool // Run is under way
	Paused      bool
	Draining    bool
	Concurrency int // the limit
	InUse       int // handlers running
	Buffered    int // received, waiting for a slot
	Held        int // received, waiting for one of these:
	HeldByGate  int // a gate, such as a shared limit
	HeldByKey   int // an earlier message of their key
	HeldForTime int // their time, or the end of their key's backoff

	Received      uint64
	Succeeded     uint64
	Failed        uint64 // also RetryAfter
	Rejected      uint64 // without a dead-letter queue
	DeadLettered  uint64
	Dropped       uint64
	Snoozed       uint64
	Interrupted   uint64
	Panics        uint64
	Released      uint64 // given back unstarted
	Deferred      uint64 // not due: published again with their due time
	LeasesLost    uint64
	Expired       uint64 // received or held until their lease had ended: never started
	SettleErrors  uint64
	SettleLost    uint64 // settlements given up because their lease had ended
	ReceiveCalls  uint64
	ReceiveErrors uint64
	// CutReceives counts receives that were cut off by a shutdown or pause: the
	// broker may hold what they would have brought until its lease ends. A backend
	// may let such a poll go on and lose nothing: on Amazon SQS, the polls that were
	// really stranded are Unread of sqs.CountsOf(q).
	CutReceives uint64

	LastError   error // of Receive, cleared by a success
	LastErrorAt time.Time

	// LastFailure is what a handler returned for the last delivery that has failed, was
	// rejected or dead-lettered, LastSettleError the last of a settlement. A success
	// doesn't clear them: compare the times.
	LastFailure       error
	LastFailureAt     time.Time
	LastSettleError   error
	LastSettleErrorAt time.Time

	LastSuccessAt time.Time // of a handler
}
