package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
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

// desk runs the program on one broker, again and again.
type desk struct {
	*testing.T
	broker *memory.Broker
	state  string
}

// atDesk runs a test on virtual time.
func atDesk(t *testing.T, f func(d *desk)) {
	t.Helper()
	t.Parallel()
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f(&desk{T: t, broker: memory.New(nil), state: state})
	})
}

// ask runs a command, with an input.
func (d *desk) ask(ctx context.Context, in string, args ...string) (out string, err error) {
	d.Helper()
	var stdout, stderr testbed.Output
	t := &tool{
		backends: config.Backends{"memory": d.broker},
		lookup:   func(name string) (string, bool) { return d.state, name == "QUEUES_STATE" },
		in:       strings.NewReader(in), out: &stdout, errs: &stderr,
	}
	err = t.run(ctx, args)
	d.Logf("admin %s\n%s%s(%v)", strings.Join(args, " "), stdout.String(), stderr.String(), err)
	return stdout.String(), err
}

func (d *desk) run(args ...string) string {
	d.Helper()
	out, err := d.ask(d.Context(), "", args...)
	require.NoError(d, err)
	return out
}

func (d *desk) open(name string) queue.Queue {
	d.Helper()
	q, err := d.broker.Open(d.Context(), name, nil)
	require.NoError(d, err)
	d.Cleanup(func() { assert.NoError(d, q.Close(context.Background())) })
	return q
}

var errAddress = errors.New("no such address")

func deadLetters(source queue.Endpoint, from, n int) []*queue.Message {
	msgs := make([]*queue.Message, n)
	for i := range msgs {
		msgs[i] = queue.NewDeadLetter(&queue.Delivery{
			Message:    queue.Message{ID: fmt.Sprintf("order-%d", from+i), Body: fmt.Appendf(nil, "order %d", from+i), Attributes: map[string]string{"shop": "1"}},
			Source:     source,
			EnqueuedAt: time.Now().Add(-time.Hour),
		}, errAddress, queue.ReasonRejected, time.Now())
	}
	return msgs
}

// die puts dead letters there, and lets time pass.
func (d *desk) die(n int) {
	d.Helper()
	source := d.open("orders").Capabilities().Source
	require.NoError(d, d.open("orders-dlq").Publish(d.Context(), deadLetters(source, 0, n)...))
	time.Sleep(time.Second)
}

func TestCheckTellsWhatIsWrongByLine(t *testing.T) {
	atDesk(t, func(d *desk) {
		assert.Equal(d, "queues.yaml: 3 queues, nothing wrong\n", d.run("check"))
		wrong := filepath.Join(d.state, "wrong.yaml")
		require.NoError(d, os.WriteFile(wrong, []byte("backend: sqz\nqueues:\n  orders: {concurency: 3}\n"), 0o600))
		out, err := d.ask(d.Context(), "", "check", wrong, wrong+"x", "queues.yaml")
		require.ErrorContains(d, err, "3 problems")
		assert.Regexp(d, `(?s)wrong.yaml:1:10: backend: no backend "sqz".*wrong.yaml:3:12: queues.orders: unknown key.*wrong.yamlx: no such file.*nothing wrong`, out)
		require.NoError(d, os.WriteFile(wrong, []byte("backend: sqz\nqueues:\n  orders: {}\n"), 0o600))
		_, err = d.ask(d.Context(), "", "check", wrong)
		require.EqualError(d, err, "1 problem")
		out, err = d.ask(d.Context(), "", "check", "-json", wrong)
		require.Error(d, err)
		var p struct {
			File   string
			Line   int
			Reason string
		}
		require.NoError(d, json.Unmarshal([]byte(out), &p))
		assert.Equal(d, 1, p.Line)
		assert.Contains(d, p.Reason, "sqz")
	})
}

func TestPlanThenEnsure(t *testing.T) {
	atDesk(t, func(d *desk) {
		for range 2 { // a plan changes nothing
			out := d.run("plan")
			assert.Contains(d, out, "would be created: queue orders-dlq")
		}
		out, err := d.ask(d.Context(), "", "stats")
		require.ErrorContains(d, err, "no queue has answered")
		assert.Equal(d, 3, strings.Count(out, "missing: see plan and ensure"), "looking creates nothing, whatever the file says")
		assert.Contains(d, d.run("ensure", "order*"), "created: queue orders-dlq")
		assert.Contains(d, d.run("ensure"), "as the file says: 2 of 3 queues")
		changed := filepath.Join(d.state, "changed.yaml")
		require.NoError(d, os.WriteFile(changed, []byte("backend: memory\nqueues: {orders: {retention: 1h}}\n"), 0o600))
		assert.Contains(d, d.run("ensure", "-f", changed), "orders                       differs (ensure -update changes what can be changed): queue orders: retention")
		assert.Contains(d, d.run("ensure", "-update", "-f", changed), "orders                       changed: queue orders: retention")
		require.NoError(d, os.WriteFile(changed, []byte("backend: memory\nqueues: {orders: {}, nothing: {}}\n"), 0o600))
		assert.Contains(d, d.run("stats", "-f", changed), "missing: see plan and ensure", "the others answer")
		var r report
		require.NoError(d, json.Unmarshal([]byte(strings.Split(d.run("ensure", "-json"), "\n")[0]), &r))
		assert.Equal(d, report{Queue: "orders", Backend: "memory"}, r)
		_, err = d.ask(d.Context(), "", "plan", "nothing*")
		require.Error(d, err)
	})
}

