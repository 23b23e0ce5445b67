package admin_test

import (
	"bufio"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/admin"
)

// another is an Admin as another process has it.
func (o *office) another(store admin.Store) *admin.Admin {
	o.Helper()
	a, err := admin.New(o.Context(), o.bus, &admin.Options{Store: store, Logger: slog.New(slog.NewTextHandler(o.log, nil))})
	require.NoError(o, err)
	o.Cleanup(func() { assert.NoError(o, a.Close(context.Background())) })
	return a
}

// begin is a redrive that's still under way after 2.5 s.
func (o *office) begin(id string) {
	o.Helper()
	_, err := o.Redrive(o.Context(), admin.RedriveSpec{ID: id, From: "orders-dlq", Rate: 10})
	require.NoError(o, err)
	time.Sleep(2500 * time.Millisecond)
}

func TestAnotherProcessSeesWhatIsUnderWayAndDoesNotBeginItAgain(t *testing.T) {
	store := admin.FileStore(t.TempDir())
	inOffice(t, shop, admin.Options{Store: store}, func(o *office) {
		o.die("orders-dlq", "orders", 100, errBroken)
		long := o.another(store) // since before it began
		o.begin("op-1")
		for _, b := range []*admin.Admin{long, o.another(store)} {
			mine, err := o.Operation(o.Context(), "op-1")
			require.NoError(o, err)
			assert.False(o, mine.Elsewhere)
			ops := operations(o.T, b)
			require.Len(o, ops, 1)
			assert.Equal(o, admin.Running, ops[0].Status)
			assert.True(o, ops[0].Elsewhere)
			assert.Positive(o, ops[0].Moved)
			assert.InDelta(o, mine.Moved, ops[0].Moved, 20, "it's a second old")
			_, err = b.ResumeRedrive(o.Context(), "op-1", admin.By{})
			require.ErrorContains(o, err, "op-1 is under way in another process")
			_, err = b.Redrive(o.Context(), admin.RedriveSpec{ID: "op-1", From: "orders-dlq"})
			require.ErrorContains(o, err, "there's an operation op-1")
			_, err = b.Redrive(o.Context(), admin.RedriveSpec{ID: "op-2", From: "orders-dlq"})
			require.ErrorContains(o, err, "another process has one under way on orders-dlq")
			require.ErrorContains(o, b.ForgetRedrive(o.Context(), "op-1", admin.By{}), "under way in another process")
			assert.Len(o, operations(o.T, b), 1)
		}
		op, err := long.WaitRedrive(o.Context(), "op-1")
		require.NoError(o, err)
		assert.Equal(o, admin.Done, op.Status)
		assert.Equal(o, 100, op.Moved)
		assert.False(o, op.Elsewhere)
		o.has(map[string]int{"orders": 100, "orders-dlq": 0})
	})
}

