package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

// JSON returns a Handler that decodes each body as JSON into a T and gives it to
// fn, with the delivery it came in. A body that can't be decoded is rejected, not
// tried again, so it goes to the dead-letter queue at once; fn isn't called.
//
// Decoding is that of encoding/json: unknown fields are ignored, missing ones are
// zero, and a body of null gives the zero T (a nil pointer when T is one). fn is
// called concurrently, as every handler is; each call has a T of its own.
func JSON[T any](fn func(ctx context.Context, v T, d *Delivery) error) Handler {
	return Decode(json.Unmarshal, fn)
}

// Decode is JSON for another codec. decode is given the body and a *T, as
// json.Unmarshal is; it must not keep the body, and may be called concurrently.
// What it can't decode is rejected, not tried again.
func Decode[T any](decode func(data []byte, v any) error, fn func(ctx context.Context, v T, d *Delivery) error) Handler {
	if decode == nil || fn == nil {
		return invalidHandler(&InvalidError{Field: "handler", Reason: "nil function"})
	}
	return func(ctx context.Context, d *Delivery) error {
		var v T
		if err := decode(d.Body, &v); err != nil {
			return Reject(fmt.Errorf("queue: decode %T: %w", v, err))
		}
		return fn(ctx, v, d)
	}
}

// invalidHandler is what a constructor returns that can't return an error: a
// handler that fails without having done anything, so that no message is lost.
func invalidHandler(err error) Handler {
	return func(context.Context, *Delivery) error { return err }
}

// PublishJSON publishes v as JSON and returns when it's durable. Options set the
// other fields of the message. A v that can't be encoded matches ErrInvalid, and
// nothing is sent; other errors are those of Publisher.Publish. It may be called
// concurrently.
func PublishJSON[T any](ctx context.Context, p Publisher, v T, opts ...PublishOption) error {
	return Encode(ctx, p, json.Marshal, v, opts...)
}

// Encode is PublishJSON for another codec: encode turns v into the body, as
// json.Marshal does.
func Encode[T any](ctx context.Context, p Publisher, encode func(v any) ([]byte, error), v T, opts ...PublishOption) error {
	if p == nil || encode == nil {
		return &InvalidError{Field: "publisher or codec", Reason: "nil"}
	}
	body, err := encode(v)
	if err != nil {
		return fmt.Errorf("%w body: encode %T: %w", ErrInvalid, v, err)
	}
	m := &Message{Body: body}
	for _, o := range opts {
		if o == nil {
			return &InvalidError{Field: "PublishOption", Reason: "nil"}
		}
		o(m)
	}
	return p.Publish(ctx, m)
}

// PublishOption sets a field of the message that PublishJSON and Encode publish.
// Of two options for the same field the last one holds.
type PublishOption func(*Message)

// WithID sets Message.ID: the key for idempotency.
func WithID(id string) PublishOption { return func(m *Message) { m.ID = id } }

// WithDedupID sets Message.DedupID: the broker drops repeats.
func WithDedupID(id string) PublishOption { return func(m *Message) { m.DedupID = id } }

// WithOrderingKey sets Message.OrderingKey: one key is handled in order.
func WithOrderingKey(key string) PublishOption { return func(m *Message) { m.OrderingKey = key } }

// WithDelay sets Message.Delay: not handled before d has passed.
func WithDelay(d time.Duration) PublishOption { return func(m *Message) { m.Delay = d } }

// WithDeliverAt sets Message.DeliverAt: not handled before t.
func WithDeliverAt(t time.Time) PublishOption { return func(m *Message) { m.DeliverAt = t } }

// WithAttribute sets one of Message.Attributes. It may be given several times.
func WithAttribute(name, value string) PublishOption {
	return func(m *Message) {
		// A copy: an option before this one may have set a map of its own.
		attrs := maps.Clone(m.Attributes)
		if attrs == nil {
			attrs = make(map[string]string, 1)
		}
		attrs[name] = value
		m.Attributes = attrs
	}
}

// WithOptions adds to Message.Options: settings that only one provider knows.
func WithOptions(opts ...MessageOption) PublishOption {
	return func(m *Message) { m.Options = slices.Concat(m.Options, opts) }
}
