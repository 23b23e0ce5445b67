package sqstest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func (e *env) tryCreate(name string, attributes ...string) error {
	attrs := map[string]string{}
	for i := 0; i < len(attributes); i += 2 {
		attrs[attributes[i]] = attributes[i+1]
	}
	_, err := e.c.CreateQueue(e.Context(), &awssqs.CreateQueueInput{QueueName: &name, Attributes: attrs})
	return err
}

func TestNamesOfQueues(t *testing.T) {
	t.Parallel()
	const invalid = "InvalidParameterValue"
	for name, c := range map[string]struct {
		queue string
		fifo  bool
		code  string
	}{
		"letters":                {"Orders-1_x", false, ""},
		"80 characters":          {strings.Repeat("a", 80), false, ""},
		"80 characters, FIFO":    {strings.Repeat("a", 75) + ".fifo", true, ""},
		"81 characters":          {strings.Repeat("a", 81), false, invalid},
		"81 characters, FIFO":    {strings.Repeat("a", 76) + ".fifo", true, invalid},
		"none":                   {"", false, "MissingParameter"},
		"a point":                {"a.b", false, invalid},
		"a space":                {"a b", false, invalid},
		"FIFO without its end":   {"a", true, invalid},
		"the end without FIFO":   {"a.fifo", false, invalid},
		"nothing before the end": {".fifo", true, invalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			virtually(t, nil, func(e *env) {
				var attributes []string
				if c.fifo {
					attributes = []string{"FifoQueue", "true"}
				}
				if err := e.tryCreate(c.queue, attributes...); c.code != "" {
					code(e, c.code, err)
					assert.Empty(e, e.s.Queues())
				} else {
					require.NoError(e, err)
					assert.Equal(e, []string{c.queue}, e.s.Queues())
				}
			})
		})
	}
}

func TestAQueueIsCreatedOnce(t *testing.T) {
	t.Parallel()
	virtually(t, nil, func(e *env) {
		url := e.create("q", "DelaySeconds", "5")
		assert.Equal(e, url, e.create("q"), "what isn't named may differ")
		assert.Equal(e, url, e.create("q", "DelaySeconds", "5"))
		code(e, "QueueAlreadyExists", e.tryCreate("q", "DelaySeconds", "6"))
		got, err := e.c.GetQueueUrl(e.Context(), &awssqs.GetQueueUrlInput{QueueName: new("q")})
		require.NoError(e, err)
		assert.Equal(e, url, *got.QueueUrl)

		_, err = e.c.DeleteQueue(e.Context(), &awssqs.DeleteQueueInput{QueueUrl: &url})
		require.NoError(e, err)
		_, err = e.c.DeleteQueue(e.Context(), &awssqs.DeleteQueueInput{QueueUrl: &url})
		code(e, "AWS.SimpleQueueService.NonExistentQueue", err)
		time.Sleep(time.Minute - 1)
		code(e, "AWS.SimpleQueueService.QueueDeletedRecently", e.tryCreate("q"))
		time.Sleep(time.Nanosecond)
		require.NoError(e, e.tryCreate("q"))
	})
}

