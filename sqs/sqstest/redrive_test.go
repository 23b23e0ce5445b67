package sqstest_test

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const arn = "arn:aws:sqs:us-east-1:000000000000:"

func redrive(target string, after any) string {
	return fmt.Sprintf(`{"deadLetterTargetArn":"%s","maxReceiveCount":%v}`, arn+target, after)
}

func TestTheReceiveAfterTheLastMovesToTheDeadLetterQueue(t *testing.T) {
	t.Parallel()
	for _, suffix := range []string{"", ".fifo"} {
		t.Run("q"+suffix, func(t *testing.T) {
			t.Parallel()
			virtually(t, nil, func(e *env) {
				dlq := e.create("dlq"+suffix, "MessageRetentionPeriod", "3600")
				url := e.create("q"+suffix, "RedrivePolicy", redrive("dlq"+suffix, `"2"`), "VisibilityTimeout", "10")
				assert.JSONEq(e, redrive("dlq"+suffix, 2), e.attributes(url)["RedrivePolicy"])
				var id string
				if suffix == "" {
					id = *e.send(url, "m").MessageId
				} else {
					id = *e.sendFIFO(url, "g", "m").MessageId
				}
				sent := time.Now().UnixMilli()
				for range 2 {
					e.receiveOne(url)
					time.Sleep(10 * time.Second)
				}
				assert.Empty(e, e.s.Messages("dlq"+suffix), "nothing moves by itself")
				assert.Empty(e, e.receive(url))
				assert.Empty(e, e.s.Messages("q"+suffix))
				m := e.receiveOne(dlq)
				assert.Equal(e, id, *m.MessageId)
				assert.Equal(e, "3", m.Attributes["ApproximateReceiveCount"], "receives are counted across queues")
				assert.Equal(e, arn+"q"+suffix, m.Attributes["DeadLetterQueueSourceArn"])
				if suffix == "" {
					assert.Equal(e, strconv.FormatInt(sent, 10), m.Attributes["SentTimestamp"], "a standard queue keeps the time")
				} else {
					assert.Equal(e, strconv.FormatInt(sent+20_000, 10), m.Attributes["SentTimestamp"], "a FIFO queue begins anew")
					assert.Equal(e, "g", m.Attributes["MessageGroupId"])
				}
				require.NoError(e, e.delete(dlq, m))
				assert.Empty(e, e.s.Messages("dlq"+suffix))
			})
		})
	}
}

