package sqs_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs"
)

// open opens the fake's queue.
func open(t *testing.T, f *fake, opts *queue.OpenOptions) queue.Queue {
	t.Helper()
	q, err := sqs.New(f.client(), &sqs.Options{Wait: time.Second}).Open(t.Context(), "orders", opts)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, q.Close(context.Background())) })
	return q
}

func message(body string) *queue.Message { return &queue.Message{Body: []byte(body)} }

func keyed(key, body string) *queue.Message {
	return &queue.Message{Body: []byte(body), OrderingKey: key}
}

// failures returns the errors of a Publish by index.
func failures(t *testing.T, err error) map[int]error {
	t.Helper()
	var pe *queue.PublishError
	require.ErrorAs(t, err, &pe)
	out := map[int]error{}
	for _, e := range pe.Failed {
		out[e.Index] = e.Err
	}
	return out
}

func TestOpenReadsTheQueuesSettings(t *testing.T) {
	t.Parallel()
	caps := open(t, newFake(t), nil).Capabilities()
	assert.Equal(t, queue.Endpoint{System: "aws_sqs", Name: "orders"}, caps.Source)
	assert.Equal(t, "http://sqs.test/1/orders", caps.Address)
	assert.Equal(t, 40*time.Second, caps.Lease)
	assert.Equal(t, 24*time.Hour, caps.Retention)
	assert.Equal(t, 2048, caps.Wire.MaxBytes)
	assert.Equal(t, 7, caps.BrokerMaxAttempts)
	assert.Equal(t, 15*time.Minute, caps.MaxDelay)
	assert.Empty(t, caps.Assumed)
	assert.False(t, caps.Ordering || caps.KeyLocked || caps.Dedup)
}

func TestSettingsThatMayNotBeReadAreAssumedAndSaid(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.answers["GetQueueAttributes"] = func(map[string]any) any {
		return failure{http.StatusForbidden, "AccessDeniedException"}
	}
	var log bytes.Buffer
	caps := open(t, f, &queue.OpenOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))}).Capabilities()
	assert.Contains(t, caps.Assumed, "VisibilityTimeout")
	assert.Equal(t, 30*time.Second, caps.Lease)
	assert.Contains(t, log.String(), "VisibilityTimeout")
}

func TestWhatCannotBeOpened(t *testing.T) {
	t.Parallel()
	client := newFake(t).client()
	refused := func(operation, code string) *sqs.Backend {
		f := newFake(t)
		f.answers[operation] = func(map[string]any) any { return failure{http.StatusBadRequest, code} }
		return sqs.New(f.client(), nil)
	}
	const address = "https://sqs.us-east-1.amazonaws.com/1/orders"
	for _, c := range []struct {
		name    string
		backend *sqs.Backend
		queue   string
		opts    queue.OpenOptions
		want    error
	}{
		{"a missing queue", sqs.New(client, nil), "missing", queue.OpenOptions{}, queue.ErrQueueNotFound},
		{"a queue that one may not ask for", refused("GetQueueUrl", "AccessDeniedException"), "orders", queue.OpenOptions{}, queue.ErrPermission},
		{"credentials that SQS doesn't know", refused("GetQueueUrl", "InvalidClientTokenId"), "orders", queue.OpenOptions{}, queue.ErrPermission},
		{"an address with credentials that SQS doesn't know", refused("GetQueueAttributes", "InvalidClientTokenId"), "orders", queue.OpenOptions{Address: address}, queue.ErrPermission},
		{"an account that has no such queue", refused("GetQueueUrl", "InvalidAddress"), "orders", queue.OpenOptions{Address: "arn:aws:sqs:us-east-1:2:orders"}, queue.ErrQueueNotFound},
		{"an address that SQS doesn't know", refused("GetQueueAttributes", "InvalidAddress"), "orders", queue.OpenOptions{Address: address}, queue.ErrQueueNotFound},
		{"an address whose queue is gone", refused("GetQueueAttributes", "QueueDoesNotExist"), "orders", queue.OpenOptions{Address: address}, queue.ErrQueueNotFound},
		{"a name that isn't portable", sqs.New(client, nil), "a.b", queue.OpenOptions{}, queue.ErrInvalid},
		{"no client", sqs.New(nil, nil), "orders", queue.OpenOptions{}, queue.ErrInvalid},
		{"the zero value", &sqs.Backend{}, "orders", queue.OpenOptions{}, queue.ErrInvalid},
		{"a wait beyond 20 s", sqs.New(client, &sqs.Options{Wait: time.Minute}), "orders", queue.OpenOptions{}, queue.ErrInvalid},
		{"a lease of half a second", sqs.New(client, nil), "orders", queue.OpenOptions{Lease: time.Second / 2}, queue.ErrInvalid},
		{"a lease of a day", sqs.New(client, nil), "orders", queue.OpenOptions{Lease: 24 * time.Hour}, queue.ErrInvalid},
		{"an address that isn't one", sqs.New(client, nil), "orders", queue.OpenOptions{Address: "orders"}, queue.ErrInvalid},
		{"an ARN of another service", sqs.New(client, nil), "orders", queue.OpenOptions{Address: "arn:aws:sns:us-east-1:1:orders"}, queue.ErrInvalid},
		{"an ARN of another region", sqs.New(client, nil), "orders", queue.OpenOptions{Address: "arn:aws:sqs:eu-west-1:1:orders"}, queue.ErrInvalid},
		{"a URL of another region", sqs.New(client, nil), "orders", queue.OpenOptions{Address: "https://sqs.eu-west-1.amazonaws.com/1/orders"}, queue.ErrInvalid},
		{"a standard queue as an ordered one", sqs.New(client, nil), "orders", queue.OpenOptions{Address: address, Ordered: true}, queue.ErrInvalid},
		{"a FIFO queue as an unordered one", sqs.New(client, nil), "orders", queue.OpenOptions{Address: "arn:aws:sqs:us-east-1:1:orders.fifo"}, queue.ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := c.backend.Open(t.Context(), c.queue, &c.opts)
			assert.ErrorIs(t, err, c.want)
		})
	}
}