func TestAttributesOfQueues(t *testing.T) {
	t.Parallel()
	virtually(t, nil, func(e *env) {
		now := fmt.Sprint(time.Now().Unix())
		want := map[string]string{
			"QueueArn": arn + "q", "CreatedTimestamp": now, "LastModifiedTimestamp": now,
			"ApproximateNumberOfMessages": "0", "ApproximateNumberOfMessagesNotVisible": "0", "ApproximateNumberOfMessagesDelayed": "0",
			"VisibilityTimeout": "30", "MaximumMessageSize": "1048576", "MessageRetentionPeriod": "345600", "DelaySeconds": "0",
			"ReceiveMessageWaitTimeSeconds": "0", "SqsManagedSseEnabled": "true",
		}
		url := e.create("q")
		assert.Equal(e, want, e.attributes(url))
		fifo := e.create("q.fifo")
		want["QueueArn"] = arn + "q.fifo"
		want["FifoQueue"], want["ContentBasedDeduplication"], want["DeduplicationScope"], want["FifoThroughputLimit"] = "true", "false", "queue", "perQueue"
		assert.Equal(e, want, e.attributes(fifo))

		time.Sleep(time.Hour)
		require.NoError(e, e.set(url, "VisibilityTimeout", "43200", "MaximumMessageSize", "1024", "DelaySeconds", "900", "ReceiveMessageWaitTimeSeconds", "20", "MessageRetentionPeriod", "1209600"))
		got := e.attributes(url)
		assert.Equal(e, "43200", got["VisibilityTimeout"])
		assert.Equal(e, now, got["CreatedTimestamp"])
		assert.Equal(e, fmt.Sprint(time.Now().Unix()), got["LastModifiedTimestamp"])

		some, err := e.c.GetQueueAttributes(e.Context(), &awssqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: []types.QueueAttributeName{"QueueArn", "RedrivePolicy", "QueueArn"}})
		require.NoError(e, err)
		assert.Equal(e, map[string]string{"QueueArn": arn + "q"}, some.Attributes)
		none, err := e.c.GetQueueAttributes(e.Context(), &awssqs.GetQueueAttributesInput{QueueUrl: &url})
		require.NoError(e, err)
		assert.Empty(e, none.Attributes)
		_, err = e.c.GetQueueAttributes(e.Context(), &awssqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: []types.QueueAttributeName{"Colour"}})
		code(e, "InvalidAttributeName", err)
	})
}

func TestAttributesAreChecked(t *testing.T) {
	t.Parallel()
	const name, value = "InvalidAttributeName", "InvalidAttributeValue"
	for _, c := range []struct{ queue, attribute, value, code string }{
		{"q", "VisibilityTimeout", "43201", value},
		{"q", "VisibilityTimeout", "-1", value},
		{"q", "VisibilityTimeout", "x", value},
		{"q", "VisibilityTimeout", "", value},
		{"q", "MaximumMessageSize", "1023", value},
		{"q", "MaximumMessageSize", "1048577", value},
		{"q", "MessageRetentionPeriod", "59", value},
		{"q", "MessageRetentionPeriod", "1209601", value},
		{"q", "DelaySeconds", "901", value},
		{"q", "ReceiveMessageWaitTimeSeconds", "21", value},
		{"q", "SqsManagedSseEnabled", "yes", value},
		{"q", "Colour", "red", name},
		{"q", "QueueArn", "x", name},
		{"q", "FifoQueue", "true", name},
		{"q", "ContentBasedDeduplication", "true", name},
		{"q", "DeduplicationScope", "queue", name},
		{"q", "FifoThroughputLimit", "perQueue", name},
		{"q", "Policy", "{}", "AWS.SimpleQueueService.UnsupportedOperation"},
		{"q", "KmsMasterKeyId", "k", "AWS.SimpleQueueService.UnsupportedOperation"},
		{"q.fifo", "FifoQueue", "false", value},
		{"q.fifo", "ContentBasedDeduplication", "yes", value},
		{"q.fifo", "DeduplicationScope", "x", value},
		{"q.fifo", "FifoThroughputLimit", "perMessageGroupId", value},
	} {
		t.Run(c.queue+" "+c.attribute+" "+c.value, func(t *testing.T) {
			t.Parallel()
			virtually(t, nil, func(e *env) {
				url := e.create(c.queue)
				before := e.attributes(url)
				code(e, c.code, e.set(url, "DelaySeconds", "1", c.attribute, c.value))
				assert.Equal(e, before, e.attributes(url), "all or nothing")
			})
		})
	}
}

