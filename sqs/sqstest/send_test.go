package sqstest_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

func text(s string) types.MessageAttributeValue {
	return types.MessageAttributeValue{DataType: new("String"), StringValue: &s}
}

func typed(kind, s string) types.MessageAttributeValue {
	return types.MessageAttributeValue{DataType: &kind, StringValue: &s}
}

func attrs(n int) map[string]types.MessageAttributeValue {
	out := map[string]types.MessageAttributeValue{}
	for i := range n {
		out[fmt.Sprintf("a%d", i)] = text("v")
	}
	return out
}

func one(name string, v types.MessageAttributeValue) map[string]types.MessageAttributeValue {
	return map[string]types.MessageAttributeValue{name: v}
}

// What's refused, and how: the same as a single message and as an entry of a
// batch, whose other entries aren't affected.
func TestWhatCantBeSentIsRefused(t *testing.T) {
	t.Parallel()
	const invalid, contents = "InvalidParameterValue", "InvalidMessageContents"
	long := strings.Repeat("n", 257)
	for name, c := range map[string]struct {
		queue string
		entry types.SendMessageBatchRequestEntry
		code  string
	}{
		"no body":                        {"q", types.SendMessageBatchRequestEntry{MessageBody: new("")}, "MissingParameter"},
		"NUL":                            {"q", types.SendMessageBatchRequestEntry{MessageBody: new("a\x00")}, contents},
		"U+FFFE":                         {"q", types.SendMessageBatchRequestEntry{MessageBody: new("\ufffe")}, contents},
		"U+FFFF":                         {"q", types.SendMessageBatchRequestEntry{MessageBody: new("\uffff")}, contents},
		"a byte too much":                {"small", types.SendMessageBatchRequestEntry{MessageBody: new(strings.Repeat("x", 1025))}, invalid},
		"too large with its attributes":  {"small", types.SendMessageBatchRequestEntry{MessageBody: new(strings.Repeat("x", 1024-8)), MessageAttributes: one("ab", text("v"))}, invalid},
		"eleven attributes":              {"q", types.SendMessageBatchRequestEntry{MessageBody: new("m"), MessageAttributes: attrs(11)}, invalid},
		"empty value":                    {"q", types.SendMessageBatchRequestEntry{MessageBody: new("m"), MessageAttributes: one("a", text(""))}, invalid},
		"NUL in a value":                 {"q", types.SendMessageBatchRequestEntry{MessageBody: new("m"), MessageAttributes: one("a", text("\x00"))}, invalid},
		"empty type":                     {"q", types.SendMessageBatchRequestEntry{MessageBody: new("m"), MessageAttributes: one("a", typed("", "v"))}, invalid},
		"unknown type":                   {"q", types.SendMessageBatchRequestEntry{MessageBody: new("m"), MessageAttributes: one("a", typed("Bool", "v"))}, invalid},
		"type that only begins well":     {"q", types.SendMessageBatchRequestEntry{MessageBody: new("m"), MessageAttributes: one("a", typed("Strings", "v"))}, invalid},
		"empty label":                    {"q", types.SendMessageBatchRequestEntry{MessageBody: new("m"), MessageAttributes: one("a", typed("String.", "v"))}, invalid},
		"long type":                      {"q", types.SendMessageBatchRequestEntry{MessageBody: new("m"), MessageAttributes: one("a", typed("String."+long, "v"))}, invalid},
		"number that is none":            {"q", types.SendMessageBatchRequestEntry{MessageBody: new("m"), MessageAttributes: one("a", typed("Number", "12a"))}, invalid},
		"infinite number":                {"q", types.SendMessageBatchRequestEntry{MessageBody: new("m"), MessageAttributes: one("a", typed("Number", "Inf"))}, invalid},
		"number without digits":          {"q", types.SendMessageBatchRequestEntry{MessageBody: new("m"), MessageAttributes: one("a", typed("Number", "-."))}, invalid},
		"39 digits":                      {"q", types.SendMessageBatchRequestEntry{MessageBody: new("m"), MessageAttributes: one("a", typed("Number", strings.Repeat("1", 39)))}, invalid},
		"10^127":                         {"q", types.SendMessageBatchRequestEntry{MessageBody: new("m"), MessageAttributes: one("a", typed("Number", "1e127"))}, invalid},
		"-10^129":                        {"q", types.SendMessageBatchRequestEntry{MessageBody: new("m"), MessageAttributes: one("a", typed("Number", "-1e129"))}, invalid},
		"bytes in a string":              {"q", types.SendMessageBatchRequestEntry{MessageBody: new("m"), MessageAttributes: one("a", types.MessageAttributeValue{DataType: new("String"), BinaryValue: []byte("v")})}, invalid},
		"string in a binary":             {"q", types.SendMessageBatchRequestEntry{MessageBody: new("m"), MessageAttributes: one("a", typed("Binary", "v"))}, invalid},
		"list":                           {"q", types.SendMessageBatchRequestEntry{MessageBody: new("m"), MessageAttributes: one("a", types.MessageAttributeValue{DataType: new("String"), StringListValues: []string{"v"}})}, "AWS.SimpleQueueService.UnsupportedOperation"},
		"empty name":                     {"q", types.SendMessageBatchRequestEntry{MessageBody: new("m"), MessageAttributes: one("", text("v"))}, invalid},
		"long name":                      {"q", types.SendMessageBatchRequestEntry{MessageBody: new("m"), MessageAttributes: one(long, text("v"))}, invalid},
		"name with a space":              {"q", types.SendMessageBatchRequestEntry{MessageBody: new("m"), MessageAttributes: one("a b", text("v"))}, invalid},
		"reserved name":                  {"q", types.SendMessageBatchRequestEntry{MessageBody: new("m"), MessageAttributes: one("aMazon.x", text("v"))}, invalid},
		"name that begins with a point":  {"q", types.SendMessageBatchRequestEntry{MessageBody: new("m"), MessageAttributes: one(".a", text("v"))}, invalid},
		"name that ends with a point":    {"q", types.SendMessageBatchRequestEntry{MessageBody: new("m"), MessageAttributes: one("a.", text("v"))}, invalid},
		"name with two points":           {"q", types.SendMessageBatchRequestEntry{MessageBody: new("m"), MessageAttributes: one("a..b", text("v"))}, invalid},
		"system attribute":               {"q", types.SendMessageBatchRequestEntry{MessageBody: new("m"), MessageSystemAttributes: map[string]types.MessageSystemAttributeValue{"SenderId": {DataType: new("String"), StringValue: new("me")}}}, invalid},
		"trace header that is no string": {"q", types.SendMessageBatchRequestEntry{MessageBody: new("m"), MessageSystemAttributes: map[string]types.MessageSystemAttributeValue{"AWSTraceHeader": {DataType: new("Number"), StringValue: new("1")}}}, invalid},
		"delay":                          {"q", types.SendMessageBatchRequestEntry{MessageBody: new("m"), DelaySeconds: 901}, invalid},
		"delay of one FIFO message":      {"q.fifo", types.SendMessageBatchRequestEntry{MessageBody: new("m"), DelaySeconds: 1, MessageGroupId: new("g"), MessageDeduplicationId: new("d")}, invalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			virtually(t, nil, func(e *env) {
				url := e.create(c.queue)
				if c.queue == "small" {
					require.NoError(e, e.set(url, "MaximumMessageSize", "1024"))
				}
				_, err := e.c.SendMessage(e.Context(), &awssqs.SendMessageInput{
					QueueUrl: &url, MessageBody: c.entry.MessageBody, MessageAttributes: c.entry.MessageAttributes, DelaySeconds: c.entry.DelaySeconds,
					MessageSystemAttributes: c.entry.MessageSystemAttributes, MessageGroupId: c.entry.MessageGroupId, MessageDeduplicationId: c.entry.MessageDeduplicationId,
				})
				code(e, c.code, err)
				c.entry.Id = new("bad")
				good := types.SendMessageBatchRequestEntry{Id: new("good"), MessageBody: new("good")}
				if c.entry.MessageGroupId != nil {
					good.MessageGroupId, good.MessageDeduplicationId = new("g"), new("d2")
				}
				out, err := e.c.SendMessageBatch(e.Context(), &awssqs.SendMessageBatchInput{QueueUrl: &url, Entries: []types.SendMessageBatchRequestEntry{c.entry, good}})
				require.NoError(e, err)
				require.Len(e, out.Failed, 1)
				assert.Equal(e, c.code, *out.Failed[0].Code)
				assert.Equal(e, "bad", *out.Failed[0].Id)
				assert.True(e, out.Failed[0].SenderFault)
				require.Len(e, out.Successful, 1)
				ms := e.s.Messages(c.queue)
				require.Len(e, ms, 1)
				assert.Equal(e, "good", ms[0].Body)
			})
		})
	}
}