func TestARedrivePolicyIsChecked(t *testing.T) {
	t.Parallel()
	for name, policy := range map[string]string{
		"no JSON":           `x%d`,
		"no target":         `{"maxReceiveCount":3}`,
		"no count":          `{"deadLetterTargetArn":"` + arn + `dlq"}`,
		"count 0":           redrive("dlq", 0),
		"count 1001":        redrive("dlq", 1001),
		"count no number":   redrive("dlq", `"x"`),
		"missing target":    redrive("none", 3),
		"another type":      redrive("dlq.fifo", 3),
		"target that won't": redrive("closed", 3),
		"no ARN":            `{"deadLetterTargetArn":"dlq","maxReceiveCount":3}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			virtually(t, nil, func(e *env) {
				e.create("dlq")
				e.create("dlq.fifo")
				e.create("closed", "RedriveAllowPolicy", `{"redrivePermission":"denyAll"}`)
				_, err := e.c.CreateQueue(e.Context(), &awssqs.CreateQueueInput{QueueName: new("q"), Attributes: map[string]string{"RedrivePolicy": policy}})
				code(e, "InvalidParameterValue", err)
				url := e.create("q")
				code(e, "InvalidParameterValue", e.set(url, "RedrivePolicy", policy))
				require.NoError(e, e.set(url, "RedrivePolicy", redrive("dlq", 3)))
				require.NoError(e, e.set(url, "RedrivePolicy", ""))
				assert.NotContains(e, e.attributes(url), "RedrivePolicy")
			})
		})
	}
}

func TestADeadLetterQueueChoosesItsSources(t *testing.T) {
	t.Parallel()
	virtually(t, nil, func(e *env) {
		dlq := e.create("dlq")
		for _, bad := range []string{`{`, `{"redrivePermission":"some"}`, `{"redrivePermission":"byQueue"}`, `{"redrivePermission":"allowAll","sourceQueueArns":["` + arn + `q"]}`} {
			code(e, "InvalidParameterValue", e.set(dlq, "RedriveAllowPolicy", bad))
		}
		require.NoError(e, e.set(dlq, "RedriveAllowPolicy", `{"redrivePermission":"byQueue","sourceQueueArns":["`+arn+`q"]}`))
		url, other := e.create("q"), e.create("other")
		require.NoError(e, e.set(url, "RedrivePolicy", redrive("dlq", 3)))
		code(e, "InvalidParameterValue", e.set(other, "RedrivePolicy", redrive("dlq", 3)))
		out, err := e.c.ListDeadLetterSourceQueues(e.Context(), &awssqs.ListDeadLetterSourceQueuesInput{QueueUrl: &dlq})
		require.NoError(e, err)
		assert.Equal(e, []string{url}, out.QueueUrls)
	})
}

// dead fills a dead-letter queue with the messages m0, m1 and so on of a queue.
func (e *env) dead(n int, suffix string) (queue, dlq string) {
	dlq = e.create("dlq" + suffix)
	queue = e.create("q"+suffix, "RedrivePolicy", redrive("dlq"+suffix, 1), "VisibilityTimeout", "0")
	for i := range n {
		if suffix == "" {
			e.send(queue, fmt.Sprint("m", i))
		} else {
			e.sendFIFO(queue, fmt.Sprint("g", i), fmt.Sprint("m", i))
		}
	}
	for len(e.s.Messages("dlq"+suffix)) < n {
		e.receive(queue)
	}
	return queue, dlq
}

func TestAMoveTask(t *testing.T) {
	t.Parallel()
	start := func(e *env, to string, rate int32) (string, error) {
		in := &awssqs.StartMessageMoveTaskInput{SourceArn: new(arn + "dlq")}
		if to != "" {
			in.DestinationArn = new(arn + to)
		}
		if rate > 0 {
			in.MaxNumberOfMessagesPerSecond = &rate
		}
		out, err := e.c.StartMessageMoveTask(e.Context(), in)
		if err != nil {
			return "", err
		}
		return *out.TaskHandle, nil
	}
	list := func(e *env) *awssqs.ListMessageMoveTasksOutput {
		out, err := e.c.ListMessageMoveTasks(e.Context(), &awssqs.ListMessageMoveTasksInput{SourceArn: new(arn + "dlq"), MaxResults: new(int32(10))})
		require.NoError(e, err)
		return out
	}
	t.Run("moves back to where they came from, as new messages", func(t *testing.T) {
		t.Parallel()
		virtually(t, nil, func(e *env) {
			url, _ := e.dead(25, "")
			old := e.s.Messages("dlq")
			time.Sleep(time.Hour)
			_, err := start(e, "", 0)
			require.NoError(e, err)
			time.Sleep(time.Second)
			task := list(e).Results[0]
			assert.Equal(e, "COMPLETED", *task.Status)
			assert.EqualValues(e, 25, task.ApproximateNumberOfMessagesMoved)
			assert.EqualValues(e, 25, *task.ApproximateNumberOfMessagesToMove)
			assert.Nil(e, task.TaskHandle, "only a running one has it")
			assert.Nil(e, task.DestinationArn)
			assert.Empty(e, e.s.Messages("dlq"))
			ms := e.s.Messages("q")
			require.Len(e, ms, 25)
			assert.Equal(e, old[0].Body, ms[0].Body)
			assert.NotEqual(e, old[0].ID, ms[0].ID)
			assert.Zero(e, ms[0].Receives)
			assert.Equal(e, old[0].SentAt.Add(time.Hour), ms[0].SentAt)
			assert.NotContains(e, e.receive(url)[0].Attributes, "DeadLetterQueueSourceArn")
		})
	})
	t.Run("of a FIFO queue isn't dropped as a repeat", func(t *testing.T) {
		t.Parallel()
		virtually(t, nil, func(e *env) {
			e.dead(3, ".fifo")
			_, err := e.c.StartMessageMoveTask(e.Context(), &awssqs.StartMessageMoveTaskInput{SourceArn: new(arn + "dlq.fifo")})
			require.NoError(e, err)
			time.Sleep(time.Second)
			assert.Len(e, e.s.Messages("q.fifo"), 3)
		})
	})
	t.Run("to another queue, at a rate, once at a time, until it's cancelled", func(t *testing.T) {
		t.Parallel()
		virtually(t, nil, func(e *env) {
			e.dead(20, "")
			e.create("other")
			handle, err := start(e, "other", 2)
			require.NoError(e, err)
			_, err = start(e, "other", 2)
			code(e, "InvalidParameterValue", err)
			time.Sleep(3250 * time.Millisecond)
			assert.Len(e, e.s.Messages("other"), 7)
			task := list(e).Results[0]
			assert.Equal(e, "RUNNING", *task.Status)
			assert.Equal(e, handle, *task.TaskHandle)
			assert.Equal(e, arn+"other", *task.DestinationArn)
			assert.EqualValues(e, 2, *task.MaxNumberOfMessagesPerSecond)
			out, err := e.c.CancelMessageMoveTask(e.Context(), &awssqs.CancelMessageMoveTaskInput{TaskHandle: &handle})
			require.NoError(e, err)
			assert.EqualValues(e, 7, out.ApproximateNumberOfMessagesMoved)
			time.Sleep(time.Minute)
			assert.Equal(e, "CANCELLED", *list(e).Results[0].Status)
			assert.Len(e, e.s.Messages("other"), 7)
			assert.Len(e, e.s.Messages("dlq"), 13)
			_, err = e.c.CancelMessageMoveTask(e.Context(), &awssqs.CancelMessageMoveTaskInput{TaskHandle: &handle})
			code(e, "ResourceNotFoundException", err)
			_, err = start(e, "", 500)
			require.NoError(e, err)
			time.Sleep(time.Second)
			assert.Len(e, list(e).Results, 2)
		})
	})
	t.Run("fails when it can't tell where messages came from", func(t *testing.T) {
		t.Parallel()
		virtually(t, nil, func(e *env) {
			_, dlq := e.dead(1, "")
			e.send(dlq, "sent here directly")
			_, err := start(e, "", 0)
			require.NoError(e, err)
			time.Sleep(time.Second)
			task := list(e).Results[0]
			assert.Equal(e, "FAILED", *task.Status)
			assert.Equal(e, "CouldNotDetermineMessageSource", *task.FailureReason)
			assert.Len(e, e.s.Messages("dlq"), 1)
		})
	})
	t.Run("is checked", func(t *testing.T) {
		t.Parallel()
		virtually(t, nil, func(e *env) {
			_, err := start(e, "", 0)
			code(e, "ResourceNotFoundException", err)
			e.create("dlq")
			_, err = start(e, "", 0)
			code(e, "InvalidParameterValue", err)
			e.create("q", "RedrivePolicy", redrive("dlq", 1))
			_, err = start(e, "none", 0)
			code(e, "ResourceNotFoundException", err)
			e.create("other.fifo")
			_, err = start(e, "other.fifo", 0)
			code(e, "InvalidParameterValue", err)
			_, err = start(e, "", 501)
			code(e, "InvalidParameterValue", err)
			_, err = e.c.CancelMessageMoveTask(e.Context(), &awssqs.CancelMessageMoveTaskInput{TaskHandle: new("x")})
			code(e, "ResourceNotFoundException", err)
			_, err = e.c.ListMessageMoveTasks(e.Context(), &awssqs.ListMessageMoveTasksInput{SourceArn: new(arn + "none")})
			code(e, "ResourceNotFoundException", err)
		})
	})
}
