package admin_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/admin"
	"github.com/anyqueue/anyqueue/queue/config"
)

// What others have in hand can't be tried, and mustn't be moved without.
func TestNothingIsMovedWithoutTheTrialThatWasAskedFor(t *testing.T) {
	inOffice(t, shop, admin.Options{}, func(o *office) {
		o.die("orders-dlq", "orders", 50, errBroken)
		q, err := o.bus.Queue(o.Context(), "orders-dlq")
		require.NoError(o, err)
		ds, err := q.Receive(o.Context(), 50) // as a peek on SQS does
		require.NoError(o, err)
		require.Len(o, ds, 50)
		_, err = o.Redrive(o.Context(), admin.RedriveSpec{ID: "op-1", From: "orders-dlq", Try: 10})
		require.NoError(o, err)
		time.Sleep(3 * time.Second)
		for _, d := range ds {
			require.NoError(o, q.Settle(o.Context(), queue.Settlement{Delivery: d, Kind: queue.Release}))
		}
		op, err := o.WaitRedrive(o.Context(), "op-1")
		require.NoError(o, err)
		assert.Equal(o, admin.Done, op.Status)
		assert.Zero(o, op.Moved)
		o.has(map[string]int{"orders": 0, "orders-dlq": 50})
	})
}

// A trial that was cut off isn't begun from the start.
func TestATrialThatWasInterruptedGoesOnWhereItWas(t *testing.T) {
	store := admin.FileStore(t.TempDir())
	inOffice(t, shop, admin.Options{Store: store}, func(o *office) {
		o.die("orders-dlq", "orders", 50, errBroken)
		_, err := o.Redrive(o.Context(), admin.RedriveSpec{ID: "op-1", From: "orders-dlq", Try: 20, Max: 20, Rate: 1})
		require.NoError(o, err)
		time.Sleep(12 * time.Second)
		crashed, err := store.Load(o.Context()) // what a crash would leave
		require.NoError(o, err)
		_, err = o.CancelRedrive(o.Context(), "op-1", admin.By{})
		require.NoError(o, err)
		moved := len(o.broker.Messages("orders"))
		assert.InDelta(o, moved, crashed[0].Tried, 1)

		require.NoError(o, store.Save(o.Context(), crashed[0]))
		o.open(admin.Options{Store: store})
		_, err = o.ResumeRedrive(o.Context(), "op-1", admin.By{})
		require.NoError(o, err)
		op, err := o.WaitRedrive(o.Context(), "op-1")
		require.NoError(o, err)
		assert.Equal(o, admin.Done, op.Status)
		assert.Equal(o, 20, op.Tried)
		assert.Equal(o, 20, op.Moved)
		assert.InDelta(o, 20, len(o.broker.Messages("orders")), 1)
	})
}

// A Store that fails for a moment doesn't make an operation canceled that it has as
// paused.
func TestACancellationThatIsNotKeptIsNone(t *testing.T) {
	store := &forgetful{FileStore: admin.FileStore(t.TempDir())}
	inOffice(t, shop, admin.Options{Store: store}, func(o *office) {
		o.die("orders-dlq", "orders", 50, errBroken)
		_, err := o.Redrive(o.Context(), admin.RedriveSpec{ID: "op-1", From: "orders-dlq", Rate: 1})
		require.NoError(o, err)
		_, err = o.PauseRedrive(o.Context(), "op-1", admin.By{})
		require.NoError(o, err)
		time.Sleep(time.Minute)
		store.fails.Store(true)
		_, err = o.CancelRedrive(o.Context(), "op-1", admin.By{})
		require.ErrorIs(o, err, errFull)
		store.fails.Store(false)
		op, err := o.CancelRedrive(o.Context(), "op-1", admin.By{})
		require.NoError(o, err)
		assert.Equal(o, admin.Canceled, op.Status)
		assert.WithinDuration(o, time.Now(), op.Updated, time.Second)
		kept, err := store.Load(o.Context())
		require.NoError(o, err)
		assert.Equal(o, admin.Canceled, kept[0].Status)
	})
}

func TestARedriveIsPausedWhileItsQueuesAreOpened(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broker := memory.New(&memory.Options{Create: true})
		bus := openBus(t, "backend: slow\nqueues: {orders: {dead_letter: {queue: orders-dlq}}, orders-dlq: {}}", config.Backends{"slow": slow{broker}}, &lines{})
		defer func() { assert.NoError(t, bus.Close(context.Background())) }()
		a, err := admin.New(t.Context(), bus, &admin.Options{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		began := make(chan error, 1)
		go func() {
			_, err := a.Redrive(t.Context(), admin.RedriveSpec{ID: "op-1", From: "orders-dlq"})
			began <- err
		}()
		time.Sleep(1500 * time.Millisecond) // the dead-letter queue is open, the other isn't
		_, err = a.PauseRedrive(t.Context(), "op-1", admin.By{})
		require.ErrorIs(t, err, queue.ErrInvalid, "it has never begun")
		require.ErrorIs(t, <-began, queue.ErrPermission)
		assert.Empty(t, operations(t, a))
		require.NoError(t, a.Close(t.Context()))
	})
}

// slow is a backend that takes its time to open queues, and then refuses all but
// dead-letter queues.
type slow struct{ queue.Backend }

func (b slow) Open(ctx context.Context, name string, opts *queue.OpenOptions) (queue.Queue, error) {
	time.Sleep(time.Second)
	if name == "orders" {
		return nil, queue.ErrPermission
	}
	return b.Backend.Open(ctx, name, opts)
}

// What the caller does with what it gave, or got, is its own.
func TestTheSelectionOfAnOperationIsItsOwn(t *testing.T) {
	inOffice(t, shop, admin.Options{}, func(o *office) {
		o.die("orders-dlq", "orders", 30, errBroken)
		spec := admin.RedriveSpec{ID: "op-1", From: "orders-dlq", Rate: 5, Select: admin.Selection{
			IDs: []string{"orders-1", "orders-29"}, Attributes: map[string]string{"odd": "1"},
		}}
		_, err := o.Redrive(o.Context(), spec)
		require.NoError(o, err)
		spec.Select.IDs[1], spec.Select.Attributes["odd"] = "none", "2"
		op, err := o.Operation(o.Context(), "op-1")
		require.NoError(o, err)
		op.Select.IDs[0], op.Select.Attributes["odd"], *op.Total = "none", "3", -1
		op, err = o.WaitRedrive(o.Context(), "op-1")
		require.NoError(o, err)
		assert.Equal(o, 2, op.Moved)
		assert.EqualValues(o, 30, *op.Total)
	})
}