func TestTheZeroBackendEnsuresNothing(t *testing.T) {
	t.Parallel()
	_, err := (&sqs.Backend{}).Ensure(t.Context(), "orders", nil)
	assert.ErrorIs(t, err, queue.ErrInvalid)
}

func TestAnAddressNeedsNoPortableName(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	b := sqs.New(f.client(), nil)
	q, err := b.Open(t.Context(), "Orders of Old", &queue.OpenOptions{Address: "https://sqs.us-east-1.amazonaws.com/1/orders"})
	require.NoError(t, err)
	assert.Equal(t, "https://sqs.us-east-1.amazonaws.com/1/orders", q.Capabilities().Address)
	assert.Empty(t, f.made("GetQueueUrl"), "the URL is known")
	_, err = b.Open(t.Context(), "Orders of Old", &queue.OpenOptions{Address: "arn:aws:sqs:us-east-1:1:orders"})
	require.NoError(t, err)
	assert.Equal(t, "1", f.made("GetQueueUrl")[0]["QueueOwnerAWSAccountId"])
}

func TestAQueueThatDelaysEverythingIsSaid(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		delay string
		said  bool
	}{{"600", true}, {"0", false}} {
		t.Run(c.delay, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.answers["GetQueueAttributes"] = func(map[string]any) any {
				return map[string]any{"Attributes": map[string]string{
					"VisibilityTimeout": "30", "MessageRetentionPeriod": "86400", "MaximumMessageSize": "1048576", "DelaySeconds": c.delay,
				}}
			}
			var log bytes.Buffer
			open(t, f, &queue.OpenOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			if c.said {
				assert.Equal(t, 1, strings.Count(log.String(), "\n"))
				assert.Contains(t, log.String(), "DelaySeconds")
				assert.Contains(t, log.String(), "delay=10m0s")
			} else {
				assert.Empty(t, log.String())
			}
		})
	}
}

func TestPublishSplitsByCountAndBytes(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.answers["GetQueueAttributes"] = func(map[string]any) any {
		return map[string]any{"Attributes": map[string]string{
			"VisibilityTimeout": "30", "MessageRetentionPeriod": "86400", "MaximumMessageSize": "1048576",
		}}
	}
	q := open(t, f, nil)
	var small, large []*queue.Message
	for range 25 {
		small = append(small, message("x"))
	}
	for range 3 {
		large = append(large, message(string(bytes.Repeat([]byte("y"), 600_000))))
	}
	require.NoError(t, q.Publish(t.Context(), small...))
	assert.Len(t, f.made("SendMessageBatch"), 3)
	require.NoError(t, q.Publish(t.Context(), large...))
	assert.Len(t, f.made("SendMessageBatch"), 6)
}