func TestPublishStatsPeekAndPurge(t *testing.T) {
	atDesk(t, func(d *desk) {
		d.run("ensure")
		assert.Contains(d, d.run("publish", "-attr", "a=b=c", "-id", "7", "orders", "hello"), "published 5 bytes to orders")
		_, err := d.ask(d.Context(), "from the input", "publish", "-json", "orders")
		require.NoError(d, err)
		d.run("publish", "mails", "later")
		out := d.run("stats")
		assert.Regexp(d, `orders +2 +0 +0 +2 +0s .* memory`, out)
		assert.Regexp(d, `mails +0 +0 +1`, out)

		out = d.run("peek", "orders")
		assert.Contains(d, out, `{"a":"b=c"}`)
		assert.Contains(d, out, "from the input")
		assert.Contains(d, out, "2 messages")
		var v view
		require.NoError(d, json.Unmarshal([]byte(d.run("peek", "-json", "-n", "1", "-confirm", "orders")), &v))
		assert.Equal(d, "7", v.ID)
		assert.Equal(d, "hello", *v.Body)

		for _, name := range []string{"", "order\n", "orders-dlq\n"} {
			_, err = d.ask(d.Context(), name, "purge", "orders")
			require.ErrorContains(d, err, "nothing was removed")
		}
		assert.Len(d, d.broker.Messages("orders"), 2)
		_, err = d.ask(d.Context(), "orders\n", "purge", "orders")
		require.NoError(d, err)
		assert.Empty(d, d.broker.Messages("orders"))
		out, err = d.ask(d.Context(), "mails\n", "purge", "-json", "mails")
		require.NoError(d, err)
		assert.JSONEq(d, `{"purged":"mails"}`, out)
		assert.Empty(d, d.broker.Messages("mails"))
		assert.JSONEq(d, `{"purged":"mails"}`, d.run("purge", "-json", "-yes", "mails", "mails"))
	})
}

func TestStatsAsksAgain(t *testing.T) {
	atDesk(t, func(d *desk) {
		d.run("ensure")
		ctx, cancel := context.WithTimeout(d.Context(), 9*time.Second)
		defer cancel()
		out, err := d.ask(ctx, "", "stats", "-watch", "2s", "-json", "orders")
		require.NoError(d, err)
		assert.Equal(d, 5, strings.Count(out, `"ready":0`))
	})
}

func TestDeadLettersAreGroupedAndMovedBack(t *testing.T) {
	atDesk(t, func(d *desk) {
		d.run("ensure")
		d.die(30)
		assert.Regexp(d, `30 +[0-9a-f]{16} .* orders: no such address`, d.run("peek", "-n", "100", "-groups", "orders-dlq"))
		out := d.run("redrive", "-rate", "5", "-reason", "fixed", "-error", "address", "orders-dlq")
		assert.Regexp(d, `running: 1[05] moved of 30`, out, "the third batch goes at the moment of the line")
		assert.Contains(d, out, "done: 30 moved of 30")
		assert.Len(d, d.broker.Messages("orders"), 30)
		assert.Contains(d, d.run("redrive", "-list"), "orders-dlq -> orders  done: 30 moved of 30")
	})
}

func TestARedriveMovesWhatItsFlagsSelect(t *testing.T) {
	atDesk(t, func(d *desk) {
		d.run("ensure")
		d.die(3)
		ago := time.Now()
		time.Sleep(2 * time.Hour)
		d.die(2)
		for _, c := range []struct {
			flag, value string
			want        int
		}{
			{"-attr", "shop=2", 0}, {"-after", "1h", 2}, {"-before", "3h", 0}, {"-before", ago.Add(-time.Hour).Format(time.DateTime), 0},
			{"-after", ago.UTC().Format(time.RFC3339), 0}, {"-attr", "shop=1", 3},
		} {
			assert.Contains(d, d.run("redrive", c.flag, c.value, "orders-dlq"), fmt.Sprintf("done: %d moved", c.want), "%+v", c)
		}
	})
}

