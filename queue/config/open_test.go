package config_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
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

func TestCheckFindsEverythingAtOnce(t *testing.T) {
	t.Parallel()
	text := []byte("backend: ther\nqueues:\n  orders: {concurency: 3}\n  mails: {backend: here, dead_letter: {queue: mail}}\n")
	backends := config.Backends{"here": memory.New(nil), "there": memory.New(nil)}
	err := config.Check("queues.yaml", text, nil, backends)
	list, ok := errors.AsType[*config.Error](err)
	require.True(t, ok)
	assert.Len(t, list.Problems, 3)
	assert.ErrorContains(t, err, `queues.yaml:1:10: backend: no backend "ther"; did you mean "there"?`)
	require.NoError(t, config.Check("queues.yaml", []byte("backend: ${X:-here}\nqueues: {orders: {}}"), nil, backends))
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

// What the file says and what the backends allow is told together, not one after the
// other.
func TestOpenTellsEverythingAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "queues.yaml")
	require.NoError(t, os.WriteFile(path, []byte(`backend: sqs
queues:
  orders: {lease: 13h, concurency: 5}
  mails: {retention: 1y, backend: kafka}
  events: {backend: ""}
  clicks: {retention: 1h, delay: 2h, tags: {"aws:x": y}}
`), 0o600))
	_, err := config.Open(t.Context(), path, untouched(t))
	assert.ErrorIs(t, err, queue.ErrInvalid)
	assert.EqualError(t, err, path+`:3:19: queues.orders.lease: lease 13h isn't 1s to 12h, which SQS allows
`+path+`:3:24: queues.orders: unknown key "concurency"; did you mean "concurrency"?
`+path+`:4:22: queues.mails.retention: "1y" isn't a duration such as 500ms, 30s, 1h30m or 2d
`+path+`:4:35: queues.mails.backend: no backend "kafka"; known: memory, pubsub, sqs
`+path+`:5:21: queues.events.backend: is empty
`+path+`:6:34: queues.clicks.delay: delay 2h isn't under retention 1h: a message would be gone before it's due
`+path+`:6:54: queues.clicks.tags.aws:x: a tag that begins with aws: is Amazon's own`)

	require.NoError(t, os.WriteFile(path, []byte("queues: ["), 0o600))
	_, err = config.Open(t.Context(), path, untouched(t))
	assert.ErrorContains(t, err, "not YAML")
}

// What a file may say of a service, the imitations of it in memory take, and nothing
// else: they have their limits from the same pages.
func TestFilesAndImitationsAgreeOnWhatServicesAllow(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for backend, like := range map[string]memory.Like{"sqs": memory.SQSStandard, "pubsub": memory.PubSub} {
		for _, d := range []time.Duration{
			time.Second / 2, time.Second, 59 * time.Second, time.Minute, 599 * time.Second, 10 * time.Minute, 601 * time.Second,
			12 * time.Hour, 12*time.Hour + time.Second, 14 * day, 14*day + time.Second, 31 * day, 31*day + time.Second,
		} {
			for what, q := range map[string]*config.Queue{"lease": {Lease: d}, "retention": {Retention: d}} {
				if backend == "pubsub" && d == time.Second && what == "lease" {
					continue // can't be a subscription's own, but a consumer can ask for it
				}
				q.Name, q.Backend = "orders", backend
				_, said := config.OpenFile(&config.File{Queues: []*config.Queue{q}}, untouched(t), nil)
				_, done := memory.New(&memory.Options{Like: like}).Ensure(t.Context(), "orders", &queue.QueueSpec{Lease: q.Lease, Retention: q.Retention})
				assert.Equal(t, done == nil, said == nil, "%s %v on %s: the file: %v; Ensure: %v", what, d, backend, said, done)
			}
		}
	}
}

