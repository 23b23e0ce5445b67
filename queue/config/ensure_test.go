package config_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/config"
)

const fourQueues = `
backend: memory
queues:
  orders: {dead_letter: {queue: orders-dlq}}
  orders-dlq: {}
  elsewhere: {address: "arn:aws:sqs:eu-west-1:1:elsewhere"}
  mails: {}
`

func TestEnsureTellsFirstAndThenDoes(t *testing.T) {
	t.Parallel()
	broker := memory.New(nil)
	b := openBus(t, fourQueues, config.Backends{"memory": broker})

	plan, err := b.Ensure(t.Context(), &config.EnsureOptions{DryRun: true})
	require.NoError(t, err)
	_, err = b.Queue(t.Context(), "orders")
	require.ErrorIs(t, err, queue.ErrQueueNotFound, "a dry run makes nothing")

	done, err := b.Ensure(t.Context(), nil)
	require.NoError(t, err)
	assert.Equal(t, plan, done)
	var names []string
	for _, e := range done {
		names = append(names, e.Queue)
		require.NoError(t, e.Err)
		if e.Queue == "elsewhere" {
			assert.Contains(t, e.Skipped, "arn:aws:sqs:eu-west-1:1:elsewhere")
			assert.Empty(t, e.Report)
			continue
		}
		assert.Empty(t, e.Skipped)
		assert.Len(t, e.Report.Created, 1, e.Queue)
		_, err = b.Queue(t.Context(), e.Queue)
		require.NoError(t, err)
	}
	assert.Equal(t, []string{"orders", "orders-dlq", "elsewhere", "mails"}, names)

	again, err := b.Ensure(t.Context(), nil)
	require.NoError(t, err)
	for _, e := range again {
		assert.Empty(t, e.Report, e.Queue)
	}
}

func TestEnsureOfSomeTakesTheirDeadLetterQueuesAlong(t *testing.T) {
	t.Parallel()
	broker := &spy{Backend: memory.New(nil)}
	b := openBus(t, fourQueues, config.Backends{"memory": broker})
	done, err := b.Ensure(t.Context(), &config.EnsureOptions{Only: []string{"ord*s"}, Update: true})
	require.NoError(t, err)
	require.Len(t, done, 2)
	assert.Equal(t, []string{"orders-dlq", "orders"}, broker.ensured)
	assert.True(t, broker.specs["orders"].Update)
	assert.True(t, broker.specs["orders-dlq"].IsDeadLetter)

	_, err = b.Ensure(t.Context(), &config.EnsureOptions{Only: []string{"order"}})
	require.ErrorIs(t, err, queue.ErrInvalid)
	assert.ErrorContains(t, err, `"orders"`)
}

func TestEnsureIsToldWhatEachQueueKeepsAndIsCalled(t *testing.T) {
	t.Parallel()
	const text = `
backend: memory
defaults: {retention: 4d, tags: {team: crm}}
queues:
  orders: {lease: 1m, dead_letter: {queue: dead, max_failures: 3}}
  mails: {retention: off, tags: off, dead_letter: {queue: kept, max_failures: 3}}
  dead: {tags: {kind: dead}}
  kept: {retention: 10d, lease: 2m}
`
	const day = 24 * time.Hour
	crm := map[string]string{"team": "crm"}
	both := map[string]string{"team": "crm", "kind": "dead"}
	broker := &spy{Backend: memory.New(nil)}
	b := openBus(t, text, config.Backends{"memory": broker})
	for range 2 {
		done, err := b.Ensure(t.Context(), nil)
		require.NoError(t, err)
		for _, e := range done {
			require.NoError(t, e.Err)
			assert.Empty(t, e.Report.Differences, "a queue isn't told one thing by its own lines and another by its source's")
		}
	}
	assert.Equal(t, map[string]queue.QueueSpec{
		"orders": {Retention: 4 * day, Tags: crm, Lease: time.Minute, DeadLetter: "dead", BrokerMaxAttempts: 30, DeadLetterSpec: &queue.QueueSpec{Tags: both}},
		"mails":  {DeadLetter: "kept", BrokerMaxAttempts: 30, DeadLetterSpec: &queue.QueueSpec{Retention: 10 * day, Lease: 2 * time.Minute, Tags: crm}},
		"dead":   {IsDeadLetter: true, Tags: both},
		"kept":   {IsDeadLetter: true, Retention: 10 * day, Lease: 2 * time.Minute, Tags: crm},
	}, broker.specs)
	q, err := b.Queue(t.Context(), "orders")
	require.NoError(t, err)
	assert.Equal(t, 4*day, q.Capabilities().Retention)

	other := openBus(t, strings.Replace(text, "4d", "5d", 1), config.Backends{"memory": broker})
	done, err := other.Ensure(t.Context(), nil)
	require.NoError(t, err)
	assert.Equal(t, []string{"queue orders: retention is 96h0m0s, not 120h0m0s"}, done[0].Report.Differences)
}

