package queue

import (
	"context"
	"time"
)

// A Message is what a [Publisher] sends. Only Body is usual; every other field
// may be left zero.
//
// A Publisher never writes to a Message and doesn't keep it after Publish has
// returned, so one Message may be published many times, also concurrently, as
// long as nobody changes it meanwhile.
type Message struct {
	// ID identifies the message from end to end: it's the key for idempotency,
	// and stays the same over redeliveries, delay hops, dead-letter queues and
	// redrive. It never makes a broker drop anything; DedupID does. When it's
	// empty nothing is sent, and Delivery.ID is the broker's own id. Otherwise it
	// travels in one attribute of the library, which counts to the system's
	// limit (ten on SQS).
	ID string

	// DedupID asks the broker to drop this message when it has accepted another
	// one with the same DedupID within its window (5 minutes on SQS FIFO).
	// Publish fails with ErrUnsupported where the broker can't.
	DedupID string

	// Body is the payload: the bytes that travel, without an envelope. It may
	// be empty and may be binary.
	Body []byte

	// Attributes are short strings beside the body. Names beginning with
	// "queue-" are reserved for this library. Limits differ by broker; see
	// Capabilities.Wire.
	Attributes map[string]string

	// OrderingKey makes messages with the same key be handled in the order of
	// their publishing, one at a time. Publish fails with ErrUnsupported where
	// the queue doesn't keep an order.
	OrderingKey string

	// Delay is how long the message isn't handled after Publish. It's passed to
	// the broker where that can delay, rounded up to what the broker counts in
	// (a second on SQS); never early. Exclusive with DeliverAt, and with
	// OrderingKey.
	Delay time.Duration

	// DeliverAt is the absolute form of Delay, by the consumer's clock, to the
	// millisecond. A time in the past means at once.
	DeliverAt time.Time

	// Options are settings that only one provider knows. Publish to another
	// provider fails with ErrUnsupported, unless the option is wrapped in Hint.
	Options []MessageOption

	// meta is what the library itself carries along. It's never written to
	// once set, so copies of a Message may share it.
	meta *metadata
}

// A Delivery is one attempt to process a message. Zero values mean that the
// broker didn't say.
//
// The engine gives each Delivery to one handler at a time. A handler may change
// what it was given: nobody else sees it, and a redelivery brings the original.
// To forward a delivery to another queue publish &d.Message.
type Delivery struct {
	Message

	// Source is the queue that the delivery came from.
	Source Endpoint

	// BrokerID is the broker's own id of the message. It changes when the
	// message is published again (delay hop, dead letter, redrive).
	BrokerID string

	// Attempt counts the broker's deliveries of this message, from 1; 0 when
	// the broker doesn't count. Brokers may skip or repeat a number: compare
	// with >=, never with ==.
	Attempt int

	// Failures counts the earlier attempts that failed, as far as known: not
	// the ones that were snoozed, released unstarted or cut short by a
	// shutdown. What's known is remembered by the process, and the rest is the
	// broker's count: a message that another process had when it ended, or that a
	// receive which was cut off took along, has one more. From 0.
	Failures int

	// EnqueuedAt is when the message was first published. It's kept over delay
	// hops, dead-letter queues and redrive.
	EnqueuedAt time.Time

	// Deadline is the end of the lease as it was when the handler started. The
	// engine keeps extending the lease while the handler runs; LeaseDeadline
	// tells the live value.
	Deadline time.Time

	// DeadLetter is the history of a message that came from a dead-letter
	// queue; nil otherwise.
	DeadLetter *DeadLetterInfo

	// Native is the provider's own view of the delivery. Read it through the
	// backend's typed accessor.
	Native any

	carried *metadata
	due     time.Time // see FillDue
	copied  time.Time // when the broker got this copy; zero: unknown
}

// Endpoint names a queue of a messaging system.
type Endpoint struct {
	System string // "aws_sqs", "gcp_pubsub" or "memory"
	Name   string // the portable name, or what stands in the explicit address
}

