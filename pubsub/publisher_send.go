package pubsub

import (
	"context"
	"errors"
	"fmt"
	"time"

	gcp "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anyqueue/anyqueue/internal/batcher"
	"github.com/anyqueue/anyqueue/internal/remote"
	"github.com/anyqueue/anyqueue/queue"
)

const (
	maxSends     = 64 // requests under way
	maxHeld      = 10_000
	maxHeldBytes = 64 << 20

	// maxDoubts is how often a message is sent without seeing an answer: each may have
	// made one.
	maxDoubts = 3

	// callTimeout is how long one request may take. A connection that's dead without a
	// word mustn't cost a whole publish its deadline, or a batch its leases.
	callTimeout = 10 * time.Second
	// slowest is how many bytes a second a request with messages has at least.
	slowest = 64 << 10
)

// outlet is a topic that's published to.
type outlet struct {
	client  *gcp.Client
	topic   string // full name
	batches batcher.Batcher[*pubsubpb.PubsubMessage]
	counts  *counts
}

func (o *outlet) init(client *gcp.Client, topic string, c *counts) {
	o.client, o.topic, o.counts = client, topic, c
	o.batches.MaxItems, o.batches.MaxBytes, o.batches.MaxCalls = maxMessages, maxRequest-requestReserve, maxSends
	o.batches.MaxHeld, o.batches.MaxHeldBytes = maxHeld, maxHeldBytes
	// Two requests at a time with all that waits cost the least, on the emulator: more
	// of them are slower.
	o.batches.MaxPartial, o.batches.Patience = 2, 1
	o.batches.KeysApart = true // a request may hold one key only, says the service's API
	o.batches.Timeout = queue.DefaultPublishTimeout
	o.batches.Send = o.send
}

// send sends one request, which succeeds or fails as a whole.
func (o *outlet) send(ctx context.Context, batch []*item) batcher.Report {
	req := &pubsubpb.PublishRequest{Topic: o.topic, Messages: make([]*pubsubpb.PubsubMessage, len(batch))}
	size := 0
	for i, it := range batch {
		req.Messages[i] = it.Value
		size += it.Size
	}
	limited, cancel := context.WithTimeout(ctx, callTimeout+time.Duration(size/slowest)*time.Second)
	var t try
	o.counts.publishes.Add(1)
	out, err := o.client.TopicAdminClient.Publish(limited, req, t.options()...)
	cancel()
	if err == nil && len(out.GetMessageIds()) != len(batch) {
		err = remote.As(queue.ErrUnknownOutcome, fmt.Errorf("the answer has %d ids for %d messages", len(out.GetMessageIds()), len(batch)))
		return report(batch, batcher.Result{Err: err, Doubt: true})
	}
	if err == nil {
		return report(batch, batcher.Result{})
	}
	if len(batch) > 1 && status.Code(err) == codes.InvalidArgument {
		// For one of its messages, such as one that doesn't match the topic's schema.
		return batcher.Halves(batch, func(part []*item) batcher.Report { return o.send(ctx, part) })
	}
	again, doubt := passing(err), t.maybe(err)
	r := report(batch, batcher.Result{Err: t.outcome(ctx, err), Again: again, Doubt: doubt})
	for i := range r.Results {
		if doubt && batch[i].Doubts()+1 >= maxDoubts {
			r.Results[i].Again = false
		}
		if r.Results[i].Again {
			o.counts.retried.Add(1)
		}
	}
	if r.Slow = errors.Is(r.Results[0].Err, queue.ErrThrottled); r.Slow {
		o.counts.throttled.Add(1)
	}
	return r
}

// report says the same of every message.
func report(batch []*item, r batcher.Result) batcher.Report {
	rs := make([]batcher.Result, len(batch))
	for i := range rs {
		rs[i] = r
	}
	return batcher.Report{Results: rs}
}
