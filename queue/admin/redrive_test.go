package admin_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/admin"
)

// redrive begins an operation and waits for its end.
func (o *office) redrive(spec admin.RedriveSpec) admin.Operation {
	o.Helper()
	op, err := o.Redrive(o.Context(), spec)
	require.NoError(o, err)
	op, err = o.WaitRedrive(o.Context(), op.ID)
	require.NoError(o, err)
	return op
}

func (o *office) operations() []admin.Operation {
	o.Helper()
	return operations(o.T, o.Admin)
}

func operations(t *testing.T, a *admin.Admin) []admin.Operation {
	t.Helper()
	ops, err := a.Operations(t.Context())
	require.NoError(t, err)
	return ops
}

func TestRedriveMovesWhatWasThereBackToWhereItFailed(t *testing.T) {
	inOffice(t, shop, admin.Options{}, func(o *office) {
		o.die("orders-dlq", "orders", 250, errBroken)
		require.NoError(o, o.Publish(o.Context(), "orders-dlq", admin.By{}, &queue.Message{Body: []byte("by hand")}))
		time.Sleep(time.Second)
		op, err := o.Redrive(o.Context(), admin.RedriveSpec{From: "orders-dlq", By: admin.By{Actor: "ada", Reason: "fixed in 1.2"}})
		require.NoError(o, err)
		assert.Equal(o, admin.Running, op.Status)
		assert.NotEmpty(o, op.ID)
		assert.Equal(o, "orders", op.To)
		assert.EqualValues(o, 251, *op.Total)
		op, err = o.WaitRedrive(o.Context(), op.ID)
		require.NoError(o, err)
		assert.Equal(o, admin.Done, op.Status)
		assert.Equal(o, 251, op.Moved)
		assert.Equal(o, 1, op.Undated, "nobody knows since when it's there")
		o.has(map[string]int{"orders": 251, "orders-dlq": 0})
		assert.Contains(o, o.log.String(), "actor=ada reason=\"fixed in 1.2\"")
		assert.Equal(o, []admin.Operation{op}, o.operations())
		same, err := o.Operation(o.Context(), op.ID)
		require.NoError(o, err)
		assert.Equal(o, op, same)
	})
}

func TestRedriveMovesWhatIsSelected(t *testing.T) {
	for name, c := range map[string]struct {
		selects func(noon time.Time, fingerprint string) admin.Selection
		want    int
	}{
		"all of the queue": {func(time.Time, string) admin.Selection { return admin.Selection{} }, 4},
		"ids": {func(time.Time, string) admin.Selection {
			return admin.Selection{IDs: []string{"mails-1", "mails-2", "leads-1"}}
		}, 2},
		"fingerprint":       {func(_ time.Time, f string) admin.Selection { return admin.Selection{Fingerprints: []string{"0123", f}} }, 4},
		"other fingerprint": {func(time.Time, string) admin.Selection { return admin.Selection{Fingerprints: []string{"0123"}} }, 0},
		"reason":            {func(time.Time, string) admin.Selection { return admin.Selection{Reasons: []string{"failures", "age"}} }, 4},
		"other reason":      {func(time.Time, string) admin.Selection { return admin.Selection{Reasons: []string{"rejected"}} }, 0},
		"error":             {func(time.Time, string) admin.Selection { return admin.Selection{Error: "such"} }, 4},
		"other error":       {func(time.Time, string) admin.Selection { return admin.Selection{Error: "such an"} }, 0},
		"attributes": {func(time.Time, string) admin.Selection {
			return admin.Selection{Attributes: map[string]string{"odd": "1"}}
		}, 2},
		"no such attribute": {func(time.Time, string) admin.Selection {
			return admin.Selection{Attributes: map[string]string{"even": ""}}
		}, 0},
		"after":      {func(noon time.Time, _ string) admin.Selection { return admin.Selection{After: noon} }, 0},
		"before":     {func(noon time.Time, _ string) admin.Selection { return admin.Selection{Before: noon} }, 4},
		"any source": {func(time.Time, string) admin.Selection { return admin.Selection{AnySource: true} }, 8},
		"any, after": {func(noon time.Time, _ string) admin.Selection { return admin.Selection{AnySource: true, After: noon} }, 4},
	} {
		t.Run(name, func(t *testing.T) {
			inOffice(t, shop, admin.Options{}, func(o *office) {
				o.die("shared-dlq", "mails", 4, errors.New("no such address"))
				noon := time.Now()
				o.die("shared-dlq", "leads", 4, errBroken)
				ds, err := o.Peek(o.Context(), "shared-dlq", 8)
				require.NoError(o, err)
				op := o.redrive(admin.RedriveSpec{From: "shared-dlq", To: "mails", Select: c.selects(noon, ds[0].DeadLetter.Fingerprint)})
				assert.Equal(o, admin.Done, op.Status)
				assert.Equal(o, c.want, op.Moved)
				assert.Equal(o, 8-c.want, op.Skipped)
				o.has(map[string]int{"mails": c.want, "shared-dlq": 8 - c.want})
			})
		})
	}
}

