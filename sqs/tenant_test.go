package sqs_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs"
)

func tenants(t *testing.T, q queue.Queue, n int) map[string]sqs.Info {
	t.Helper()
	out := map[string]sqs.Info{}
	for _, d := range receive(t, q, n) {
		info, ok := sqs.InfoOf(d)
		require.True(t, ok)
		out[string(d.Body)] = info
		require.NoError(t, q.Settle(t.Context(), queue.Settlement{Delivery: d}))
	}
	return out
}

func TestATenantIsTheGroupOfAStandardQueue(t *testing.T) {
	faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
		a, b, plain := message("a"), message("b"), message("plain")
		a.Options = []queue.MessageOption{sqs.TenantID("acme"), sqs.TraceHeader("Root=1-5759e988-bd862e3fe1be46a994272793")}
		b.Options = []queue.MessageOption{queue.Hint(sqs.TenantID("bravo"))}
		require.NoError(t, r.q.Publish(t.Context(), a, b, plain))
		got := tenants(t, r.q, 3)
		assert.Equal(t, "acme", got["a"].GroupID)
		assert.Equal(t, "Root=1-5759e988-bd862e3fe1be46a994272793", got["a"].TraceHeader)
		assert.Equal(t, "bravo", got["b"].GroupID)
		assert.Empty(t, got["plain"].GroupID)
	})
}

func TestOptionsThatCannotBeMeantAreRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		fifo   bool
		option queue.MessageOption
		want   error
	}{
		{"a tenant of a FIFO queue", true, sqs.TenantID("acme"), queue.ErrUnsupported},
		{"an empty tenant", false, sqs.TenantID(""), queue.ErrInvalid},
		{"a tenant with a space", false, sqs.TenantID("a b"), queue.ErrInvalid},
		{"an empty trace header", false, sqs.TraceHeader(""), queue.ErrInvalid},
		{"a trace header with a line feed", true, sqs.TraceHeader("a\nb"), queue.ErrInvalid},
		{"an option that isn't known", false, foreignOption{}, queue.ErrUnsupported},
	} {
		t.Run(c.name, func(t *testing.T) {
			faulty(t, queue.QueueSpec{Ordered: c.fifo}, func(t *testing.T, r *rig) {
				m := message("a")
				m.Options = []queue.MessageOption{c.option}
				assert.ErrorIs(t, r.q.Publish(t.Context(), m), c.want)
				assert.Zero(t, r.server.Requests()[sendBatch])
			})
		})
	}
	t.Run("a tenant of 129 bytes", func(t *testing.T) {
		faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
			m := message("a")
			m.Options = []queue.MessageOption{sqs.TenantID(strings.Repeat("t", 129))}
			var limit *queue.LimitError
			require.ErrorAs(t, r.q.Publish(t.Context(), m), &limit)
			assert.EqualValues(t, 129, limit.Got)
		})
	})
}

// A delay beyond what SQS can do is sent again on the way.
func TestATenantSurvivesALongDelay(t *testing.T) {
	faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
		m := message("later")
		m.Delay = 2 * time.Hour
		m.Options = []queue.MessageOption{sqs.TenantID("acme"), sqs.TraceHeader("Root=1")}
		require.NoError(t, r.q.Publish(t.Context(), m))
		var info sqs.Info
		c := r.consume(r.q, 1, func(_ context.Context, d *queue.Delivery) error {
			info, _ = sqs.InfoOf(d)
			return nil
		})
		for r.different() == 0 {
			time.Sleep(time.Minute)
		}
		c.end()
		synctest.Wait()
		assert.Equal(t, "acme", info.GroupID)
		assert.Equal(t, "Root=1", info.TraceHeader)
	})
}

func TestATenantSurvivesADeadLetterQueueAndRedrive(t *testing.T) {
	faulty(t, queue.QueueSpec{DeadLetter: "dead"}, func(t *testing.T, r *rig) {
		dead, err := r.backend().Open(t.Context(), "dead", nil)
		require.NoError(t, err)
		defer func() { assert.NoError(t, dead.Close(t.Context())) }()
		m := message("a")
		m.Options = []queue.MessageOption{sqs.TenantID("acme"), sqs.TraceHeader("Root=1")}
		require.NoError(t, r.q.Publish(t.Context(), m))
		d := receive(t, r.q, 1)[0]
		require.NoError(t, dead.Publish(t.Context(), queue.NewDeadLetter(d, errWork, queue.ReasonRejected, time.Now())))
		require.NoError(t, r.q.Settle(t.Context(), queue.Settlement{Delivery: d}))
		time.Sleep(time.Second) // Redrive is frozen at its start
		res, err := queue.Redrive(t.Context(), dead, r.q, &queue.RedriveOptions{AnySource: true})
		require.NoError(t, err)
		assert.Equal(t, 1, res.Moved)
		got := tenants(t, r.q, 1)["a"]
		assert.Equal(t, "acme", got.GroupID)
		assert.Equal(t, "Root=1", got.TraceHeader)
	})
}

// What came with a delivery goes to whatever it's published to again: a FIFO queue
// has no tenants, and another system ignores them.
func TestOptionsThatCameWithADeliveryAreHints(t *testing.T) {
	faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
		m := message("a")
		m.Options = []queue.MessageOption{sqs.TenantID("acme"), sqs.TraceHeader("Root=1")}
		require.NoError(t, r.q.Publish(t.Context(), m))
		d := receive(t, r.q, 1)[0]
		carried, ok := d.Native.(interface{ OriginalOptions() []queue.MessageOption })
		require.True(t, ok)
		again := message("b")
		again.Options = carried.OriginalOptions()
		assert.Len(t, again.Options, 2)
		_, err := queue.OptionsFor("gcp_pubsub", again)
		assert.NoError(t, err)
		_, err = r.backend().Ensure(t.Context(), "ordered", &queue.QueueSpec{Ordered: true})
		require.NoError(t, err)
		fifo, err := r.backend().Open(t.Context(), "ordered", &queue.OpenOptions{Ordered: true})
		require.NoError(t, err)
		defer fifo.Close(t.Context()) //nolint:errcheck // the test is over
		require.NoError(t, fifo.Publish(t.Context(), again))
		got := tenants(t, fifo, 1)["b"]
		assert.NotEqual(t, "acme", got.GroupID)
		assert.Equal(t, "Root=1", got.TraceHeader)
	})
}

// What another producer has sent isn't refused when it's dead-lettered, deferred or
// redriven, for a header that this package wouldn't send.
func TestATraceHeaderThatCannotBeSentIsLeftOut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, header string
		kept         bool
	}{{"ASCII", "Root=1-5759e988-bd862e3fe1be46a994272793", true}, {"an umlaut", "Root=1-\u00fc", false}, {"a line feed", "Root=1\n", false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			q := open(t, f, nil)
			f.answers[receiving] = bringing("hello", map[string]string{"AWSTraceHeader": c.header})
			d := receive(t, q, 1)[0]
			require.NoError(t, q.Publish(t.Context(), queue.NewDeadLetter(d, errWork, queue.ReasonRejected, time.Now())))
			require.NoError(t, q.Settle(t.Context(), deferral(d, time.Hour)))
			for _, in := range f.made(sendBatch) {
				_, has := entries(in)[0]["MessageSystemAttributes"]
				assert.Equal(t, c.kept, has)
			}
			assert.Len(t, f.made(sendBatch), 2)
		})
	}
}
