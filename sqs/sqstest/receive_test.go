package sqstest_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

func TestReceivesAreChecked(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"no message":             `"MaxNumberOfMessages":0`,
		"eleven messages":        `"MaxNumberOfMessages":11`,
		"wait":                   `"WaitTimeSeconds":21`,
		"negative wait":          `"WaitTimeSeconds":-1`,
		"visibility":             `"VisibilityTimeout":43201`,
		"attempt id's letters":   `"ReceiveRequestAttemptId":"a b"`,
		"attempt id's queue":     `"ReceiveRequestAttemptId":"a"`,
		"system attribute":       `"MessageSystemAttributeNames":["Colour"]`,
		"attribute, the old way": `"AttributeNames":["VisibilityTimeout"]`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			virtually(t, nil, func(e *env) {
				status, _, query := e.raw("ReceiveMessage", fmt.Sprintf(`{"QueueUrl":%q,%s}`, e.create("q"), body))
				assert.Equal(e, 400, status)
				assert.Contains(e, []string{"InvalidParameterValue;Sender", "InvalidAttributeName;Sender"}, query)
			})
		})
	}
}

func TestAReceiverGetsTheAttributesItAsksFor(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		names []string
		want  []string
		sum   string // as recorded from AWS
	}{
		"none":             {nil, nil, ""},
		"all":              {[]string{"All"}, []string{"General", "Hello", "Help.Me"}, "4c360f3fdafd970e05fae2f149d997f5"},
		"all by wildcard":  {[]string{".*"}, []string{"General", "Hello", "Help.Me"}, "4c360f3fdafd970e05fae2f149d997f5"},
		"by name":          {[]string{"Hello", "General"}, []string{"General", "Hello"}, "fca026605781cb4126a1e9044df24232"},
		"one that's there": {[]string{"Hello", "None"}, []string{"Hello"}, "a311262e065454b75da111d535b8dacd"},
		"by prefix":        {[]string{"Hel.*"}, []string{"Hello", "Help.Me"}, "83fee93c1bcd8b9a5a923ffacdc636c7"},
		"none of these":    {[]string{"Foo", "Help"}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			virtually(t, nil, func(e *env) {
				url := e.create("q")
				_, err := e.c.SendMessage(e.Context(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: new("msg"), MessageAttributes: map[string]types.MessageAttributeValue{
					"General": text("Kenobi"), "Help.Me": text("Me"), "Hello": text("There"),
				}})
				require.NoError(e, err)
				out, err := e.c.ReceiveMessage(e.Context(), &awssqs.ReceiveMessageInput{QueueUrl: &url, MessageAttributeNames: c.names})
				require.NoError(e, err)
				m := out.Messages[0]
				var got []string
				for _, name := range []string{"General", "Hello", "Help.Me"} {
					if _, ok := m.MessageAttributes[name]; ok {
						got = append(got, name)
					}
				}
				assert.Equal(e, c.want, got)
				if c.sum == "" {
					assert.Nil(e, m.MD5OfMessageAttributes)
				} else {
					assert.Equal(e, c.sum, *m.MD5OfMessageAttributes)
				}
				assert.Nil(e, m.Attributes, "system attributes are only for who asks")
			})
		})
	}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	t.Run("visibility timeout: the queue's, the receive's", func(t *testing.T) {
		t.Parallel()
		virtually(t, nil, func(e *env) {
			url := e.create("q", "VisibilityTimeout", "60")
			e.send(url, "m")
			first := e.receiveOne(url)
			time.Sleep(59 * time.Second)
			assert.Empty(e, e.receive(url))
			time.Sleep(time.Second)
			again := e.receiveOne(url)
			assert.Equal(e, "2", again.Attributes["ApproximateReceiveCount"])
			assert.Equal(e, first.Attributes["ApproximateFirstReceiveTimestamp"], again.Attributes["ApproximateFirstReceiveTimestamp"])
			assert.NotEqual(e, *first.ReceiptHandle, *again.ReceiptHandle)
			time.Sleep(time.Minute)
			_, err := e.c.ReceiveMessage(e.Context(), &awssqs.ReceiveMessageInput{QueueUrl: &url, VisibilityTimeout: 5})
			require.NoError(e, err)
			time.Sleep(5 * time.Second)
			assert.Len(e, e.receive(url), 1)
		})
	})
	t.Run("delay: the queue's, the message's, 0 for none", func(t *testing.T) {
		t.Parallel()
		virtually(t, nil, func(e *env) {
			url := e.create("q", "DelaySeconds", "10")
			e.send(url, "queue's")
			_, err := e.c.SendMessage(e.Context(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: new("own"), DelaySeconds: 900})
			require.NoError(e, err)
			e.raw("SendMessage", fmt.Sprintf(`{"QueueUrl":%q,"MessageBody":"none","DelaySeconds":0}`, url))
			assert.Equal(e, "2", e.attributes(url)["ApproximateNumberOfMessagesDelayed"])
			assert.Equal(e, []string{"none"}, bodies(e.receive(url)))
			time.Sleep(10 * time.Second)
			assert.Equal(e, []string{"queue's"}, bodies(e.receive(url)))
			assert.Equal(e, sqstest.Delayed, e.s.Messages("q")[1].State)
			time.Sleep(890 * time.Second)
			assert.Contains(e, bodies(e.receive(url)), "own")
		})
	})
	t.Run("delay of a FIFO queue", func(t *testing.T) {
		t.Parallel()
		virtually(t, nil, func(e *env) {
			url := e.create("q.fifo", "DelaySeconds", "10")
			status, _, _ := e.raw("SendMessage", fmt.Sprintf(`{"QueueUrl":%q,"MessageBody":"a","DelaySeconds":0,"MessageGroupId":"g","MessageDeduplicationId":"a"}`, url))
			assert.Equal(e, 200, status)
			assert.Empty(e, e.receive(url), "0 is the queue's delay, as recorded from AWS")
			time.Sleep(10 * time.Second)
			assert.Len(e, e.receive(url), 1)
		})
	})
	t.Run("retention", func(t *testing.T) {
		t.Parallel()
		virtually(t, nil, func(e *env) {
			url := e.create("q", "MessageRetentionPeriod", "60")
			e.send(url, "m")
			time.Sleep(59 * time.Second)
			assert.Equal(e, "1", e.attributes(url)["ApproximateNumberOfMessages"])
			time.Sleep(time.Second)
			assert.Equal(e, "0", e.attributes(url)["ApproximateNumberOfMessages"])
			assert.Empty(e, e.receive(url))
		})
	})
	t.Run("long poll: the queue's, the receive's", func(t *testing.T) {
		t.Parallel()
		virtually(t, nil, func(e *env) {
			url := e.create("q", "ReceiveMessageWaitTimeSeconds", "3")
			begun := time.Now()
			assert.Empty(e, e.receive(url))
			assert.Equal(e, 3*time.Second, time.Since(begun))
			begun = time.Now()
			e.raw("ReceiveMessage", fmt.Sprintf(`{"QueueUrl":%q,"WaitTimeSeconds":0}`, url))
			assert.Zero(e, time.Since(begun))
			e.raw("ReceiveMessage", fmt.Sprintf(`{"QueueUrl":%q,"WaitTimeSeconds":20}`, url))
			assert.Equal(e, 20*time.Second, time.Since(begun))
		})
	})
	t.Run("a poll waits for what's hidden and delayed", func(t *testing.T) {
		t.Parallel()
		virtually(t, nil, func(e *env) {
			url := e.create("q", "VisibilityTimeout", "5", "ReceiveMessageWaitTimeSeconds", "20")
			e.send(url, "m")
			e.receiveOne(url)
			begun := time.Now()
			e.receiveOne(url)
			assert.Equal(e, 5*time.Second, time.Since(begun))
		})
	})
}

