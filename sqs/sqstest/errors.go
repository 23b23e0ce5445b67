package sqstest

import (
	"fmt"
	"net/http"
)

// apiError is an error as SQS answers with. The names are those of the JSON
// protocol's types; where the old query protocol has another one, it's told in
// a header, and is the code of a batch's entry.
type apiError struct {
	code    string
	message string
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

func fail(code, format string, args ...any) *apiError {
	return &apiError{code: code, message: fmt.Sprintf(format, args...)}
}

// errorKind is what's fixed about an error.
type errorKind struct {
	status    int
	query     string // its name in the query protocol; empty: the same
	unmodeled bool   // it's none of the SQS model, but of the framework beneath
}

// receiver reports whether the fault is the server's.
func (k errorKind) receiver() bool { return k.status >= http.StatusInternalServerError }

const (
	invalidParameter = "InvalidParameterValueException"
	missingParameter = "MissingRequiredParameterException"
	internalFailure  = "InternalFailure"
	unavailable      = "ServiceUnavailable"
	unknownOperation = "UnknownOperationException"
	badJSON          = "SerializationException"
	unsupported      = "UnsupportedOperation"

	queueDoesNotExist  = "QueueDoesNotExist"
	queueNameExists    = "QueueNameExists"
	queueDeleted       = "QueueDeletedRecently"
	purgeInProgress    = "PurgeQueueInProgress"
	receiptInvalid     = "ReceiptHandleIsInvalid"
	notInflight        = "MessageNotInflight"
	overLimit          = "OverLimit"
	invalidContents    = "InvalidMessageContents"
	invalidAttrName    = "InvalidAttributeName"
	invalidAttrValue   = "InvalidAttributeValue"
	tooManyEntries     = "TooManyEntriesInBatchRequest"
	emptyBatch         = "EmptyBatchRequest"
	idsNotDistinct     = "BatchEntryIdsNotDistinct"
	invalidEntryID     = "InvalidBatchEntryId"
	batchTooLong       = "BatchRequestTooLong"
	resourceNotFound   = "ResourceNotFoundException"
	invalidAddress     = "InvalidAddress"
	requestThrottled   = "RequestThrottled"
	throttling         = "ThrottlingException"
	signatureInvalid   = "InvalidSignatureException"
	accessDenied       = "AccessDeniedException"
	queryPrefix        = "AWS.SimpleQueueService."
	modelNamespace     = "com.amazonaws.sqs#"
	frameworkNamespace = "com.amazon.coral.service#"
)

// kindOf returns what's fixed about an error; an unknown code is taken as a
// client's error without a model.
func kindOf(code string) errorKind {
	prefixed := errorKind{status: http.StatusBadRequest, query: queryPrefix + code}
	switch code {
	case queueDoesNotExist:
		return errorKind{status: http.StatusBadRequest, query: queryPrefix + "NonExistentQueue"}
	case queueNameExists:
		return errorKind{status: http.StatusBadRequest, query: "QueueAlreadyExists"}
	case queueDeleted, notInflight, tooManyEntries, emptyBatch, idsNotDistinct, invalidEntryID, batchTooLong, unsupported:
		return prefixed
	case purgeInProgress:
		prefixed.status = http.StatusForbidden
		return prefixed
	case overLimit, requestThrottled, "InvalidSecurity":
		return errorKind{status: http.StatusForbidden}
	case receiptInvalid, resourceNotFound, invalidAddress:
		return errorKind{status: http.StatusNotFound}
	case invalidContents, invalidAttrName, invalidAttrValue, "InvalidIdFormat",
		"KmsDisabled", "KmsInvalidState", "KmsNotFound", "KmsOptInRequired", "KmsThrottled", "KmsAccessDenied", "KmsInvalidKeyUsage":
		return errorKind{status: http.StatusBadRequest}
	case invalidParameter:
		return errorKind{status: http.StatusBadRequest, query: "InvalidParameterValue", unmodeled: true}
	case missingParameter:
		return errorKind{status: http.StatusBadRequest, query: "MissingParameter", unmodeled: true}
	case signatureInvalid, accessDenied:
		return errorKind{status: http.StatusForbidden, unmodeled: true}
	case unknownOperation:
		return errorKind{status: http.StatusNotFound, unmodeled: true}
	case internalFailure:
		return errorKind{status: http.StatusInternalServerError, unmodeled: true}
	case unavailable:
		return errorKind{status: http.StatusServiceUnavailable, unmodeled: true}
	}
	return errorKind{status: http.StatusBadRequest, unmodeled: true}
}

// queryCode is the error's name in the query protocol.
func (e *apiError) queryCode() string {
	if k := kindOf(e.code); k.query != "" {
		return k.query
	}
	return e.code
}

// answer is the error as an HTTP answer.
func (e *apiError) answer() *response {
	k := kindOf(e.code)
	namespace, fault := modelNamespace, "Sender"
	if k.unmodeled {
		namespace = frameworkNamespace
	}
	if k.receiver() {
		fault = "Receiver"
	}
	b := append([]byte(nil), `{"__type":`...)
	b = appendString(b, namespace+e.code)
	b = append(b, `,"message":`...)
	b = appendString(b, e.message)
	b = append(b, '}')
	return &response{status: k.status, queryError: e.queryCode() + ";" + fault, body: b}
}
