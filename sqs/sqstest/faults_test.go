package sqstest_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

func (e *env) trySend(url, body string) error {
	_, err := e.c.SendMessage(e.Context(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: &body})
	return err
}

func TestAFaultHitsACall(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault sqstest.Fault
		check func(t testing.TB, err error)
		left  int // messages in the queue after one send
		took  time.Duration
	}{
		"refused": {sqstest.Fault{}, func(t testing.TB, err error) {
			code(t, "InternalFailure", err)
			assert.Equal(t, 500, statusOf(err))
		}, 0, 0},
		"throttled": {sqstest.Fault{Code: "RequestThrottled"}, func(t testing.TB, err error) {
			var typed *types.RequestThrottled
			require.ErrorAs(t, err, &typed)
			assert.Equal(t, 403, statusOf(err))
		}, 0, 0},
		"throttled by the framework": {sqstest.Fault{Code: "ThrottlingException"}, func(t testing.TB, err error) { code(t, "ThrottlingException", err) }, 0, 0},
		"unavailable":                {sqstest.Fault{Code: "ServiceUnavailable"}, func(t testing.TB, err error) { assert.Equal(t, 503, statusOf(err)) }, 0, 0},
		"cut before":                 {sqstest.Fault{Effect: sqstest.Cut}, func(t testing.TB, err error) { require.ErrorContains(t, err, "connection reset") }, 0, 0},
		"answer lost":                {sqstest.Fault{Effect: sqstest.Unanswered}, func(t testing.TB, err error) { require.ErrorContains(t, err, "connection reset") }, 1, 0},
		"wrong answer":               {sqstest.Fault{Effect: sqstest.Unanswered, Code: "InternalFailure"}, func(t testing.TB, err error) { assert.Equal(t, 500, statusOf(err)) }, 1, 0},
		"slow":                       {sqstest.Fault{Effect: sqstest.Slow, Delay: time.Minute}, func(t testing.TB, err error) { require.NoError(t, err) }, 1, time.Minute},
		"its entry":                  {sqstest.Fault{Effect: sqstest.RefuseEntry, Code: "RequestThrottled"}, func(t testing.TB, err error) { code(t, "RequestThrottled", err) }, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			virtually(t, nil, func(e *env) {
				url, other := e.create("q"), e.create("other")
				c.fault.Action, c.fault.Queue, c.fault.Skip, c.fault.Times = "SendMessage", "q", 1, 1
				heal := e.s.Fail(c.fault)
				defer heal()
				e.s.ResetCounts()
				e.send(other, "another queue's")
				e.send(url, "before")
				begun := time.Now()
				c.check(e, e.trySend(url, "hit"))
				assert.Equal(e, c.took, time.Since(begun))
				e.send(url, "after")
				e.receive(url)
				assert.Len(e, e.s.Messages("q"), 2+c.left)
				assert.Equal(e, 4, e.s.Requests()["SendMessage"])
			})
		})
	}
}

func statusOf(err error) int {
	var x interface{ HTTPStatusCode() int }
	if !errors.As(err, &x) {
		return 0
	}
	return x.HTTPStatusCode()
}

