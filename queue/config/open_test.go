package config_test

import (
	"context"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/config"
)

func TestOpenReadsTheFileAndTheEnvironment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queues.yaml")
	require.NoError(t, os.WriteFile(path, []byte("backend: ${CONFIG_TEST_BACKEND}\nqueues: {orders: {}}\n"), 0o600))
	broker := memory.New(&memory.Options{Create: true})
	backends := config.Backends{"here": broker}

	_, err := config.Open(t.Context(), path, backends)
	assert.EqualError(t, err, path+":1:10: backend: the environment variable CONFIG_TEST_BACKEND isn't set and has no default; write ${CONFIG_TEST_BACKEND:-default}")

	t.Setenv("CONFIG_TEST_BACKEND", "there")
	_, err = config.Open(t.Context(), path, backends)
	assert.ErrorIs(t, err, queue.ErrInvalid)
	assert.EqualError(t, err, path+`:1:10: backend: no backend "there"; did you mean "here"?`)

	t.Setenv("CONFIG_TEST_BACKEND", "here")
	b, err := config.Open(t.Context(), path, backends)
	require.NoError(t, err)
	require.NoError(t, b.Publisher("orders").Publish(t.Context(), &queue.Message{Body: []byte("x")}))
	assert.Len(t, broker.Messages("orders"), 1)
	require.NoError(t, b.Close(t.Context()))

	_, err = config.Open(t.Context(), path+"x", backends)
	assert.ErrorIs(t, err, fs.ErrNotExist)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = config.Open(ended, path, backends)
	assert.ErrorIs(t, err, context.Canceled)
}

func TestWrongBackendsAreSaidWhereTheyStand(t *testing.T) {
	t.Parallel()
	f := parse(t, `
backend: memori
queues:
  one: {}
  two: {}
  three: {backend: sqs}
  four: {backend: nil-one}
  five: {backend: kafka}
`)
	_, err := config.OpenFile(f, config.Backends{"memory": memory.New(nil), "sqs2": memory.New(nil), "nil-one": nil, "unused": nil}, nil)
	assert.EqualError(t, err, `queues.yaml:2:10: backend: no backend "memori"; did you mean "memory"?
queues.yaml:6:20: queues.three.backend: no backend "sqs"; did you mean "sqs2"?
queues.yaml:7:19: queues.four.backend: the backend "nil-one" is nil
queues.yaml:8:19: queues.five.backend: no backend "kafka"; known: memory, nil-one, sqs2, unused`)
	_, err = config.OpenFile(parse(t, "backend: memory\nqueues: {one: {}}"), nil, nil)
	assert.EqualError(t, err, `queues.yaml:1:10: backend: no backend "memory"; there are none`)
}

