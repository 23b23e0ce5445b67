package queue_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
)

// dead opens the dead-letter queue of the old side.
func (b *bridging) dead() queue.Queue {
	q, err := b.left.Open(b.Context(), "orders-dlq", nil)
	require.NoError(b, err)
	b.Cleanup(func() { assert.NoError(b, q.Close(context.Background())) })
	return q
}

// narrow is a queue of small messages.
type narrow struct{ queue.Queue }

func (n narrow) Capabilities() queue.Capabilities {
	c := n.Queue.Capabilities()
	c.Wire.MaxBytes = 1000
	return c
}

func ids(ds []*queue.Delivery) []string {
	var out []string
	for _, d := range ds {
		out = append(out, d.ID)
	}
	return out
}

func TestBridgeDeadLettersWhatTheOtherSideCannotCarry(t *testing.T) {
	for name, like := range map[string]memory.Like{"keys are locked": memory.Portable, "keys aren't locked": memory.PubSub} {
		t.Run(name, func(t *testing.T) {
			onTwoSides(t, memory.Options{Like: like}, memory.Options{Like: memory.SQSFIFO}, true, func(b *bridging) {
				body := bytes.Repeat([]byte("x"), 2000)
				b.to = narrow{b.to}
				b.publish(&queue.Message{ID: "before", Body: []byte("x"), OrderingKey: "k"},
					&queue.Message{ID: "large", Body: body, OrderingKey: "k"}, &queue.Message{ID: "behind", Body: []byte("x"), OrderingKey: "k"})
				res := b.run(time.Minute, queue.BridgeOptions{DeadLetter: b.dead()})
				assert.Equal(b, queue.BridgeResult{Copied: 2, DeadLettered: 1, Failed: 1}, res)
				assert.Empty(b, b.here())
				assert.Equal(b, []string{"before", "behind"}, ids(b.there()))
				dead := b.left.Messages("orders-dlq")
				require.Len(b, dead, 1)
				assert.Equal(b, body, dead[0].Body)
				assert.Equal(b, queue.ReasonBridge, dead[0].DeadLetter.Reason)
				assert.Equal(b, b.from.Capabilities().Source, dead[0].DeadLetter.Source)
				assert.Contains(b, dead[0].DeadLetter.Error, "over the limit")
			})
		})
	}
}

func TestBridgeLeavesWhatCannotBeDeadLetteredEither(t *testing.T) {
	onTwoSides(t, memory.Options{Like: memory.PubSub}, memory.Options{Like: memory.SQSStandard}, false, func(b *bridging) {
		b.publish(&queue.Message{ID: "large", Body: make([]byte, 2<<20)})
		dead := queue.PublisherFunc(func(context.Context, ...*queue.Message) error { return errors.New("it's full, too") })
		res := b.run(time.Minute, queue.BridgeOptions{DeadLetter: dead})
		assert.Equal(b, queue.BridgeResult{Failed: 1, Left: 1}, res)
		assert.Len(b, b.here(), 1)
		assert.Contains(b, b.log.String(), "it's full, too")
		assert.Contains(b, b.log.String(), "over the limit")
	})
}

// What the library publishes again usually goes whatever is left out for lack of room.
// A copy on another system is the message's only one from then on.
func TestBridgeLeavesNothingOut(t *testing.T) {
	full := strings.Repeat("x", 1<<20)
	for name, tc := range map[string]struct {
		message queue.Message
		copied  bool
	}{
		"a key that's too long":               {queue.Message{OrderingKey: strings.Repeat("k", 129)}, false},
		"a key that isn't ASCII":              {queue.Message{OrderingKey: "schlüssel"}, false},
		"an ID for which there's no room":     {queue.Message{ID: "mine", Body: []byte(full)}, false},
		"no ID, and no room":                  {queue.Message{Body: []byte(full)}, true},
		"a binary body that's too large then": {queue.Message{Body: bytes.Repeat([]byte{0}, 1<<20-1000)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			onTwoSides(t, memory.Options{Like: memory.PubSub}, memory.Options{Like: memory.SQSFIFO}, true, func(b *bridging) {
				b.publish(&tc.message)
				res := b.run(time.Minute, queue.BridgeOptions{})
				if tc.copied {
					require.Equal(b, queue.BridgeResult{Copied: 1}, res)
					assert.Equal(b, tc.message.Body, b.there()[0].Body)
					return
				}
				assert.Equal(b, queue.BridgeResult{Failed: 1, Left: 1}, res)
				assert.Empty(b, b.there())
				assert.Len(b, b.here(), 1)
			})
		})
	}
}

