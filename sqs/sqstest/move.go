package sqstest

import (
	"context"
	"encoding/base64"
	"slices"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/internal/broker"
)

// moveTask moves what's in a dead-letter queue back to where it came from, or to
// another queue.
type moveTask struct {
	id      string
	source  *core
	to      *core // nil: where each message came from
	rate    int   // messages a second; 0: as fast as it can
	toMove  int   // when it began
	started time.Time
	cancel  chan struct{}

	mu     sync.Mutex
	status string
	moved  int
	reason string
}

// The states of a task.
const (
	running    = "RUNNING"
	completed  = "COMPLETED"
	cancelling = "CANCELLING"
	cancelled  = "CANCELLED"
	failed     = "FAILED"
)

const (
	maxMoveRate = 500
	tasksShown  = 10
)

func (t *moveTask) handle() string {
	return base64.StdEncoding.EncodeToString([]byte(`{"taskId":"` + t.id + `","sourceArn":"` + t.source.arn + `"}`))
}

func startMoveTask(_ context.Context, c *call) ([]byte, *apiError) {
	var in struct {
		SourceArn, DestinationArn    string
		MaxNumberOfMessagesPerSecond *int
	}
	if err := decode(c.body, &in); err != nil {
		return nil, err
	}
	t := &moveTask{id: newID(), started: c.wall(), cancel: make(chan struct{}), status: running}
	if n := in.MaxNumberOfMessagesPerSecond; n != nil {
		if t.rate = *n; *n < 1 || *n > maxMoveRate {
			return nil, fail(invalidParameter, "Value %d for parameter MaxNumberOfMessagesPerSecond is invalid. Reason: You must specify a value between 1 and 500.", *n)
		}
	}
	if t.source = c.queueOf(in.SourceArn); t.source == nil {
		return nil, fail(resourceNotFound, "The resource that you specified for the SourceArn parameter doesn't exist.")
	}
	if len(c.sources(t.source)) == 0 {
		return nil, fail(invalidParameter, "Source queue must be configured as a Dead Letter Queue.")
	}
	if in.DestinationArn != "" {
		if t.to = c.queueOf(in.DestinationArn); t.to == nil {
			return nil, fail(resourceNotFound, "The resource that you specified for the DestinationArn parameter doesn't exist.")
		}
		if t.to.fifo != t.source.fifo {
			return nil, fail(invalidParameter, "The destination queue must be of the same type as the source queue.")
		}
	}
	t.toMove = t.source.q.Counts(c.now()).Ready
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, other := range c.tasks {
		if other.source == t.source && other.active() {
			return nil, fail(invalidParameter, "There is already a task running. Only one active task is allowed for a source queue arn at a given time.")
		}
	}
	done, closed := c.begin()
	if closed != nil {
		return nil, fail(internalFailure, "%v", closed)
	}
	c.tasks = append(c.tasks, t)
	go func() {
		defer done()
		c.move(t)
	}()
	w := &writer{}
	w.object("", func() { w.string("TaskHandle", t.handle()) })
	return w.b, nil
}

func (t *moveTask) active() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.status == running || t.status == cancelling
}

// move runs a task: until the queue has nothing more to receive.
func (s *Server) move(t *moveTask) {
	status, reason := completed, ""
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.status, t.reason = status, reason
	}()
	batch := maxEntries
	if t.rate > 0 {
		batch = 1
	}
	for {
		select {
		case <-t.cancel:
			status = cancelled
			return
		case <-s.closed:
			status = cancelled
			return
		default:
		}
		got, err := t.source.q.Receive(context.Background(), broker.Request{Max: batch, Lease: maxVisibility, Wait: -1})
		if err != nil {
			status, reason = failed, err.Error()
			return
		}
		if got == nil {
			return
		}
		ops := make([]broker.Op[*message], len(got.Leases))
		for i, l := range got.Leases {
			ops[i] = broker.Op[*message]{Item: l.Item, Gen: l.Gen, Kind: broker.Ack}
			if !s.sendAgain(t, l.Item.Payload) {
				ops[i].Kind = broker.Release
				status, reason = failed, "CouldNotDetermineMessageSource"
			}
		}
		t.source.q.Settle(s.now(), false, ops)
		t.source.q.Recycle(got)
		if status == failed {
			return
		}
		t.mu.Lock()
		t.moved += len(ops)
		t.mu.Unlock()
		if t.rate > 0 && !t.pause(s, time.Second/time.Duration(t.rate)) {
			status = cancelled
			return
		}
	}
}

