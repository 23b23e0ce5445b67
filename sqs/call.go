package sqs

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/anyqueue/anyqueue/internal/remote"
	"github.com/anyqueue/anyqueue/queue"
)

const (
	// callTimeout is how long one request may take. A connection that's dead
	// without a word mustn't cost a whole publish its deadline, or a batch its
	// leases.
	callTimeout = 10 * time.Second
	// slowest is how many bytes a second a request with messages has at least.
	slowest = 64 << 10
	// readTimeout is how long an answer with ten messages may take.
	readTimeout = 30 * time.Second
)

// once is the client's retryer for requests that this package tries again by
// itself, as a retry of the SDK would: it sends the same delay although time has
// passed, keeps what was taken out of a batch waiting, and doubles, hidden, what
// is tried again outside. What's left to the SDK is to sign anew when the clock
// is wrong, and a rate limit that the client may have.
type once struct{ aws.RetryerV2 }

func (once) MaxAttempts() int { return 2 }

func (once) RetryDelay(int, error) (time.Duration, error) { return 0, nil }

// skewCodes say that a request was signed at the wrong time, or that the
// signature is wrong.
var skewCodes = []string{"RequestTimeTooSkewed", "InvalidSignatureException", "SignatureDoesNotMatch", "AuthFailure", "AccessDeniedException"}

// IsErrorRetryable is true when the SDK has seen by the answer's date that the
// clock is wrong.
func (once) IsErrorRetryable(err error) bool {
	code, coded := errors.AsType[interface {
		error
		ErrorCode() string
	}](err)
	skew, judged := errors.AsType[interface {
		error
		RetryableError() bool
	}](err)
	return coded && judged && skew.RetryableError() && slices.Contains(skewCodes, code.ErrorCode())
}

// v1 makes a RetryerV2 of an older one.
type v1 struct{ aws.Retryer }

func (r v1) GetAttemptToken(context.Context) (func(error) error, error) {
	return r.GetInitialToken(), nil
}

// onceBy returns the options of a call that isn't tried again by the SDK, and is
// watched by attempt.
func onceBy(client *awssqs.Client) func(*awssqs.Options) {
	retryer := client.Options().Retryer
	v2, ok := retryer.(aws.RetryerV2)
	switch {
	case ok:
	case retryer == nil:
		v2 = aws.NopRetryer{}
	default:
		v2 = v1{retryer}
	}
	retry := once{v2}
	return func(o *awssqs.Options) {
		o.Retryer = retry
		o.APIOptions = append(o.APIOptions, watch)
	}
}

// sent is what's known about one call. It's the call's context, too, by which the
// watcher finds it.
type sent struct {
	context.Context                //nolint:containedctx // it is one
	tries           *atomic.Uint64 // counts requests
	traced          bool           // it matters whether a request has left
	maybe           bool           // one of them may have taken effect
	taken           bool           // SQS has said yes, whatever the SDK makes of it
}

type sentKey struct{}

// Value finds the call itself.
func (s *sent) Value(key any) any {
	if key == (sentKey{}) {
		return s
	}
	return s.Context.Value(key)
}

// outcome is the meaning of the call's error.
func (s *sent) outcome(err error) error {
	err = classify(err)
	if s.maybe || s.taken {
		return remote.As(queue.ErrUnknownOutcome, err)
	}
	return err
}

// watched is the context and the option of a call that the SDK tries again by
// itself, so that its outcome is known.
func watched(ctx context.Context) (*sent, func(*awssqs.Options)) {
	return &sent{Context: ctx, tries: new(atomic.Uint64), traced: true}, func(o *awssqs.Options) {
		o.APIOptions = append(o.APIOptions, watch)
	}
}

func watch(stack *middleware.Stack) error {
	return stack.Deserialize.Add(watcher{}, middleware.Before)
}

// watcher looks at each attempt of a call, of which the SDK only tells the last.
type watcher struct{}

func (watcher) ID() string { return "anyqueue:watcher" }

func (watcher) HandleDeserialize(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
	s, ok := ctx.Value(sentKey{}).(*sent)
	if !ok {
		return next.HandleDeserialize(ctx, in)
	}
	s.tries.Add(1)
	var t *transport
	if s.traced {
		t = &transport{}
		ctx = httptrace.WithClientTrace(ctx, t.trace())
	}
	out, meta, err := next.HandleDeserialize(ctx, in)
	if err == nil {
		s.taken = true
		return out, meta, nil
	}
	refused := false
	if r, ok := out.RawResponse.(*smithyhttp.Response); ok && r != nil && r.Response != nil {
		refused = r.StatusCode >= http.StatusBadRequest && r.StatusCode < http.StatusInternalServerError ||
			errors.Is(classify(err), queue.ErrThrottled)
	}
	if !refused && !t.unsent(err) {
		s.maybe = true
	}
	return out, meta, err
}

// transport tells whether a request has left.
type transport struct{ asked, wrote atomic.Bool }

func (t *transport) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GetConn:      func(string) { t.asked.Store(true) },
		WroteHeaders: func() { t.wrote.Store(true) },
	}
}

// unsent is only known of a transport that tells what it does, and when nobody
// was there.
func (t *transport) unsent(err error) bool {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return true
	}
	return t != nil && t.asked.Load() && !t.wrote.Load()
}
