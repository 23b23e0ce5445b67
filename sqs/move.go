package sqs

import (
	"context"
	"errors"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"github.com/anyqueue/anyqueue/internal/remote"
	"github.com/anyqueue/anyqueue/queue"
)

// Mover has SQS itself move the messages of a dead-letter queue, without a
// consumer. Queues of this package implement it; find it with queue.As. Its
// methods may be called concurrently.
//
// It serves for large numbers of messages that SQS itself dead-lettered: those
// whose queue has a redrive policy (QueueSpec.BrokerMaxAttempts). Everything
// else is a matter for queue.Redrive, which never starts such a task:
//
//   - SQS takes only a queue that the redrive policy of another one names.
//   - It moves everything: there's no filter, and what arrives meanwhile goes along.
//   - Without MoveOptions.To the task fails at a message that the library put there,
//     as SQS doesn't know where that came from. With it such messages are moved as
//     they are: their age and failures count on, so that they may be dead-lettered
//     again at their next failure.
type Mover interface {
	// StartMove starts a task that moves everything out of this queue, and
	// returns as soon as SQS has taken it on, with the handle to cancel it. A queue
	// has one running task at most. It fails with queue.ErrUnsupported where no
	// redrive policy names this queue, and with queue.ErrUnknownOutcome when no
	// answer was seen: Moves tells. Nil options are the defaults.
	StartMove(ctx context.Context, opts *MoveOptions) (handle string, err error)

	// Moves lists the tasks that move messages out of this queue, the newest
	// first, ten at most.
	Moves(ctx context.Context) ([]Move, error)

	// CancelMove stops a running task and returns how many messages it had
	// moved about. They stay where they are.
	CancelMove(ctx context.Context, handle string) (moved int64, err error)
}

// MoveOptions are the settings of Mover.StartMove. The zero value moves each
// message to the queue that SQS took it from, as fast as SQS sees fit.
type MoveOptions struct {
	// To is where all messages go: a queue of this package, of the same kind
	// (standard or FIFO). Nil: back to where SQS took them from.
	To queue.Queue
	// Rate is the most messages moved a second, 1 to 500; 0: as SQS sees fit.
	Rate int
}

// Move is a move task as SQS describes it.
type Move struct {
	Handle    string // of a running task only
	State     string // RUNNING, COMPLETED, CANCELLING, CANCELLED or FAILED
	From, To  string // ARNs; To is empty when messages go back to where they came from
	Moved     int64  // approximate
	ToMove    *int64 // approximate, as it was at the start; nil: unknown yet
	Rate      int    // messages a second; 0: as SQS sees fit
	StartedAt time.Time
	Reason    string // of a failure
}

// Running reports whether the task still moves messages.
func (m Move) Running() bool {
	switch m.State {
	case "COMPLETED", "CANCELLED", "FAILED":
		return false
	}
	return true
}

const (
	maxMoveRate = 500
	maxMoves    = 10 // that SQS lists
)

var _ Mover = (*handle)(nil)

// StartMove makes handle a Mover.
func (h *handle) StartMove(ctx context.Context, opts *MoveOptions) (string, error) {
	ctx, end, err := h.calls.Begin(ctx)
	if err != nil {
		return "", h.fail("start a move from", err)
	}
	defer end()
	if opts == nil {
		opts = &MoveOptions{}
	}
	task, err := h.startMove(ctx, opts)
	if err != nil {
		return "", h.fail("start a move from", err)
	}
	return task, nil
}