func TestBridgeCopiesAttributesBeyondTheLimitOfTheOtherSide(t *testing.T) {
	onTwoSides(t, memory.Options{Like: memory.PubSub}, memory.Options{Like: memory.SQSStandard}, false, func(b *bridging) {
		attrs := map[string]string{"a name with spaces": "v", "empty": ""}
		for c := 'a'; c <= 'z'; c++ {
			attrs[string(c)] = strings.Repeat(string(c), 50)
		}
		b.publish(&queue.Message{ID: "mine", Body: []byte("x"), Attributes: attrs})
		assert.Equal(b, queue.BridgeResult{Copied: 1}, b.run(time.Minute, queue.BridgeOptions{}))
		assert.Equal(b, attrs, b.there()[0].Attributes)
	})
}

// A due time that the other side's retention doesn't reach: without a consumer the
// message would be gone before.
func TestBridgeLeavesWhatWouldExpireBeforeItIsDue(t *testing.T) {
	onTwoSides(t, memory.Options{Like: memory.PubSub}, memory.Options{Like: memory.SQSStandard}, false, func(b *bridging) {
		const day = 24 * time.Hour
		b.publish(&queue.Message{ID: "late", Body: []byte("x"), DeliverAt: time.Now().Add(6 * day)})
		res := b.run(day, queue.BridgeOptions{DeadLetter: b.dead(), Aside: 10 * time.Minute})
		assert.Zero(b, res.Copied+res.DeadLettered, "the retention of SQS is four days by default")
		assert.Equal(b, 1, res.Left)
		res = b.run(day+time.Hour, queue.BridgeOptions{DeadLetter: b.dead(), Aside: 10 * time.Minute})
		assert.Equal(b, 1, res.Copied)
		assert.Zero(b, res.Left)
	})
}

func TestBridgeKeepsTheHistoryOfDeadLetters(t *testing.T) {
	onTwoSides(t, memory.Options{Like: memory.SQSStandard}, memory.Options{Like: memory.PubSub}, false, func(b *bridging) {
		d := &queue.Delivery{Message: queue.Message{ID: "mine", Body: []byte("x"), OrderingKey: "k"}, Source: queue.Endpoint{System: "aws_sqs", Name: "old"}, Failures: 3, EnqueuedAt: time.Now()}
		b.publish(queue.NewDeadLetter(d, errors.New("no such lead"), queue.ReasonFailures, time.Now()))
		before := b.here()[0].DeadLetter
		require.NotNil(b, before)
		b.run(time.Minute, queue.BridgeOptions{})
		require.Len(b, b.there(), 1)
		after := b.there()[0].DeadLetter
		assert.True(b, before.FirstAt.Equal(after.FirstAt))
		after.FirstAt = before.FirstAt // another way to say the same
		assert.Equal(b, before, after)

		// The key that neither queue could carry is still there.
		home, err := b.right.Open(b.Context(), "home", &queue.OpenOptions{Ordered: true})
		require.NoError(b, err)
		defer func() { assert.NoError(b, home.Close(context.Background())) }()
		_, err = queue.Redrive(b.Context(), b.to, home, &queue.RedriveOptions{AnySource: true})
		require.NoError(b, err)
		require.Len(b, b.right.Messages("home"), 1)
		assert.Equal(b, "k", b.right.Messages("home")[0].OrderingKey)
	})
}