func (t *moveTask) pause(s *Server, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-t.cancel:
	case <-s.closed:
	}
	return false
}

// sendAgain sends a message as a new one: with a new id, and as if it had just
// been sent.
func (s *Server) sendAgain(t *moveTask, m *message) bool {
	to := t.to
	if to == nil {
		if to = s.queueOf(m.origin.arn); to == nil || to == t.source {
			return false
		}
	}
	again := &message{
		number: s.number.Add(1), id: newID(), body: m.body, attrs: m.attrs, trace: m.trace, group: m.group, dedup: m.dedup,
		origin: to, md5Body: m.md5Body, md5Attrs: m.md5Attrs,
	}
	if to.fifo {
		again.dedup = m.id // so that it isn't taken for a repeat
	}
	o := &outgoing{m: again, size: len(m.body)}
	for _, a := range m.attrs {
		o.size += len(a.name) + len(a.dataType) + len(a.value)
	}
	if again.group != "" {
		to.tenants.Store(true)
	}
	to.q.Send(s.now(), false, []broker.Entry[*message]{entryOf(o)})
	return true
}

func listMoveTasks(_ context.Context, c *call) ([]byte, *apiError) {
	var in struct {
		SourceArn  string
		MaxResults *int
	}
	if err := decode(c.body, &in); err != nil {
		return nil, err
	}
	n := 1
	if in.MaxResults != nil {
		if n = *in.MaxResults; n < 1 || n > tasksShown {
			return nil, fail(invalidParameter, "Value %d for parameter MaxResults is invalid. Reason: You must specify a value between 1 and 10.", n)
		}
	}
	source := c.queueOf(in.SourceArn)
	if source == nil {
		return nil, fail(resourceNotFound, "The resource that you specified for the SourceArn parameter doesn't exist.")
	}
	c.mu.RLock()
	tasks := slices.Clone(c.tasks)
	c.mu.RUnlock()
	w := &writer{}
	w.object("", func() {
		w.array("Results", func() {
			for _, t := range slices.Backward(tasks) { // the newest first
				if t.source == source && n > 0 {
					n--
					w.object("", func() { t.write(w) })
				}
			}
		})
	})
	return w.b, nil
}

func (t *moveTask) write(w *writer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.status == running {
		w.string("TaskHandle", t.handle())
	}
	w.string("Status", t.status)
	w.string("SourceArn", t.source.arn)
	if t.to != nil {
		w.string("DestinationArn", t.to.arn)
	}
	if t.rate > 0 {
		w.int("MaxNumberOfMessagesPerSecond", int64(t.rate))
	}
	w.int("ApproximateNumberOfMessagesMoved", int64(t.moved))
	w.int("ApproximateNumberOfMessagesToMove", int64(t.toMove))
	w.optional("FailureReason", t.reason)
	w.int("StartedTimestamp", t.started.UnixMilli())
}

func cancelMoveTask(_ context.Context, c *call) ([]byte, *apiError) {
	var in struct{ TaskHandle string }
	if err := decode(c.body, &in); err != nil {
		return nil, err
	}
	if in.TaskHandle == "" {
		return nil, fail(missingParameter, "The request must contain the parameter TaskHandle.")
	}
	c.mu.RLock()
	tasks := slices.Clone(c.tasks)
	c.mu.RUnlock()
	i := slices.IndexFunc(tasks, func(t *moveTask) bool { return t.handle() == in.TaskHandle })
	if i < 0 {
		return nil, fail(resourceNotFound, "Task does not exist.")
	}
	moved, ok := tasks[i].end()
	if !ok {
		return nil, fail(resourceNotFound, "Only active tasks can be cancelled.")
	}
	w := &writer{}
	w.object("", func() { w.int("ApproximateNumberOfMessagesMoved", int64(moved)) })
	return w.b, nil
}

// end cancels a running task, and tells what it has moved so far.
func (t *moveTask) end() (moved int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.status != running {
		return 0, false
	}
	t.status = cancelling
	close(t.cancel)
	return t.moved, true
}