// talker is a backend whose Ensure says something about each queue, takes a second,
// and fails for some.
type talker struct {
	queue.Backend
	mu         sync.Mutex
	busy, most int
}

var errRefused = errors.New("refused")

func (b *talker) Ensure(ctx context.Context, name string, _ *queue.QueueSpec) (*queue.EnsureReport, error) {
	b.mu.Lock()
	b.busy++
	b.most = max(b.most, b.busy)
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		b.busy--
		b.mu.Unlock()
	}()
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if strings.HasPrefix(name, "bad") {
		return nil, errRefused
	}
	// As backends do that ensure the dead-letter queue along with its queue.
	return &queue.EnsureReport{Warnings: []string{"about " + name, "about the dead"}}, nil
}

func TestAQueueThatCannotBeEnsuredFailsAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openBus(t, `
backend: it
queues:
  orders: {dead_letter: {queue: bad-dlq}}
  bad-dlq: {}
  mails: {}
`, config.Backends{"it": &talker{Backend: memory.New(nil)}})
		done, err := b.Ensure(t.Context(), nil)
		require.NoError(t, err)
		require.ErrorIs(t, done[0].Err, errRefused)
		require.ErrorContains(t, done[0].Err, "bad-dlq")
		require.ErrorIs(t, done[1].Err, errRefused)
		require.NoError(t, done[2].Err)
		assert.Equal(t, []string{"about mails", "about the dead"}, done[2].Report.Warnings)
	})
}

// A dead-letter queue that several queues share is told of once, in its own report.
func TestADeadLetterQueueIsToldOfOnce(t *testing.T) {
	t.Parallel()
	b := openBus(t, `
backend: memory
queues:
  partner-a: {dead_letter: {queue: partner-dlq, max_failures: 5}}
  partner-b: {dead_letter: {queue: partner-dlq, max_failures: 5}}
  partner-dlq: {}
`, config.Backends{"memory": memory.New(nil)})
	for _, dry := range []bool{true, false} {
		done, err := b.Ensure(t.Context(), &config.EnsureOptions{Only: []string{"partner-*"}, DryRun: dry})
		require.NoError(t, err)
		var created []string
		for _, e := range done {
			require.NoError(t, e.Err)
			created = append(created, e.Report.Created...)
		}
		assert.Equal(t, []string{"queue partner-a", "queue partner-b", "queue partner-dlq"}, created)
	}
}

func TestManyQueuesAreEnsuredSideBySide(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var text strings.Builder
		text.WriteString("backend: it\nqueues:\n")
		for i := range 64 {
			fmt.Fprintf(&text, "  queue-%d: {}\n", i)
		}
		backend := &talker{Backend: memory.New(nil)}
		b := openBus(t, text.String(), config.Backends{"it": backend})
		begun := time.Now()
		done, err := b.Ensure(t.Context(), nil)
		require.NoError(t, err)
		assert.Len(t, done, 64)
		assert.Equal(t, 4*time.Second, time.Since(begun))
		assert.Equal(t, 16, backend.most)

		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		done, err = b.Ensure(ctx, nil)
		require.NoError(t, err)
		failed := 0
		for _, e := range done {
			if e.Err != nil {
				require.ErrorIs(t, e.Err, context.DeadlineExceeded)
				failed++
			}
		}
		assert.Equal(t, 48, failed)
	})
}

func TestWhatIsSaidOfADeadLetterQueueIsSaidOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &lines{}
		b, err := config.OpenFile(parse(t, `
backend: it
ensure: true
queues:
  orders: {dead_letter: {queue: dead}}
  mails: {dead_letter: {queue: dead}}
  dead: {}
`), config.Backends{"it": &talker{Backend: memory.New(&memory.Options{Create: true})}},
			&config.Options{Logger: slog.New(slog.NewTextHandler(log, nil))})
		require.NoError(t, err)
		done, err := b.Ensure(t.Context(), nil)
		require.NoError(t, err)
		assert.Equal(t, []string{"about orders"}, done[0].Report.Warnings)
		assert.Equal(t, []string{"about dead", "about the dead"}, done[2].Report.Warnings)
		for _, name := range []string{"orders", "mails", "dead"} {
			_, err := b.Queue(t.Context(), name)
			require.NoError(t, err)
		}
		assert.Len(t, log.with("about the dead"), 1)
		assert.Len(t, log.with("about mails"), 1)
		require.NoError(t, b.Close(t.Context()))
	})
}
