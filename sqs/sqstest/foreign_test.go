package sqstest_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// The same requests go to sqstest and to a server that somebody else wrote; where
// they answer differently, the difference stands here, and in doc.go.

func TestLocalStackAnswersTheSame(t *testing.T) {
	t.Parallel()
	compare(t, "ANYQUEUE_TEST_SQS_LOCALSTACK", differencesOfLocalStack())
}

func TestElasticMQAnswersTheSame(t *testing.T) {
	t.Parallel()
	compare(t, "ANYQUEUE_TEST_SQS_ELASTICMQ", differencesOfElasticMQ())
}

// compare runs all probes on both servers. differences is what the foreign one
// answers where it's known to differ.
func compare(t *testing.T, variable string, differences map[string]string) {
	endpoint := os.Getenv(variable)
	if endpoint == "" {
		t.Skipf("%s isn't set: start the servers with .ci/servers.sh", variable)
	}
	s := sqstest.New(nil)
	t.Cleanup(s.Close)
	tr := &http.Transport{MaxIdleConnsPerHost: 100}
	t.Cleanup(tr.CloseIdleConnections)
	foreign := s.Client(once, func(o *awssqs.Options) { o.BaseEndpoint, o.HTTPClient = &endpoint, &http.Client{Transport: tr} })
	all := probes()
	for name := range differences {
		assert.Contains(t, all, name, "the table names a probe that isn't there")
	}
	for name, f := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ours := probing(t, s.Client(once), f)
			theirs := probing(t, foreign, f)
			if want, ok := differences[name]; ok {
				assert.Equal(t, want, theirs, "it differs, but in another way than the table says")
				assert.NotEqual(t, ours, theirs, "it differs no longer: take it out of the table, and of doc.go")
				return
			}
			assert.Equal(t, ours, theirs, "sqstest first")
		})
	}
}

// probe makes calls and notes what came of them.
type probe struct {
	t     *testing.T
	c     *awssqs.Client
	name  string
	notes []string
}

func probing(t *testing.T, c *awssqs.Client, f func(*probe)) string {
	p := &probe{t: t, c: c, name: "sqstest-" + uuid.NewString()[:8]}
	f(p)
	return strings.Join(p.notes, " ")
}

func (p *probe) note(v any) { p.notes = append(p.notes, fmt.Sprint(v)) }

// outcome notes an error by its code.
func (p *probe) outcome(err error) {
	var api smithy.APIError
	switch {
	case err == nil:
		p.note("ok")
	case errors.As(err, &api):
		// Some servers don't know the names of the query protocol.
		p.note(strings.NewReplacer(
			"AWS.SimpleQueueService.", "", "com.amazonaws.sqs#", "", "QueueDoesNotExist", "NonExistentQueue", "QueueNameExists", "QueueAlreadyExists",
		).Replace(api.ErrorCode()))
	default:
		p.t.Log(err)
		p.note("no answer")
	}
}

func (p *probe) ctx() context.Context { return p.t.Context() }

func (p *probe) create(suffix string, attributes ...string) string {
	name := p.name + suffix
	attrs := map[string]string{}
	if strings.HasSuffix(suffix, ".fifo") {
		attrs["FifoQueue"] = "true"
	}
	for i := 0; i < len(attributes); i += 2 {
		attrs[attributes[i]] = attributes[i+1]
	}
	out, err := p.c.CreateQueue(p.ctx(), &awssqs.CreateQueueInput{QueueName: &name, Attributes: attrs})
	require.NoError(p.t, err)
	p.t.Cleanup(func() {
		_, err := p.c.DeleteQueue(context.WithoutCancel(p.ctx()), &awssqs.DeleteQueueInput{QueueUrl: out.QueueUrl})
		if err != nil {
			p.t.Logf("a queue is left behind: %v", err)
		}
	})
	return *out.QueueUrl
}

func (p *probe) arn(url string) string {
	out, err := p.c.GetQueueAttributes(p.ctx(), &awssqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: []types.QueueAttributeName{"QueueArn"}})
	require.NoError(p.t, err)
	return out.Attributes["QueueArn"]
}

