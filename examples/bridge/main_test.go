package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/examples/internal/testbed"
	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/config"
)

// clouds are two brokers that imitate those of the file.
type clouds struct {
	*testing.T
	sqs, pubsub *memory.Broker
	out, errs   testbed.Output
}

// onClouds runs a test on virtual time.
func onClouds(t *testing.T, f func(c *clouds)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f(&clouds{T: t, sqs: memory.New(&memory.Options{Like: memory.SQSStandard}), pubsub: memory.New(&memory.Options{Like: memory.PubSub})})
	})
}

// bridge runs the program; the result is what it said last.
func (c *clouds) bridge(ctx context.Context, args ...string) (result, error) {
	c.Helper()
	t := &tool{
		backends: config.Backends{"sqs": c.sqs, "pubsub": c.pubsub},
		lookup:   func(string) (string, bool) { return "", false }, out: &c.out, errs: &c.errs,
	}
	err := t.run(ctx, args)
	c.Logf("bridge %s\n%s%s(%v)", strings.Join(args, " "), c.errs.String(), c.out.String(), err)
	var r result
	if lines := strings.Split(strings.TrimSpace(c.out.String()), "\n"); lines[0] != "" {
		require.NoError(c, json.Unmarshal([]byte(lines[len(lines)-1]), &r))
	}
	return r, err
}

func (c *clouds) open(on *memory.Broker, name string) queue.Queue {
	c.Helper()
	_, err := on.Ensure(c.Context(), name, nil)
	require.NoError(c, err)
	q, err := on.Open(c.Context(), name, nil)
	require.NoError(c, err)
	c.Cleanup(func() { assert.NoError(c, q.Close(context.Background())) })
	return q
}

func TestBridgeEmptiesAQueueWhileProducersMove(t *testing.T) {
	onClouds(t, func(c *clouds) {
		orders := c.open(c.sqs, "orders")
		const n = 100
		go func() {
			for i := range n {
				assert.NoError(c, orders.Publish(c.Context(), &queue.Message{ID: fmt.Sprint(i), Body: []byte("x")}))
				time.Sleep(time.Second)
			}
		}()
		time.Sleep(time.Minute)
		ctx, interrupt := context.WithTimeout(c.Context(), 30*time.Second)
		defer interrupt()
		first, err := c.bridge(ctx, "-rate", "50", "orders", "orders-there")
		require.NoError(c, err, "an interrupt is how it ends")
		assert.InDelta(c, 90, first.Moved, 2)
		assert.InDelta(c, 30, first.Seconds, 3)
		assert.Regexp(c, `\d+ moved \(\d+/s\)`, c.errs.String())

		second, err := c.bridge(c.Context(), "-until-empty", "orders", "orders-there")
		require.NoError(c, err)
		assert.Equal(c, n, first.Moved+second.Moved)
		require.NotNil(c, second.Remaining)
		assert.Zero(c, *second.Remaining)
		assert.Len(c, c.pubsub.Messages("orders-there"), n)
	})
}

func TestBridgeWaitsForWhatOthersHaveInHand(t *testing.T) {
	onClouds(t, func(c *clouds) {
		orders := c.open(c.sqs, "orders")
		require.NoError(c, orders.Publish(c.Context(), &queue.Message{ID: "1", Body: []byte("x")}, &queue.Message{ID: "2", Body: []byte("x"), Delay: 5 * time.Minute}))
		ds, err := orders.Receive(c.Context(), 1)
		require.NoError(c, err)
		_, err = orders.Extend(c.Context(), 10*time.Minute, ds...)
		require.NoError(c, err)
		r, err := c.bridge(c.Context(), "-until-empty", "orders", "orders-there")
		require.NoError(c, err)
		assert.Equal(c, 2, r.Moved)
		assert.Contains(c, c.errs.String(), "2 messages more are leased by others, or delayed")
	})
}

func TestBridgeSaysWhatTheOtherSideCannotCarry(t *testing.T) {
	large := &queue.Message{ID: "large", Body: bytes.Repeat([]byte("x"), 2<<20)}
	file := func(c *clouds, dead string) string {
		file := c.TempDir() + "/queues.yaml"
		require.NoError(c, os.WriteFile(file, []byte(`
queues:
  there: {backend: pubsub`+dead+`}
  there-dlq: {backend: pubsub}
  here: {backend: sqs}
ensure: true
`), 0o600))
		return file
	}
	t.Run("without a dead-letter queue", func(t *testing.T) {
		onClouds(t, func(c *clouds) {
			require.NoError(c, c.open(c.pubsub, "there").Publish(c.Context(), large, &queue.Message{ID: "small", Body: []byte("x")}))
			r, err := c.bridge(c.Context(), "-f", file(c, ""), "-until-empty", "there", "here")
			require.ErrorContains(c, err, "1 messages stay in there, as here can't carry them")
			assert.Equal(c, 1, r.Moved)
			assert.Equal(c, 1, r.Left)
			assert.Contains(c, c.errs.String(), "id=large")
			assert.Len(c, c.pubsub.Messages("there"), 1)
		})
	})
	t.Run("with one", func(t *testing.T) {
		onClouds(t, func(c *clouds) {
			require.NoError(c, c.open(c.pubsub, "there").Publish(c.Context(), large))
			r, err := c.bridge(c.Context(), "-f", file(c, ", dead_letter: {queue: there-dlq}"), "-until-empty", "there", "here")
			require.NoError(c, err)
			assert.Equal(c, 1, r.DeadLettered)
			require.Len(c, c.pubsub.Messages("there-dlq"), 1)
			assert.Equal(c, queue.ReasonBridge, c.pubsub.Messages("there-dlq")[0].DeadLetter.Reason)
		})
	})
}

func TestBridgeRefusesWhatItCannotDo(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"one queue":               {[]string{"orders"}, "two queues"},
		"a name that isn't there": {[]string{"orders", "order-there"}, "orders-there"},
		"to itself":               {[]string{"orders", "orders"}, "itself"},
		"an order that's lost":    {[]string{"payments-there", "orders"}, "keeps no order"},
		"no such file":            {[]string{"-f", "nothing.yaml", "orders", "orders-there"}, "nothing.yaml"},
		"a negative rate":         {[]string{"-rate", "-1", "orders", "orders-there"}, "Rate"},
	} {
		t.Run(name, func(t *testing.T) {
			onClouds(t, func(c *clouds) {
				_, err := c.bridge(c.Context(), tc.args...)
				require.ErrorContains(c, err, tc.want)
			})
		})
	}
	onClouds(t, func(c *clouds) {
		_, err := c.bridge(c.Context(), "-nonsense")
		require.ErrorIs(c, err, flag.ErrHelp)
	})
}
