package sqs

import (
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/anyqueue/anyqueue/queue"
)

const system = "aws_sqs"

// Backend opens queues of Amazon SQS. It's a queue.Backend and a queue.Ensurer,
// and may be used concurrently. Make it with New: the zero value has no client, and
// its calls fail with a *queue.InvalidError.
type Backend struct {
	client *awssqs.Client
	opts   Options
	err    error // of the options
}

var (
	_ queue.Backend = (*Backend)(nil)
	_ queue.Ensurer = (*Backend)(nil)
)

// New returns a backend that works through client, which stays the caller's. Nil
// options are the defaults. What's wrong with the arguments is reported by Open.
func New(client *awssqs.Client, opts *Options) *Backend {
	if opts == nil {
		opts = &Options{}
	}
	b := &Backend{}
	if client != nil {
		b.client = awssqs.New(client.Options(), func(o *awssqs.Options) { o.HTTPClient = plainBodies{o.HTTPClient} })
	}
	b.opts, b.err = opts.validate()
	return b
}

// check tells what was wrong with the arguments of New.
func (b *Backend) check() error {
	if b.client == nil {
		return &queue.InvalidError{Field: "client", Reason: "nil"}
	}
	return b.err
}

// System returns "aws_sqs".
func (b *Backend) System() string { return system }

// Info is what SQS itself says of a delivery.
type Info struct {
	MessageID string
	QueueURL  string
	// GroupID, DedupID and SequenceNumber are those of a FIFO queue.
	GroupID, DedupID, SequenceNumber string
	SenderID                         string
	SentAt, FirstReceivedAt          time.Time
	// DeadLetterSource is the ARN of the queue from which SQS moved the message
	// here by a redrive policy of its own.
	DeadLetterSource string
	// TraceHeader is AWSTraceHeader, in the format of X-Ray.
	TraceHeader string
}

// InfoOf returns what SQS says of a delivery that came from an SQS queue; false
// for any other, and for nil.
func InfoOf(d *queue.Delivery) (Info, bool) {
	if d == nil {
		return Info{}, false
	}
	r, ok := d.Native.(*receipt)
	if !ok {
		return Info{}, false
	}
	attrs := r.message.Attributes
	return Info{
		MessageID: deref(r.message.MessageId), QueueURL: r.queue.url,
		GroupID:          attrs[string(types.MessageSystemAttributeNameMessageGroupId)],
		DedupID:          attrs[string(types.MessageSystemAttributeNameMessageDeduplicationId)],
		SequenceNumber:   attrs[string(types.MessageSystemAttributeNameSequenceNumber)],
		SenderID:         attrs[string(types.MessageSystemAttributeNameSenderId)],
		SentAt:           milliseconds(attrs[string(types.MessageSystemAttributeNameSentTimestamp)]),
		FirstReceivedAt:  milliseconds(attrs[string(types.MessageSystemAttributeNameApproximateFirstReceiveTimestamp)]),
		DeadLetterSource: attrs[string(types.MessageSystemAttributeNameDeadLetterQueueSourceArn)],
		TraceHeader:      attrs[string(types.MessageSystemAttributeNameAWSTraceHeader)],
	}, true
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