func TestAnotherProcessPausesCancelsAndGoesOn(t *testing.T) {
	dir := t.TempDir()
	store := admin.FileStore(dir)
	inOffice(t, shop, admin.Options{Store: store}, func(o *office) {
		o.die("orders-dlq", "orders", 100, errBroken)
		o.begin("op-1")
		b := o.another(store)
		begun := time.Now()
		op, err := b.PauseRedrive(o.Context(), "op-1", admin.By{Actor: "bob", Reason: "lunch"})
		require.NoError(o, err)
		assert.Less(o, time.Since(begun), 3*time.Second)
		assert.Equal(o, admin.Paused, op.Status)
		assert.Contains(o, o.log.String(), "redrive to be paused\" operation=op-1 queue=orders-dlq actor=bob reason=lunch")
		moved := op.Moved
		time.Sleep(time.Minute)
		o.has(map[string]int{"orders": moved, "orders-dlq": 100 - moved})

		// The other one goes on with it, and now the first one cancels.
		_, err = b.ResumeRedrive(o.Context(), "op-1", admin.By{})
		require.NoError(o, err)
		time.Sleep(1500 * time.Millisecond)
		_, err = o.ResumeRedrive(o.Context(), "op-1", admin.By{})
		require.ErrorContains(o, err, "under way in another process")
		op, err = o.CancelRedrive(o.Context(), "op-1", admin.By{})
		require.NoError(o, err)
		assert.Equal(o, admin.Canceled, op.Status)
		assert.Greater(o, op.Moved, moved)
		assert.Len(o, o.broker.Messages("orders"), op.Moved)

		// What was paused by one is canceled by another, as nobody has it.
		o.begin("op-2")
		_, err = o.PauseRedrive(o.Context(), "op-2", admin.By{})
		require.NoError(o, err)
		op, err = b.CancelRedrive(o.Context(), "op-2", admin.By{})
		require.NoError(o, err)
		assert.Equal(o, admin.Canceled, op.Status)
		_, err = o.ResumeRedrive(o.Context(), "op-2", admin.By{})
		require.ErrorContains(o, err, "op-2 is canceled")
		for _, a := range []*admin.Admin{o.Admin, b} {
			_, err = a.PauseRedrive(o.Context(), "op-2", admin.By{})
			require.ErrorContains(o, err, "op-2 is canceled")
		}

		// What's over can be forgotten, by anybody, and then nothing is left.
		require.NoError(o, o.ForgetRedrive(o.Context(), "op-1", admin.By{Actor: "ada"}))
		assert.Contains(o, o.log.String(), "redrive forgotten\" operation=op-1 queue=orders-dlq actor=ada")
		require.NoError(o, b.ForgetRedrive(o.Context(), "op-2", admin.By{}))
		require.ErrorIs(o, o.ForgetRedrive(o.Context(), "op-2", admin.By{}), queue.ErrInvalid)
		assert.Empty(o, operations(o.T, o.Admin))
		assert.Empty(o, operations(o.T, b))
		entries, err := os.ReadDir(dir)
		require.NoError(o, err)
		assert.Empty(o, entries)
	})
}

// A request that came too late isn't for whoever goes on.
func TestARequestThatCameTooLateIsForgotten(t *testing.T) {
	store := admin.FileStore(t.TempDir())
	inOffice(t, shop, admin.Options{Store: store}, func(o *office) {
		o.die("orders-dlq", "orders", 50, errBroken)
		o.begin("op-1")
		_, err := o.PauseRedrive(o.Context(), "op-1", admin.By{})
		require.NoError(o, err)
		require.NoError(o, store.Ask(o.Context(), "op-1", admin.Request{Status: admin.Canceled}))
		_, err = o.ResumeRedrive(o.Context(), "op-1", admin.By{})
		require.NoError(o, err)
		op, err := o.WaitRedrive(o.Context(), "op-1")
		require.NoError(o, err)
		assert.Equal(o, admin.Done, op.Status)
		require.ErrorContains(o, o.ForgetRedrive(o.Context(), "op-2", admin.By{}), "there's none")
	})
}

func TestWhatIsNotOverIsNotForgotten(t *testing.T) {
	inOffice(t, shop, admin.Options{}, func(o *office) {
		o.die("orders-dlq", "orders", 50, errBroken)
		o.begin("op-1")
		require.ErrorIs(o, o.ForgetRedrive(o.Context(), "op-1", admin.By{}), queue.ErrInvalid)
		_, err := o.PauseRedrive(o.Context(), "op-1", admin.By{})
		require.NoError(o, err)
		require.ErrorContains(o, o.ForgetRedrive(o.Context(), "op-1", admin.By{}), "op-1 is paused")
		_, err = o.CancelRedrive(o.Context(), "op-1", admin.By{})
		require.NoError(o, err)
		require.NoError(o, o.ForgetRedrive(o.Context(), "op-1", admin.By{}))
		assert.Empty(o, o.operations())
	})
}