func TestSpecsThatCannotBeMeantAreRefused(t *testing.T) {
	inOffice(t, shop, admin.Options{}, func(o *office) {
		for name, c := range map[string]struct {
			spec admin.RedriveSpec
			says string
		}{
			"no queue":           {admin.RedriveSpec{From: "nothing"}, "nothing"},
			"no time at all":     {admin.RedriveSpec{From: "orders-dlq", Select: admin.Selection{After: time.Unix(2, 0), Before: time.Unix(2, 0)}}, "isn't before"},
			"no target":          {admin.RedriveSpec{From: "orders"}, "no queue of queues.yaml dead-letters to orders"},
			"several targets":    {admin.RedriveSpec{From: "shared-dlq"}, "mails, leads"},
			"no such target":     {admin.RedriveSpec{From: "orders-dlq", To: "order"}, "order"},
			"itself":             {admin.RedriveSpec{From: "orders", To: "orders"}, "is From"},
			"id":                 {admin.RedriveSpec{From: "orders-dlq", ID: "../x"}, "letters"},
			"max":                {admin.RedriveSpec{From: "orders-dlq", Max: -1}, "Max"},
			"rate":               {admin.RedriveSpec{From: "orders-dlq", Rate: -1}, "Rate"},
			"try":                {admin.RedriveSpec{From: "orders-dlq", Try: -1}, "Try"},
			"try over max":       {admin.RedriveSpec{From: "orders-dlq", Try: 3, Max: 2}, "over Max"},
			"wait for no trial":  {admin.RedriveSpec{From: "orders-dlq", TryFor: time.Minute}, "isn't set"},
			"allow for no trial": {admin.RedriveSpec{From: "orders-dlq", TryAllow: 1}, "isn't set"},
		} {
			_, err := o.Redrive(o.Context(), c.spec)
			require.ErrorIs(o, err, queue.ErrInvalid, name)
			assert.ErrorContains(o, err, c.says, name)
		}
		assert.Empty(o, o.operations())
		for _, call := range []func(context.Context, string, admin.By) (admin.Operation, error){o.PauseRedrive, o.CancelRedrive, o.ResumeRedrive} {
			_, err := call(o.Context(), "nothing", admin.By{})
			require.ErrorIs(o, err, queue.ErrInvalid)
		}
		_, err := o.Operation(o.Context(), "nothing")
		require.ErrorIs(o, err, queue.ErrInvalid)
		_, err = o.WaitRedrive(o.Context(), "nothing")
		require.ErrorIs(o, err, queue.ErrInvalid)
	})
}