func TestAFaultRefusesEntries(t *testing.T) {
	t.Parallel()
	virtually(t, nil, func(e *env) {
		url := e.create("q")
		e.s.Fail(sqstest.Fault{Effect: sqstest.RefuseEntry, Code: "InternalError", Match: func(body string) bool { return strings.HasPrefix(body, "bad") }, Times: 4})
		e.s.Fail(sqstest.Fault{Effect: sqstest.RefuseEntry, Action: "SendMessageBatch", Code: "InvalidMessageContents", SenderFault: true, Skip: 1, Times: 1})
		e.s.ResetCounts()
		sent, err := e.c.SendMessageBatch(e.Context(), &awssqs.SendMessageBatchInput{QueueUrl: &url, Entries: []types.SendMessageBatchRequestEntry{
			{Id: new("1"), MessageBody: new("a")}, {Id: new("2"), MessageBody: new("bad")}, {Id: new("3"), MessageBody: new("c")}, {Id: new("4"), MessageBody: new("d")},
		}})
		require.NoError(e, err)
		require.Len(e, sent.Failed, 2)
		assert.Equal(e, types.BatchResultErrorEntry{Id: new("2"), Code: new("InternalError"), Message: sent.Failed[0].Message, SenderFault: false}, sent.Failed[0])
		assert.Equal(e, types.BatchResultErrorEntry{Id: new("3"), Code: new("InvalidMessageContents"), Message: sent.Failed[1].Message, SenderFault: true}, sent.Failed[1])
		assert.Equal(e, 2, e.s.Entries()["SendMessageBatch"])

		_, err = e.c.SendMessageBatch(e.Context(), &awssqs.SendMessageBatchInput{QueueUrl: &url, Entries: []types.SendMessageBatchRequestEntry{{Id: new("1"), MessageBody: new("bad")}}})
		require.NoError(e, err)
		for _, m := range e.receive(url) {
			require.NoError(e, e.delete(url, m))
		}
		assert.Empty(e, e.s.Messages("q"))
	})
	virtually(t, nil, func(e *env) {
		url := e.create("q")
		e.send(url, "bad")
		m := e.receiveOne(url)
		e.s.Fail(sqstest.Fault{Effect: sqstest.RefuseEntry, Match: func(body string) bool { return body == "bad" }, Times: 2})
		deleted, err := e.c.DeleteMessageBatch(e.Context(), &awssqs.DeleteMessageBatchInput{QueueUrl: &url, Entries: []types.DeleteMessageBatchRequestEntry{{Id: new("1"), ReceiptHandle: m.ReceiptHandle}}})
		require.NoError(e, err)
		require.Len(e, deleted.Failed, 1)
		assert.Equal(e, "InternalFailure", *deleted.Failed[0].Code)
		code(e, "InternalFailure", e.changeVisibility(url, m, 0))
		require.NoError(e, e.delete(url, m))
	})
}

func TestAFaultCutsARealConnection(t *testing.T) {
	t.Parallel()
	s := sqstest.New(nil)
	defer s.Close()
	endpoint, err := s.Start("")
	require.NoError(t, err)
	tr := &http.Transport{DisableKeepAlives: true}
	e := &env{T: t, s: s, c: s.Client(once, func(o *awssqs.Options) { o.BaseEndpoint, o.HTTPClient = &endpoint, &http.Client{Transport: tr} })}
	url := e.create("q")
	s.Fail(sqstest.Fault{Effect: sqstest.Unanswered, Times: 1})
	require.ErrorContains(t, e.trySend(url, "m"), "EOF")
	assert.Len(t, s.Messages("q"), 1)
	// The SDK tries again by itself, and so sends it twice.
	s.Fail(sqstest.Fault{Effect: sqstest.Unanswered, Times: 1})
	e.c = s.Client(func(o *awssqs.Options) { o.BaseEndpoint, o.HTTPClient = &endpoint, &http.Client{Transport: tr} })
	require.NoError(t, e.trySend(url, "m"))
	assert.Len(t, s.Messages("q"), 3)
}

func TestFaultsAreHealed(t *testing.T) {
	t.Parallel()
	virtually(t, nil, func(e *env) {
		url := e.create("q")
		first := e.s.Fail(sqstest.Fault{Code: "OverLimit"})
		second := e.s.Fail(sqstest.Fault{Code: "RequestThrottled"})
		code(e, "OverLimit", e.trySend(url, "m"))
		first()
		code(e, "RequestThrottled", e.trySend(url, "m"))
		second()
		second()
		require.NoError(e, e.trySend(url, "m"))
	})
}

func TestAFaultThatCantBeMeantFailsEverything(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]sqstest.Fault{
		"action":            {Action: "SendMessages"},
		"effect":            {Effect: 99},
		"entries of a poll": {Effect: sqstest.RefuseEntry, Action: "ReceiveMessage"},
		"match of a call":   {Match: func(string) bool { return true }},
		"slow for no time":  {Effect: sqstest.Slow},
		"delay of others":   {Delay: time.Second},
		"code of a cut":     {Effect: sqstest.Cut, Code: "OverLimit"},
		"negative":          {Times: -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			virtually(t, nil, func(e *env) {
				heal := e.s.Fail(f)
				err := e.tryCreate("q")
				code(e, "InvalidParameterValue", err)
				require.ErrorContains(e, err, "sqstest.Fault.")
				heal()
				require.NoError(e, e.tryCreate("q"))
			})
		})
	}
}
