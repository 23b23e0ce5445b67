package middleware

import (
	"context"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// Delay gives every message that says nothing about its time a delay of d: the
// default delay of a queue. A message with a Delay or a DeliverAt keeps it; a
// DeliverAt in the past sends one at once. 0 changes nothing; with a negative d
// every Publish fails with ErrInvalid.
//
// No queue can delay a message with an OrderingKey: publishing one here fails
// with ErrUnsupported, unless it has a DeliverAt in the past. Messages are
// copied, never written to. It may be used concurrently if the Publisher may.
func Delay(d time.Duration) queue.PublisherMiddleware {
	return func(p queue.Publisher) queue.Publisher {
		if d == 0 {
			return p
		}
		return &delayed{next: p, delay: d}
	}
}

type delayed struct {
	next  queue.Publisher
	delay time.Duration
}

// Unwrap lets queue.As find what lies beneath.
func (p *delayed) Unwrap() queue.Publisher { return p.next }

// Publish implements queue.Publisher.
func (p *delayed) Publish(ctx context.Context, msgs ...*queue.Message) error {
	if p.delay < 0 {
		return invalid("Delay", "negative")
	}
	if len(msgs) == 0 {
		return p.next.Publish(ctx, msgs...)
	}
	out := make([]*queue.Message, len(msgs))
	copies := make([]queue.Message, len(msgs))
	for i, m := range msgs {
		if m == nil || m.Delay != 0 || !m.DeliverAt.IsZero() {
			out[i] = m // a nil message is for the queue to refuse, by its index
			continue
		}
		copies[i] = *m
		copies[i].Delay = p.delay
		out[i] = &copies[i]
	}
	return p.next.Publish(ctx, out...)
}