func TestARedriveIsPausedResumedAndCanceled(t *testing.T) {
	inOffice(t, shop, admin.Options{}, func(o *office) {
		o.die("orders-dlq", "orders", 100, errBroken)
		op, err := o.Redrive(o.Context(), admin.RedriveSpec{ID: "op-1", From: "orders-dlq", Rate: 10})
		require.NoError(o, err)
		_, err = o.Redrive(o.Context(), admin.RedriveSpec{From: "orders-dlq"})
		require.ErrorContains(o, err, "op-1 is under way on orders-dlq")
		_, err = o.ResumeRedrive(o.Context(), op.ID, admin.By{})
		require.ErrorContains(o, err, "is under way")
		time.Sleep(2500 * time.Millisecond)
		op, err = o.PauseRedrive(o.Context(), "op-1", admin.By{Actor: "ada"})
		require.NoError(o, err)
		assert.Equal(o, admin.Paused, op.Status)
		assert.Equal(o, 30, op.Moved)
		time.Sleep(time.Hour)
		o.has(map[string]int{"orders": 30, "orders-dlq": 70})
		_, err = o.PauseRedrive(o.Context(), "op-1", admin.By{})
		require.ErrorContains(o, err, "op-1 is paused")

		o.die("orders-dlq", "orders", 5, errBroken) // newcomers
		_, err = o.ResumeRedrive(o.Context(), "op-1", admin.By{})
		require.NoError(o, err)
		time.Sleep(2500 * time.Millisecond)
		op, err = o.CancelRedrive(o.Context(), "op-1", admin.By{})
		require.NoError(o, err)
		assert.Equal(o, admin.Canceled, op.Status)
		assert.Equal(o, 60, op.Moved)
		o.has(map[string]int{"orders": 60, "orders-dlq": 45})
		_, err = o.ResumeRedrive(o.Context(), "op-1", admin.By{})
		require.ErrorContains(o, err, "op-1 is canceled")
		_, err = o.Redrive(o.Context(), admin.RedriveSpec{ID: "op-1", From: "orders-dlq"})
		require.ErrorContains(o, err, "there's an operation op-1")

		op = o.redrive(admin.RedriveSpec{From: "orders-dlq", Max: 20})
		assert.Equal(o, admin.Done, op.Status)
		assert.Equal(o, 20, op.Moved)
	})
}

// worker consumes orders until the test ends; broken says whether its bug is there.
func (o *office) worker(broken *atomic.Bool) (handled *atomic.Int64, stop func()) {
	handled = &atomic.Int64{}
	o.bus.Handle("orders", func(_ context.Context, d *queue.Delivery) error {
		if broken.Load() {
			return errBroken
		}
		handled.Add(1)
		return nil
	})
	ctx, cancel := context.WithCancel(o.Context())
	ran := make(chan error, 1)
	go func() { ran <- o.bus.Run(ctx) }()
	return handled, func() {
		cancel()
		require.NoError(o, <-ran)
	}
}

func TestATrialThatFailsStopsTheRest(t *testing.T) {
	inOffice(t, shop, admin.Options{}, func(o *office) {
		var broken atomic.Bool
		broken.Store(true)
		handled, stop := o.worker(&broken)
		defer stop()
		o.die("orders-dlq", "orders", 3000, errBroken)
		begun := time.Now()
		op, err := o.Redrive(o.Context(), admin.RedriveSpec{From: "orders-dlq", Try: 10, TryFor: 30 * time.Second})
		require.NoError(o, err)
		assert.Equal(o, admin.Testing, op.Status)
		op, err = o.WaitRedrive(o.Context(), op.ID)
		require.NoError(o, err)
		assert.Equal(o, admin.Stopped, op.Status)
		assert.Equal(o, 10, op.Tried)
		assert.Equal(o, 10, op.Moved)
		assert.Positive(o, op.CameBack)
		assert.Regexp(o, "of the first 10 have failed again", op.Why)
		assert.Less(o, time.Since(begun), time.Minute)
		time.Sleep(time.Minute)
		o.has(map[string]int{"orders": 0, "orders-dlq": 3000})

		// The bug is fixed. What came back was dead-lettered after the start.
		broken.Store(false)
		_, err = o.ResumeRedrive(o.Context(), op.ID, admin.By{})
		require.NoError(o, err)
		op, err = o.WaitRedrive(o.Context(), op.ID)
		require.NoError(o, err)
		assert.Equal(o, admin.Done, op.Status)
		assert.Equal(o, 3000, op.Moved)
		assert.Equal(o, 10, op.CameBack)
		require.NoError(o, o.broker.WaitIdle(o.Context(), "orders"))
		assert.EqualValues(o, 2990, handled.Load())
		op = o.redrive(admin.RedriveSpec{From: "orders-dlq", Try: 20, TryFor: time.Second})
		assert.Equal(o, admin.Done, op.Status)
		assert.Equal(o, 10, op.Moved)
		require.NoError(o, o.broker.WaitIdle(o.Context(), "orders"))
		assert.EqualValues(o, 3000, handled.Load())
	})
}

