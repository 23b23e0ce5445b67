package sqs

import (
	"errors"
	"sync"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/anyqueue/anyqueue/internal/batcher"
	"github.com/anyqueue/anyqueue/internal/remote"
	"github.com/anyqueue/anyqueue/queue"
)

// sequence knows the highest SequenceNumber of each key among the messages of one
// Publish that were sent again in doubt. When SQS had refused the first of a
// request, taken the second, and its answer was lost, the repeat takes the first
// one behind the second, which it drops as a repeat, and says yes to both. Only the
// numbers tell: the second one's is lower.
type sequence struct {
	mu   sync.Mutex
	last map[string]string // by key
}

// follows notes a number and reports whether it's the highest.
func (s *sequence) follows(key, number string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if lower(number, s.last[key]) {
		return false
	}
	if s.last == nil {
		s.last = map[string]string{}
	}
	s.last[key] = number
	return true
}

// lower compares decimal numbers.
func lower(a, b string) bool { return len(a) < len(b) || len(a) == len(b) && a < b }

var errOvertook = remote.As(queue.ErrUnknownOutcome, errors.New("taken, but before an earlier message with the same OrderingKey"))

// checkSequence fails messages that have overtaken earlier ones: who sends them
// again has them at least once in the right order.
func checkSequence(batch []*item, results []batcher.Result, taken []types.SendMessageBatchResultEntry) {
	var numbers [maxEntries]string
	for i := range taken {
		if k, ok := entryIndex(taken[i].Id, len(batch)); ok {
			numbers[k] = deref(taken[i].SequenceNumber)
		}
	}
	for i, it := range batch {
		seq := it.Value.sequence
		if results[i].Err == nil && seq != nil && it.Doubts() > 0 && numbers[i] != "" && !seq.follows(it.Key, numbers[i]) {
			results[i] = batcher.Result{Err: errOvertook, Doubt: true}
		}
	}
}