func TestGroupAndDeduplicationIDs(t *testing.T) {
	t.Parallel()
	const invalid, missing = "InvalidParameterValue", "MissingParameter"
	for name, c := range map[string]struct {
		queue         string
		group, dedup  *string
		single, batch string // codes; empty: taken
	}{
		"a tenant of a fair queue":            {"q", new("tenant-1"), nil, "", ""},
		"an empty tenant":                     {"q", new(""), nil, invalid, invalid},
		"a tenant with a space":               {"q", new("a b"), nil, invalid, invalid},
		"deduplication on a standard queue":   {"q", nil, new("d"), invalid, invalid},
		"group and deduplication":             {"q.fifo", new("!g~"), new("d"), "", ""},
		"128 characters":                      {"q.fifo", new(strings.Repeat("g", 128)), new(strings.Repeat("d", 128)), "", ""},
		"129 characters":                      {"q.fifo", new(strings.Repeat("g", 129)), new("d"), invalid, invalid},
		"no group":                            {"q.fifo", nil, new("d"), missing, invalid},
		"no deduplication":                    {"q.fifo", new("g"), nil, invalid, invalid},
		"deduplication with a foreign letter": {"q.fifo", new("g"), new("ü"), invalid, invalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			virtually(t, nil, func(e *env) {
				url := e.create(c.queue)
				_, err := e.c.SendMessage(e.Context(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: new("m"), MessageGroupId: c.group, MessageDeduplicationId: c.dedup})
				if c.single == "" {
					require.NoError(e, err)
				} else {
					code(e, c.single, err)
				}
				// The whole batch fails, not only its entry.
				_, err = e.c.SendMessageBatch(e.Context(), &awssqs.SendMessageBatchInput{QueueUrl: &url, Entries: []types.SendMessageBatchRequestEntry{
					{Id: new("1"), MessageBody: new("m"), MessageGroupId: c.group, MessageDeduplicationId: c.dedup},
				}})
				if c.batch == "" {
					require.NoError(e, err)
				} else {
					code(e, c.batch, err)
				}
			})
		})
	}
}