func TestATrialThatSucceedsIsFollowedByTheRest(t *testing.T) {
	inOffice(t, shop, admin.Options{}, func(o *office) {
		handled, stop := o.worker(&atomic.Bool{})
		defer stop()
		o.die("orders-dlq", "orders", 3000, errBroken) // more than what a look hides for its own time only
		op := o.redrive(admin.RedriveSpec{From: "orders-dlq", Try: 10})
		assert.Equal(o, admin.Done, op.Status)
		assert.Equal(o, 3000, op.Moved)
		assert.Equal(o, 10, op.Tried)
		assert.Zero(o, op.CameBack)
		assert.GreaterOrEqual(o, op.TestedAt.Sub(op.TriedAt), time.Minute)
		require.NoError(o, o.broker.WaitIdle(o.Context(), "orders"))
		assert.EqualValues(o, 3000, handled.Load())
	})
}

func TestSomeOfATrialMayFail(t *testing.T) {
	inOffice(t, shop, admin.Options{}, func(o *office) {
		var broken atomic.Bool
		broken.Store(true)
		_, stop := o.worker(&broken)
		defer stop()
		o.die("orders-dlq", "orders", 30, errBroken)
		op := o.redrive(admin.RedriveSpec{From: "orders-dlq", Try: 3, TryAllow: 3, Max: 5})
		assert.Equal(o, admin.Done, op.Status)
		assert.Equal(o, 3, op.CameBack)
		assert.Equal(o, 5, op.Moved)
	})
}

func TestAnInterruptedRedriveGoesOnAfterARestart(t *testing.T) {
	store := admin.FileStore(filepath.Join(t.TempDir(), "redrives"))
	inOffice(t, shop, admin.Options{Store: store}, func(o *office) {
		o.die("orders-dlq", "orders", 100, errBroken)
		began := time.Now()
		_, err := o.Redrive(o.Context(), admin.RedriveSpec{ID: "op-1", From: "orders-dlq", Rate: 10, Max: 90, By: admin.By{Actor: "ada"}})
		require.NoError(o, err)
		time.Sleep(2500 * time.Millisecond)
		require.NoError(o, o.Close(o.Context()))
		_, err = o.Redrive(o.Context(), admin.RedriveSpec{From: "shared-dlq", To: "mails"})
		require.ErrorIs(o, err, queue.ErrClosed)

		o.die("orders-dlq", "orders", 5, errBroken) // newcomers
		o.open(admin.Options{Store: store})
		ops := o.operations()
		require.Len(o, ops, 1)
		assert.Equal(o, admin.Interrupted, ops[0].Status)
		assert.Equal(o, 30, ops[0].Moved)
		assert.Equal(o, "ada", ops[0].Actor)
		assert.True(o, began.Equal(ops[0].Began))
		_, err = o.ResumeRedrive(o.Context(), "op-1", admin.By{})
		require.NoError(o, err)
		op, err := o.WaitRedrive(o.Context(), "op-1")
		require.NoError(o, err)
		assert.Equal(o, admin.Done, op.Status)
		assert.Equal(o, 90, op.Moved)
		o.has(map[string]int{"orders": 90, "orders-dlq": 15})

		o.open(admin.Options{Store: store})
		again, err := o.Operation(o.Context(), "op-1")
		require.NoError(o, err)
		assert.Equal(o, admin.Done, again.Status)
		assert.Equal(o, 90, again.Moved)
	})
}

// forgetful is a Store that fails.
type forgetful struct {
	admin.FileStore
	fails atomic.Bool
}

var errFull = errors.New("no space left")

func (s *forgetful) Save(ctx context.Context, op admin.Operation) error {
	if s.fails.Load() {
		return errFull
	}
	return s.FileStore.Save(ctx, op)
}