func TestListsOfQueues(t *testing.T) {
	t.Parallel()
	virtually(t, nil, func(e *env) {
		list := func(in *awssqs.ListQueuesInput) ([]string, *string) {
			out, err := e.c.ListQueues(e.Context(), in)
			require.NoError(e, err)
			return out.QueueUrls, out.NextToken
		}
		got, _ := list(&awssqs.ListQueuesInput{})
		assert.Empty(e, got)
		var want []string
		for i := range 5 {
			want = append(want, e.create(fmt.Sprint("a", i)))
		}
		e.create("b")
		got, _ = list(&awssqs.ListQueuesInput{QueueNamePrefix: new("a")})
		assert.Equal(e, want, got)
		first, token := list(&awssqs.ListQueuesInput{QueueNamePrefix: new("a"), MaxResults: new(int32(3))})
		assert.Equal(e, want[:3], first)
		require.NotNil(e, token)
		rest, token := list(&awssqs.ListQueuesInput{QueueNamePrefix: new("a"), MaxResults: new(int32(3)), NextToken: token})
		assert.Equal(e, want[3:], rest)
		assert.Nil(e, token)
		_, err := e.c.ListQueues(e.Context(), &awssqs.ListQueuesInput{MaxResults: new(int32(1001))})
		code(e, "InvalidParameterValue", err)
	})
}

func TestAPurge(t *testing.T) {
	t.Parallel()
	virtually(t, nil, func(e *env) {
		url := e.create("q")
		for range 3 {
			e.send(url, "m")
		}
		e.receive(url)
		e.send(url, "m")
		e.purge(url)
		assert.Empty(e, e.s.Messages("q"))
		time.Sleep(time.Minute - 1)
		_, err := e.c.PurgeQueue(e.Context(), &awssqs.PurgeQueueInput{QueueUrl: &url})
		code(e, "AWS.SimpleQueueService.PurgeQueueInProgress", err)
		time.Sleep(time.Nanosecond)
		e.purge(url)
	})
}

func TestTags(t *testing.T) {
	t.Parallel()
	virtually(t, nil, func(e *env) {
		_, err := e.c.CreateQueue(e.Context(), &awssqs.CreateQueueInput{QueueName: new("q"), Tags: map[string]string{"team": "crm"}})
		require.NoError(e, err)
		url := e.create("q")
		tags := func() map[string]string {
			out, err := e.c.ListQueueTags(e.Context(), &awssqs.ListQueueTagsInput{QueueUrl: &url})
			require.NoError(e, err)
			return out.Tags
		}
		_, err = e.c.TagQueue(e.Context(), &awssqs.TagQueueInput{QueueUrl: &url, Tags: map[string]string{"a \"b\"": "", "team": "x"}})
		require.NoError(e, err)
		assert.Equal(e, map[string]string{"a \"b\"": "", "team": "x"}, tags())
		_, err = e.c.UntagQueue(e.Context(), &awssqs.UntagQueueInput{QueueUrl: &url, TagKeys: []string{"team", "a \"b\"", "none"}})
		require.NoError(e, err)
		assert.Empty(e, tags())
		many := map[string]string{}
		for i := range 51 {
			many[fmt.Sprint(i)] = ""
		}
		_, err = e.c.TagQueue(e.Context(), &awssqs.TagQueueInput{QueueUrl: &url, Tags: many})
		code(e, "InvalidParameterValue", err)
		assert.Empty(e, tags())
	})
}

// Every action finds the queue by the end of its URL, whatever the host.
func TestURLsOfQueues(t *testing.T) {
	t.Parallel()
	virtually(t, nil, func(e *env) {
		e.create("q")
		for url, want := range map[string]string{
			"https://sqs.eu-west-1.amazonaws.com/000000000000/q": "",
			"http://localhost:9324/000000000000/q":               "",
			"http://localhost/000000000001/q":                    "AWS.SimpleQueueService.NonExistentQueue",
			"http://localhost/000000000000/p":                    "AWS.SimpleQueueService.NonExistentQueue",
			"http://localhost/q":                                 "InvalidAddress",
		} {
			_, err := e.c.ReceiveMessage(e.Context(), &awssqs.ReceiveMessageInput{QueueUrl: &url})
			if want == "" {
				require.NoError(e, err, url)
			} else {
				code(e, want, err)
			}
		}
	})
}
