package sqs_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs"
	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

const topic = "arn:aws:sns:eu-west-1:123456789012:leads"

// envelope is a notification as SNS sends it, with changes.
func envelope(t *testing.T, change map[string]any) string {
	t.Helper()
	e := map[string]any{
		"Type": "Notification", "MessageId": "63a3f6b6-d533-4a47-aef9-fcf5cf758c76", "TopicArn": topic,
		"Subject": "a new lead", "Message": "ada: ä < > &", "Timestamp": "2026-03-29T05:12:16.901Z",
		"SignatureVersion": "1", "Signature": "EXAMPLEnTrFPa3", "SigningCertURL": "https://sns.eu-west-1.amazonaws.com/cert.pem",
		"UnsubscribeURL": "https://sns.eu-west-1.amazonaws.com/?Action=Unsubscribe",
		"MessageAttributes": map[string]any{
			"source": map[string]string{"Type": "String", "Value": "web"},
			"score":  map[string]string{"Type": "Number", "Value": "7.5"},
			"tags":   map[string]string{"Type": "String.Array", "Value": `["a","b"]`},
			"hash":   map[string]string{"Type": "Binary", "Value": "AP8="},
		},
	}
	for k, v := range change {
		if e[k] = v; v == nil {
			delete(e, k)
		}
	}
	b, err := json.Marshal(e)
	require.NoError(t, err)
	return string(b)
}

func delivered(body string) *queue.Delivery {
	return &queue.Delivery{Message: queue.Message{ID: "of-sqs", Body: []byte(body)}, BrokerID: "of-sqs"}
}

func TestANotificationIsUnwrapped(t *testing.T) {
	t.Parallel()
	var got *queue.Delivery
	var info sqs.Notification
	h := sqs.UnwrapSNS(sqs.SNSOptions{Topics: []string{topic}}).Wrap(func(ctx context.Context, d *queue.Delivery) error {
		var ok bool
		info, ok = sqs.NotificationOf(ctx)
		assert.True(t, ok)
		got = d
		return nil
	})
	d := delivered(envelope(t, nil))
	d.Attributes = map[string]string{"of": "sqs"}
	require.NoError(t, h(t.Context(), d))
	assert.Equal(t, []byte("ada: ä < > &"), got.Body)
	assert.Equal(t, map[string]string{"source": "web", "score": "7.5", "tags": `["a","b"]`, "hash": "\x00\xff", "of": "sqs"}, got.Attributes)
	assert.Equal(t, "63a3f6b6-d533-4a47-aef9-fcf5cf758c76", got.ID)
	assert.Equal(t, "of-sqs", got.BrokerID)
	assert.Equal(t, sqs.Notification{
		MessageID: got.ID, TopicARN: topic, Subject: "a new lead", Timestamp: time.Date(2026, 3, 29, 5, 12, 16, 901e6, time.UTC),
	}, info)
	assert.Equal(t, map[string]string{"of": "sqs"}, d.Attributes, "outer middleware sees what came")
	assert.True(t, strings.HasPrefix(string(d.Body), `{"`))
}

func TestWhatIsNoNotificationIsRejected(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, body, says string
		raw              bool // handled with AlsoRaw
	}{
		{"text", "hello", "isn't an SNS notification", true},
		{"other JSON", `{"email":"ada@example.com"}`, "isn't an SNS notification", true},
		{"an array", `[1]`, "isn't an SNS notification", true},
		{"nothing", "", "isn't an SNS notification", true},
		{"a message that's no text", envelope(t, map[string]any{"Message": map[string]int{"a": 1}}), "isn't an SNS notification", true},
		{"no message", envelope(t, map[string]any{"Message": nil}), "isn't an SNS notification", true},
		{"a request to confirm", envelope(t, map[string]any{"Type": "SubscriptionConfirmation"}), "SubscriptionConfirmation", false},
		{"another topic", envelope(t, map[string]any{"TopicArn": topic + "2"}), topic + "2", false},
		{"a binary attribute that isn't", envelope(t, map[string]any{"MessageAttributes": map[string]any{"b": map[string]string{"Type": "Binary", "Value": "%"}}}), `"b"`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, also := range []bool{false, true} {
				var got string
				h := sqs.UnwrapSNS(sqs.SNSOptions{Topics: []string{topic}, AlsoRaw: also}).Wrap(func(ctx context.Context, d *queue.Delivery) error {
					_, ok := sqs.NotificationOf(ctx)
					assert.False(t, ok)
					got = "handled: " + string(d.Body)
					return nil
				})
				err := h(t.Context(), delivered(c.body))
				if c.raw && also {
					require.NoError(t, err)
					assert.Equal(t, "handled: "+c.body, got)
					continue
				}
				assert.Equal(t, queue.Rejected, queue.OutcomeOf(err).Kind)
				assert.ErrorContains(t, err, c.says)
				assert.Empty(t, got)
			}
		})
	}
}

