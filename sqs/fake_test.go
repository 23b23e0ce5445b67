package sqs_test

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
)

// fake is an HTTP server that answers in the protocol of SQS what a test wants.
// It knows the queue "orders" and nothing else.
type fake struct {
	*httptest.Server

	// answers, by operation: the JSON of success.
	answers map[string]func(in map[string]any) any

	mu    sync.Mutex
	calls []request
}

type request struct {
	operation string
	in        map[string]any
}

// failure is the answer of an operation that fails.
type failure struct {
	status int
	code   string
}

// cut is the answer that's swallowed: the connection breaks instead.
type cut struct{}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{answers: map[string]func(map[string]any) any{
		"GetQueueUrl": func(in map[string]any) any {
			if name := in["QueueName"]; name != "orders" && name != "orders.fifo" {
				return failure{http.StatusBadRequest, "com.amazonaws.sqs#QueueDoesNotExist"}
			}
			return map[string]any{"QueueUrl": "http://sqs.test/1/" + in["QueueName"].(string)}
		},
		"GetQueueAttributes": func(map[string]any) any {
			return map[string]any{"Attributes": map[string]string{
				"VisibilityTimeout": "40", "MessageRetentionPeriod": "86400", "MaximumMessageSize": "2048",
				"RedrivePolicy": `{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:1:dead","maxReceiveCount":"7"}`,
			}}
		},
		"SendMessageBatch":             sendAll,
		"DeleteMessageBatch":           succeedAll,
		"ChangeMessageVisibilityBatch": succeedAll,
	}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

// client returns a client that retries at once, and whose connections serve one
// request: nothing is ever sent into one that was closed meanwhile.
func (f *fake) client() *awssqs.Client {
	return newClient(f.URL, func(o *awssqs.Options) {
		o.HTTPClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) { o.MaxBackoff = time.Millisecond })
	})
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	in := map[string]any{}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	f.calls = append(f.calls, request{operation, in})
	answer := f.answers[operation]
	f.mu.Unlock()
	if answer == nil {
		http.Error(w, "no answer for "+operation, http.StatusNotImplemented)
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	out := answer(in)
	switch x := out.(type) {
	case cut:
		panic(http.ErrAbortHandler)
	case failure:
		w.WriteHeader(x.status)
		out = map[string]string{"__type": x.code, "message": "the fake says so"}
	}
	if err := json.NewEncoder(w).Encode(out); err != nil {
		panic(err)
	}
}

// made returns the requests of one operation.
func (f *fake) made(operation string) []map[string]any {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []map[string]any
	for _, c := range f.calls {
		if c.operation == operation {
			out = append(out, c.in)
		}
	}
	return out
}

func entries(in map[string]any) []map[string]any {
	var out []map[string]any
	for _, e := range in["Entries"].([]any) {
		out = append(out, e.(map[string]any))
	}
	return out
}

func sendAll(in map[string]any) any { return sendSome(in, func(string) bool { return true }) }

// sendSome takes the entries whose body is taken, and refuses the others.
func sendSome(in map[string]any, taken func(body string) bool) any {
	ok, bad := []any{}, []any{}
	for _, e := range entries(in) {
		body := e["MessageBody"].(string)
		if !taken(body) {
			bad = append(bad, map[string]any{"Id": e["Id"], "Code": "InternalError", "Message": "no", "SenderFault": true})
			continue
		}
		sum := md5.Sum([]byte(body))
		ok = append(ok, map[string]any{"Id": e["Id"], "MessageId": "m-" + body, "MD5OfMessageBody": hex.EncodeToString(sum[:])})
	}
	return map[string]any{"Successful": ok, "Failed": bad}
}

func succeedAll(in map[string]any) any {
	ok := []any{}
	for _, e := range entries(in) {
		ok = append(ok, map[string]any{"Id": e["Id"]})
	}
	return map[string]any{"Successful": ok, "Failed": []any{}}
}

// failEach refuses every entry.
func failEach(code string) func(map[string]any) any {
	return func(in map[string]any) any {
		bad := []any{}
		for _, e := range entries(in) {
			bad = append(bad, map[string]any{"Id": e["Id"], "Code": code, "Message": "no", "SenderFault": true})
		}
		return map[string]any{"Successful": []any{}, "Failed": bad}
	}
}

// bringing answers a receive with one message.
func bringing(body string, attributes map[string]string) func(map[string]any) any {
	return func(map[string]any) any {
		attrs := map[string]string{"ApproximateReceiveCount": "3", "SentTimestamp": "1700000000000"}
		maps.Copy(attrs, attributes)
		sum := md5.Sum([]byte(body))
		return map[string]any{"Messages": []any{map[string]any{
			"MessageId": "m-" + body, "ReceiptHandle": "r-" + body, "Body": body, "MD5OfBody": hex.EncodeToString(sum[:]),
			"Attributes": attrs,
			"MessageAttributes": map[string]any{
				"n": map[string]any{"DataType": "Number.int", "StringValue": "7"},
				"b": map[string]any{"DataType": "Binary", "BinaryValue": []byte{0, 1}},
			},
		}}}
	}
}