func TestAnOperationIsForgottenWhenItIsOver(t *testing.T) {
	atDesk(t, func(d *desk) {
		d.run("ensure")
		d.run("redrive", "-id", "op-1", "orders-dlq")
		assert.Equal(d, "op-1 is forgotten\n", d.run("redrive", "-forget", "op-1"))
		assert.Empty(d, d.run("redrive", "-list"))
		_, err := d.ask(d.Context(), "", "redrive", "-forget", "op-1")
		require.ErrorContains(d, err, "there's none")
		d.run("redrive", "-id", "op-2", "orders-dlq")
		assert.JSONEq(d, `{"forgotten":"op-2"}`, d.run("redrive", "-json", "-forget", "op-2"))
	})
}

func TestAGroupTellsWhereItsMessagesFailed(t *testing.T) {
	atDesk(t, func(d *desk) {
		d.run("ensure")
		for _, name := range []string{"e", "d", "c", "b", "a"} {
			require.NoError(d, d.open("orders-dlq").Publish(d.Context(), deadLetters(queue.Endpoint{System: "memory", Name: name}, 0, 1)...))
		}
		assert.Regexp(d, `5 +[0-9a-f]{16} .* a, b, c, 2 more: no such address`, d.run("peek", "-groups", "orders-dlq"))
	})
}

func TestAnInterruptPausesARedrive(t *testing.T) {
	atDesk(t, func(d *desk) {
		d.run("ensure")
		d.die(30)
		ctx, cancel := context.WithTimeout(d.Context(), 1500*time.Millisecond)
		defer cancel()
		_, err := d.ask(ctx, "", "redrive", "-id", "op-1", "-rate", "10", "orders-dlq")
		require.ErrorContains(d, err, "redrive -resume op-1")
		assert.Len(d, d.broker.Messages("orders"), 20)
		assert.Contains(d, d.run("redrive", "-list"), "paused: 20 moved")
		out := d.run("redrive", "-json", "-resume", "op-1")
		var op struct {
			Status string
			Moved  int
		}
		require.NoError(d, json.Unmarshal([]byte(out), &op))
		assert.Equal(d, "done", op.Status)
		assert.Equal(d, 30, op.Moved)
		_, err = d.ask(d.Context(), "", "redrive", "-cancel", "op-1")
		require.ErrorContains(d, err, "op-1 is done")
	})
}

func TestARedriveThatIsStoppedIsAFailure(t *testing.T) {
	atDesk(t, func(d *desk) {
		d.run("ensure")
		d.die(30)
		go func() { // a worker whose bug isn't fixed
			q, dead := d.open("orders"), d.open("orders-dlq")
			for {
				ds, err := q.Receive(d.Context(), 1)
				if err != nil {
					return
				}
				assert.True(d, ds[0].DeadLetter.Trial)
				assert.NoError(d, dead.Publish(d.Context(), queue.NewDeadLetter(ds[0], errAddress, queue.ReasonTrial, time.Now())))
				assert.NoError(d, q.Settle(d.Context(), queue.Settlement{Delivery: ds[0]}))
				if len(d.broker.Messages("orders")) == 0 {
					return
				}
			}
		}()
		_, err := d.ask(d.Context(), "", "redrive", "-id", "op-1", "-try", "3", "-try-for", "10s", "orders-dlq")
		require.ErrorContains(d, err, "have failed again")
		assert.Len(d, d.broker.Messages("orders-dlq"), 30)
		assert.Contains(d, d.run("redrive", "-cancel", "op-1"), "canceled")
	})
}

func TestCommandsThatCannotBeMeantAreRefused(t *testing.T) {
	atDesk(t, func(d *desk) {
		for _, args := range [][]string{
			{"sing"}, {"peek"}, {"purge"}, {"publish"}, {"redrive"}, {"redrive", "a", "b"}, {"publish", "orders", "a", "b"},
			{"publish", "-attr", "x", "orders", "a"}, {"stats", "-f", "nothing.yaml"}, {"redrive", "-resume", "nothing"},
			{"redrive", "-cancel", "nothing"}, {"redrive", "-pause", "nothing"}, {"redrive", "-attr", "x", "orders-dlq"}, {"redrive", "-max", "-1", "orders-dlq"}, {"peek", "nothing"},
		} {
			_, err := d.ask(d.Context(), "", args...)
			require.Error(d, err, "%q", args)
		}
		for _, args := range [][]string{{"redrive", "order-dlq"}, {"redrive", "-to", "order", "orders-dlq"}, {"peek", "order"}, {"stats", "order"}} {
			_, err := d.ask(d.Context(), "", args...)
			require.ErrorContains(d, err, "did you mean", "%q", args)
		}
		for _, args := range [][]string{nil, {"stats", "-h"}, {"stats", "-nothing"}, {"redrive", "-after", "noon", "orders-dlq"}} {
			_, err := d.ask(d.Context(), "", args...)
			require.ErrorIs(d, err, flag.ErrHelp, "%q", args)
		}
	})
}