// A File that a program makes is checked like one that was read.
func TestMadeFileIsChecked(t *testing.T) {
	t.Parallel()
	backends := config.Backends{"memory": memory.New(&memory.Options{Create: true})}
	good := func() *config.File {
		return &config.File{Name: "made", Queues: []*config.Queue{{Name: "orders", Backend: "memory"}, {Name: "dead", Backend: "memory"}}}
	}
	b, err := config.OpenFile(good(), backends, nil)
	require.NoError(t, err)
	require.NoError(t, b.Publisher("orders").Publish(t.Context(), &queue.Message{Body: []byte("x")}))
	require.NoError(t, b.Close(t.Context()))

	for name, tt := range map[string]struct {
		change func(*config.File, *config.Queue)
		want   string
	}{
		"no queues":           {func(f *config.File, _ *config.Queue) { f.Queues = nil }, "made: queues: there are none"},
		"no backend":          {func(_ *config.File, q *config.Queue) { q.Backend = "" }, "made: queues.orders.backend: has no backend, and there is none at the top of the file"},
		"twice":               {func(f *config.File, _ *config.Queue) { f.Queues[1].Name = "orders" }, "made: queues.orders: is given twice"},
		"negative":            {func(_ *config.File, q *config.Queue) { q.Concurrency = -1 }, "made: queues.orders.concurrency: is negative"},
		"negative delay":      {func(_ *config.File, q *config.Queue) { q.Delay = -1 }, "made: queues.orders.delay: is negative"},
		"negative lease":      {func(_ *config.File, q *config.Queue) { q.Lease = -1 }, "made: queues.orders.lease: is negative"},
		"negative rate":       {func(_ *config.File, q *config.Queue) { q.Rate = -1 }, "made: queues.orders.rate: isn't between 1000000/s and one in 30 years"},
		"a rate like no rate": {func(_ *config.File, q *config.Queue) { q.Rate = math.NaN() }, "made: queues.orders.rate: isn't between 1000000/s and one in 30 years"},
		"negative timeout":    {func(_ *config.File, q *config.Queue) { q.Timeout = -1 }, "made: queues.orders.timeout: is negative"},
		"negative extension":  {func(_ *config.File, q *config.Queue) { q.MaxExtension = -1 }, "made: queues.orders.max_extension: is negative"},
		"negative tries":      {func(_ *config.File, q *config.Queue) { q.Retry.InPlace = -1 }, "made: queues.orders.retry.in_place: is negative"},
		"negative min":        {func(_ *config.File, q *config.Queue) { q.Retry.Min = -1 }, "made: queues.orders.retry.min: is negative"},
		"negative max":        {func(_ *config.File, q *config.Queue) { q.Retry.Max = -1 }, "made: queues.orders.retry.max: is negative"},
		"min over max": {func(_ *config.File, q *config.Queue) { q.Retry = config.Retry{Min: time.Minute, Max: time.Second} },
			"made: queues.orders.retry.min: min 1m is over max 1s"},
		"negative failures": {func(_ *config.File, q *config.Queue) {
			q.DeadLetter = &config.DeadLetter{Queue: "dead", MaxFailures: -1}
		}, "made: queues.orders.dead_letter.max_failures: is negative"},
		"dead letter without a queue": {func(_ *config.File, q *config.Queue) { q.DeadLetter = &config.DeadLetter{} },
			"made: queues.orders.dead_letter: needs a queue"},
		"unknown way to end": {func(_ *config.File, q *config.Queue) {
			q.DeadLetter = &config.DeadLetter{Queue: "dead", OnExhausted: middleware.OnExhausted(7)}
		}, "made: queues.orders.dead_letter.on_exhausted: isn't skip or block"},
		"no limit": {func(_ *config.File, q *config.Queue) { q.Limit = "crm" }, `made: queues.orders.limit: no limit "crm"; there are none`},
		"limit that limits nothing": {func(f *config.File, _ *config.Queue) { f.Limits = []*config.Limit{{Name: "crm"}} },
			"made: limits.crm: limits nothing; it needs concurrency or rate"},
		"negative limit": {func(f *config.File, _ *config.Queue) { f.Limits = []*config.Limit{{Name: "crm", Concurrency: -1}} },
			"made: limits.crm.concurrency: is negative"},
		"limit twice": {func(f *config.File, _ *config.Queue) {
			f.Limits = []*config.Limit{{Name: "crm", Concurrency: 1}, {Name: "crm", Concurrency: 2}}
		}, "made: limits.crm: is given twice"},
		"nil queue": {func(f *config.File, _ *config.Queue) { f.Queues[1] = nil }, "made: queues: has a nil"},
		"nil limit": {func(f *config.File, _ *config.Queue) { f.Limits = []*config.Limit{nil} }, "made: limits: has a nil"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := good()
			tt.change(f, f.Queues[0])
			_, err := config.OpenFile(f, backends, nil)
			assert.ErrorIs(t, err, queue.ErrInvalid)
			assert.EqualError(t, err, tt.want)
		})
	}
}

func TestNilArgumentsAreRefused(t *testing.T) {
	t.Parallel()
	_, err := config.OpenFile(nil, nil, nil)
	assert.ErrorIs(t, err, queue.ErrInvalid)
	_, err = config.OpenFile(parse(t, "backend: memory\nqueues: {one: {}}"), config.Backends{"memory": memory.New(nil)},
		&config.Options{Middleware: []queue.Middleware{nil}})
	assert.ErrorIs(t, err, queue.ErrInvalid)
}