func TestBatchesAreChecked(t *testing.T) {
	t.Parallel()
	entries := func(ids ...string) string {
		var out []string
		for _, id := range ids {
			out = append(out, fmt.Sprintf(`{"Id":%q,"MessageBody":"m","ReceiptHandle":"r","VisibilityTimeout":1}`, id))
		}
		return strings.Join(out, ",")
	}
	for _, action := range []string{"SendMessageBatch", "DeleteMessageBatch", "ChangeMessageVisibilityBatch"} {
		for name, c := range map[string]struct{ entries, kind string }{
			"empty":         {"", "EmptyBatchRequest"},
			"eleven":        {entries("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"), "TooManyEntriesInBatchRequest"},
			"twice":         {entries("a", "a"), "BatchEntryIdsNotDistinct"},
			"no id":         {`{"MessageBody":"m"}`, "InvalidBatchEntryId"},
			"id with space": {entries("a b"), "InvalidBatchEntryId"},
			"81 characters": {entries(strings.Repeat("a", 81)), "InvalidBatchEntryId"},
		} {
			t.Run(action+" "+name, func(t *testing.T) {
				t.Parallel()
				virtually(t, nil, func(e *env) {
					body := c.entries
					switch action {
					case "SendMessageBatch":
						body = strings.ReplaceAll(body, `,"ReceiptHandle":"r","VisibilityTimeout":1`, "")
					case "DeleteMessageBatch":
						body = strings.ReplaceAll(strings.ReplaceAll(body, `"MessageBody":"m",`, ""), `,"VisibilityTimeout":1`, "")
					default:
						body = strings.ReplaceAll(body, `"MessageBody":"m",`, "")
					}
					if name == "no id" {
						body = `{}`
					}
					status, out, query := e.raw(action, fmt.Sprintf(`{"QueueUrl":%q,"Entries":[%s]}`, e.create("q"), body))
					assert.Equal(e, 400, status)
					assert.Equal(e, "com.amazonaws.sqs#"+c.kind, out["__type"])
					assert.Equal(e, "AWS.SimpleQueueService."+c.kind+";Sender", query)
				})
			})
		}
	}
}

func TestABatchMayBeOneMiB(t *testing.T) {
	t.Parallel()
	virtually(t, nil, func(e *env) {
		url := e.create("q")
		half := strings.Repeat("x", 1<<19)
		send := func(second string) error {
			_, err := e.c.SendMessageBatch(e.Context(), &awssqs.SendMessageBatchInput{QueueUrl: &url, Entries: []types.SendMessageBatchRequestEntry{
				{Id: new("1"), MessageBody: &half}, {Id: new("2"), MessageBody: &second},
			}})
			return err
		}
		require.NoError(e, send(half))
		code(e, "AWS.SimpleQueueService.BatchRequestTooLong", send(half+"x"))
		assert.Len(e, e.s.Messages("q"), 2)
		e.send(url, half+half)
		_, err := e.c.SendMessage(e.Context(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: new(half + half + "x")})
		code(e, "InvalidParameterValue", err)
	})
}

