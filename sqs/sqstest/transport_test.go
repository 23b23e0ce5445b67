package sqstest_test

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// A message wakes a long poll, whatever the way to the server.
func TestALongPollGetsAMessageByEveryTransport(t *testing.T) {
	t.Parallel()
	test := func(e *env) {
		url := e.create("orders")
		sent := make(chan error, 1)
		begun := time.Now()
		time.AfterFunc(200*time.Millisecond, func() {
			_, err := e.c.SendMessage(e.Context(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: new("hello \"ü\" <&>\n\t\\ \U0001F600")})
			sent <- err
		})
		out, err := e.c.ReceiveMessage(e.Context(), &awssqs.ReceiveMessageInput{QueueUrl: &url, WaitTimeSeconds: 20})
		require.NoError(e, err)
		require.NoError(e, <-sent)
		require.Len(e, out.Messages, 1)
		assert.Equal(e, "hello \"ü\" <&>\n\t\\ \U0001F600", *out.Messages[0].Body)
		assert.GreaterOrEqual(e, time.Since(begun), 200*time.Millisecond)
		require.NoError(e, e.delete(url, out.Messages[0]))
		assert.Empty(e, e.s.Messages("orders"))
		assert.Equal(e, map[string]int{"CreateQueue": 1, "SendMessage": 1, "ReceiveMessage": 1, "DeleteMessage": 1}, e.s.Requests())
		assert.Equal(e, map[string]int{"SendMessage": 1, "ReceiveMessage": 1, "DeleteMessage": 1}, e.s.Entries())
		e.s.ResetCounts()
		assert.Empty(e, e.s.Requests())
	}
	t.Run("in process, on virtual time", func(t *testing.T) { virtually(t, nil, test) })
	t.Run("over pipes, on virtual time", func(t *testing.T) {
		virtually(t, nil, func(e *env) {
			e.c = e.s.Client(once, func(o *awssqs.Options) { o.HTTPClient = e.s.Pipe() })
			test(e)
		})
	})
	t.Run("a large one, over pipes", func(t *testing.T) {
		t.Parallel()
		for range 20 { // it depends on which goroutine comes first
			virtually(t, nil, func(e *env) {
				url := e.create("orders")
				e.send(url, strings.Repeat("x", 9000))
				e.c = e.s.Client(once, func(o *awssqs.Options) { o.HTTPClient = e.s.Pipe() })
				assert.Len(e, *e.receiveOne(url).Body, 9000)
			})
		}
	})
	t.Run("over HTTP", func(t *testing.T) {
		t.Parallel()
		s := sqstest.New(nil)
		defer s.Close()
		endpoint, err := s.Start("")
		require.NoError(t, err)
		tr := &http.Transport{}
		defer tr.CloseIdleConnections()
		test(&env{T: t, s: s, c: s.Client(once, func(o *awssqs.Options) {
			o.BaseEndpoint, o.HTTPClient = &endpoint, &http.Client{Transport: tr}
		})})
	})
}

func TestAPollWhoseCallerHasGoneTakesTheNextMessage(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		options *sqstest.Options
		want    sqstest.State
	}{
		"as AWS does":      {nil, sqstest.InFlight},
		"with EndCutPolls": {&sqstest.Options{EndCutPolls: true}, sqstest.Visible},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			virtually(t, c.options, func(e *env) {
				url := e.create("orders")
				ctx, cancel := context.WithTimeout(e.Context(), time.Second)
				defer cancel()
				_, err := e.c.ReceiveMessage(ctx, &awssqs.ReceiveMessageInput{QueueUrl: &url, WaitTimeSeconds: 20})
				require.ErrorIs(e, err, context.DeadlineExceeded)
				assert.Equal(e, time.Second, time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)), "the caller is free at once")
				e.send(url, "m")
				synctest.Wait()
				ms := e.s.Messages("orders")
				require.Len(e, ms, 1)
				assert.Equal(e, c.want, ms[0].State)
			})
		})
	}
}

func TestCloseEndsPolls(t *testing.T) {
	t.Parallel()
	virtually(t, nil, func(e *env) {
		url := e.create("orders")
		polled, slowed := make(chan error, 1), make(chan error, 1)
		go func() {
			out, err := e.c.ReceiveMessage(e.Context(), &awssqs.ReceiveMessageInput{QueueUrl: &url, WaitTimeSeconds: 20})
			assert.Empty(e, out.Messages)
			polled <- err
		}()
		e.s.Fail(sqstest.Fault{Effect: sqstest.Slow, Delay: time.Hour, Action: "SendMessage"})
		go func() { slowed <- e.trySend(url, "m") }()
		synctest.Wait()
		begun := time.Now()
		e.s.Close()
		require.NoError(e, <-polled)
		require.ErrorContains(e, <-slowed, "connection reset")
		assert.Zero(e, time.Since(begun))
		e.s.Close()
		_, err := e.c.SendMessage(e.Context(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: new("m")})
		require.ErrorContains(e, err, "connection refused")
		_, err = e.s.Start("")
		require.ErrorIs(e, err, net.ErrClosed)
	})
}

func TestLatencyIsAddedToEachCall(t *testing.T) {
	t.Parallel()
	virtually(t, &sqstest.Options{Latency: 20 * time.Millisecond}, func(e *env) {
		begun := time.Now()
		url := e.create("orders")
		assert.Equal(e, 20*time.Millisecond, time.Since(begun))
		e.s.SetLatency(time.Second)
		begun = time.Now()
		e.send(url, "m")
		assert.Equal(e, time.Second, time.Since(begun))
	})
}

func TestAClockThatIsOff(t *testing.T) {
	t.Parallel()
	virtually(t, nil, func(e *env) {
		url := e.create("orders")
		e.s.SetClock(5 * time.Minute)
		e.send(url, "m")
		m := e.receiveOne(url)
		want := strconv.FormatInt(time.Now().Add(5*time.Minute).UnixMilli(), 10)
		assert.Equal(e, want, m.Attributes["SentTimestamp"])
		assert.Equal(e, want, m.Attributes["ApproximateFirstReceiveTimestamp"])
		time.Sleep(30 * time.Second)
		assert.Len(e, e.receive(url), 1, "timeouts run by the true time")

		for _, off := range []time.Duration{time.Hour, -time.Hour} {
			e.s.SetClock(off)
			_, err := e.c.SendMessage(e.Context(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: new("m")})
			code(e, "InvalidSignatureException", err)
		}
		// The SDK learns the server's time from its answers.
		_, err := e.s.Client().SendMessage(e.Context(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: new("m")})
		require.NoError(e, err)
	})
}
