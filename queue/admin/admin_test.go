package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
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
	"github.com/anyqueue/anyqueue/queue/admin"
	"github.com/anyqueue/anyqueue/queue/config"
)

const shop = `
backend: memory
queues:
  orders: {dead_letter: {queue: orders-dlq}}
  orders-dlq: {}
  mails: {dead_letter: {queue: shared-dlq}}
  leads: {dead_letter: {queue: shared-dlq}}
  shared-dlq: {}
`

// office is a Bus with an Admin, on memory.
type office struct {
	*testing.T
	*admin.Admin
	broker *memory.Broker
	bus    *config.Bus
	log    *lines
}

// inOffice runs a test on virtual time.
func inOffice(t *testing.T, text string, opts admin.Options, fn func(o *office)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := &office{T: t, broker: memory.New(&memory.Options{Create: true}), log: &lines{}}
		o.bus = openBus(t, text, config.Backends{"memory": o.broker}, o.log)
		defer func() { assert.NoError(t, o.bus.Close(context.Background())) }()
		o.open(opts)
		fn(o)
		require.NoError(t, o.Close(t.Context()))
	})
}

func openBus(t *testing.T, text string, backends config.Backends, log *lines) *config.Bus {
	t.Helper()
	file, err := config.Parse("queues.yaml", []byte(text), nil)
	require.NoError(t, err)
	bus, err := config.OpenFile(file, backends, &config.Options{Logger: slog.New(slog.NewTextHandler(log, nil))})
	require.NoError(t, err)
	return bus
}

// open makes a new Admin, as after a restart.
func (o *office) open(opts admin.Options) {
	o.Helper()
	opts.Logger = slog.New(slog.NewTextHandler(o.log, nil))
	var err error
	o.Admin, err = admin.New(o.Context(), o.bus, &opts)
	require.NoError(o, err)
}

// die puts n dead letters of a queue into a dead-letter queue, and lets time pass.
func (o *office) die(dead, source string, n int, err error) {
	o.Helper()
	msgs := make([]*queue.Message, n)
	for i := range msgs {
		d := &queue.Delivery{
			Message: queue.Message{ID: fmt.Sprintf("%s-%d", source, i), Body: fmt.Append(nil, i), Attributes: map[string]string{"odd": fmt.Sprint(i % 2)}},
			Source:  queue.Endpoint{System: memory.System, Name: source}, EnqueuedAt: time.Now().Add(-time.Hour), Failures: 3,
		}
		msgs[i] = queue.NewDeadLetter(d, err, queue.ReasonFailures, time.Now())
	}
	q, qerr := o.bus.Queue(o.Context(), dead)
	require.NoError(o, qerr)
	require.NoError(o, q.Publish(o.Context(), msgs...))
	time.Sleep(time.Second)
}

// has asserts how many messages queues have.
func (o *office) has(want map[string]int) {
	o.Helper()
	for name, n := range want {
		assert.Len(o, o.broker.Messages(name), n, name)
	}
}

var errBroken = errors.New("broken")

// lines is a log that may be read while it's written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func TestStatsTellsOfAllQueuesInTheOrderOfTheFile(t *testing.T) {
	inOffice(t, shop, admin.Options{}, func(o *office) {
		o.die("shared-dlq", "mails", 3, errBroken)
		require.NoError(o, o.Publish(o.Context(), "orders", admin.By{}, &queue.Message{Body: []byte("a")}))
		all, err := o.Stats(o.Context())
		require.NoError(o, err)
		var names []string
		for _, s := range all {
			names = append(names, s.Queue)
			require.NoError(o, s.Err)
			assert.Equal(o, "memory", s.Backend)
			assert.Equal(o, memory.System, s.Source)
			assert.WithinDuration(o, time.Now(), s.AsOf, time.Second)
		}
		assert.Equal(o, []string{"orders", "orders-dlq", "mails", "leads", "shared-dlq"}, names)
		assert.EqualValues(o, 1, *all[0].Ready)
		assert.EqualValues(o, 3, *all[4].Ready)
		assert.Equal(o, "orders-dlq", all[0].DeadLetter)
		assert.Equal(o, []string{"mails", "leads"}, all[4].DeadLetterOf)

		some, err := o.Stats(o.Context(), "*-dlq")
		require.NoError(o, err)
		assert.Len(o, some, 2)
		_, err = o.Stats(o.Context(), "nothing*")
		require.ErrorIs(o, err, queue.ErrInvalid)
	})
}

