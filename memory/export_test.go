package memory

import (
	"context"
	"time"

	"github.com/anyqueue/anyqueue/internal/broker"
	"github.com/anyqueue/anyqueue/queue"
)

// PublishRaw puts a message into a queue as a foreign program would put it on
// the wire: nothing is checked, and library attributes are taken as they are.
func PublishRaw(_ context.Context, q queue.Queue, body []byte, attributes map[string]string) error {
	h, ok := queue.As[*handle](q)
	if !ok {
		return queue.ErrUnsupported
	}
	now, err := h.core.broker.group.Clock.Now()
	if err != nil {
		return err
	}
	it := &broker.Item[payload]{}
	it.Payload.encoded = true
	size := it.Payload.keepMap(body, attributes, nil)
	h.core.q.Send(now, false, []entry{{Item: it, Size: size, At: time.Now()}})
	return nil
}
