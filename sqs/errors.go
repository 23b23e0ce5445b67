package sqs

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"github.com/anyqueue/anyqueue/internal/remote"
	"github.com/anyqueue/anyqueue/queue"
)

func (h *handle) fail(op string, err error) error {
	return fmt.Errorf("sqs: %s %s: %w", op, h.name, err)
}

// Codes that have no type in the SDK.
var (
	throttleCodes = []string{
		"Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestThrottledException",
		"TooManyRequestsException", "RequestLimitExceeded", "KmsThrottled", "KMS.ThrottlingException", "OverLimit",
		"SlowDown", "BandwidthLimitExceeded", "LimitExceededException",
	}
	// An expired token isn't among them: the next refresh may heal it, and these
	// end a consumer.
	permissionCodes = []string{
		"AccessDenied", "AccessDeniedException", "NotAuthorized", "UnrecognizedClientException", "InvalidClientTokenId",
		"InvalidAccessKeyId", "AuthFailure", "SignatureDoesNotMatch", "InvalidSignatureException", "IncompleteSignature",
		"MissingAuthenticationToken", "MissingAuthenticationTokenException", "OptInRequired", "InvalidSecurity",
		"KmsAccessDenied", "KMS.AccessDeniedException",
	}
)

// denied reports whether SQS knows who asks, and doesn't allow this one thing.
func denied(err error) bool {
	api, ok := errors.AsType[smithy.APIError](err)
	return ok && slices.Contains([]string{"AccessDenied", "AccessDeniedException", "NotAuthorized"}, api.ErrorCode())
}

// classify gives an error of a call its neutral meaning.
func classify(err error) error { return remote.As(kindOf(err), err) }

func kindOf(err error) error {
	// A URL of another region or account has no queue here.
	if is[*types.QueueDoesNotExist](err) || is[*types.QueueDeletedRecently](err) || is[*types.InvalidAddress](err) {
		return queue.ErrQueueNotFound
	}
	if is[*types.RequestThrottled](err) || is[*types.KmsThrottled](err) || is[*types.OverLimit](err) {
		return queue.ErrThrottled
	}
	if is[*types.KmsAccessDenied](err) || is[*types.InvalidSecurity](err) {
		return queue.ErrPermission
	}
	if is[*types.ReceiptHandleIsInvalid](err) || is[*types.MessageNotInflight](err) {
		return queue.ErrLeaseLost
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		if kind := kindOfCode(api.ErrorCode()); kind != nil {
			return kind
		}
	}
	if r, ok := errors.AsType[*awshttp.ResponseError](err); ok && r.HTTPStatusCode() == http.StatusTooManyRequests {
		return queue.ErrThrottled
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

// passing reports whether a call that failed is worth trying again: SQS was
// busy, broken or not reached. What it has refused stays refused.
func passing(err error) bool {
	if errors.Is(err, queue.ErrThrottled) {
		return true
	}
	if kindOf(err) != nil {
		return false
	}
	if r, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		code := r.HTTPStatusCode()
		return code < http.StatusBadRequest || code >= http.StatusInternalServerError || code == http.StatusRequestTimeout
	}
	return true
}

// separable reports whether a request was refused as a whole for what may be one
// of its messages, or for their number: a client's error that isn't about the
// queue, the credentials or the rate.
func separable(err error) bool {
	r, ok := errors.AsType[*awshttp.ResponseError](err)
	if !ok || kindOf(err) != nil {
		return false
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok && slices.ContainsFunc(commonCodes, func(part string) bool { return strings.Contains(api.ErrorCode(), part) }) {
		return false
	}
	switch code := r.HTTPStatusCode(); code {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusRequestTimeout:
		return false
	default:
		return code >= http.StatusBadRequest && code < http.StatusInternalServerError
	}
}

// commonCodes are parts of codes that are about every request: an expired token,
// a wrong clock, a key of KMS, an action or protocol that isn't known.
var commonCodes = []string{"Expired", "Token", "TooSkewed", "Kms", "KMS", "UnsupportedOperation", "UnknownOperation", "InvalidAction", "InvalidAddress"}

// leaseCodes are the codes of batch entries that say that a receipt handle is no
// longer good. The prefix is that of the query protocol.
var leaseCodes = []string{
	"ReceiptHandleIsInvalid", "MessageNotInflight", "AWS.SimpleQueueService.MessageNotInflight",
}

// valueCodes are those of a handle that has expired (FIFO), or whose message is
// gone; and of a visibility beyond the message's 12 hours.
var valueCodes = []string{"InvalidParameterValue", "InvalidParameterValueException"}

// entryError is the failure of one entry of a batch; lease says that the batch
// ends or changes leases.
func entryError(e *types.BatchResultErrorEntry, lease bool) error {
	code := deref(e.Code)
	err := fmt.Errorf("%s: %s", code, deref(e.Message))
	switch {
	case lease && slices.Contains(valueCodes, code):
		return remote.As(queue.ErrLeaseLost, &valueError{err})
	case lease && slices.Contains(leaseCodes, code):
		return remote.As(queue.ErrLeaseLost, err)
	}
	return remote.As(kindOfCode(code), err)
}

// valueError says that one of the parameters of an entry is wrong, without saying
// which.
type valueError struct{ error }
