package sqs

import (
	"context"
	"errors"
	"strconv"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/anyqueue/anyqueue/internal/batcher"
	"github.com/anyqueue/anyqueue/internal/remote"
	"github.com/anyqueue/anyqueue/queue"
)

const (
	maxSends     = 64 // requests under way
	maxHeld      = 10_000
	maxHeldBytes = 64 << 20

	// maxDoubts is how often a message is sent to a standard queue without seeing
	// an answer: each may have made one.
	maxDoubts = 3
	// dedupWindow is how long a FIFO queue knows that it has taken a message; a
	// little less, as the clocks differ.
	dedupWindow = 4 * time.Minute
)

// item is a message on its way.
type item = batcher.Item[outgoing]

var errUnanswered = remote.As(queue.ErrUnknownOutcome, errors.New("the answer doesn't mention this entry"))

// send sends one request, and tells what became of each message.
func (h *handle) send(ctx context.Context, batch []*item) batcher.Report {
	now := time.Now()
	in := &awssqs.SendMessageBatchInput{QueueUrl: &h.url, Entries: make([]types.SendMessageBatchRequestEntry, len(batch))}
	size := 0
	for i, it := range batch {
		size += it.Size
		o := &it.Value
		if o.first.IsZero() {
			o.first = now
		}
		e := &in.Entries[i]
		*e = o.entry
		e.Id, e.DelaySeconds = entryID(i), o.delay(now)
	}
	limited, cancel := context.WithTimeout(ctx, callTimeout+time.Duration(size/slowest)*time.Second)
	sent := &sent{Context: limited, tries: &h.counts.sends, traced: true}
	out, err := h.client.SendMessageBatch(sent, in, h.once)
	cancel()
	doubt := sent.maybe || sent.taken
	if err != nil && len(batch) > 1 && !doubt && separable(err) {
		// The queue allows less than it has told, or one of the messages is refused.
		return batcher.Halves(batch, func(part []*item) batcher.Report { return h.send(ctx, part) })
	}
	results := make([]batcher.Result, len(batch))
	if err != nil {
		err = sent.outcome(err)
		// What was taken, with an answer that makes no sense, won't get better.
		again := !sent.taken && passing(err)
		for i := range results {
			results[i] = batcher.Result{Err: err, Again: again, Doubt: doubt}
		}
	} else {
		h.answeredSend(batch, results, out)
	}
	slow := false
	for i := range results {
		r := &results[i]
		if r.Err == nil {
			continue
		}
		if (r.Doubt || h.fifo && batch[i].Doubts() > 0) && !h.harmless(batch[i]) {
			r.Again = false
		}
		slow = slow || errors.Is(r.Err, queue.ErrThrottled)
		if r.Again {
			h.counts.retried.Add(1)
		}
	}
	if slow {
		h.counts.throttled.Add(1)
	}
	return batcher.Report{Results: results, Slow: slow}
}

// harmless reports whether one more try may be made of a message that may have
// been taken.
func (h *handle) harmless(it *item) bool {
	if h.fifo { // which drops the repeat
		return time.Since(it.Value.first) < dedupWindow
	}
	return it.Doubts()+1 < maxDoubts
}

// answeredSend notes what the answer says of each message.
func (h *handle) answeredSend(batch []*item, results []batcher.Result, out *awssqs.SendMessageBatchOutput) {
	for i := range results {
		results[i] = batcher.Result{Err: errUnanswered, Again: true, Doubt: true}
	}
	for i := range out.Successful {
		if k, ok := entryIndex(out.Successful[i].Id, len(results)); ok {
			results[k] = batcher.Result{}
		}
	}
	if h.fifo {
		checkSequence(batch, results, out.Successful)
	}
	for i := range out.Failed {
		e := &out.Failed[i]
		if k, ok := entryIndex(e.Id, len(results)); ok {
			results[k] = batcher.Result{Err: entryError(e, false), Again: !e.SenderFault}
		}
	}
}

// entryIDs name the entries of a request.
var entryIDs = [maxEntries]string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}

func entryID(i int) *string { return &entryIDs[i] }

func entryIndex(id *string, n int) (int, bool) {
	i, err := strconv.Atoi(deref(id))
	return i, err == nil && i >= 0 && i < n
}