// odd is a backend of which some queues don't answer, and others don't know.
type odd struct{ queue.Backend }

func (b odd) Open(ctx context.Context, name string, opts *queue.OpenOptions) (queue.Queue, error) {
	q, err := b.Backend.Open(ctx, name, opts)
	switch name {
	case "hangs":
		return hanging{q}, err
	case "unknown":
		return unknowing{q}, err
	case "silent":
		return struct{ queue.Queue }{q}, err
	}
	return q, err
}

type hanging struct{ queue.Queue }

func (hanging) Stats(ctx context.Context) (queue.Stats, error) {
	<-ctx.Done()
	return queue.Stats{}, context.Cause(ctx)
}

func (hanging) Peek(context.Context, int) ([]*queue.Delivery, error) { return nil, nil }

type unknowing struct{ queue.Queue }

func (unknowing) Stats(context.Context) (queue.Stats, error) {
	return queue.Stats{AsOf: time.Now(), Source: "nowhere"}, nil
}

func (unknowing) Peek(context.Context, int) ([]*queue.Delivery, error) { return nil, nil }

func TestAQueueThatDoesNotAnswerHasARowOfItsOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broker := memory.New(nil)
		for _, name := range []string{"hangs", "unknown", "silent", "orders"} {
			_, err := broker.Ensure(t.Context(), name, nil)
			require.NoError(t, err)
		}
		bus := openBus(t, "backend: odd\nqueues: {hangs: {}, unknown: {}, silent: {}, missing: {}, orders: {}}", config.Backends{"odd": odd{broker}}, &lines{})
		defer func() { assert.NoError(t, bus.Close(context.Background())) }()
		a, err := admin.New(t.Context(), bus, &admin.Options{Timeout: 3 * time.Second})
		require.NoError(t, err)
		begun := time.Now()
		rows, err := a.Stats(t.Context())
		require.NoError(t, err)
		assert.Equal(t, 3*time.Second, time.Since(begun))
		require.ErrorIs(t, rows[0].Err, context.DeadlineExceeded)
		require.NoError(t, rows[1].Err)
		assert.Nil(t, rows[1].Ready)
		require.ErrorIs(t, rows[2].Err, queue.ErrUnsupported)
		require.ErrorIs(t, rows[3].Err, queue.ErrQueueNotFound)
		require.NoError(t, rows[4].Err)
		assert.EqualValues(t, 0, *rows[4].Ready)

		data, err := json.Marshal(rows[1])
		require.NoError(t, err)
		assert.Contains(t, string(data), `"ready":null`, "unknown isn't 0")
		data, err = json.Marshal(rows[4])
		require.NoError(t, err)
		assert.Contains(t, string(data), `"ready":0`)
		assert.Contains(t, string(data), `"oldest_age_seconds":0`)
		data, err = json.Marshal(rows[3])
		require.NoError(t, err)
		assert.Contains(t, string(data), "missing")
	})
}

