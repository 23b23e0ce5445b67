package sqstest_test

import (
	"testing"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAGroupIsLockedWhileAnEarlierOneIsInFlight(t *testing.T) {
	t.Parallel()
	virtually(t, nil, func(e *env) {
		url := e.create("q.fifo")
		for _, body := range []string{"a1", "a2", "a3"} {
			e.sendFIFO(url, "a", body)
		}
		e.sendFIFO(url, "b", "b1")
		first, err := e.c.ReceiveMessage(e.Context(), &awssqs.ReceiveMessageInput{QueueUrl: &url, MaxNumberOfMessages: 2})
		require.NoError(e, err)
		assert.Equal(e, []string{"a1", "a2"}, bodies(first.Messages), "several of one group, in order")
		assert.Equal(e, []string{"b1"}, bodies(e.receive(url)), "another group isn't held up")
		require.NoError(e, e.delete(url, first.Messages[0]))
		assert.Empty(e, e.receive(url))
		require.NoError(e, e.delete(url, first.Messages[1]))
		assert.Equal(e, []string{"a3"}, bodies(e.receive(url)))
	})
}

// As AWS was recorded to do.
func TestTheFirstOfAGroupComesAgainThoughLaterOnesAreInFlight(t *testing.T) {
	t.Parallel()
	virtually(t, nil, func(e *env) {
		url := e.create("q.fifo")
		for _, body := range []string{"foo", "bar", "baz"} {
			e.sendFIFO(url, "g", body)
		}
		all := e.receive(url)
		require.Len(e, all, 3)
		require.NoError(e, e.changeVisibility(url, all[1], 0))
		assert.Empty(e, e.receive(url), "an earlier one is in flight")
		require.NoError(e, e.changeVisibility(url, all[0], 0))
		assert.Equal(e, []string{"foo", "bar"}, bodies(e.receive(url)))
	})
}

func TestARepeatIsDroppedForFiveMinutes(t *testing.T) {
	t.Parallel()
	type attempt struct{ group, dedup, body string }
	for name, c := range map[string]struct {
		attributes    []string
		first, second attempt
		dropped       bool
	}{
		"the same id":                          {nil, attempt{"g", "d", "one"}, attempt{"g", "d", "two"}, true},
		"the same id in another group":         {nil, attempt{"g", "d", "one"}, attempt{"h", "d", "one"}, true},
		"another id":                           {nil, attempt{"g", "d", "one"}, attempt{"g", "e", "one"}, false},
		"the same body":                        {[]string{"ContentBasedDeduplication", "true"}, attempt{"g", "", "one"}, attempt{"h", "", "one"}, true},
		"another body":                         {[]string{"ContentBasedDeduplication", "true"}, attempt{"g", "", "one"}, attempt{"g", "", "two"}, false},
		"the same body with an id":             {[]string{"ContentBasedDeduplication", "true"}, attempt{"g", "", "one"}, attempt{"g", "d", "one"}, false},
		"the same id in its group's scope":     {[]string{"DeduplicationScope", "messageGroup"}, attempt{"g", "d", "one"}, attempt{"g", "d", "two"}, true},
		"the same id in another group's scope": {[]string{"DeduplicationScope", "messageGroup", "FifoThroughputLimit", "perMessageGroupId"}, attempt{"g", "d", "one"}, attempt{"h", "d", "one"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			virtually(t, nil, func(e *env) {
				url := e.create("q.fifo", c.attributes...)
				send := func(a attempt) *awssqs.SendMessageOutput {
					in := &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: &a.body, MessageGroupId: &a.group}
					if a.dedup != "" {
						in.MessageDeduplicationId = &a.dedup
					}
					out, err := e.c.SendMessage(e.Context(), in)
					require.NoError(e, err)
					return out
				}
				first := send(c.first)
				for _, m := range e.receive(url) {
					require.NoError(e, e.delete(url, m)) // it's remembered all the same
				}
				time.Sleep(5*time.Minute - 1)
				second := send(c.second)
				if !c.dropped {
					assert.NotEqual(e, *first.MessageId, *second.MessageId)
					assert.Less(e, *first.SequenceNumber, *second.SequenceNumber)
					assert.Len(e, e.receive(url), 1)
					return
				}
				assert.Equal(e, *first.MessageId, *second.MessageId)
				assert.Equal(e, *first.SequenceNumber, *second.SequenceNumber)
				assert.Empty(e, e.receive(url))
				time.Sleep(time.Nanosecond)
				assert.NotEqual(e, *first.MessageId, *send(c.second).MessageId, "the window began with the first")
				assert.Len(e, e.receive(url), 1)
			})
		})
	}
}

func TestSequenceNumbersOfABatch(t *testing.T) {
	t.Parallel()
	virtually(t, nil, func(e *env) {
		url := e.create("q.fifo")
		in := &awssqs.SendMessageBatchInput{QueueUrl: &url}
		for _, id := range []string{"1", "2", "3"} {
			in.Entries = append(in.Entries, types.SendMessageBatchRequestEntry{Id: &id, MessageBody: &id, MessageGroupId: new("g"), MessageDeduplicationId: &id})
		}
		out, err := e.c.SendMessageBatch(e.Context(), in)
		require.NoError(e, err)
		ms := e.receive(url)
		require.Len(e, ms, 3)
		last := ""
		for i, m := range ms {
			seq := m.Attributes["SequenceNumber"]
			assert.Equal(e, *out.Successful[i].SequenceNumber, seq)
			assert.Len(e, seq, 20)
			assert.Greater(e, seq, last)
			assert.Equal(e, *m.Body, m.Attributes["MessageDeduplicationId"])
			assert.Equal(e, "g", m.Attributes["MessageGroupId"])
			last = seq
		}
	})
}