func TestAPartlyFailedBatchNamesWhatFailed(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.answers["SendMessageBatch"] = func(in map[string]any) any {
		return sendSome(in, func(body string) bool { return body != "b" })
	}
	err := open(t, f, nil).Publish(t.Context(), message("a"), message("b"), message("c"))
	failed := failures(t, err)
	assert.Len(t, failed, 1)
	assert.ErrorContains(t, failed[1], "InternalError")
	assert.NotErrorIs(t, failed[1], queue.ErrUnknownOutcome, "SQS said no")
}

// One attempt that may have arrived is enough, whatever the last one says.
func TestAnAttemptThatMayHaveArrivedMakesTheOutcomeUnknown(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	n := 0
	f.answers["SendMessageBatch"] = func(map[string]any) any {
		if n++; n == 1 {
			return cut{}
		}
		return failure{http.StatusForbidden, "AccessDeniedException"}
	}
	err := open(t, f, nil).Publish(t.Context(), message("a"))
	assert.ErrorIs(t, err, queue.ErrUnknownOutcome)
	assert.ErrorIs(t, err, queue.ErrPermission)
}

func TestOnFIFONothingOvertakesWhatFailed(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.answers["SendMessageBatch"] = func(in map[string]any) any {
		return sendSome(in, func(body string) bool { return body != "k3" })
	}
	var msgs []*queue.Message
	for _, b := range []string{"k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9"} {
		msgs = append(msgs, keyed("k", b))
	}
	msgs = append(msgs, keyed("k", "k10"), keyed("other", "o0"))
	failed := failures(t, open(t, f, &queue.OpenOptions{Ordered: true}).Publish(t.Context(), msgs...))
	assert.Len(t, failed, 2)
	assert.ErrorContains(t, failed[3], "InternalError")
	assert.ErrorContains(t, failed[10], "not sent")
	var bodies []any
	for _, in := range f.made("SendMessageBatch") {
		for _, e := range entries(in) {
			bodies = append(bodies, e["MessageBody"])
		}
	}
	assert.Contains(t, bodies, "o0", "another key goes on")
	assert.NotContains(t, bodies, "k10")
}

func TestGroupsAndDeduplicationIDsOfFIFO(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	q := open(t, f, &queue.OpenOptions{Ordered: true})
	dedup := keyed("k", "c")
	dedup.DedupID = "once"
	require.NoError(t, q.Publish(t.Context(), keyed("k", "a"), keyed("k", "a"), dedup, message("d"), message("e")))
	sent := entries(f.made("SendMessageBatch")[0])
	assert.Equal(t, "k", sent[0]["MessageGroupId"])
	assert.NotEqual(t, sent[0]["MessageDeduplicationId"], sent[1]["MessageDeduplicationId"], "equal messages are no repeats")
	assert.Equal(t, "once", sent[2]["MessageDeduplicationId"])
	assert.NotEqual(t, sent[3]["MessageGroupId"], sent[4]["MessageGroupId"], "without a key they wait for nobody")

	f.answers["ReceiveMessage"] = bringing("d", map[string]string{"MessageGroupId": sent[3]["MessageGroupId"].(string)})
	ds, err := q.Receive(t.Context(), 1)
	require.NoError(t, err)
	assert.Empty(t, ds[0].OrderingKey)

	err = q.Publish(t.Context(), keyed(sent[3]["MessageGroupId"].(string), "x"))
	assert.ErrorIs(t, err, queue.ErrInvalid, "such a key would be lost")
}

type foreignOption struct{}

func (foreignOption) System() string { return "aws_sqs" }

func TestAnOptionThatIsNotKnownIsRefused(t *testing.T) {
	t.Parallel()
	m := message("a")
	m.Options = []queue.MessageOption{foreignOption{}}
	assert.ErrorIs(t, open(t, newFake(t), nil).Publish(t.Context(), m), queue.ErrUnsupported)
}