func TestPeekPurgeAndPublish(t *testing.T) {
	inOffice(t, `
backend: memory
queues:
  orders: {delay: 1h}
  mails: {}
`, admin.Options{}, func(o *office) {
		require.NoError(o, o.Publish(o.Context(), "mails", admin.By{}, &queue.Message{Body: []byte("a")}, &queue.Message{Body: []byte("b")}))
		for _, peek := range []func(context.Context, string, int) ([]*queue.Delivery, error){o.Peek, o.PeekConfirmed} {
			ds, err := peek(o.Context(), "mails", 5)
			require.NoError(o, err)
			assert.Len(o, ds, 2)
			_, err = peek(o.Context(), "nothing", 5)
			require.ErrorIs(o, err, queue.ErrInvalid)
		}
		require.NoError(o, o.Publish(o.Context(), "orders", admin.By{}, &queue.Message{Body: []byte("c")}))
		s, err := o.Stats(o.Context(), "orders")
		require.NoError(o, err)
		assert.EqualValues(o, 1, *s[0].Delayed, "as the file says")

		require.NoError(o, o.Purge(o.Context(), "mails", admin.By{Actor: "ada", Reason: "tests"}))
		o.has(map[string]int{"mails": 0, "orders": 1})
		assert.Contains(o, o.log.String(), "purged queue=mails actor=ada reason=tests")
		require.Error(o, o.Purge(o.Context(), "nothing", admin.By{}))
		heal := o.broker.Fail(memory.Fault{Queue: "mails"})
		require.Error(o, o.Publish(o.Context(), "mails", admin.By{Actor: "bob", Reason: "a try"}, &queue.Message{Body: []byte("d")}))
		heal()
		assert.Contains(o, o.log.String(), "\"publish failed\" queue=mails count=1 actor=bob reason=\"a try\" err=")
		require.NoError(o, o.Publish(o.Context(), "mails", admin.By{Actor: "bob"}, &queue.Message{Body: []byte("e")}, &queue.Message{Body: []byte("f")}))
		assert.Contains(o, o.log.String(), "msg=published queue=mails count=2 actor=bob")
		require.Error(o, o.Publish(o.Context(), "nothing", admin.By{}, &queue.Message{Body: []byte("d")}))
	})
}

func TestDeadLettersWithLikeFailuresAreAGroup(t *testing.T) {
	inOffice(t, shop, admin.Options{}, func(o *office) {
		o.die("shared-dlq", "mails", 2, errors.New("mail 17: no such address"))
		o.die("shared-dlq", "leads", 4, errBroken)
		o.die("shared-dlq", "mails", 1, errors.New("mail 4711: no such address"))
		o.die("shared-dlq", "mails", 1, errBroken)
		require.NoError(o, o.Publish(o.Context(), "shared-dlq", admin.By{}, &queue.Message{Body: []byte("by hand")}))
		ds, err := o.Peek(o.Context(), "shared-dlq", 100)
		require.NoError(o, err)
		groups := admin.Group(ds)
		require.Len(o, groups, 3)
		assert.Equal(o, []int{5, 3, 1}, []int{groups[0].Count, groups[1].Count, groups[2].Count})
		assert.Equal(o, "broken", groups[0].Error)
		assert.Equal(o, []string{"leads", "mails"}, groups[0].Sources)
		assert.Equal(o, []string{"mails"}, groups[1].Sources)
		assert.Empty(o, groups[2].Sources)
		assert.Equal(o, 2*time.Second, groups[1].Last.Sub(groups[1].First))
		assert.Empty(o, groups[2].Fingerprint)
	})
}

func TestPlanChangesNothing(t *testing.T) {
	t.Parallel()
	broker, log := memory.New(nil), &lines{}
	bus := openBus(t, shop, config.Backends{"memory": broker}, log)
	a, err := admin.New(t.Context(), bus, &admin.Options{Logger: slog.New(slog.NewTextHandler(log, nil))})
	require.NoError(t, err)
	for range 2 {
		plan, err := a.Plan(t.Context(), &config.EnsureOptions{Only: []string{"orders"}})
		require.NoError(t, err)
		require.Len(t, plan, 2)
		assert.NotEmpty(t, plan[0].Report.Created)
	}
	done, err := a.Ensure(t.Context(), nil, admin.By{Actor: "ada", Reason: "new"})
	require.NoError(t, err)
	assert.Len(t, done, 5)
	assert.Equal(t, 5, strings.Count(log.String(), "msg=created"), "of a plan there's no line")
	assert.Contains(t, log.String(), `queue=orders-dlq what="[queue orders-dlq]" actor=ada reason=new`)
	plan, err := a.Plan(t.Context(), nil)
	require.NoError(t, err)
	for _, e := range plan {
		assert.Empty(t, e.Report, e.Queue)
	}
	require.NoError(t, bus.Close(t.Context()))
}

