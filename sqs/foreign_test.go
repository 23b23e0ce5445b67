package sqs_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/queue"
)

func text(kind, v string) types.MessageAttributeValue {
	return types.MessageAttributeValue{DataType: &kind, StringValue: &v}
}

func bytesOf(kind, v string) types.MessageAttributeValue {
	return types.MessageAttributeValue{DataType: &kind, BinaryValue: []byte(v)}
}

// foreign is what programs send that know nothing of this library.
var foreign = []struct {
	name  string
	body  string
	attrs map[string]types.MessageAttributeValue
}{
	{"no attributes", "plain", nil},
	{"text of many kinds", "ä € 😀 <xml/> \t\r\n \"q\" \\ \u2028", nil},
	{"spaces only", " \n ", nil},
	{"strings", "with strings", map[string]types.MessageAttributeValue{
		"trace": text("String", "00-1-2-01"), "With.Dots_and-dashes.9": text("String", " ä€😀 \n"),
	}},
	{"numbers", "with numbers", map[string]types.MessageAttributeValue{
		"n": text("Number", "17"), "int": text("Number.int", "0007"), "float": text("Number.float", "-1.50e+3"),
		"big": text("Number", "12345678901234567890123456789012345678"),
	}},
	{"binary values", "with binary values", map[string]types.MessageAttributeValue{
		"b": bytesOf("Binary", "\x00\xff\xfe<"), "png": bytesOf("Binary.png", "\x89PNG\r\n\x1a\n"), "text": bytesOf("Binary", "text"),
	}},
	{"labels of one's own", "with labels of one's own", map[string]types.MessageAttributeValue{
		"json": text("String.json", `{"a":1}`), "uuid": text("String.com.example.uuid", "x"),
	}},
	{"ten of them", "with ten of them", map[string]types.MessageAttributeValue{
		"a0": text("Number.int", "0"), "a1": text("String", "1"), "a2": bytesOf("Binary", "\x02"), "a3": text("String.x", "3"), "a4": text("Number", "4"),
		"a5": text("String", "5"), "a6": text("String", "6"), "a7": bytesOf("Binary.gif", "\x07\xff"), "a8": text("String", "8"), "a9": text("String", "9"),
	}},
	{"base64 that nobody declared", "aGVsbG8=", nil},
	{"a long one", strings.Repeat("ä", 100_000), nil},
}

func sendForeign(t *testing.T, s *server, url, body string, attrs map[string]types.MessageAttributeValue) {
	t.Helper()
	_, err := s.client.SendMessage(t.Context(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: &body, MessageAttributes: attrs})
	require.NoError(t, err)
}

// receiveForeign receives n messages, by body, as a program does that knows nothing of
// this library.
func receiveForeign(t *testing.T, s *server, url string, n int) map[string]types.Message {
	t.Helper()
	got := map[string]types.Message{}
	for until := time.Now().Add(patience); len(got) < n; {
		require.True(t, time.Now().Before(until), "got %d of %d messages", len(got), n)
		out, err := s.client.ReceiveMessage(t.Context(), &awssqs.ReceiveMessageInput{
			QueueUrl: &url, MessageAttributeNames: []string{"All"}, WaitTimeSeconds: 2, MaxNumberOfMessages: 10,
		})
		require.NoError(t, err)
		for _, m := range out.Messages {
			got[*m.Body] = m
			_, err := s.client.DeleteMessage(t.Context(), &awssqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: m.ReceiptHandle})
			require.NoError(t, err)
		}
	}
	return got
}

func settle(t *testing.T, q queue.Queue, s queue.Settlement) {
	t.Helper()
	require.NoError(t, q.Settle(t.Context(), s))
}

func TestServerMessagesOfOtherProducersComeThroughUnchanged(t *testing.T) {
	onServers(t, func(t *testing.T, s *server) {
		q := s.fresh(t, "foreign", nil)
		url := q.Capabilities().Address
		for _, f := range foreign {
			sendForeign(t, s, url, f.body, f.attrs)
			d := receive(t, q, 1)[0]
			assert.Equal(t, f.body, string(d.Body), f.name)
			assert.Len(t, d.Attributes, len(f.attrs), f.name)
			for k, v := range f.attrs {
				want := string(v.BinaryValue)
				if v.StringValue != nil {
					want = *v.StringValue
				}
				assert.Equal(t, want, d.Attributes[k], "%s: %s", f.name, k)
			}
			assert.Equal(t, d.BrokerID, d.ID, f.name)
			assert.Equal(t, 0, d.Failures, f.name)
			settle(t, q, queue.Settlement{Delivery: d, Kind: queue.Ack})
		}
	})
}

// What the library publishes again on the way, or a handler forwards, still is what
// the producer sent: other programs may be the next to read it.
func TestServerMessagesOfOtherProducersKeepTheirTypesOnTheirWay(t *testing.T) {
	onServers(t, func(t *testing.T, s *server) {
		q, next := s.fresh(t, "foreign", nil), s.fresh(t, "next", nil)
		for _, f := range foreign {
			sendForeign(t, s, q.Capabilities().Address, f.body, f.attrs)
		}
		// forward sends all on to the next queue, where a foreign program reads them.
		forward := func(ds []*queue.Delivery, what string) {
			for _, d := range ds {
				require.NoError(t, next.Publish(t.Context(), &d.Message), what)
			}
			got := receiveForeign(t, s, next.Capabilities().Address, len(foreign))
			for _, f := range foreign {
				assertAttributes(t, f.attrs, got[f.body].MessageAttributes, what+": "+f.name)
			}
		}
		ds := receive(t, q, len(foreign))
		forward(ds, "forwarded")

		until := time.Now().Add(time.Second)
		for _, d := range ds {
			settle(t, q, queue.Settlement{Delivery: d, Kind: queue.Defer, Until: until})
		}
		forward(receive(t, q, len(foreign)), "sent again by a delay, and forwarded")
	})
}

// assertAttributes wants the same attributes, types included. What the library adds
// takes one of SQS's ten: then one of theirs travels in it.
func assertAttributes(t *testing.T, want, got map[string]types.MessageAttributeValue, name string) {
	t.Helper()
	var meta struct{ Attrs map[string]string }
	if m, ok := got[queue.MetaAttribute]; ok {
		require.NoError(t, json.Unmarshal([]byte(*m.StringValue), &meta))
	}
	if len(want) == 10 {
		assert.Len(t, meta.Attrs, 1, name)
	} else {
		assert.Empty(t, meta.Attrs, name)
	}
	for k, w := range want {
		if v, folded := meta.Attrs[k]; folded {
			assert.Equal(t, aws.ToString(w.StringValue), v, "%s: %s", name, k)
			continue
		}
		g, ok := got[k]
		if assert.True(t, ok, "%s: %s is missing", name, k) {
			assert.Equal(t, aws.ToString(w.DataType), aws.ToString(g.DataType), "%s: type of %s", name, k)
			assert.Equal(t, aws.ToString(w.StringValue), aws.ToString(g.StringValue), "%s: %s", name, k)
			assert.Equal(t, string(w.BinaryValue), string(g.BinaryValue), "%s: %s", name, k)
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok {
			assert.True(t, strings.HasPrefix(k, queue.ReservedPrefix), "%s: %s came from nowhere", name, k)
		}
	}
}