func TestOneUnreadableFileDoesNotHideTheOthers(t *testing.T) {
	dir := t.TempDir()
	store := admin.FileStore(dir)
	inOffice(t, shop, admin.Options{Store: store}, func(o *office) {
		o.die("orders-dlq", "orders", 5, errBroken)
		o.redrive(admin.RedriveSpec{ID: "op-1", From: "orders-dlq"})
		require.NoError(o, os.WriteFile(filepath.Join(dir, "broken.redrive.json"), []byte("{"), 0o600))
		b := o.another(store)
		for range 2 {
			assert.Len(o, operations(o.T, b), 1)
		}
		assert.Contains(o, o.log.String(), "redrive can't be read\" operation=broken")
		_, err := b.Redrive(o.Context(), admin.RedriveSpec{ID: "broken", From: "orders-dlq"})
		require.ErrorContains(o, err, "can't be read", "it isn't replaced")
	})
}

// A Store that isn't shared has what's under way in this process only.
func TestAStoreNeedNotBeShared(t *testing.T) {
	store := struct{ admin.Store }{admin.FileStore(t.TempDir())}
	inOffice(t, shop, admin.Options{Store: store}, func(o *office) {
		o.die("orders-dlq", "orders", 50, errBroken)
		o.begin("op-1")
		ops := operations(o.T, o.another(store))
		require.Len(o, ops, 1)
		assert.Equal(o, admin.Interrupted, ops[0].Status)
		op, err := o.WaitRedrive(o.Context(), "op-1")
		require.NoError(o, err)
		assert.Equal(o, admin.Done, op.Status)
	})
}

const lockFolder = "ANYQUEUE_TEST_LOCK_FOLDER"

// The process of the next test: it takes a lock and waits to be killed.
func TestHelperThatHoldsALock(t *testing.T) { //nolint:paralleltest // a process of its own
	dir := os.Getenv(lockFolder)
	if dir == "" {
		return // there's nothing to test
	}
	release, held, err := admin.FileStore(dir).Lock(t.Context(), "op-1")
	require.NoError(t, err)
	require.False(t, held)
	defer release()
	_, err = os.Stdout.WriteString("locked\n")
	require.NoError(t, err)
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
}

func TestTheLockOfAProcessThatWasKilledIsFree(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store := admin.FileStore(dir)
	p := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHelperThatHoldsALock$") //nolint:gosec // this program
	p.Env = append(os.Environ(), lockFolder+"="+dir)
	out, err := p.StdoutPipe()
	require.NoError(t, err)
	_, err = p.StdinPipe() // stays open
	require.NoError(t, err)
	require.NoError(t, p.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "locked\n", line)

	_, held, err := store.Lock(t.Context(), "op-1")
	require.NoError(t, err)
	assert.True(t, held)
	release, held, err := store.Lock(t.Context(), "queue.op-1")
	require.NoError(t, err)
	assert.False(t, held, "another name")
	release()
	require.NoError(t, p.Process.Kill())
	require.Error(t, p.Wait())
	release, held, err = store.Lock(t.Context(), "op-1")
	require.NoError(t, err)
	require.False(t, held)
	_, held, err = store.Lock(t.Context(), "op-1")
	require.NoError(t, err)
	assert.True(t, held)
	release()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, entries)
	_, _, err = store.Lock(t.Context(), "../x")
	require.Error(t, err)
}

// A lock is removed with its file, and all the same nobody has it twice.
func TestALockHasOneHolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var holders, taken atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				release, held, err := admin.FileStore(dir).Lock(t.Context(), "op-1")
				if !assert.NoError(t, err) {
					return
				}
				if held {
					continue
				}
				assert.EqualValues(t, 1, holders.Add(1))
				taken.Add(1)
				holders.Add(-1)
				release()
			}
		})
	}
	wg.Wait()
	assert.Positive(t, taken.Load())
}
