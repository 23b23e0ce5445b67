package config

import (
	"slices"
	"time"

	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
)

// A File says what queues there are and how each is consumed. Parse makes it,
// with the defaults of the file already in each queue. Zero values mean the
// defaults of the parts that they are given to.
type File struct {
	// Name is where it was read; it begins the lines of an Error.
	Name string
	// Ensure says that a queue is created, if need be, when it's first used.
	Ensure bool
	// Queues are in the order of the file.
	Queues []*Queue
	// Limits are shared by the queues that name them; in the order of the file.
	Limits []*Limit

	// at is where in the file a path stands; nil for a File that was made in
	// another way.
	at map[string]position
}

// Queue returns the queue of that name, or nil.
func (f *File) Queue(name string) *Queue {
	if i := slices.IndexFunc(f.Queues, func(q *Queue) bool { return q.Name == name }); i >= 0 {
		return f.Queues[i]
	}
	return nil
}

// Find is Queue, but that a name that isn't there is a *queue.InvalidError of field, with
// the names that are near.
func (f *File) Find(field, name string) (*Queue, error) {
	if q := f.Queue(name); q != nil {
		return q, nil
	}
	return nil, f.noQueue(field, name)
}

func (f *File) noQueue(field, name string) error {
	names := make([]string, len(f.Queues))
	for i, q := range f.Queues {
		names[i] = q.Name
	}
	return &queue.InvalidError{Field: field, Reason: f.Name + " has " + unknown("no queue", name, names)}
}

// limit returns the shared limit of that name, or nil.
func (f *File) limit(name string) *Limit {
	if i := slices.IndexFunc(f.Limits, func(l *Limit) bool { return l.Name == name }); i >= 0 {
		return f.Limits[i]
	}
	return nil
}

// A Queue is one queue of a File.
type Queue struct {
	Name    string
	Backend string // a key of Backends
	Address string // overrides where the queue is; empty: by its name
	Ordered bool   // keeps the order of messages with an ordering key

	Concurrency int           // most handlers at once; 0: queue.DefaultConcurrency
	MaxHold     int           // most deliveries that wait in the process; 0: queue.DefaultMaxHold
	Delay       time.Duration // of messages published without a delay of their own; 0: none
	Lease       time.Duration // 0: what the queue says

	// Retention and Tags are what Ensure makes true of the queue, unless it has an
	// Address.
	Retention time.Duration     // 0: the service's default; of a dead-letter queue its longest
	Tags      map[string]string // labels

	Retry      Retry
	DeadLetter *DeadLetter // nil: none
	Limit      string      // the shared limit it counts against; empty: none
	Rate       float64     // handler starts by second; 0: no limit

	Timeout      time.Duration // of one try of a handler; 0: none
	DrainTimeout time.Duration // 0: queue.DefaultDrainTimeout; negative: handlers are cancelled at once
	ReceiveGrace time.Duration // 0: queue.DefaultReceiveGrace; negative: an open poll is cut off at once
	MaxExtension time.Duration // 0: queue.DefaultMaxExtension
}

// Retry says when a delivery that failed is tried again.
type Retry struct {
	Min     time.Duration // after the first failure; 0: the default of queue.Backoff
	Max     time.Duration // at most; 0: the default of queue.Backoff
	Factor  float64       // by how much it grows; 0: the default of queue.Backoff
	Jitter  float64       // share that's random; 0: the default of queue.Backoff; negative: none
	InPlace int           // tries more within one delivery before it goes back to the broker
}

// DeadLetter says when and where a message goes that can't be handled.
type DeadLetter struct {
	Queue       string        // a queue of the same File
	MaxAge      time.Duration // 0: the default of middleware.DeadLetter; negative: any
	MaxFailures int           // 0: any number
	// OnExhausted says what happens to an ordered message that has reached one
	// of them.
	OnExhausted middleware.OnExhausted
}

// A Limit is shared by the consumers of all queues that name it.
type Limit struct {
	Name        string
	Concurrency int     // most handlers at once over all those queues; 0: no limit
	Rate        float64 // handler starts by second over all those queues; 0: no limit
}
