package sqs

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// SNSOptions are the settings of UnwrapSNS. The zero value takes notifications
// of every topic, and nothing else.
type SNSOptions struct {
	// Topics are the ARNs of the topics whose notifications are handled; others
	// are rejected. Empty: every topic's.
	Topics []string

	// AlsoRaw handles what isn't a notification as it came instead of rejecting
	// it: while a subscription is switched to raw message delivery, or where
	// programs also send to the queue itself. A body that looks like a notification
	// is then taken for one, whoever has sent it.
	AlsoRaw bool
}

// Notification is what SNS says of a message that UnwrapSNS has unwrapped.
type Notification struct {
	MessageID      string
	TopicARN       string
	Subject        string
	Timestamp      time.Time // when it was published to the topic
	SequenceNumber string    // of a FIFO topic
}

// UnwrapSNS is middleware for a queue that's subscribed to an SNS topic. SNS wraps
// what was published in an envelope of JSON; the handler then gets what was
// published: Body is the envelope's Message, its MessageAttributes are added to
// Attributes (numbers as text, binary values as their bytes), and ID is that of
// SNS, by which a notification that SNS delivers twice is known. NotificationOf
// tells the rest. It isn't done unless asked for, as any sender could make a body
// that looks like an envelope.
//
// A body that's no notification is rejected: it goes to the dead-letter queue,
// where there's one. So do the confirmations that SNS sends to a queue of another
// account; confirm the subscription instead. Dead letters and redelivered messages
// hold the envelope, as it came.
//
// The signature isn't verified. Whoever may send to the queue can forge a
// notification, so let the queue's policy allow sqs:SendMessage only to
// sns.amazonaws.com with the topic as aws:SourceArn.
//
// It isn't needed with a subscription's raw message delivery: there the
// body and up to ten attributes come as they were published. (With more than ten SNS
// discards the message; the envelope has no such limit.)
//
// Place it before middleware that looks at ID, Body or Attributes.
func UnwrapSNS(opts SNSOptions) queue.Middleware {
	topics := slices.Clone(opts.Topics)
	return queue.MiddlewareFunc(func(next queue.Handler) queue.Handler {
		return func(ctx context.Context, d *queue.Delivery) error {
			e, err := parseEnvelope(d.Body)
			if errors.Is(err, errNoEnvelope) && opts.AlsoRaw {
				return next(ctx, d)
			}
			if err == nil && len(topics) > 0 && !slices.Contains(topics, e.TopicArn) {
				err = fmt.Errorf("the topic %s isn't one of those expected", e.TopicArn)
			}
			if err != nil {
				return queue.Reject(fmt.Errorf("sqs: unwrap SNS notification: %w", err))
			}
			n := Notification{
				MessageID: e.MessageId, TopicARN: e.TopicArn, Subject: e.Subject, Timestamp: e.Timestamp, SequenceNumber: e.SequenceNumber,
			}
			return next(context.WithValue(ctx, notificationKey{}, n), e.unwrap(d))
		}
	})
}

type notificationKey struct{}

// NotificationOf returns what SNS says of the message that a handler behind
// UnwrapSNS is given, from the handler's context.
func NotificationOf(ctx context.Context) (Notification, bool) {
	n, ok := ctx.Value(notificationKey{}).(Notification)
	return n, ok
}

// envelope is what SNS sends to a queue.
type envelope struct {
	Type              string
	MessageId         string //nolint:revive // the name that SNS gives it
	TopicArn          string
	Subject           string
	Message           *string
	Timestamp         time.Time
	SequenceNumber    string
	MessageAttributes map[string]struct{ Type, Value string }
}

var errNoEnvelope = errors.New("the body isn't an SNS notification")

// parseEnvelope fails with errNoEnvelope for what SNS can't have sent.
func parseEnvelope(body []byte) (*envelope, error) {
	var e envelope
	if err := json.Unmarshal(body, &e); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoEnvelope, err)
	}
	switch {
	case e.MessageId == "" || e.TopicArn == "" || e.Message == nil:
		return nil, fmt.Errorf("%w: it lacks MessageId, TopicArn or Message", errNoEnvelope)
	case e.Type != "Notification":
		return nil, fmt.Errorf("it's a %s for %s", e.Type, e.TopicArn)
	}
	for name, a := range e.MessageAttributes {
		if !binaryType(a.Type) {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(a.Value)
		if err != nil {
			return nil, fmt.Errorf("the binary attribute %q: %w", name, err)
		}
		a.Value = string(raw)
		e.MessageAttributes[name] = a
	}
	return &e, nil
}

func binaryType(kind string) bool { return kind == "Binary" || strings.HasPrefix(kind, "Binary.") }

// unwrap returns a copy of d with what was published.
func (e *envelope) unwrap(d *queue.Delivery) *queue.Delivery {
	cp := *d
	cp.ID, cp.Body = e.MessageId, []byte(*e.Message)
	cp.Attributes = maps.Clone(d.Attributes)
	if cp.Attributes == nil {
		cp.Attributes = make(map[string]string, len(e.MessageAttributes))
	}
	for name, a := range e.MessageAttributes {
		cp.Attributes[name] = a.Value
	}
	return &cp
}