// The checksums are those that AWS was recorded to answer with.
func TestChecksumsOfAttributes(t *testing.T) {
	t.Parallel()
	for want, attributes := range map[string]map[string]types.MessageAttributeValue{
		"4c360f3fdafd970e05fae2f149d997f5": {"General": text("Kenobi"), "Help.Me": text("Me"), "Hello": text("There")},
		"8cbe4db156db8a94db8b801b7addb984": one("attr1", types.MessageAttributeValue{DataType: new("Binary"), BinaryValue: []byte("traceparent\x1e00-774062d6c37081a5a0b9b5b88e30627c-2d2482211f6489da-01")}),
		"adb59cd4678ea5a855436b949cd07ab6": one("MyAttribute", text("foobar")),
	} {
		virtually(t, nil, func(e *env) {
			url := e.create("q")
			out, err := e.c.SendMessage(e.Context(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: new("msg"), MessageAttributes: attributes})
			require.NoError(e, err)
			assert.Equal(e, want, *out.MD5OfMessageAttributes)
			assert.Equal(e, "6e2baaf3b97dbeef01c0043275f9a0e7", *out.MD5OfMessageBody)
			m := e.receiveOne(url)
			assert.Equal(e, want, *m.MD5OfMessageAttributes)
			assert.Equal(e, attributes, m.MessageAttributes)
		})
	}
}

func TestWhatIsSentArrivesAsItWas(t *testing.T) {
	t.Parallel()
	virtually(t, nil, func(e *env) {
		url := e.create("q")
		body := "\t\n\r \x7f\"\\/<>&\u2028é\ud7ff\ue000\ufffd\U00010000\U0010ffff"
		attributes := map[string]types.MessageAttributeValue{
			"String":   typed("String.custom label", body),
			"Number":   typed("Number", "-12.50e-3"),
			"Big":      typed("Number.int", strings.Repeat("9", 38)),
			"Binary":   {DataType: new("Binary.gzip"), BinaryValue: []byte{0, 1, 0xff}},
			"a-b_c.d1": text("x"),
		}
		sent, err := e.c.SendMessage(e.Context(), &awssqs.SendMessageInput{
			QueueUrl: &url, MessageBody: &body, MessageAttributes: attributes, MessageGroupId: new("tenant"),
			MessageSystemAttributes: map[string]types.MessageSystemAttributeValue{"AWSTraceHeader": {DataType: new("String"), StringValue: new("Root=1")}},
		})
		require.NoError(e, err)
		assert.NotEmpty(e, sent.MD5OfMessageSystemAttributes)
		assert.Nil(e, sent.SequenceNumber, "it's of FIFO queues")
		m := e.receiveOne(url)
		assert.Equal(e, body, *m.Body)
		assert.Equal(e, attributes, m.MessageAttributes)
		assert.Equal(e, *sent.MessageId, *m.MessageId)
		now := fmt.Sprint(time.Now().UnixMilli())
		assert.Equal(e, map[string]string{
			"SenderId": m.Attributes["SenderId"], "SentTimestamp": now, "ApproximateFirstReceiveTimestamp": now, "ApproximateReceiveCount": "1",
			"MessageGroupId": "tenant", "AWSTraceHeader": "Root=1",
		}, m.Attributes)
		assert.NotEmpty(e, m.Attributes["SenderId"])
		assert.Equal(e, sqstest.Attribute{Type: "Binary.gzip", Value: "\x00\x01\xff"}, e.s.Messages("q")[0].Attributes["Binary"])
	})
}

// JSON may be written in many ways; what it says counts.
func TestRequestsInAnyJSON(t *testing.T) {
	t.Parallel()
	virtually(t, nil, func(e *env) {
		url, err := json.Marshal(e.create("q"))
		require.NoError(e, err)
		status, _, _ := e.raw("SendMessage", " {\n\t\"MessageBody\" : \"\\u0041\\ud83d\\ude00\\n\" , \"DelaySeconds\":null, \"MessageAttributes\": {\"a\":{\"StringValue\":\"\\\"\",\"DataType\":\"String\",\"BinaryValue\":null}}, \"QueueUrl\":"+string(url)+"}\r\n")
		assert.Equal(e, 200, status)
		m := e.s.Messages("q")[0]
		assert.Equal(e, "A\U0001F600\n", m.Body)
		assert.Equal(e, map[string]sqstest.Attribute{"a": {Type: "String", Value: `"`}}, m.Attributes)
		for _, bad := range []string{`[]`, `{"MessageBody":1}`, `{"MessageBody":"`, `{"MessageBody":"\`, `{"MessageBody":"\x"}`, `{"DelaySeconds":"1"}`, `{"DelaySeconds":1.5}`, `{"QueueUrl":"a",}`, "{\"QueueUrl\":\"\x01\"}", `{} {}`, `{"MessageAttributes":{"a":{"BinaryValue":"!"}}}`} {
			status, out, _ := e.raw("SendMessage", bad)
			assert.Equal(e, 400, status, bad)
			assert.Equal(e, "com.amazon.coral.service#SerializationException", out["__type"], bad)
		}
	})
}
