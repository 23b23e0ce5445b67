package sqs

import (
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/anyqueue/anyqueue/queue"
)

// TenantID names the tenant that a message belongs to, for SQS's fair queues: on
// a standard queue it's the MessageGroupId. It keeps one tenant's backlog from
// delaying the others; it orders nothing and locks nothing. It's 1 to 128
// letters, digits and ASCII punctuation.
//
// Publish to a FIFO queue refuses it with queue.ErrUnsupported, as a group orders
// there: use OrderingKey. InfoOf(d).GroupID tells it to a consumer. It stays with
// a message over delays, dead-letter queues and redrive.
func TenantID(id string) queue.MessageOption { return tenant{id: id} }

// TraceHeader is sent as AWSTraceHeader, in the format of X-Ray, which takes none
// of the ten attributes. InfoOf(d).TraceHeader tells it to a consumer. It stays
// with a message over delays, dead-letter queues and redrive, unless another producer
// has set one that isn't printable ASCII.
func TraceHeader(header string) queue.MessageOption { return traceHeader(header) }

type tenant struct {
	id string
	// carried says that it came with a delivery: where it means nothing it's left
	// out.
	carried bool
}

type traceHeader string

func (tenant) System() string      { return system }
func (traceHeader) System() string { return system }

// apply sets the options of a message in its request.
func (o *outgoing) apply(options []queue.MessageOption, fifo bool) error {
	for _, opt := range options {
		switch opt := opt.(type) {
		case tenant:
			switch {
			case fifo && opt.carried:
			case fifo:
				return &queue.UnsupportedError{Feature: "a TenantID", System: system + " for a FIFO queue"}
			default:
				if err := checkTenant(opt.id); err != nil {
					return err
				}
				o.entry.MessageGroupId = &opt.id
			}
		case traceHeader:
			if !opt.sendable() {
				return &queue.InvalidError{Field: "TraceHeader", Reason: "it must be printable ASCII, and not empty"}
			}
			kind, value := "String", string(opt)
			o.entry.MessageSystemAttributes = map[string]types.MessageSystemAttributeValue{
				string(types.MessageSystemAttributeNameForSendsAWSTraceHeader): {DataType: &kind, StringValue: &value},
			}
		default:
			return &queue.UnsupportedError{Feature: "an option", System: system}
		}
	}
	return nil
}

func (h traceHeader) sendable() bool {
	return h != "" && !strings.ContainsFunc(string(h), func(r rune) bool { return r < ' ' || r > '~' })
}

const maxTenant = 128

func checkTenant(id string) error {
	switch {
	case id == "":
		return &queue.InvalidError{Field: "TenantID", Reason: "empty"}
	case len(id) > maxTenant:
		return &queue.LimitError{Field: "TenantID", Got: int64(len(id)), Max: maxTenant, System: system}
	case strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' }):
		return &queue.InvalidError{Field: "TenantID", Reason: "letters, digits and ASCII punctuation only"}
	}
	return nil
}

var _ queue.OriginalOptions = (*receipt)(nil)

// OriginalOptions are the options that the message came with, for what the
// library publishes again. Other systems ignore them. What another producer has
// set but this package can't send is left out: the message mustn't fail for it.
func (r *receipt) OriginalOptions() []queue.MessageOption {
	var out []queue.MessageOption
	attrs := r.message.Attributes
	if id := attrs[string(types.MessageSystemAttributeNameMessageGroupId)]; checkTenant(id) == nil && !r.queue.fifo {
		out = append(out, queue.Hint(tenant{id: id, carried: true}))
	}
	if h := traceHeader(attrs[string(types.MessageSystemAttributeNameAWSTraceHeader)]); h.sendable() {
		out = append(out, queue.Hint(h))
	}
	return out
}
