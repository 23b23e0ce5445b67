package backends_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/examples/internal/backends"
	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
)

func TestQueuesOfASharedBrokerHaveLongNames(t *testing.T) {
	t.Parallel()
	mem := memory.New(nil) // stands for a broker that others use too
	b := backends.Prefixed(mem, "run-1-")
	e, ok := queue.As[queue.Ensurer](b)
	require.True(t, ok)
	_, err := e.Ensure(t.Context(), "mails", &queue.QueueSpec{DeadLetter: "mails-dlq", BrokerMaxAttempts: 10})
	require.NoError(t, err)

	for _, name := range []string{"mails", "mails-dlq"} {
		q, err := b.Open(t.Context(), name, nil)
		require.NoError(t, err)
		require.NoError(t, q.Publish(t.Context(), &queue.Message{Body: []byte(name)}))
		assert.Len(t, mem.Messages("run-1-"+name), 1)
		_, err = mem.Open(t.Context(), name, nil)
		require.ErrorIs(t, err, queue.ErrQueueNotFound, "nothing has the short name")
		require.NoError(t, q.Close(t.Context()))
	}
	assert.Equal(t, mem.System(), b.System())
}

func TestWithoutAPrefixThereIsNothingInBetween(t *testing.T) {
	t.Parallel()
	mem := memory.New(nil)
	assert.Same(t, mem, backends.Prefixed(mem, ""))
}

func TestOnlySharedBrokersGetThePrefix(t *testing.T) {
	t.Parallel()
	mem := memory.New(nil)
	all := backends.All(mem, func(name string) (string, bool) { return "run-1-", name == backends.Prefix })
	assert.Same(t, mem, all["memory"])
	for name, system := range map[string]string{"sqs": "aws_sqs", "pubsub": "gcp_pubsub"} {
		require.Contains(t, all, name)
		assert.Equal(t, system, all[name].System())
	}
}

// counts are metrics that know one number.
type counts struct{}

func (counts) Latest(context.Context, string, string) (float64, time.Time, bool, error) {
	return 7, time.Time{}, true, nil
}

func TestMetricsAreMadeWhenTheyAreAskedFor(t *testing.T) {
	t.Parallel()
	assert.Nil(t, backends.Metrics(func(name string) (string, bool) { return "127.0.0.1:8085", name == "PUBSUB_EMULATOR_HOST" }))
	assert.NotNil(t, backends.Metrics(func(string) (string, bool) { return "", false }), "nobody is asked yet")
	for name, tc := range map[string]struct {
		metrics pubsub.Metrics
		err     error
		known   bool
	}{
		"there are some":     {counts{}, nil, true},
		"they can't be made": {nil, errors.New("no credentials"), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			made := 0
			m := backends.Lazily(func(context.Context) (pubsub.Metrics, error) { made++; return tc.metrics, tc.err })
			assert.Zero(t, made)
			for range 2 {
				_, _, known, err := m.Latest(t.Context(), "projects/p/subscriptions/s", "num_undelivered_messages")
				require.NoError(t, err, "what's unknown breaks nothing")
				assert.Equal(t, tc.known, known)
			}
			assert.Equal(t, 1, made)
		})
	}
}

func TestOnlyTheEmulatorGetsAProjectByItself(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		env  map[string]string
		want string
	}{
		"the emulator":             {map[string]string{"PUBSUB_EMULATOR_HOST": "127.0.0.1:8085"}, "anyqueue-examples"},
		"the emulator, and a name": {map[string]string{"PUBSUB_EMULATOR_HOST": "127.0.0.1:8085", "GOOGLE_CLOUD_PROJECT": "mine"}, "mine"},
		"Google Cloud":             {map[string]string{"GOOGLE_CLOUD_PROJECT": "mine"}, "mine"},
		"what credentials say":     {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, tc.want, backends.Project(func(name string) (string, bool) {
				v, ok := tc.env[name]
				return v, ok
			}))
		})
	}
}
