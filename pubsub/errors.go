package pubsub

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/googleapis/gax-go/v2"
	"github.com/googleapis/gax-go/v2/apierror"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/anyqueue/anyqueue/internal/remote"
	"github.com/anyqueue/anyqueue/queue"
)

func (h *handle) fail(op string, err error) error {
	return fmt.Errorf("pubsub: %s %s: %w", op, h.name, err)
}

// classify gives an error of a call its neutral meaning. Where it's that ctx has
// ended, gRPC has words of its own for it.
func classify(ctx context.Context, err error) error {
	kind := kindOf(err)
	if code := status.Code(err); kind == nil && (code == codes.Canceled || code == codes.DeadlineExceeded) {
		kind = ctx.Err()
		// gRPC's own timer for the same deadline may be faster than the context's.
		if at, ok := ctx.Deadline(); ok && kind == nil && code == codes.DeadlineExceeded && !time.Now().Before(at) {
			kind = context.DeadlineExceeded
		}
	}
	return remote.As(kind, err)
}

func kindOf(err error) error {
	switch status.Code(err) { //nolint:exhaustive // the others have none
	case codes.NotFound:
		return queue.ErrQueueNotFound
	case codes.PermissionDenied:
		return queue.ErrPermission
	case codes.ResourceExhausted:
		return queue.ErrThrottled
	}
	return nil
}

// classifyOpen is classify for what's done at the start. Credentials that aren't
// accepted are an error then; while a queue is in use it may be just a token that
// couldn't be refreshed, which mustn't end a consumer.
func classifyOpen(ctx context.Context, err error) error {
	if status.Code(err) == codes.Unauthenticated {
		return remote.As(queue.ErrPermission, err)
	}
	return classify(ctx, err)
}

// denied reports whether a call was refused for want of a permission. Credentials
// that aren't accepted at all say nothing about that.
func denied(err error) bool { return status.Code(err) == codes.PermissionDenied }

// passing reports whether a call that failed is worth trying again: Pub/Sub was
// busy, broken or not reached. What it has refused stays refused.
func passing(err error) bool {
	switch status.Code(err) {
	case codes.ResourceExhausted, codes.Aborted, codes.Internal, codes.Unknown, codes.Unavailable, codes.Unauthenticated,
		codes.DeadlineExceeded, codes.Canceled: // of a try: the caller's end is his to see
		return true
	case codes.OK, codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied, codes.FailedPrecondition,
		codes.OutOfRange, codes.Unimplemented, codes.DataLoss:
	}
	return false
}

// try is one request, which the client doesn't repeat by itself: that would keep
// what was refused waiting for the rest, and tell only of the last try.
type try struct {
	peer peer.Peer // set as soon as the request has had a connection
}

func (t *try) options() []gax.CallOption {
	return []gax.CallOption{
		gax.WithRetry(func() gax.Retryer { return nil }),
		gax.WithGRPCOptions(grpc.Peer(&t.peer)),
	}
}

// maybe reports whether the request may have taken effect in spite of err.
func (t *try) maybe(err error) bool {
	if t.peer.Addr == nil {
		return false // never sent
	}
	switch status.Code(err) { //nolint:exhaustive // the others are answers
	case codes.Aborted, codes.Internal, codes.Unknown, codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return true
	}
	return false
}

// outcome is classify for a request that changes something.
func (t *try) outcome(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	maybe := t.maybe(err)
	if err = classify(ctx, err); maybe {
		err = remote.As(queue.ErrUnknownOutcome, err)
	}
	return err
}

// asking is a question, which changes nothing and may be repeated. The client does
// that by itself as long as its context allows, and says only that it has ended then;
// asking remembers why it was repeated, such as that nobody answers at an address, and
// has enough of it after askFor.
type asking struct {
	gax.Retryer
	last  error
	first time.Time // when that was an error first
}

func (a *asking) option() gax.CallOption {
	return gax.WithRetry(func() gax.Retryer {
		a.Retryer = gax.OnCodes([]codes.Code{codes.Unavailable, codes.Aborted, codes.Unknown}, gax.Backoff{
			Initial: askAgainMin, Max: askAgainMax, Multiplier: 1.3,
		})
		return a
	})
}

const (
	askAgainMin = 100 * time.Millisecond
	askAgainMax = 10 * time.Second
	askFor      = 10 * time.Second
)

// Retry makes it a gax.Retryer.
func (a *asking) Retry(err error) (time.Duration, bool) {
	a.last = err
	if a.first.IsZero() {
		a.first = time.Now()
	}
	if time.Since(a.first) >= askFor {
		return 0, false
	}
	return a.Retryer.Retry(err)
}

// failed is classifyOpen for the error of the question.
func (a *asking) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil && a.last != nil && !errors.Is(err, a.last) {
		return fmt.Errorf("%w; the last answer: %w", ctx.Err(), a.last)
	}
	return classifyOpen(ctx, err)
}

// What the service says of single ack ids of a subscription with exactly-once
// delivery, beside the error of the request
// (https://docs.cloud.google.com/pubsub/docs/exactly-once-delivery).
const (
	ackFailureReason = "EXACTLY_ONCE_ACKID_FAILURE"
	ackLost          = "PERMANENT_FAILURE_INVALID_ACK_ID"
)

// ackFailures returns what an error says of single ack ids, or nil.
func ackFailures(err error) map[string]string {
	if api, ok := errors.AsType[*apierror.APIError](err); ok && api.Reason() == ackFailureReason {
		return api.Metadata()
	}
	return nil
}
