package sqs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync/atomic"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/anyqueue/anyqueue/queue"
)

func (h *handle) fail(op string, err error) error {
	return fmt.Errorf("sqs: %s %s: %w", op, h.name, err)
}

// callError adds the neutral meaning to an error of the SDK, without a word.
type callError struct {
	kind error
	err  error
}

func (e *callError) Error() string   { return e.err.Error() }
func (e *callError) Unwrap() []error { return []error{e.kind, e.err} }

// as gives err the meaning of a sentinel; a nil one changes nothing.
func as(kind, err error) error {
	if kind == nil {
		return err
	}
	return &callError{kind, err}
}

// Codes that have no type in the SDK.
var (
	throttleCodes = []string{
		"Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestThrottledException",
		"TooManyRequestsException", "RequestLimitExceeded", "KmsThrottled", "KMS.ThrottlingException", "OverLimit",
	}
	permissionCodes = []string{
		"AccessDenied", "AccessDeniedException", "UnrecognizedClientException", "InvalidClientTokenId",
		"MissingAuthenticationToken", "OptInRequired", "InvalidSecurity",
	}
)

// classify gives an error of a call its neutral meaning.
func classify(err error) error { return as(kindOf(err), err) }

func kindOf(err error) error {
	if is[*types.QueueDoesNotExist](err) || is[*types.QueueDeletedRecently](err) {
		return queue.ErrQueueNotFound
	}
	if is[*types.RequestThrottled](err) || is[*types.KmsThrottled](err) || is[*types.OverLimit](err) {
		return queue.ErrThrottled
	}
	if is[*types.KmsAccessDenied](err) {
		return queue.ErrPermission
	}
	if is[*types.ReceiptHandleIsInvalid](err) || is[*types.MessageNotInflight](err) {
		return queue.ErrLeaseLost
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return kindOfCode(api.ErrorCode())
	}
	return nil
}

func kindOfCode(code string) error {
	switch {
	case slices.Contains(throttleCodes, code):
		return queue.ErrThrottled
	case slices.Contains(permissionCodes, code):
		return queue.ErrPermission
	}
	return nil
}

func is[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

// leaseCodes are the codes of batch entries that say that a receipt handle is no
// longer good. The prefix is that of the query protocol.
var leaseCodes = []string{
	"ReceiptHandleIsInvalid", "MessageNotInflight", "AWS.SimpleQueueService.MessageNotInflight",
	// When a handle has expired (FIFO), or the message is gone. The only other
	// parameter, the visibility, is within its limits.
	"InvalidParameterValue", "InvalidParameterValueException",
}

// entryError is the failure of one entry of a batch; lease says that the batch
// ends or changes leases.
func entryError(e *types.BatchResultErrorEntry, lease bool) error {
	code := deref(e.Code)
	err := fmt.Errorf("%s: %s", code, deref(e.Message))
	if lease && slices.Contains(leaseCodes, code) {
		return as(queue.ErrLeaseLost, err)
	}
	return as(kindOfCode(code), err)
}

// sent watches the attempts of one call, of which the SDK only tells the last,
// and says whether one of them may have taken effect.
type sent struct{ maybe atomic.Bool }

func (s *sent) watch(o *awssqs.Options) {
	o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
		return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("anyqueue:sent", s.attempt), middleware.Before)
	})
}

func (s *sent) attempt(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
	var wrote atomic.Bool
	out, meta, err := next.HandleDeserialize(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteHeaders: func() { wrote.Store(true) },
	}), in)
	if err == nil {
		return out, meta, nil
	}
	refused := false
	if r, ok := out.RawResponse.(*smithyhttp.Response); ok && r != nil && r.Response != nil {
		refused = r.StatusCode >= http.StatusBadRequest && r.StatusCode < http.StatusInternalServerError ||
			errors.Is(classify(err), queue.ErrThrottled)
	}
	if wrote.Load() && !refused {
		s.maybe.Store(true)
	}
	return out, meta, err
}