func (p *probe) send(url string, in awssqs.SendMessageInput) error {
	in.QueueUrl = &url
	if in.MessageBody == nil {
		in.MessageBody = new("m")
	}
	_, err := p.c.SendMessage(p.ctx(), &in)
	return err
}

func (p *probe) put(url, body, group string) {
	in := awssqs.SendMessageInput{MessageBody: &body}
	if group != "" {
		in.MessageGroupId, in.MessageDeduplicationId = &group, &body
	}
	require.NoError(p.t, p.send(url, in))
}

// get waits for up to n messages for a second.
func (p *probe) get(url string, n int32) []types.Message {
	return p.getFor(url, n, 1)
}

func (p *probe) getFor(url string, n, wait int32) []types.Message {
	out, err := p.c.ReceiveMessage(p.ctx(), &awssqs.ReceiveMessageInput{
		QueueUrl: &url, MaxNumberOfMessages: n, WaitTimeSeconds: wait, MessageAttributeNames: []string{"All"},
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{"All"},
	})
	require.NoError(p.t, err)
	return out.Messages
}

func (p *probe) one(url string) types.Message {
	ms := p.getFor(url, 1, 5)
	require.Len(p.t, ms, 1)
	return ms[0]
}

func (p *probe) bodies(ms []types.Message) { p.note(bodies(ms)) }

func (p *probe) delete(url string, m types.Message) {
	_, err := p.c.DeleteMessage(p.ctx(), &awssqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: m.ReceiptHandle})
	p.outcome(err)
}

func (p *probe) hide(url string, m types.Message, seconds int32) {
	_, err := p.c.ChangeMessageVisibility(p.ctx(), &awssqs.ChangeMessageVisibilityInput{QueueUrl: &url, ReceiptHandle: m.ReceiptHandle, VisibilityTimeout: seconds})
	p.outcome(err)
}

const (
	shortly  = 1                       // seconds of a visibility timeout that's to end
	untilEnd = 2500 * time.Millisecond // LocalStack is up to a second late
)