func (h *handle) startMove(ctx context.Context, opts *MoveOptions) (string, error) {
	if opts.Rate < 0 || opts.Rate > maxMoveRate {
		return "", &queue.InvalidError{Field: "MoveOptions.Rate", Reason: "isn't 1 to 500 messages a second, or 0"}
	}
	in := &awssqs.StartMessageMoveTaskInput{}
	if opts.Rate > 0 {
		rate := int32(opts.Rate)
		in.MaxNumberOfMessagesPerSecond = &rate
	}
	if opts.To != nil {
		to, ok := queue.As[*handle](opts.To)
		if !ok {
			return "", &queue.InvalidError{Field: "MoveOptions.To", Reason: "isn't a queue of Amazon SQS"}
		}
		arn, err := to.arn(ctx)
		if err != nil {
			return "", err
		}
		in.DestinationArn = &arn
	}
	arn, err := h.arn(ctx)
	if err != nil {
		return "", err
	}
	in.SourceArn = &arn
	sent, option := watched(ctx)
	out, err := h.client.StartMessageMoveTask(sent, in, option)
	if err != nil {
		if sent.maybe || sent.taken {
			return "", sent.outcome(err) // also of a later try, which found the task of an earlier one
		}
		return "", h.whyNoMove(ctx, err)
	}
	return deref(out.TaskHandle), nil
}

// whyNoMove tells the wrong kind of queue from other causes, which SQS gives the
// same code.
func (h *handle) whyNoMove(ctx context.Context, err error) error {
	if is[*types.ResourceNotFoundException](err) {
		return remote.As(queue.ErrQueueNotFound, err)
	}
	if api, ok := errors.AsType[smithy.APIError](err); !ok || api.ErrorFault() == smithy.FaultServer || kindOf(err) != nil {
		return classify(err)
	}
	sources, listing := h.client.ListDeadLetterSourceQueues(ctx, &awssqs.ListDeadLetterSourceQueuesInput{QueueUrl: &h.url})
	if listing == nil && len(sources.QueueUrls) == 0 {
		return remote.As(queue.ErrUnsupported, err)
	}
	return err // if listing has failed that's no news to whoever wanted to move
}

// arn asks SQS for the queue's ARN.
func (h *handle) arn(ctx context.Context) (string, error) {
	const name = types.QueueAttributeNameQueueArn
	out, err := h.client.GetQueueAttributes(ctx, &awssqs.GetQueueAttributesInput{QueueUrl: &h.url, AttributeNames: []types.QueueAttributeName{name}})
	if err != nil {
		return "", classify(err)
	}
	return out.Attributes[string(name)], nil
}

// Moves makes handle a Mover.
func (h *handle) Moves(ctx context.Context) ([]Move, error) {
	ctx, end, err := h.calls.Begin(ctx)
	if err != nil {
		return nil, h.fail("list moves from", err)
	}
	defer end()
	arn, err := h.arn(ctx)
	if err != nil {
		return nil, h.fail("list moves from", err)
	}
	most := int32(maxMoves)
	out, err := h.client.ListMessageMoveTasks(ctx, &awssqs.ListMessageMoveTasksInput{SourceArn: &arn, MaxResults: &most})
	if err != nil {
		return nil, h.fail("list moves from", classify(err))
	}
	moves := make([]Move, len(out.Results))
	for i, r := range out.Results {
		moves[i] = Move{
			Handle: deref(r.TaskHandle), State: deref(r.Status), From: deref(r.SourceArn), To: deref(r.DestinationArn),
			Moved: r.ApproximateNumberOfMessagesMoved, ToMove: r.ApproximateNumberOfMessagesToMove, Reason: deref(r.FailureReason),
		}
		if r.MaxNumberOfMessagesPerSecond != nil {
			moves[i].Rate = int(*r.MaxNumberOfMessagesPerSecond)
		}
		if r.StartedTimestamp > 0 {
			moves[i].StartedAt = time.UnixMilli(r.StartedTimestamp)
		}
	}
	return moves, nil
}

// CancelMove makes handle a Mover.
func (h *handle) CancelMove(ctx context.Context, task string) (int64, error) {
	ctx, end, err := h.calls.Begin(ctx)
	if err != nil {
		return 0, h.fail("cancel a move from", err)
	}
	defer end()
	out, err := h.client.CancelMessageMoveTask(ctx, &awssqs.CancelMessageMoveTaskInput{TaskHandle: &task})
	if err != nil {
		return 0, h.fail("cancel a move from", classify(err))
	}
	return out.ApproximateNumberOfMessagesMoved, nil
}