func TestTagsAreWhatTheServiceTakes(t *testing.T) {
	t.Parallel()
	many := map[string]string{}
	for i := range 51 {
		many[fmt.Sprintf("t%d", i)] = "x"
	}
	long := strings.Repeat("x", 300)
	for name, tt := range map[string]struct {
		backend string
		tags    map[string]string
		want    string // empty: they're taken
	}{
		"none":                       {"sqs", nil, ""},
		"in any letters":             {"sqs", map[string]string{"Équipe 1": "a_b.c:d/e=f+g-h@i", "empty": ""}, ""},
		"long name":                  {"sqs", map[string]string{long: ""}, "at most 128 characters"},
		"long value":                 {"sqs", map[string]string{"a": long}, "at most 256 characters"},
		"too many":                   {"sqs", many, "51 tags are over 50, which SQS allows"},
		"not too many labels":        {"pubsub", many, ""},
		"labels in any small letter": {"pubsub", map[string]string{"équipe-1": "a_b-9", "empty": ""}, ""},
		"long label":                 {"pubsub", map[string]string{"a": long}, "at most 63 characters"},
		"upper case":                 {"pubsub", map[string]string{"a": "B"}, "lower-case"},
		"a label without a name":     {"pubsub", map[string]string{"": "b"}, "begins with a letter"},
		"anything in memory":         {"memory", map[string]string{"": long, "What?": "yes!"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &config.File{Name: "made", Queues: []*config.Queue{{Name: "orders", Backend: tt.backend, Tags: tt.tags}}}
			_, err := config.OpenFile(f, untouched(t), nil)
			if tt.want == "" {
				require.NoError(t, err)
				return
			}
			assert.ErrorContains(t, err, tt.want)
			assert.ErrorContains(t, err, "made: queues.orders.tags")
		})
	}
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
		"negative retention":  {func(_ *config.File, q *config.Queue) { q.Retention = -1 }, "made: queues.orders.retention: is negative"},
		"negative hold":       {func(_ *config.File, q *config.Queue) { q.MaxHold = -1 }, "made: queues.orders.max_hold: is negative"},
		"too many handlers":   {func(_ *config.File, q *config.Queue) { q.Concurrency = 1_000_001 }, "made: queues.orders.concurrency: 1000001 is over 1000000"},
		"a shrinking delay":   {func(_ *config.File, q *config.Queue) { q.Retry.Factor = 0.5 }, "made: queues.orders.retry.factor: 0.5 isn't from 1 to 1000"},
		"a delay like none":   {func(_ *config.File, q *config.Queue) { q.Retry.Factor = math.NaN() }, "made: queues.orders.retry.factor: NaN isn't from 1 to 1000"},
		"all too random":      {func(_ *config.File, q *config.Queue) { q.Retry.Jitter = 2 }, "made: queues.orders.retry.jitter: 2 isn't from 0 to 1"},
		"random like no":      {func(_ *config.File, q *config.Queue) { q.Retry.Jitter = math.NaN() }, "made: queues.orders.retry.jitter: NaN isn't from 0 to 1"},
		"gone before due": {func(_ *config.File, q *config.Queue) { q.Retention, q.Delay = time.Hour, 2*time.Hour },
			"made: queues.orders.delay: delay 2h isn't under retention 1h: a message would be gone before it's due"},
		"negative timeout":   {func(_ *config.File, q *config.Queue) { q.Timeout = -1 }, "made: queues.orders.timeout: is negative"},
		"negative extension": {func(_ *config.File, q *config.Queue) { q.MaxExtension = -1 }, "made: queues.orders.max_extension: is negative"},
		"negative tries":     {func(_ *config.File, q *config.Queue) { q.Retry.InPlace = -1 }, "made: queues.orders.retry.in_place: is negative"},
		"negative min":       {func(_ *config.File, q *config.Queue) { q.Retry.Min = -1 }, "made: queues.orders.retry.min: is negative"},
		"negative max":       {func(_ *config.File, q *config.Queue) { q.Retry.Max = -1 }, "made: queues.orders.retry.max: is negative"},
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
	_, err = config.OpenFile(parse(t, "backend: memory\nqueues: {one: {}}"), config.Backends{"memory": memory.New(nil)},
		&config.Options{PublisherMiddleware: []queue.PublisherMiddleware{nil}})
	assert.ErrorIs(t, err, queue.ErrInvalid)
}

// unreachable is a backend whose server doesn't answer.
type unreachable struct{ queue.Backend }

func (unreachable) Open(ctx context.Context, _ string, _ *queue.OpenOptions) (queue.Queue, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestAPublishThatEndsBeforeItsQueueIsOpenNamesIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		file, err := config.Parse("queues.yaml", []byte("backend: there\nqueues: {crm-leads: {}}\n"), nil)
		require.NoError(t, err)
		b, err := config.OpenFile(file, config.Backends{"there": unreachable{memory.New(nil)}}, nil)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = b.Publisher("crm-leads").Publish(ctx, &queue.Message{Body: []byte("x")})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorContains(t, err, "opening queue crm-leads")
		require.NoError(t, b.Close(t.Context()))
	})
}