func TestTooManyInFlight(t *testing.T) {
	t.Parallel()
	virtually(t, &sqstest.Options{MaxInFlight: 2}, func(e *env) {
		url, fifo := e.create("q"), e.create("q.fifo")
		for i := range 3 {
			e.send(url, fmt.Sprint(i))
			e.sendFIFO(fifo, fmt.Sprint("g", i), fmt.Sprint(i))
		}
		assert.Len(e, e.receive(url), 2)
		_, err := e.c.ReceiveMessage(e.Context(), &awssqs.ReceiveMessageInput{QueueUrl: &url})
		code(e, "OverLimit", err)
		out, err := e.c.ReceiveMessage(e.Context(), &awssqs.ReceiveMessageInput{QueueUrl: &url, WaitTimeSeconds: 1})
		require.NoError(e, err)
		assert.Empty(e, out.Messages)
		assert.Len(e, e.receive(fifo), 2)
		assert.Empty(e, e.receive(fifo), "a FIFO queue doesn't say so")
		assert.Equal(e, 2, e.s.EndVisibility("q"))
		assert.Len(e, e.receive(url), 2)
	})
}

func TestAReceiveCanBeRepeatedByItsAttemptID(t *testing.T) {
	t.Parallel()
	receive := func(e *env, url, id string) []types.Message {
		out, err := e.c.ReceiveMessage(e.Context(), &awssqs.ReceiveMessageInput{QueueUrl: &url, MaxNumberOfMessages: 10, ReceiveRequestAttemptId: &id})
		require.NoError(e, err)
		return out.Messages
	}
	virtually(t, nil, func(e *env) {
		url := e.create("q.fifo", "VisibilityTimeout", "30")
		e.sendFIFO(url, "g", "a")
		e.sendFIFO(url, "g", "b")
		got := receive(e, url, "1")
		require.Len(e, got, 2)
		assert.Empty(e, receive(e, url, "2"), "another attempt finds the group locked")
		time.Sleep(20 * time.Second)
		again := receive(e, url, "1")
		assert.Equal(e, []string{"a", "b"}, bodies(again))
		assert.Equal(e, *got[0].ReceiptHandle, *again[0].ReceiptHandle)
		time.Sleep(20 * time.Second)
		assert.Empty(e, e.receive(url), "the timeout began anew")
		require.NoError(e, e.delete(url, again[0]))
		assert.Empty(e, receive(e, url, "1"), "what has been changed isn't repeated")
	})
}

