package sqstest_test

import (
	"testing"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDeletingWithAnOldHandle(t *testing.T) {
	t.Parallel()
	const expired = "InvalidParameterValue"
	for name, c := range map[string]struct {
		before         func(e *env, url string, m types.Message)
		standard, fifo string // the code; empty: success
		left           int    // of a standard queue
	}{
		"in flight":                 {func(*env, string, types.Message) {}, "", "", 0},
		"deleted before":            {func(e *env, url string, m types.Message) { require.NoError(e, e.delete(url, m)) }, "", "", 0},
		"timeout over":              {func(e *env, _ string, _ types.Message) { time.Sleep(30 * time.Second) }, "", expired, 0},
		"made visible":              {func(e *env, url string, m types.Message) { require.NoError(e, e.changeVisibility(url, m, 0)) }, "", expired, 0},
		"received by somebody else": {func(e *env, url string, _ types.Message) { time.Sleep(30 * time.Second); e.receiveOne(url) }, "", expired, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			virtually(t, nil, func(e *env) {
				url := e.create("q")
				e.send(url, "m")
				m := e.receiveOne(url)
				c.before(e, url, m)
				require.NoError(e, e.delete(url, m), "a standard queue never says no")
				assert.Len(e, e.s.Messages("q"), c.left)

				url = e.create("q.fifo")
				e.sendFIFO(url, "g", "m")
				m = e.receiveOne(url)
				c.before(e, url, m)
				if c.fifo == "" {
					require.NoError(e, e.delete(url, m))
					return
				}
				code(e, c.fifo, e.delete(url, m))
				assert.Len(e, e.s.Messages("q.fifo"), 1)
			})
		})
	}
}

func TestChangingVisibility(t *testing.T) {
	t.Parallel()
	const notInflight, invalid = "AWS.SimpleQueueService.MessageNotInflight", "InvalidParameterValue"
	for name, c := range map[string]struct {
		before  func(e *env, url string, m types.Message)
		seconds int32
		code    string
	}{
		"longer":                     {nil, 300, ""},
		"to the end of the 12 hours": {func(*env, string, types.Message) { time.Sleep(20 * time.Second) }, 43180, ""},
		"beyond the 12 hours":        {func(*env, string, types.Message) { time.Sleep(20 * time.Second) }, 43181, invalid},
		"more than 12 hours":         {nil, 43201, invalid},
		"negative":                   {nil, -1, invalid},
		"timeout over":               {func(*env, string, types.Message) { time.Sleep(30 * time.Second) }, 10, notInflight},
		"made visible":               {func(e *env, url string, m types.Message) { require.NoError(e, e.changeVisibility(url, m, 0)) }, 10, notInflight},
		"received by somebody else":  {func(e *env, url string, _ types.Message) { time.Sleep(30 * time.Second); e.receiveOne(url) }, 10, notInflight},
		"deleted":                    {func(e *env, url string, m types.Message) { require.NoError(e, e.delete(url, m)) }, 10, invalid},
		"purged":                     {func(e *env, url string, _ types.Message) { e.purge(url) }, 10, invalid},
	} {
		for _, queue := range []string{"q", "q.fifo"} {
			t.Run(name+" "+queue, func(t *testing.T) {
				t.Parallel()
				virtually(t, nil, func(e *env) {
					url := e.create(queue)
					if queue == "q" {
						e.send(url, "m")
					} else {
						e.sendFIFO(url, "g", "m")
					}
					m := e.receiveOne(url)
					if c.before != nil {
						c.before(e, url, m)
					}
					err := e.changeVisibility(url, m, c.seconds)
					if c.code != "" {
						code(e, c.code, err)
						return
					}
					require.NoError(e, err)
					time.Sleep(time.Duration(c.seconds)*time.Second - 1)
					assert.Empty(e, e.receive(url))
					time.Sleep(time.Nanosecond)
					assert.Len(e, e.receive(url), 1)
				})
			})
		}
	}
}

func (e *env) purge(url string) {
	_, err := e.c.PurgeQueue(e.Context(), &awssqs.PurgeQueueInput{QueueUrl: &url})
	require.NoError(e, err)
}

func TestAChangedTimeoutIsNotRemembered(t *testing.T) {
	t.Parallel()
	virtually(t, nil, func(e *env) {
		url := e.create("q")
		e.send(url, "m")
		require.NoError(e, e.changeVisibility(url, e.receiveOne(url), 0))
		e.receiveOne(url)
		time.Sleep(29 * time.Second)
		assert.Empty(e, e.receive(url))
		time.Sleep(time.Second)
		assert.Len(e, e.receive(url), 1)
	})
}

func TestHandlesThatAreNone(t *testing.T) {
	t.Parallel()
	virtually(t, nil, func(e *env) {
		url, other := e.create("q"), e.create("other")
		e.send(url, "m")
		m := e.receiveOne(url)
		code(e, "ReceiptHandleIsInvalid", e.delete(other, m))
		code(e, "ReceiptHandleIsInvalid", e.changeVisibility(url, types.Message{ReceiptHandle: new("garbage")}, 1))
		code(e, "MissingParameter", e.delete(url, types.Message{ReceiptHandle: new("")}))
		out, err := e.c.DeleteMessageBatch(e.Context(), &awssqs.DeleteMessageBatchInput{QueueUrl: &url, Entries: []types.DeleteMessageBatchRequestEntry{
			{Id: new("bad"), ReceiptHandle: new(*m.ReceiptHandle + "x")}, {Id: new("good"), ReceiptHandle: m.ReceiptHandle},
		}})
		require.NoError(e, err)
		require.Len(e, out.Failed, 1)
		assert.Equal(e, "ReceiptHandleIsInvalid", *out.Failed[0].Code)
		assert.True(e, out.Failed[0].SenderFault)
		require.Len(e, out.Successful, 1)
		assert.Equal(e, "good", *out.Successful[0].Id)
		assert.Empty(e, e.s.Messages("q"))

		e.send(url, "m")
		changed, err := e.c.ChangeMessageVisibilityBatch(e.Context(), &awssqs.ChangeMessageVisibilityBatchInput{QueueUrl: &url, Entries: []types.ChangeMessageVisibilityBatchRequestEntry{
			{Id: new("gone"), ReceiptHandle: m.ReceiptHandle}, {Id: new("good"), ReceiptHandle: e.receiveOne(url).ReceiptHandle},
		}})
		require.NoError(e, err)
		require.Len(e, changed.Failed, 1)
		assert.Equal(e, "InvalidParameterValue", *changed.Failed[0].Code)
		require.Len(e, changed.Successful, 1)
		assert.Len(e, e.receive(url), 1, "the batch has no timeout: 0")
	})
}