// String returns "system/name".
func (e Endpoint) String() string {
	if e.System == "" {
		return e.Name
	}
	return e.System + "/" + e.Name
}

// AgeFrom is the time from which the age of a delivery counts when a policy
// gives up by age: its first enqueue, the end of a delay of a minute or more, its
// dead-lettering or its redrive, whichever is latest. It's zero when unknown.
func (d *Delivery) AgeFrom() time.Time {
	c := d.carried
	if c == nil {
		return later(d.EnqueuedAt, d.due)
	}
	from := d.EnqueuedAt
	if c.ageFrom.IsZero() {
		from = later(from, later(d.due, c.due))
	} else { // a due time beside it is that of a backoff
		from = later(from, c.ageFrom)
	}
	if c.deadLetter != nil {
		from = later(from, c.deadLetter.LastAt)
	}
	return from
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Due is the time before which the delivery mustn't be handled; zero when it
// was never delayed beyond what the broker does by itself.
func (d *Delivery) Due() time.Time {
	if d.carried == nil {
		return time.Time{}
	}
	return d.carried.due
}

// A MessageOption is a setting of a message that only one provider knows, such
// as a fair-queue tenant of SQS.
type MessageOption interface {
	// System is the messaging system that understands the option.
	System() string
}

// Hint wraps an option so that other providers ignore it instead of refusing
// the message.
func Hint(o MessageOption) MessageOption { return hint{o} }

type hint struct{ MessageOption }

// OptionsFor returns the options of m that are meant for system, unwrapped, and
// fails with ErrUnsupported when m has one for another system that isn't a
// Hint. It's for backends.
func OptionsFor(system string, m *Message) ([]MessageOption, error) {
	var out []MessageOption
	for _, o := range m.Options {
		isHint := false
		for {
			h, ok := o.(hint)
			if !ok {
				break
			}
			o, isHint = h.MessageOption, true
		}
		switch {
		case o == nil:
			return nil, &InvalidError{Field: "Options", Reason: "a nil option"}
		case o.System() == system:
			out = append(out, o)
		case !isHint:
			return nil, &UnsupportedError{Feature: "an option for " + o.System(), System: system}
		}
	}
	return out, nil
}

// A Publisher sends messages.
type Publisher interface {
	// Publish sends msgs and returns nil when every one of them is durable. A
	// *PublishError names by index what failed and why; what it doesn't name is
	// durable. An entry that wraps ErrUnknownOutcome may have been sent.
	//
	// Every message is checked first, and one that can't be sent doesn't stop
	// the others; but when the broker itself refuses one with an OrderingKey,
	// the later ones of that key that weren't sent yet are kept back. Without a deadline in ctx, one of 30 seconds applies. Publish
	// never writes to its messages, nor looks at them after it has returned. It may
	// be called concurrently, and many messages in one call cost fewer requests
	// than many calls.
	Publish(ctx context.Context, msgs ...*Message) error
}

// PublisherMiddleware wraps a Publisher. What it returns should have a method
// Unwrap() Publisher, so that As finds what lies beneath.
type PublisherMiddleware func(Publisher) Publisher

// WrapPublisher applies middleware to p; the first is the outermost.
func WrapPublisher(p Publisher, mw ...PublisherMiddleware) Publisher {
	for i := len(mw) - 1; i >= 0; i-- {
		p = mw[i](p)
	}
	return p
}

// PublisherFunc adapts a function to a Publisher.
type PublisherFunc func(ctx context.Context, msgs ...*Message) error

// Publish calls f.
func (f PublisherFunc) Publish(ctx context.Context, msgs ...*Message) error { return f(ctx, msgs...) }

// DefaultPublishTimeout applies to a Publish whose context has no deadline.
const DefaultPublishTimeout = 30 * time.Second

// PublishContext gives ctx the deadline that every Publish has. It's for
// backends.
func PublishContext(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, DefaultPublishTimeout)
}
