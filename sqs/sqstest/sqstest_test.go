package sqstest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// env is a server with a client that tries each call once.
type env struct {
	*testing.T
	s *sqstest.Server
	c *awssqs.Client
}

// virtually runs a test on virtual time.
func virtually(t *testing.T, o *sqstest.Options, f func(e *env)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := sqstest.New(o)
		defer s.Close()
		f(&env{T: t, s: s, c: s.Client(once)})
	})
}

func once(o *awssqs.Options) { o.RetryMaxAttempts = 1 }

// create makes a queue and returns its URL. A name that ends in .fifo makes a
// FIFO queue.
func (e *env) create(name string, attributes ...string) string {
	e.Helper()
	attrs := map[string]string{}
	if strings.HasSuffix(name, ".fifo") {
		attrs["FifoQueue"] = "true"
	}
	for i := 0; i < len(attributes); i += 2 {
		attrs[attributes[i]] = attributes[i+1]
	}
	out, err := e.c.CreateQueue(e.Context(), &awssqs.CreateQueueInput{QueueName: &name, Attributes: attrs})
	require.NoError(e, err)
	return *out.QueueUrl
}

func (e *env) send(url, body string) *awssqs.SendMessageOutput {
	e.Helper()
	out, err := e.c.SendMessage(e.Context(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: &body})
	require.NoError(e, err)
	return out
}

// sendFIFO sends a message of a group; its body is its deduplication id.
func (e *env) sendFIFO(url, group, body string) *awssqs.SendMessageOutput {
	e.Helper()
	out, err := e.c.SendMessage(e.Context(), &awssqs.SendMessageInput{
		QueueUrl: &url, MessageBody: &body, MessageGroupId: &group, MessageDeduplicationId: &body,
	})
	require.NoError(e, err)
	return out
}

// receive polls short for up to ten messages with all they have.
func (e *env) receive(url string) []types.Message {
	e.Helper()
	out, err := e.c.ReceiveMessage(e.Context(), &awssqs.ReceiveMessageInput{
		QueueUrl: &url, MaxNumberOfMessages: 10, MessageAttributeNames: []string{"All"},
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{"All"},
	})
	require.NoError(e, err)
	return out.Messages
}

// receiveOne is receive where just one is expected.
func (e *env) receiveOne(url string) types.Message {
	e.Helper()
	ms := e.receive(url)
	require.Len(e, ms, 1)
	return ms[0]
}

func bodies(ms []types.Message) []string {
	out := []string{}
	for _, m := range ms {
		out = append(out, *m.Body)
	}
	return out
}

func (e *env) delete(url string, m types.Message) error {
	_, err := e.c.DeleteMessage(e.Context(), &awssqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: m.ReceiptHandle})
	return err
}

func (e *env) changeVisibility(url string, m types.Message, seconds int32) error {
	_, err := e.c.ChangeMessageVisibility(e.Context(), &awssqs.ChangeMessageVisibilityInput{
		QueueUrl: &url, ReceiptHandle: m.ReceiptHandle, VisibilityTimeout: seconds,
	})
	return err
}

func (e *env) attributes(url string) map[string]string {
	e.Helper()
	out, err := e.c.GetQueueAttributes(e.Context(), &awssqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: []types.QueueAttributeName{"All"}})
	require.NoError(e, err)
	return out.Attributes
}

func (e *env) set(url string, attributes ...string) error {
	attrs := map[string]string{}
	for i := 0; i < len(attributes); i += 2 {
		attrs[attributes[i]] = attributes[i+1]
	}
	_, err := e.c.SetQueueAttributes(e.Context(), &awssqs.SetQueueAttributesInput{QueueUrl: &url, Attributes: attrs})
	return err
}

// code asserts an error of SQS by its code, as the query protocol has it.
func code(t testing.TB, want string, err error) {
	t.Helper()
	var api smithy.APIError
	require.ErrorAs(t, err, &api)
	assert.Equal(t, want, api.ErrorCode(), api.ErrorMessage())
}