// wait lets real time pass on a real server: nothing tells when a timeout there
// has ended.
func wait(t *testing.T, d time.Duration) {
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

func probes() map[string]func(*probe) {
	all := map[string]func(*probe){
		"missing queue": func(p *probe) {
			_, err := p.c.GetQueueUrl(p.ctx(), &awssqs.GetQueueUrlInput{QueueName: &p.name})
			p.outcome(err)
		},
		"delete twice": func(p *probe) {
			url := p.create("")
			p.put(url, "m", "")
			m := p.one(url)
			p.delete(url, m)
			p.delete(url, m)
		},
		"delete after the timeout": func(p *probe) {
			url := p.create("", "VisibilityTimeout", fmt.Sprint(shortly))
			p.put(url, "m", "")
			m := p.one(url)
			wait(p.t, untilEnd)
			p.delete(url, m)
			p.bodies(p.get(url, 1))
		},
		"delete with the handle before the last": func(p *probe) {
			url := p.create("", "VisibilityTimeout", fmt.Sprint(shortly))
			p.put(url, "m", "")
			m := p.one(url)
			wait(p.t, untilEnd)
			p.one(url)
			p.delete(url, m)
			wait(p.t, untilEnd)
			p.bodies(p.get(url, 1))
		},
		"delete after the timeout, FIFO": func(p *probe) {
			url := p.create(".fifo", "VisibilityTimeout", fmt.Sprint(shortly))
			p.put(url, "m", "g")
			m := p.one(url)
			wait(p.t, untilEnd)
			p.delete(url, m)
			p.bodies(p.get(url, 1))
		},
		"change visibility after the timeout": func(p *probe) {
			url := p.create("", "VisibilityTimeout", fmt.Sprint(shortly))
			p.put(url, "m", "")
			m := p.one(url)
			wait(p.t, untilEnd)
			p.hide(url, m, 30)
			p.bodies(p.get(url, 1))
		},
		"change visibility after the delete": func(p *probe) {
			url := p.create("")
			p.put(url, "m", "")
			m := p.one(url)
			p.delete(url, m)
			p.hide(url, m, 30)
		},
		"change visibility beyond 12 hours": func(p *probe) {
			url := p.create("")
			p.put(url, "m", "")
			m := p.one(url)
			wait(p.t, 1500*time.Millisecond)
			p.hide(url, m, 43200)
			p.hide(url, m, 43201)
		},
		"garbage for a handle": func(p *probe) {
			url := p.create("")
			p.delete(url, types.Message{ReceiptHandle: new("garbage")})
			p.hide(url, types.Message{ReceiptHandle: new("garbage")}, 1)
		},
		"group: several in one receive": func(p *probe) {
			url := p.create(".fifo")
			for _, b := range []string{"a1", "a2", "a3"} {
				p.put(url, b, "a")
			}
			p.put(url, "b1", "b")
			p.bodies(p.get(url, 2))
			p.bodies(p.get(url, 10))
		},
		"group: a later one made visible": func(p *probe) {
			url := p.create(".fifo")
			p.put(url, "a1", "a")
			p.put(url, "a2", "a")
			ms := p.get(url, 10)
			p.bodies(ms)
			if len(ms) == 2 {
				p.hide(url, ms[1], 0)
				p.bodies(p.get(url, 10))
			}
		},
		"group: the first made visible": func(p *probe) {
			url := p.create(".fifo")
			p.put(url, "a1", "a")
			p.put(url, "a2", "a")
			ms := p.get(url, 10)
			p.bodies(ms)
			if len(ms) == 2 {
				p.hide(url, ms[0], 0)
				p.bodies(p.get(url, 10))
			}
		},
		"a repeat has the first one's id": func(p *probe) {
			url := p.create(".fifo")
			var ids []string
			for range 2 {
				out, err := p.c.SendMessage(p.ctx(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: new("m"), MessageGroupId: new("g"), MessageDeduplicationId: new("d")})
				require.NoError(p.t, err)
				ids = append(ids, *out.MessageId)
			}
			p.note(ids[0] == ids[1])
			p.bodies(p.get(url, 10))
		},
		"a receive repeated by its attempt id": func(p *probe) {
			url := p.create(".fifo")
			p.put(url, "a1", "a")
			for range 2 {
				out, err := p.c.ReceiveMessage(p.ctx(), &awssqs.ReceiveMessageInput{QueueUrl: &url, ReceiveRequestAttemptId: new("1"), WaitTimeSeconds: 1})
				require.NoError(p.t, err)
				p.bodies(out.Messages)
			}
		},
		"a poll that's cut off takes the next message": func(p *probe) {
			url := p.create("")
			ctx, cancel := context.WithTimeout(p.ctx(), 500*time.Millisecond)
			defer cancel()
			_, err := p.c.ReceiveMessage(ctx, &awssqs.ReceiveMessageInput{QueueUrl: &url, WaitTimeSeconds: 10})
			require.Error(p.t, err)
			p.put(url, "m", "")
			wait(p.t, 500*time.Millisecond)
			p.bodies(p.get(url, 1))
		},
		"a tenant on a standard queue": func(p *probe) {
			url := p.create("")
			p.outcome(p.send(url, awssqs.SendMessageInput{MessageGroupId: new("t")}))
			ms := p.get(url, 1)
			p.bodies(ms)
			if len(ms) > 0 {
				p.note(ms[0].Attributes["MessageGroupId"])
			}
		},
		"trace header": func(p *probe) {
			url := p.create("")
			p.outcome(p.send(url, awssqs.SendMessageInput{MessageSystemAttributes: map[string]types.MessageSystemAttributeValue{"AWSTraceHeader": {DataType: new("String"), StringValue: new("Root=1")}}}))
			p.note(p.one(url).Attributes["AWSTraceHeader"])
		},
		"a batch that partly fails": func(p *probe) {
			url := p.create("")
			out, err := p.c.SendMessageBatch(p.ctx(), &awssqs.SendMessageBatchInput{QueueUrl: &url, Entries: []types.SendMessageBatchRequestEntry{
				{Id: new("1"), MessageBody: new("a")}, {Id: new("2"), MessageBody: new("\x00")}, {Id: new("3"), MessageBody: new("c")},
			}})
			p.outcome(err)
			if err != nil {
				return
			}
			p.note(len(out.Successful))
			for _, f := range out.Failed {
				p.note(*f.Id + " " + *f.Code + " " + fmt.Sprint(f.SenderFault))
			}
		},
		"purge twice": func(p *probe) {
			url := p.create("")
			for range 2 {
				_, err := p.c.PurgeQueue(p.ctx(), &awssqs.PurgeQueueInput{QueueUrl: &url})
				p.outcome(err)
			}
		},
		"create again at once after a delete": func(p *probe) {
			for range 2 {
				out, err := p.c.CreateQueue(p.ctx(), &awssqs.CreateQueueInput{QueueName: &p.name})
				p.outcome(err)
				if err != nil {
					return
				}
				_, err = p.c.DeleteQueue(p.ctx(), &awssqs.DeleteQueueInput{QueueUrl: out.QueueUrl})
				p.outcome(err)
			}
		},
		"create with other attributes": func(p *probe) {
			p.create("", "DelaySeconds", "1")
			_, err := p.c.CreateQueue(p.ctx(), &awssqs.CreateQueueInput{QueueName: &p.name, Attributes: map[string]string{"DelaySeconds": "2"}})
			p.outcome(err)
		},
		"queue attributes out of range": func(p *probe) {
			url := p.create("")
			for name, value := range map[string]string{"VisibilityTimeout": "43201"} {
				_, err := p.c.SetQueueAttributes(p.ctx(), &awssqs.SetQueueAttributesInput{QueueUrl: &url, Attributes: map[string]string{name: value}})
				p.outcome(err)
			}
			_, err := p.c.SetQueueAttributes(p.ctx(), &awssqs.SetQueueAttributesInput{QueueUrl: &url, Attributes: map[string]string{"Colour": "red"}})
			p.outcome(err)
		},
		"dead-letter queue": func(p *probe) {
			dlq := p.create("-dlq")
			url := p.create("", "VisibilityTimeout", "0", "RedrivePolicy", fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":"2"}`, p.arn(dlq)))
			p.put(url, "m", "")
			first := p.one(url)
			p.one(url)
			p.bodies(p.get(url, 1))
			m := p.one(dlq)
			p.note(*m.MessageId == *first.MessageId)
			p.note(m.Attributes["ApproximateReceiveCount"])
			p.note(m.Attributes["SentTimestamp"] == first.Attributes["SentTimestamp"])
			p.note(m.Attributes["DeadLetterQueueSourceArn"] == p.arn(url))
		},
		"move task of no dead-letter queue": func(p *probe) {
			_, err := p.c.StartMessageMoveTask(p.ctx(), &awssqs.StartMessageMoveTaskInput{SourceArn: new(p.arn(p.create("")))})
			p.outcome(err)
		},
		"move task": func(p *probe) {
			dlq := p.create("-dlq")
			url := p.create("", "VisibilityTimeout", "0", "RedrivePolicy", fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":"1"}`, p.arn(dlq)))
			p.put(url, "m", "")
			first := p.one(url)
			p.bodies(p.get(url, 1))
			_, err := p.c.StartMessageMoveTask(p.ctx(), &awssqs.StartMessageMoveTaskInput{SourceArn: new(p.arn(dlq))})
			p.outcome(err)
			m := p.one(url)
			p.note(*m.MessageId == *first.MessageId)
			p.note(m.Attributes["ApproximateReceiveCount"])
			p.note(m.Attributes["DeadLetterQueueSourceArn"] != "")
		},
	}
	// What's refused in a message.
	for name, in := range map[string]awssqs.SendMessageInput{
		"empty body":                   {MessageBody: new("")},
		"NUL":                          {MessageBody: new("\x00")},
		"U+FFFF":                       {MessageBody: new("\uffff")},
		"1 MiB":                        {MessageBody: new(strings.Repeat("x", 1<<20))},
		"1 MiB and a byte":             {MessageBody: new(strings.Repeat("x", 1<<20+1))},
		"ten attributes":               {MessageAttributes: attrs(10)},
		"eleven attributes":            {MessageAttributes: attrs(11)},
		"name of 256":                  {MessageAttributes: one(strings.Repeat("n", 256), text("v"))},
		"name of 257":                  {MessageAttributes: one(strings.Repeat("n", 257), text("v"))},
		"reserved name":                {MessageAttributes: one("AWS.x", text("v"))},
		"name with two points":         {MessageAttributes: one("a..b", text("v"))},
		"name with a space":            {MessageAttributes: one("a b", text("v"))},
		"empty value":                  {MessageAttributes: one("a", text(""))},
		"NUL in a value":               {MessageAttributes: one("a", text("\x00"))},
		"no number":                    {MessageAttributes: one("a", typed("Number", "x"))},
		"a labelled number":            {MessageAttributes: one("a", typed("Number.int", "1"))},
		"unknown type":                 {MessageAttributes: one("a", typed("Bool", "v"))},
		"type that only begins well":   {MessageAttributes: one("a", typed("Strings", "v"))},
		"delay of 900":                 {DelaySeconds: 900},
		"delay of 901":                 {DelaySeconds: 901},
		"deduplication id on standard": {MessageDeduplicationId: new("d")},
		"group of 129 on FIFO":         {MessageGroupId: new(strings.Repeat("g", 129)), MessageDeduplicationId: new("d")},
		"no group on FIFO":             {MessageDeduplicationId: new("d")},
		"no deduplication id on FIFO":  {MessageGroupId: new("g")},
		"delay of one message on FIFO": {MessageGroupId: new("g"), MessageDeduplicationId: new("d"), DelaySeconds: 1},
	} {
		all["send: "+name] = func(p *probe) {
			suffix := ""
			if strings.HasSuffix(name, "FIFO") {
				suffix = ".fifo"
			}
			p.outcome(p.send(p.create(suffix), in))
		}
	}
	return all
}

func differencesOfLocalStack() map[string]string {
	return map[string]string{
		"purge twice":                            "ok ok",
		"create again at once after a delete":    "ok ok ok ok",
		"queue attributes out of range":          "ok InvalidAttributeName",
		"change visibility after the timeout":    "ok [m]",
		"change visibility beyond 12 hours":      "ok ok",
		"delete with the handle before the last": "ok []",
		"group: a later one made visible":        "[a1 a2] ok [a2]",
		"a receive repeated by its attempt id":   "[a1] []",
		"a batch that partly fails":              "ok 2 2 InvalidMessageContents false",
		"move task":                              "[] ok true 3 true",
		"send: delay of 901":                     "ok",
		"send: eleven attributes":                "ok",
		"send: name of 256":                      "InvalidParameterValue",
		"send: name with two points":             "ok",
		"send: no number":                        "ok",
		"send: type that only begins well":       "ok",
	}
}

func differencesOfElasticMQ() map[string]string {
	return map[string]string{
		"purge twice":                            "ok ok",
		"create again at once after a delete":    "ok ok ok ok",
		"queue attributes out of range":          "ok InvalidAttributeName",
		"change visibility after the timeout":    "ok []",
		"change visibility after the delete":     "ok ReceiptHandleIsInvalid",
		"change visibility beyond 12 hours":      "ok ok",
		"delete twice":                           "ok ReceiptHandleIsInvalid",
		"delete with the handle before the last": "ReceiptHandleIsInvalid [m]",
		"delete after the timeout, FIFO":         "ok []",
		"a batch that partly fails":              "ok 2 2 InvalidAttributeValue true",
		"move task":                              "[] ok true 1 true",
		"move task of no dead-letter queue":      "no answer", // 503 and a page of text, after 20 s
		"send: empty body":                       "InvalidAttributeValue",
		"send: NUL":                              "InvalidAttributeValue",
		"send: U+FFFF":                           "InvalidAction",
		"send: 1 MiB and a byte":                 "InvalidAttributeValue",
		"send: eleven attributes":                "InvalidAttributeValue",
		"send: name of 257":                      "ok",
		"send: name with a space":                "ok",
		"send: name with two points":             "ok",
		"send: reserved name":                    "ok",
		"send: empty value":                      "InvalidAttributeValue",
		"send: NUL in a value":                   "InvalidAttributeValue",
		"send: no number":                        "InvalidAttributeValue",
		"send: type that only begins well":       "ok",
	}
}