func TestADeliveryHasWhatSQSSays(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	q := open(t, f, &queue.OpenOptions{Lease: 90 * time.Second})
	f.answers["ReceiveMessage"] = bringing("hello", map[string]string{"MessageGroupId": "tenant", "AWSTraceHeader": "Root=1"})
	ds, err := q.Receive(t.Context(), 50)
	require.NoError(t, err)
	in := f.made("ReceiveMessage")[0]
	assert.EqualValues(t, 10, in["MaxNumberOfMessages"])
	assert.EqualValues(t, 90, in["VisibilityTimeout"])
	d := ds[0]
	assert.Equal(t, "hello", string(d.Body))
	assert.Equal(t, map[string]string{"n": "7", "b": "\x00\x01"}, d.Attributes)
	assert.Equal(t, 3, d.Attempt)
	assert.Equal(t, "m-hello", d.BrokerID)
	assert.Equal(t, time.UnixMilli(1700000000000), d.EnqueuedAt)
	assert.Empty(t, d.OrderingKey, "on a standard queue the group is a tenant")
	assert.WithinDuration(t, time.Now().Add(90*time.Second), d.Deadline, 10*time.Second)
	info, ok := sqs.InfoOf(d)
	assert.True(t, ok)
	assert.Equal(t, "tenant", info.GroupID)
	assert.Equal(t, "Root=1", info.TraceHeader)
	assert.Equal(t, "m-hello", info.MessageID)

	// Whatever the handler does to its own.
	d.Body[0], d.Attributes["n"] = 'J', "8"
	body, attrs := d.Native.(queue.Original).Original()
	assert.Equal(t, "hello", string(body))
	assert.Equal(t, "7", attrs["n"])
}

func TestADeferThatIsRepeatedSendsOneCopy(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	q := open(t, f, nil)
	f.answers["ReceiveMessage"] = bringing("hello", nil)
	ds, err := q.Receive(t.Context(), 1)
	require.NoError(t, err)
	ds[0].Body[0] = 'J' // by the handler
	f.answers["DeleteMessageBatch"] = failEach("InternalError")
	s := queue.Settlement{Delivery: ds[0], Kind: queue.Defer, Until: time.Now().Add(time.Hour)}
	require.Error(t, q.Settle(t.Context(), s))
	f.answers["DeleteMessageBatch"] = succeedAll
	require.NoError(t, q.Settle(t.Context(), s))
	sent := f.made("SendMessageBatch")
	require.Len(t, sent, 1)
	e := entries(sent[0])[0]
	assert.Equal(t, "hello", e["MessageBody"])
	assert.EqualValues(t, 900, e["DelaySeconds"])
	kinds := e["MessageAttributes"].(map[string]any)
	assert.Equal(t, "Number.int", kinds["n"].(map[string]any)["DataType"])
	assert.Equal(t, "Binary", kinds["b"].(map[string]any)["DataType"])
	assert.Len(t, f.made("DeleteMessageBatch"), 2)
}

// As the engine does when the lease is nearly over: its copy is there already.
func TestAReleaseInsteadOfADeferWhoseCopyWasSentDeletes(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	q := open(t, f, nil)
	f.answers["ReceiveMessage"] = bringing("hello", nil)
	ds, err := q.Receive(t.Context(), 1)
	require.NoError(t, err)
	f.answers["DeleteMessageBatch"] = failEach("InternalError")
	require.Error(t, q.Settle(t.Context(), queue.Settlement{Delivery: ds[0], Kind: queue.Defer, Until: time.Now().Add(time.Hour)}))
	f.answers["DeleteMessageBatch"] = succeedAll
	require.NoError(t, q.Settle(t.Context(), queue.Settlement{Delivery: ds[0], Kind: queue.Release, Delay: time.Minute}))
	assert.Len(t, f.made("DeleteMessageBatch"), 2)
	assert.Empty(t, f.made("ChangeMessageVisibilityBatch"))
}

func TestADeferWhoseCopyIsNotSentDeletesNothing(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	q := open(t, f, nil)
	f.answers["ReceiveMessage"] = bringing("hello", nil)
	ds, err := q.Receive(t.Context(), 1)
	require.NoError(t, err)
	f.answers["SendMessageBatch"] = failEach("InternalError")
	require.Error(t, q.Settle(t.Context(), queue.Settlement{Delivery: ds[0], Kind: queue.Defer, Until: time.Now().Add(time.Hour)}))
	assert.Empty(t, f.made("DeleteMessageBatch"))
}