func TestNothingMovesBeforeTheStoreKnows(t *testing.T) {
	store := &forgetful{FileStore: admin.FileStore(t.TempDir())}
	inOffice(t, shop, admin.Options{Store: store}, func(o *office) {
		o.die("orders-dlq", "orders", 50, errBroken)
		store.fails.Store(true)
		_, err := o.Redrive(o.Context(), admin.RedriveSpec{ID: "op-1", From: "orders-dlq"})
		require.ErrorIs(o, err, errFull)
		assert.Empty(o, o.operations())
		o.has(map[string]int{"orders": 0, "orders-dlq": 50})

		store.fails.Store(false)
		_, err = o.Redrive(o.Context(), admin.RedriveSpec{ID: "op-1", From: "orders-dlq", Rate: 10})
		require.NoError(o, err)
		store.fails.Store(true) // later it's only said
		op, err := o.WaitRedrive(o.Context(), "op-1")
		require.NoError(o, err)
		assert.Equal(o, admin.Done, op.Status)
		assert.Contains(o, o.log.String(), "redrive not kept")
		assert.Contains(o, o.log.String(), "no space left")
	})
}

func TestARedriveThatCannotPublishFailsAndCanGoOn(t *testing.T) {
	inOffice(t, shop, admin.Options{}, func(o *office) {
		o.die("orders-dlq", "orders", 5, errBroken)
		heal := o.broker.Fail(memory.Fault{Queue: "orders"})
		op := o.redrive(admin.RedriveSpec{ID: "op-1", From: "orders-dlq"})
		assert.Equal(o, admin.Failed, op.Status)
		assert.Contains(o, op.Why, "injected")
		for range 2 {
			_, err := o.ResumeRedrive(o.Context(), "op-1", admin.By{})
			require.NoError(o, err)
			op, err = o.WaitRedrive(o.Context(), "op-1")
			require.NoError(o, err)
			assert.Equal(o, admin.Failed, op.Status)
			assert.Equal(o, 5, op.Failed, "there are no more")
		}
		heal()
		_, err := o.ResumeRedrive(o.Context(), "op-1", admin.By{})
		require.NoError(o, err)
		op, err = o.WaitRedrive(o.Context(), "op-1")
		require.NoError(o, err)
		assert.Equal(o, admin.Done, op.Status)
		assert.Empty(o, op.Why)
		assert.Zero(o, op.Failed, "none is left")
		assert.Equal(o, 5, op.Moved)
		o.has(map[string]int{"orders": 5, "orders-dlq": 0})
	})
}

func TestWaitingEndsWithItsContext(t *testing.T) {
	inOffice(t, shop, admin.Options{}, func(o *office) {
		o.die("orders-dlq", "orders", 50, errBroken)
		_, err := o.Redrive(o.Context(), admin.RedriveSpec{ID: "op-1", From: "orders-dlq", Rate: 1})
		require.NoError(o, err)
		ctx, cancel := context.WithTimeout(o.Context(), 3*time.Second)
		defer cancel()
		op, err := o.WaitRedrive(ctx, "op-1")
		require.ErrorIs(o, err, context.DeadlineExceeded)
		assert.Equal(o, admin.Running, op.Status)
	})
}

func TestAStoreThatCannotBeReadIsAnError(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ops, err := admin.FileStore(filepath.Join(dir, "none")).Load(t.Context())
	require.NoError(t, err)
	assert.Empty(t, ops)
	store := admin.FileStore(dir)
	require.Error(t, store.Save(t.Context(), admin.Operation{RedriveSpec: admin.RedriveSpec{ID: "../x"}}))
	for name, content := range map[string]string{
		"broken.redrive.json": "{",
		"other.redrive.json":  `{"id": "another"}`,
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		_, err := store.Load(t.Context())
		require.ErrorContains(t, err, path)
		require.NoError(t, os.Remove(path))
	}
	require.NoError(t, store.Save(t.Context(), admin.Operation{RedriveSpec: admin.RedriveSpec{ID: "op"}, Moved: 7}))
	ops, err = store.Load(t.Context())
	require.NoError(t, err)
	require.Len(t, ops, 1)
	assert.Equal(t, 7, ops[0].Moved)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 1, "nothing else is left")
}