func TestOptionsThatCannotBeMeantAreRefused(t *testing.T) {
	t.Parallel()
	bus := openBus(t, shop, config.Backends{"memory": memory.New(nil)}, &lines{})
	_, err := admin.New(t.Context(), nil, nil)
	require.ErrorIs(t, err, queue.ErrInvalid)
	for _, o := range []admin.Options{{Parallel: -1}, {Timeout: -1}} {
		_, err := admin.New(t.Context(), bus, &o)
		require.ErrorIs(t, err, queue.ErrInvalid)
	}
	require.NoError(t, bus.Close(t.Context()))
}

// A provider that's down keeps nobody from seeing the queues of the others.
func TestAProviderThatIsDownDoesNotHideTheQueuesOfOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		text := "backend: memory\nqueues:\n"
		for i := range 250 {
			text += fmt.Sprintf("  far-%d: {backend: down}\n", i)
		}
		for i := range 50 {
			text += fmt.Sprintf("  near-%d: {}\n", i)
		}
		bus := openBus(t, text, config.Backends{"memory": memory.New(&memory.Options{Create: true}), "down": down{memory.New(nil)}}, &lines{})
		defer func() { assert.NoError(t, bus.Close(context.Background())) }()
		a, err := admin.New(t.Context(), bus, nil)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		begun := time.Now()
		rows, err := a.Stats(ctx)
		require.NoError(t, err)
		assert.Equal(t, 5*time.Second, time.Since(begun))
		for _, r := range rows {
			if r.Backend == "down" {
				require.ErrorIs(t, r.Err, context.DeadlineExceeded, r.Queue)
			} else {
				require.NoError(t, r.Err, r.Queue)
			}
		}

		begun = time.Now()
		rows, err = a.Stats(t.Context())
		require.NoError(t, err)
		assert.Equal(t, 10*time.Second, time.Since(begun), "they aren't waited for one after the other")
		require.ErrorIs(t, rows[249].Err, context.DeadlineExceeded)
		require.NoError(t, rows[250].Err)
	})
}

// stuck is a backend whose queues can't be purged.
type stuck struct{ queue.Backend }

func (b stuck) Open(ctx context.Context, name string, opts *queue.OpenOptions) (queue.Queue, error) {
	q, err := b.Backend.Open(ctx, name, opts)
	return full{q}, err
}

type full struct{ queue.Queue }

func (full) Purge(context.Context) error { return errBroken }

func TestAPurgeThatFailsIsNotLoggedAsDone(t *testing.T) {
	t.Parallel()
	log := &lines{}
	bus := openBus(t, shop, config.Backends{"memory": stuck{memory.New(&memory.Options{Create: true})}}, log)
	defer func() { assert.NoError(t, bus.Close(context.Background())) }()
	a, err := admin.New(t.Context(), bus, &admin.Options{Logger: slog.New(slog.NewTextHandler(log, nil))})
	require.NoError(t, err)
	require.ErrorIs(t, a.Purge(t.Context(), "orders", admin.By{Actor: "ada"}), errBroken)
	assert.Contains(t, log.String(), `"purge failed" queue=orders actor=ada reason="" err=broken`)
	assert.NotContains(t, log.String(), "purged")
}

// down is a backend that doesn't answer.
type down struct{ queue.Backend }

func (down) Open(ctx context.Context, _ string, _ *queue.OpenOptions) (queue.Queue, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}
