package otelqueue

import (
	"strings"

	"go.opentelemetry.io/otel/attribute"

	"github.com/anyqueue/anyqueue/queue"
)

// operation is what's the same for each span and measurement of one kind on one
// queue, made once.
type operation struct {
	span       string // its name
	system     string
	attributes []attribute.KeyValue
	set        attribute.Set
}

// destinationOf are the attributes that name a queue.
func destinationOf(caps *queue.Capabilities) []attribute.KeyValue {
	attrs := []attribute.KeyValue{attrSystem.String(caps.Source.System), attrDestination.String(caps.Source.Name)}
	switch caps.Source.System {
	case systemGCP:
		if i := strings.LastIndex(caps.Address, "/subscriptions/"); i >= 0 {
			attrs = append(attrs, attrSubscription.String(caps.Address[i+len("/subscriptions/"):]))
		}
	case systemSQS:
		attrs = append(attrs, attrSQSQueueURL.String(caps.Address))
	}
	return attrs
}

func newOperation(base []attribute.KeyValue, name string) operation {
	op := operation{span: name, attributes: append([]attribute.KeyValue{attrOperationName.String(name), attrOperationType.String(name)}, base...)}
	for _, kv := range base {
		switch kv.Key {
		case attrDestination:
			op.span = name + " " + kv.Value.AsString()
		case attrSystem:
			op.system = kv.Value.AsString()
		}
	}
	op.set = attribute.NewSet(op.attributes...)
	return op
}

// with is the set with more attributes.
func (o *operation) with(more ...attribute.KeyValue) attribute.Set {
	return attribute.NewSet(append(more, o.attributes...)...)
}