func TestAnEmptyMessageOfANotificationIsAMessage(t *testing.T) {
	t.Parallel()
	called := false
	h := sqs.UnwrapSNS(sqs.SNSOptions{}).Wrap(func(_ context.Context, d *queue.Delivery) error {
		called = len(d.Body) == 0
		return nil
	})
	require.NoError(t, h(t.Context(), delivered(envelope(t, map[string]any{"Message": "", "MessageAttributes": nil}))))
	assert.True(t, called)
}

func TestADeadLetterHoldsTheEnvelopeAndRedriveBringsItBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := sqstest.New(nil)
		t.Cleanup(server.Close)
		s := newServer("sqstest", server.Client())
		q, dead := s.fresh(t, "leads", nil), s.fresh(t, "leads-dlq", nil)
		wrapped := envelope(t, nil)
		require.NoError(t, publishRaw(t.Context(), s.client, q, []byte(wrapped), nil))

		bug := true
		handled := make(chan string, 10)
		run := func(until func() bool) {
			c, err := queue.NewConsumer(q, func(_ context.Context, d *queue.Delivery) error {
				if bug {
					return queue.Reject(errors.New("a bug"))
				}
				handled <- d.ID + " " + string(d.Body)
				return nil
			}, &queue.ConsumerOptions{Concurrency: 1, Middleware: []queue.Middleware{
				sqs.UnwrapSNS(sqs.SNSOptions{}), middleware.DeadLetter(dead, middleware.DeadLetterOptions{}),
			}})
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- c.Run(ctx) }()
			for !until() {
				time.Sleep(time.Second)
			}
			cancel()
			require.NoError(t, <-ended)
		}
		run(func() bool { return len(server.Messages(dead.Capabilities().Source.Name)) == 1 })
		assert.Equal(t, wrapped, server.Messages(dead.Capabilities().Source.Name)[0].Body)
		bug = false
		res, err := queue.Redrive(t.Context(), dead, q, nil)
		require.NoError(t, err)
		assert.Equal(t, 1, res.Moved)
		run(func() bool { return len(handled) > 0 })
		assert.Equal(t, `63a3f6b6-d533-4a47-aef9-fcf5cf758c76 ada: ä < > &`, <-handled)
		assert.Empty(t, handled)
	})
}

func ExampleUnwrapSNS() {
	handle := func(ctx context.Context, d *queue.Delivery) error {
		n, _ := sqs.NotificationOf(ctx)
		fmt.Println(n.Subject, "|", string(d.Body), "|", d.Attributes["source"])
		return nil
	}
	// Usually in ConsumerOptions.Middleware.
	unwrapping := queue.Chain(handle, sqs.UnwrapSNS(sqs.SNSOptions{Topics: []string{"arn:aws:sns:eu-west-1:123456789012:leads"}}))

	fromSNS := `{"Type":"Notification","MessageId":"1","TopicArn":"arn:aws:sns:eu-west-1:123456789012:leads","Subject":"a new lead",
		"Message":"ada@example.com","Timestamp":"2026-03-29T05:12:16.901Z","MessageAttributes":{"source":{"Type":"String","Value":"web"}}}`
	fmt.Println(unwrapping(context.Background(), &queue.Delivery{Message: queue.Message{Body: []byte(fromSNS)}}))
	// Output:
	// a new lead | ada@example.com | web
	// <nil>
}