func TestALeaseThatIsLostIsSaid(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"ReceiptHandleIsInvalid", "InvalidParameterValue", "AWS.SimpleQueueService.MessageNotInflight"} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			q := open(t, f, nil)
			f.answers["ReceiveMessage"] = bringing("hello", nil)
			ds, err := q.Receive(t.Context(), 1)
			require.NoError(t, err)
			f.answers["DeleteMessageBatch"] = failEach(code)
			f.answers["ChangeMessageVisibilityBatch"] = failEach(code)
			assert.ErrorIs(t, q.Settle(t.Context(), queue.Settlement{Delivery: ds[0]}), queue.ErrLeaseLost)
			assert.ErrorIs(t, q.Settle(t.Context(), queue.Settlement{Delivery: ds[0], Kind: queue.Release}), queue.ErrLeaseLost)
			granted, err := q.Extend(t.Context(), time.Minute, ds[0])
			assert.ErrorIs(t, err, queue.ErrLeaseLost)
			assert.True(t, granted[0].IsZero())
		})
	}
}

func TestDurationsAreWholeSecondsWithinTwelveHours(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	q := open(t, f, nil)
	f.answers["ReceiveMessage"] = bringing("hello", nil)
	ds, err := q.Receive(t.Context(), 1)
	require.NoError(t, err)
	asked := func() int {
		made := f.made("ChangeMessageVisibilityBatch")
		return int(entries(made[len(made)-1])[0]["VisibilityTimeout"].(float64))
	}
	granted, err := q.Extend(t.Context(), 1500*time.Millisecond, ds[0])
	require.NoError(t, err)
	assert.Equal(t, 2, asked())
	assert.WithinDuration(t, time.Now().Add(2*time.Second), granted[0], 2*time.Second)
	_, err = q.Extend(t.Context(), 20*time.Hour, ds[0])
	require.NoError(t, err)
	assert.Less(t, asked(), 43200, "12 hours from the receive, not from now")
	assert.Greater(t, asked(), 43100)
	require.NoError(t, q.Settle(t.Context(), queue.Settlement{Delivery: ds[0], Kind: queue.Release, Delay: time.Millisecond}))
	assert.Equal(t, 1, asked(), "never early")
	require.NoError(t, q.Settle(t.Context(), queue.Settlement{Delivery: ds[0], Kind: queue.Release}))
	assert.Zero(t, asked())
}

func TestAForeignDeliveryIsRefused(t *testing.T) {
	t.Parallel()
	q := open(t, newFake(t), nil)
	d := &queue.Delivery{}
	assert.ErrorIs(t, q.Settle(t.Context(), queue.Settlement{Delivery: d}), queue.ErrInvalid)
	_, err := q.Extend(t.Context(), time.Minute, d)
	assert.ErrorIs(t, err, queue.ErrInvalid)
	for _, d := range []*queue.Delivery{d, nil} {
		_, ok := sqs.InfoOf(d)
		assert.False(t, ok)
	}
}

// A poll ends before its caller goes, so that SQS doesn't answer to nobody.
func TestAReceiveThatEndsSoonPollsLess(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.answers["ReceiveMessage"] = func(map[string]any) any { return map[string]any{} }
	q, err := sqs.New(f.client(), nil).Open(t.Context(), "orders", nil)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err = q.Receive(ctx, 1)
	require.NoError(t, err)
	_, err = q.Receive(t.Context(), 1)
	require.NoError(t, err)
	made := f.made("ReceiveMessage")
	assert.EqualValues(t, 4, made[0]["WaitTimeSeconds"])
	assert.EqualValues(t, 20, made[1]["WaitTimeSeconds"])
	require.NoError(t, q.Close(t.Context()))
}

func TestWhatComesAfterItsReceiverHasGoneIsGivenBack(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	gone := make(chan struct{})
	f.answers["ReceiveMessage"] = func(in map[string]any) any {
		<-gone
		return bringing("hello", nil)(in)
	}
	q, err := sqs.New(f.client(), nil).Open(t.Context(), "orders", nil)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	_, err = q.Receive(ctx, 1)
	require.ErrorIs(t, err, context.Canceled)
	close(gone)
	require.NoError(t, q.Close(t.Context())) // waits for it
	e := entries(f.made("ChangeMessageVisibilityBatch")[0])[0]
	assert.Equal(t, "r-hello", e["ReceiptHandle"])
	assert.Zero(t, e["VisibilityTimeout"])
}
