package sqs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/anyqueue/anyqueue/internal/remote"
	"github.com/anyqueue/anyqueue/queue"
)

var (
	_ queue.Inspector     = (*handle)(nil)
	_ queue.PeekConfirmer = (*handle)(nil)
	_ queue.Purger        = (*handle)(nil)
)

// Stats asks SQS for its counts, with one request. They're approximate and may
// lag by a minute. A delayed redelivery counts as in flight. SQS doesn't tell how
// old the oldest message is (only CloudWatch does), so OldestAge is nil.
func (h *handle) Stats(ctx context.Context) (queue.Stats, error) {
	ctx, end, err := h.calls.Begin(ctx)
	if err != nil {
		return queue.Stats{}, h.fail("stats of", err)
	}
	defer end()
	const (
		ready    = types.QueueAttributeNameApproximateNumberOfMessages
		inFlight = types.QueueAttributeNameApproximateNumberOfMessagesNotVisible
		delayed  = types.QueueAttributeNameApproximateNumberOfMessagesDelayed
	)
	out, err := h.client.GetQueueAttributes(ctx, &awssqs.GetQueueAttributesInput{
		QueueUrl: &h.url, AttributeNames: []types.QueueAttributeName{ready, inFlight, delayed},
	})
	if err != nil {
		return queue.Stats{}, h.fail("stats of", classify(err))
	}
	count := func(name types.QueueAttributeName) *int64 {
		n, err := strconv.ParseInt(out.Attributes[string(name)], 10, 64)
		if err != nil || n < 0 {
			return nil // not told, which isn't 0
		}
		return &n
	}
	st := queue.Stats{
		Ready: count(ready), InFlight: count(inFlight), Delayed: count(delayed),
		AsOf: time.Now(), Approximate: true, Source: "sqs:GetQueueAttributes",
	}
	if st.Ready != nil && st.InFlight != nil && st.Delayed != nil {
		total := *st.Ready + *st.InFlight + *st.Delayed
		st.Total = &total
	}
	return st, nil
}

const (
	// peekHide is how long a message that's looked at is hidden at most, in
	// seconds. 0 would be the queue's default: the SDK doesn't send it.
	peekHide = 2
	// peekWait is how long a request waits for its first message, in seconds. A
	// request that doesn't wait asks only some of SQS's servers.
	peekWait = 1
	// peekFor ends the collecting, before what was first seen comes again.
	peekFor = time.Second
)

// Peek returns messages that could be received now. SQS can only look by
// receiving, so that isn't free: each message is hidden from others until Peek
// returns, for at most 2 s, and on a FIFO queue its key waits meanwhile. Its count of
// receives grows by one: this queue knows that and doesn't call it an attempt, but
// other processes take it for one, and for a failure. A Peek costs a request for each
// ten messages, one to give ten back, and takes a second when there are fewer than max.
//
// On a queue with a redrive policy, which counts receives, or whose policy may
// not be read, Peek is refused with queue.ErrUnsupported: repeated often enough it
// would dead-letter what it looks at. PeekConfirmed does it.
func (h *handle) Peek(ctx context.Context, max int) ([]*queue.Delivery, error) {
	return h.peek(ctx, max, false)
}

// PeekConfirmed is Peek, also where a redrive policy counts receives.
func (h *handle) PeekConfirmed(ctx context.Context, max int) ([]*queue.Delivery, error) {
	return h.peek(ctx, max, true)
}

func (h *handle) peek(ctx context.Context, max int, confirmed bool) ([]*queue.Delivery, error) {
	ctx, end, err := h.calls.Begin(ctx)
	if err != nil {
		return nil, h.fail("peek into", err)
	}
	defer end()
	if max <= 0 {
		return nil, h.fail("peek into", &queue.InvalidError{Field: "max", Reason: "must be at least 1"})
	}
	if !confirmed {
		if err := h.mayPeek(ctx); err != nil {
			return nil, h.fail("peek into", err)
		}
	}
	seen, err := h.look(ctx, max)
	// Not with ctx: whatever was received is to be visible again.
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), peekHide*time.Second)
	defer cancel()
	h.giveBack(back, seen)
	if len(seen) == 0 && err != nil {
		return nil, h.fail("peek into", classify(err))
	}
	ds := make([]*queue.Delivery, len(seen))
	for i, r := range seen {
		// A copy without a handle can't be settled by mistake.
		cp := &receipt{queue: h, message: r.message, received: r.received}
		cp.message.ReceiptHandle = nil
		ds[i] = h.delivery(cp)
		ds[i].Deadline = time.Time{}
	}
	return ds, nil
}

// mayPeek fails where somebody counts receives. It asks anew, as a policy may
// have been set since the queue was opened.
func (h *handle) mayPeek(ctx context.Context) error {
	refuse := func(why string) error {
		return &queue.UnsupportedError{Feature: "a Peek without confirmation, as it counts as a receive and " + why, System: system}
	}
	out, err := h.client.GetQueueAttributes(ctx, &awssqs.GetQueueAttributesInput{
		QueueUrl: &h.url, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameRedrivePolicy},
	})
	if err != nil {
		if err = classify(err); errors.Is(err, queue.ErrPermission) {
			return refuse("whether a redrive policy counts those may not be read")
		}
		return err
	}
	if told := out.Attributes[string(types.QueueAttributeNameRedrivePolicy)]; told != "" {
		if p := parsePolicy(told); p != nil {
			return refuse(fmt.Sprintf("SQS itself dead-letters to %s", p))
		}
		return refuse("the queue has a redrive policy")
	}
	return nil
}

// look receives up to max different messages within peekFor. The error says why
// there are fewer.
func (h *handle) look(ctx context.Context, max int) ([]*receipt, error) {
	var seen []*receipt
	at := map[string]int{} // of each message in seen
	var first time.Time
	for len(seen) < max {
		began := time.Now()
		out, err := h.client.ReceiveMessage(ctx, &awssqs.ReceiveMessageInput{
			QueueUrl: &h.url, MaxNumberOfMessages: int32(min(max-len(seen), maxEntries)), //nolint:gosec // at most 10
			VisibilityTimeout: peekHide, WaitTimeSeconds: peekWait,
			MessageAttributeNames:       []string{"All"},
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
		})
		if err != nil || len(out.Messages) == 0 {
			return seen, err
		}
		now := time.Now()
		for _, m := range out.Messages {
			r := &receipt{queue: h, message: m, received: now}
			if i, again := at[deref(m.MessageId)]; again {
				seen[i] = r // its newest handle is the one that counts
				continue
			}
			at[deref(m.MessageId)] = len(seen)
			seen = append(seen, r)
		}
		if first.IsZero() {
			first = began
		}
		if now.Sub(first) >= peekFor {
			return seen, nil
		}
	}
	return seen, nil
}

// Purge removes every message, also those in flight and delayed. SQS takes up to a
// minute for it and may remove what's sent meanwhile, so wait for a minute before
// publishing what must stay. A second Purge within that minute fails with
// queue.ErrThrottled. An answer that's lost makes it a queue.ErrUnknownOutcome.
func (h *handle) Purge(ctx context.Context) error {
	ctx, end, err := h.calls.Begin(ctx)
	if err != nil {
		return h.fail("purge", err)
	}
	defer end()
	sent, option := watched(ctx)
	_, err = h.client.PurgeQueue(sent, &awssqs.PurgeQueueInput{QueueUrl: &h.url}, option)
	if err == nil {
		return nil
	}
	if is[*types.PurgeQueueInProgress](err) {
		err = remote.As(queue.ErrThrottled, err)
	}
	return h.fail("purge", sent.outcome(err))
}
