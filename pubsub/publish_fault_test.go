package pubsub_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/anyqueue/anyqueue/queue"
)

// hang doesn't answer as long as the client waits.
func hang(ctx context.Context, _ any, _ func() (any, error)) (any, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// with is a for requests to publish that have a message with this body.
func with(body string, a answer) answer {
	return func(ctx context.Context, in any, forward func() (any, error)) (any, error) {
		for _, m := range in.(*pubsubpb.PublishRequest).GetMessages() {
			if string(m.GetData()) == body {
				return a(ctx, in, forward)
			}
		}
		return forward()
	}
}

// forgetful takes the messages, and names one id too few.
func forgetful(_ context.Context, _ any, forward func() (any, error)) (any, error) {
	out, err := forward()
	if err != nil {
		return nil, err
	}
	ids := out.(*pubsubpb.PublishResponse).GetMessageIds()
	return &pubsubpb.PublishResponse{MessageIds: ids[1:]}, nil
}

func TestOutcomesOfPublish(t *testing.T) {
	for _, c := range []struct {
		name    string
		answer  answer
		is      []error
		unknown bool
		tries   int // 0: until the context ends
		copies  int
	}{
		{"no permission", refuse(codes.PermissionDenied), []error{queue.ErrPermission}, false, 1, 0},
		{"the topic is gone", refuse(codes.NotFound), []error{queue.ErrQueueNotFound}, false, 1, 0},
		{"a message that's wrong", refuse(codes.InvalidArgument), nil, false, 1, 0},
		{"a project that may not publish now", refuse(codes.FailedPrecondition), nil, false, 1, 0},
		{"throttled", refuse(codes.ResourceExhausted), []error{queue.ErrThrottled, context.DeadlineExceeded}, false, 0, 0},
		{"a token that has expired", refuse(codes.Unauthenticated), []error{context.DeadlineExceeded}, false, 0, 0},
		{"an internal error", refuse(codes.Internal), nil, true, 3, 0},
		{"an aborted request", refuse(codes.Aborted), nil, true, 3, 0},
		{"an unknown error", refuse(codes.Unknown), nil, true, 3, 0},
		{"a server that goes", refuse(codes.Unavailable), nil, true, 3, 0},
		{"an answer that's lost", lose(codes.Unavailable), nil, true, 3, 3},
		{"an answer that isn't one", forgetful, nil, true, 1, 1},
		{"no answer at all", hang, []error{context.DeadlineExceeded}, true, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				q := f.fresh(t, nil)
				f.on("Publish", c.answer)
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				err := q.Publish(ctx, message("a"))
				require.Error(t, err)
				assert.ErrorContains(t, err, "pubsub: publish to orders")
				for _, want := range c.is {
					assert.ErrorIs(t, err, want)
				}
				for _, not := range []error{queue.ErrPermission, queue.ErrQueueNotFound, queue.ErrThrottled} {
					assert.Equal(t, contains(c.is, not), errors.Is(err, not), not.Error())
				}
				assert.Equal(t, c.unknown, errors.Is(err, queue.ErrUnknownOutcome), err.Error())
				if tries := len(f.publishes()); c.tries > 0 {
					assert.Equal(t, c.tries, tries)
				} else {
					assert.Greater(t, tries, 3)
				}
				assert.Len(t, f.published(), c.copies)
				assert.EqualValues(t, len(f.publishes()), countsOf(t, q).Publishes)
			})
		})
	}
}

func contains(errs []error, err error) bool {
	for _, e := range errs {
		if errors.Is(e, err) {
			return true
		}
	}
	return false
}

// One attempt that may have arrived is enough, whatever the last one says.
func TestAnAttemptThatMayHaveArrivedMakesTheOutcomeUnknown(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		first := lose(codes.Unavailable)
		f.on("Publish", func(ctx context.Context, in any, forward func() (any, error)) (any, error) {
			defer f.on("Publish", refuse(codes.PermissionDenied))
			return first(ctx, in, forward)
		})
		err := q.Publish(t.Context(), message("a"))
		assert.ErrorIs(t, err, queue.ErrUnknownOutcome)
		assert.ErrorIs(t, err, queue.ErrPermission)
	})
}

func TestEveryCopyIsExplainedByARetry(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		f.on("Publish", times(2, lose(codes.Internal)))
		require.NoError(t, q.Publish(t.Context(), many(20)...))
		assert.EqualValues(t, len(f.published())-20, countsOf(t, q).Retried)
		assert.EqualValues(t, 40, countsOf(t, q).Retried)
	})
}

func TestAPublishEndsWithItsContext(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		f.network.set(true)
		for _, wait := range []time.Duration{0, 3 * time.Second} { // 0: the default
			ctx, want := t.Context(), queue.DefaultPublishTimeout
			if wait > 0 {
				limited, cancel := context.WithTimeout(ctx, wait)
				defer cancel()
				ctx, want = limited, wait
			}
			begun := time.Now()
			err := q.Publish(ctx, message("a"))
			assert.Equal(t, want, time.Since(begun))
			assert.ErrorIs(t, err, context.DeadlineExceeded)
			assert.ErrorContains(t, err, errRefused.Error(), "it says what was in the way")
			assert.NotErrorIs(t, err, queue.ErrUnknownOutcome, "nobody was there")
		}
		over, cancel := context.WithCancel(t.Context())
		cancel()
		assert.ErrorIs(t, q.Publish(over, message("a")), context.Canceled)
		assert.Empty(t, f.publishes())
	})
}

