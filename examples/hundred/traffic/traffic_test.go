package traffic

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/config"
)

func unset(string) (string, bool) { return "", false }

func TestTheFileHasAHundredAndTwentyQueuesWithDeadLetterQueues(t *testing.T) {
	t.Parallel()
	file, err := File(unset)
	require.NoError(t, err)
	consumed, families := 0, map[string]bool{}
	ordered, delayed := 0, 0
	for _, q := range file.Queues {
		family, _, _ := strings.Cut(q.Name, "-")
		if IsDeadLetterQueue(q.Name) {
			continue
		}
		consumed++
		families[family] = true
		if q.Ordered {
			ordered++
		}
		if q.Delay > 0 {
			delayed++
		}
		if assert.NotNil(t, q.DeadLetter, q.Name) {
			assert.Equal(t, family+"-dlq", q.DeadLetter.Queue)
		}
	}
	assert.Equal(t, 120, consumed)
	assert.Equal(t, 18, ordered)
	assert.Equal(t, 8, delayed)
	assert.ElementsMatch(t, slices.Collect(maps.Keys(characters(file))), slices.Collect(maps.Keys(families)), "each has a character")
	for name := range exceptions {
		assert.NotNil(t, file.Queue(name), name)
	}
}

// characters are the families that have one.
func characters(file *config.File) map[string]bool {
	found := map[string]bool{}
	for _, q := range file.Queues {
		family, _, _ := strings.Cut(q.Name, "-")
		if _, ok := families[family]; ok {
			found[family] = true
		}
	}
	return found
}

func start(t *testing.T, opts Options) (*Traffic, *Ledger, *config.Bus) {
	t.Helper()
	file, err := File(unset)
	require.NoError(t, err)
	ledger := NewLedger()
	bus, err := config.OpenFile(file, config.Backends{memory.System: memory.New(&memory.Options{Create: true})},
		&config.Options{Hooks: ledger.Hooks(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	tr, err := New(bus, ledger, opts)
	require.NoError(t, err)
	tr.Handle()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- bus.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-ended)
		assert.NoError(t, bus.Close(context.Background()))
	})
	return tr, ledger, bus
}

func publishFor(t *testing.T, tr *Traffic, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	require.NoError(t, tr.Publish(ctx))
	require.NoError(t, tr.ledger.Wait(t.Context()))
}

func TestTrafficIsFastAndSlowFailingAndIdleOrderedAndDelayed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr, _, bus := start(t, Options{Rate: 500})
		publishFor(t, tr, 2*time.Minute)
		stats := map[string]queue.ConsumerStats{}
		for _, s := range bus.States() {
			stats[s.Queue] = s.Stats
		}
		assert.Positive(t, stats["webhook-stripe"].Succeeded)
		assert.Positive(t, stats["remind-cart"].Succeeded, "delayed")
		assert.Positive(t, stats["crm-leads"].Succeeded, "in order")
		assert.Greater(t, len(tr.ledger.last), 1000, "customers whose order was watched")
		counts := tr.ledger.Counts()
		assert.Zero(t, counts.Early)
		assert.Zero(t, counts.Overtaken)
		assert.Zero(t, stats["legacy-fax"].Received, "idle")
		assert.Zero(t, stats["partner-hooli"].Succeeded, "down")
		assert.Positive(t, stats["partner-hooli"].DeadLettered)
		panics := 0
		for name, s := range stats {
			if strings.HasPrefix(name, "image-") {
				panics += int(s.Panics)
			}
		}
		assert.Positive(t, panics)
		assert.Greater(t, stats["sync-sap"].Failed+stats["sync-xero"].Failed, stats["fraud-score"].Failed, "busy now and then")
		reasons := map[queue.DeadLetterReason]bool{}
		for _, name := range []string{"partner-dlq", "webhook-dlq", "image-dlq", "remind-dlq"} {
			q, err := bus.Queue(t.Context(), name)
			require.NoError(t, err)
			in, ok := queue.As[queue.Inspector](q)
			require.True(t, ok)
			ds, err := in.Peek(t.Context(), 1000)
			require.NoError(t, err)
			for _, d := range ds {
				reasons[d.DeadLetter.Reason] = true
			}
		}
		assert.Equal(t, map[queue.DeadLetterReason]bool{queue.ReasonRejected: true, queue.ReasonFailures: true}, reasons, "several kinds")
	})
}

func TestDeadLettersThatAreGoneAreFoundOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr, ledger, bus := start(t, Options{Rate: 50, Only: []string{"partner-stark"}})
		publishFor(t, tr, time.Minute)
		before := ledger.Counts()
		require.Greater(t, before.DeadLettered, 100)

		q, err := bus.Queue(t.Context(), "partner-dlq")
		require.NoError(t, err)
		stolen, err := q.Receive(t.Context(), 1)
		require.NoError(t, err)
		require.NoError(t, q.Settle(t.Context(), queue.Settlement{Delivery: stolen[0]}))
		foreign := &queue.Message{Body: []byte("of another run")}
		require.NoError(t, q.Publish(t.Context(), foreign))

		missing, err := tr.Collect(t.Context())
		require.NoError(t, err)
		assert.Equal(t, map[string]string{stolen[0].ID: "partner-dlq"}, missing)
		left, err := q.Receive(t.Context(), 10)
		require.NoError(t, err)
		require.Len(t, left, 1)
		assert.Equal(t, foreign.Body, left[0].Body, "others' messages stay")
	})
}

func TestTheLedgerTellsWhatBecameOfEachMessage(t *testing.T) {
	t.Parallel()
	l := NewLedger()
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		l.sending(id, sent{})
	}
	l.handled("a") // before its publishing is confirmed
	l.published("a", nil)
	l.published("b", nil)
	l.published("c", queue.ErrFull)
	l.published("d", queue.ErrUnknownOutcome)
	l.published("e", nil)
	assert.Equal(t, Counts{Published: 3, Refused: 1, InDoubt: 1, Handled: 1, Open: 2}, l.Counts())
	l.deadLettered("b", "dead")
	l.deadLettered("b", "dead")
	l.handled("d")
	l.handled("e")
	assert.Equal(t, Counts{Published: 3, Refused: 1, InDoubt: 1, Handled: 3, DeadLettered: 1, Repeated: 1}, l.Counts())
	l.handled("b") // after it was moved back
	assert.Equal(t, Counts{Published: 3, Refused: 1, InDoubt: 1, Handled: 4, Repeated: 1}, l.Counts())
	require.NoError(t, l.Wait(t.Context()))
}

func TestTheLedgerTellsWhatCameEarlyOrWasOvertaken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewLedger()
		one, other := line{"crm", "1"}, line{"crm", "2"}
		l.sending("first", sent{line: one, number: 1})
		l.sending("second", sent{line: one, number: 2})
		l.sending("another's", sent{line: other, number: 3})
		l.sending("late", sent{due: time.Now().Add(time.Second)})
		l.sending("early", sent{due: time.Now().Add(time.Second + 1)})
		time.Sleep(time.Second)
		for _, id := range []string{"another's", "second", "first", "late", "early"} {
			l.handled(id)
		}
		assert.Equal(t, Counts{Handled: 5, Early: 1, Overtaken: 1}, l.Counts())
	})
}