// raw sends a request that the SDK couldn't, and returns the answer's status, JSON
// and x-amzn-query-error.
func (e *env) raw(action, body string) (int, map[string]any, string) {
	e.Helper()
	r, err := http.NewRequestWithContext(e.Context(), http.MethodPost, "http://sqs.test/", strings.NewReader(body))
	require.NoError(e, err)
	r.Header.Set("X-Amz-Target", "AmazonSQS."+action)
	res, err := e.s.Transport().RoundTrip(r)
	require.NoError(e, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(e, err)
	out := map[string]any{}
	require.NoError(e, json.Unmarshal(b, &out), "%s", b)
	return res.StatusCode, out, res.Header.Get("X-Amzn-Query-Error")
}

func TestAnErrorHasBothForms(t *testing.T) {
	t.Parallel()
	virtually(t, nil, func(e *env) {
		for _, c := range []struct {
			name, action, body string
			status             int
			kind, query        string
		}{
			{"of the model, with another name in the query protocol", "PurgeQueue", `{"QueueUrl":"http://x/000000000000/none"}`,
				400, "com.amazonaws.sqs#QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue;Sender"},
			{"of the framework", "ReceiveMessage", `{"QueueUrl":"` + e.create("q") + `","MaxNumberOfMessages":11}`,
				400, "com.amazon.coral.service#InvalidParameterValueException", "InvalidParameterValue;Sender"},
			{"an operation that isn't known", "AddPermission", `{}`, 404, "com.amazon.coral.service#UnknownOperationException", "UnknownOperationException;Sender"},
			{"a parameter that isn't known", "CreateQueue", `{"QueueName":"q","Colour":"red"}`, 400, "com.amazon.coral.service#InvalidParameterValueException", "InvalidParameterValue;Sender"},
			{"a parameter of a hot action that isn't known", "DeleteMessage", `{"VisibilityTimeout":1}`, 400, "com.amazon.coral.service#InvalidParameterValueException", "InvalidParameterValue;Sender"},
			{"no JSON", "CreateQueue", `{"QueueName":`, 400, "com.amazon.coral.service#SerializationException", "SerializationException;Sender"},
			{"no JSON for a hot action", "SendMessage", `{"QueueUrl":"a" "b"}`, 400, "com.amazon.coral.service#SerializationException", "SerializationException;Sender"},
		} {
			status, body, query := e.raw(c.action, c.body)
			assert.Equal(e, c.status, status, c.name)
			assert.Equal(e, c.kind, body["__type"], c.name)
			assert.NotEmpty(e, body["message"], c.name)
			assert.Equal(e, c.query, query, c.name)
		}
		_, err := e.c.GetQueueUrl(e.Context(), &awssqs.GetQueueUrlInput{QueueName: new("none")})
		var typed *types.QueueDoesNotExist
		require.ErrorAs(e, err, &typed)
		code(e, "AWS.SimpleQueueService.NonExistentQueue", err)
	})
}

func TestOptionsThatCantBeMeantFailEveryCall(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]sqstest.Options{
		"region":    {Region: "EU"},
		"account":   {Account: "me"},
		"latency":   {Latency: -1},
		"in flight": {MaxInFlight: -1},
		"duplicate": {Duplicate: 1.1},
		"reorder":   {Reorder: -0.1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := sqstest.New(&o)
			defer s.Close()
			_, err := s.Start("")
			require.ErrorContains(t, err, "sqstest.Options.")
			_, err = s.Client(once).CreateQueue(t.Context(), &awssqs.CreateQueueInput{QueueName: new("q")})
			code(t, "InvalidParameterValue", err)
			require.ErrorContains(t, err, "sqstest.Options.")
		})
	}
}

func TestItRefusesTheOtherSideOfABubble(t *testing.T) {
	t.Parallel()
	outside := sqstest.New(nil)
	defer outside.Close()
	synctest.Test(t, func(t *testing.T) {
		_, err := outside.Client(once).CreateQueue(t.Context(), &awssqs.CreateQueueInput{QueueName: new("q")})
		require.ErrorContains(t, err, "bubble")
	})
}
