package pubsub

import (
	"fmt"
	"time"

	"github.com/googleapis/gax-go/v2"
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

// classify gives an error of a call its neutral meaning.
func classify(err error) error { return remote.As(kindOf(status.Code(err)), err) }

func kindOf(c codes.Code) error {
	switch c {
	case codes.NotFound:
		return queue.ErrQueueNotFound
	case codes.PermissionDenied, codes.Unauthenticated:
		return queue.ErrPermission
	case codes.ResourceExhausted:
		return queue.ErrThrottled
	}
	return nil
}

// sending watches the attempts of one publish, of which the client only tells
// the last, and says whether one of them may have taken effect.
type sending struct {
	backoff gax.Backoff
	peer    peer.Peer // set as soon as an attempt has had a connection
	maybe   bool
}

func (s *sending) options() []gax.CallOption {
	s.backoff = gax.Backoff{Initial: 100 * time.Millisecond, Max: 10 * time.Second, Multiplier: 2}
	return []gax.CallOption{
		gax.WithRetry(func() gax.Retryer { return s }),
		gax.WithGRPCOptions(grpc.Peer(&s.peer)),
	}
}

// Retry says whether and when to try again. It makes sending a gax.Retryer.
func (s *sending) Retry(err error) (time.Duration, bool) {
	switch status.Code(err) {
	case codes.ResourceExhausted:
		return s.backoff.Pause(), true
	case codes.Aborted, codes.Internal, codes.Unknown, codes.Unavailable:
		s.noted()
		return s.backoff.Pause(), true
	case codes.Canceled, codes.DeadlineExceeded:
		s.noted()
	}
	return 0, false
}

// noted marks that the outcome of an attempt is unknown, if it was sent at all.
func (s *sending) noted() { s.maybe = s.maybe || s.peer.Addr != nil }

func (s *sending) failure(err error) error {
	if err = classify(err); s.maybe {
		err = remote.As(queue.ErrUnknownOutcome, err)
	}
	return err
}