func TestAPublishThatIsCancelledUnderWayIsUnknown(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		f.on("Publish", hang)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		err := q.Publish(ctx, message("a"))
		assert.ErrorIs(t, err, queue.ErrUnknownOutcome)
		assert.ErrorIs(t, err, context.Canceled)
	})
}

// Without a bound of its own a request on a dead connection would take the whole
// time that a Publish has.
func TestARequestWithoutAnAnswerIsMadeAgain(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		f.on("Publish", times(1, hang))
		begun := time.Now()
		require.NoError(t, q.Publish(t.Context(), message("a")))
		assert.GreaterOrEqual(t, time.Since(begun), 10*time.Second)
		assert.Less(t, time.Since(begun), 11*time.Second)
		assert.Len(t, f.publishes(), 2)
	})
}

func TestALargeRequestMayTakeLonger(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		f.on("Publish", late(20*time.Second))
		require.NoError(t, q.Publish(t.Context(), message(strings.Repeat("x", 1<<20))))
		assert.Len(t, f.publishes(), 1)
	})
}

// What was refused for a moment is tried again after pauses that double, half of each
// by chance.
func TestThePausesBetweenTriesGrow(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		f.on("Publish", times(8, refuse(codes.Unauthenticated)))
		require.NoError(t, q.Publish(t.Context(), message("a")))
		at := f.when("Publish")
		for i, longest := 1, 50*time.Millisecond; i < len(at); i, longest = i+1, min(2*longest, 5*time.Second) {
			assert.LessOrEqual(t, at[i].Sub(at[i-1]), longest, "before try %d", i+1)
			assert.GreaterOrEqual(t, at[i].Sub(at[i-1]), longest/2, "before try %d", i+1)
		}
		assert.Len(t, at, 9)
	})
}

// Many publishers don't make it worse.
func TestAThrottledTopicIsAskedLess(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		f.on("Publish", refuse(codes.ResourceExhausted))
		time.AfterFunc(5*time.Second, f.heal)
		var wg sync.WaitGroup
		for _, m := range many(64) {
			wg.Go(func() { assert.NoError(t, q.Publish(t.Context(), m)) })
		}
		wg.Wait()
		assert.Less(t, len(f.publishes()), 20)
		assert.Len(t, f.published(), 64)
		assert.NotZero(t, countsOf(t, q).Throttled)
	})
}

// One message that Pub/Sub refuses, such as one that doesn't match the topic's schema,
// is found by halving its request.
func TestAMessageThatIsRefusedFailsAlone(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		f.on("Publish", with("37", refuse(codes.InvalidArgument)))
		failed := failures(q.Publish(t.Context(), many(100)...), 100)
		require.Len(t, failed, 1)
		assert.ErrorContains(t, failed[37], "InvalidArgument")
		assert.NotErrorIs(t, failed[37], queue.ErrUnknownOutcome, "Pub/Sub said no")
		assert.Len(t, f.published(), 99, "each of the others is there once")
		assert.LessOrEqual(t, len(f.publishes()), 2*7+1, "7 halves 100 down to 1")
		c := countsOf(t, q)
		assert.EqualValues(t, len(f.publishes()), c.Publishes)
		assert.Zero(t, c.Retried)
	})
}

func TestARefusedMessageDoesNotFailThoseOfOtherCallers(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		f.on("Publish", late(30*time.Millisecond))
		var wg sync.WaitGroup
		for range underWay { // those that come after them go together
			wg.Go(func() { assert.NoError(t, q.Publish(t.Context(), message("first"))) })
			synctest.Wait()
		}
		f.on("Publish", with("bad", refuse(codes.InvalidArgument)))
		for _, m := range many(50) {
			wg.Go(func() { assert.NoError(t, q.Publish(t.Context(), m)) })
		}
		wg.Go(func() { assert.ErrorContains(t, q.Publish(t.Context(), message("bad")), "InvalidArgument") })
		wg.Wait()
		assert.Len(t, f.published(), underWay+50)
		assert.Contains(t, f.sizes(), 51, "they had shared a request")
	})
}

// While a request is halved, an answer may be lost too: each half is told as it went.
func TestAHalfWhoseAnswerIsLostIsSentAgain(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		lost := with("9", times(1, lose(codes.Unavailable)))
		f.on("Publish", func(ctx context.Context, in any, forward func() (any, error)) (any, error) {
			return with("2", refuse(codes.InvalidArgument))(ctx, in, func() (any, error) { return lost(ctx, in, forward) })
		})
		failed := failures(q.Publish(t.Context(), many(10)...), 10)
		assert.Len(t, failed, 1)
		assert.ErrorContains(t, failed[2], "InvalidArgument")
		c := countsOf(t, q)
		assert.EqualValues(t, 5, c.Retried)
		assert.Len(t, f.published(), 9+5)
	})
}

func TestEachOfManyThatAreRefusedIsNamed(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		f.on("Publish", refuse(codes.InvalidArgument))
		failed := failures(q.Publish(t.Context(), many(10)...), 10)
		assert.Len(t, failed, 10)
		assert.Len(t, f.publishes(), 2*10-1)
	})
}

// A connection that was never made can't have brought anything.
func TestAnOutageBeforeARequestIsNoDoubt(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		f.network.set(true)
		time.AfterFunc(3*time.Second, func() { f.network.set(false) })
		require.NoError(t, q.Publish(t.Context(), many(10)...))
		assert.Len(t, f.published(), 10, "none of them twice")
	})
}