func TestMessagesMayComeTwiceAndInAnyOrder(t *testing.T) {
	t.Parallel()
	virtually(t, &sqstest.Options{Duplicate: 1}, func(e *env) {
		url := e.create("q")
		sent := e.send(url, "m")
		var ids []string
		for range 2 {
			for _, m := range e.receive(url) {
				ids = append(ids, *m.MessageId)
			}
		}
		assert.GreaterOrEqual(e, len(ids), 2)
		assert.Equal(e, *sent.MessageId, ids[0])
		assert.Equal(e, *sent.MessageId, ids[1])
	})
	virtually(t, &sqstest.Options{Reorder: 0.5, Seed: 7}, func(e *env) {
		url := e.create("q")
		var want []string
		for i := range 10 {
			want = append(want, fmt.Sprint(i))
			e.send(url, fmt.Sprint(i))
		}
		got := bodies(e.receive(url))
		assert.NotEqual(e, want, got)
		for len(got) < 10 {
			more := bodies(e.receive(url))
			require.NotEmpty(e, more)
			got = append(got, more...)
		}
		assert.ElementsMatch(e, want, got)
	})
}

func TestADeletedQueueEndsItsPolls(t *testing.T) {
	t.Parallel()
	virtually(t, nil, func(e *env) {
		url := e.create("q")
		polled := make(chan error, 1)
		go func() {
			_, err := e.c.ReceiveMessage(e.Context(), &awssqs.ReceiveMessageInput{QueueUrl: &url, WaitTimeSeconds: 20})
			polled <- err
		}()
		synctest.Wait()
		_, err := e.c.DeleteQueue(e.Context(), &awssqs.DeleteQueueInput{QueueUrl: &url})
		require.NoError(e, err)
		code(e, "AWS.SimpleQueueService.NonExistentQueue", <-polled)
	})
}
