package queuetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/anyqueue/anyqueue/queue"
)

// deliveries is what a consumer has collected.
type deliveries struct {
	mu sync.Mutex
	ds []queue.Delivery
}

func (g *deliveries) len() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.ds)
}

func (g *deliveries) all() []queue.Delivery {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.ds)
}

// get returns the delivery with an ID.
func (g *deliveries) get(id string) (queue.Delivery, bool) {
	for _, d := range g.all() {
		if d.ID == id {
			return d, true
		}
	}
	return queue.Delivery{}, false
}

// collect runs a consumer that acknowledges and keeps everything.
func (e *env) collect(q queue.Queue) (*deliveries, *consumer) {
	e.Helper()
	g := &deliveries{}
	return g, e.consume(q, func(_ context.Context, d *queue.Delivery) error {
		cp := *d
		cp.Body, cp.Attributes = slices.Clone(d.Body), maps.Clone(d.Attributes)
		g.mu.Lock()
		g.ds = append(g.ds, cp)
		g.mu.Unlock()
		e.poke.tell()
		return nil
	})
}

// raw reports whether the harness can publish as a foreign program; where it
// can't the suite's table must say so.
func (e *env) raw() bool {
	e.Helper()
	if e.in.PublishRaw != nil {
		return true
	}
	if !e.lacks(featureRaw) {
		e.Fatal("the harness has no PublishRaw")
	}
	return false
}

func foreignMessages(e *env) {
	q := e.open()
	if !e.raw() {
		return
	}
	attrs := map[string]string{"trace": "00-1-2-01", "content-type": "text/plain"}
	for _, err := range []error{
		e.in.PublishRaw(e.ctx, q, []byte("plain"), nil),
		e.in.PublishRaw(e.ctx, q, []byte("with attributes"), maps.Clone(attrs)),
		e.in.PublishRaw(e.ctx, q, []byte("aGVsbG8="), nil), // base64 that nobody declared
	} {
		if err != nil {
			e.Fatalf("PublishRaw: %v", err)
		}
	}
	r := e.recorder()
	c := e.consume(q, r.handle(func(_ context.Context, d *queue.Delivery, nth int) error {
		if string(d.Body) == "plain" && nth == 1 {
			return errWork
		}
		return nil
	}))
	r.awaitEnds("plain", 2)
	r.awaitEnds("aGVsbG8=", 1)
	got := r.awaitEnds("with attributes", 1)[0].d
	c.stop()
	if !maps.Equal(got.Attributes, attrs) {
		e.Errorf("attributes: got %v, want %v", got.Attributes, attrs)
	}
	for _, call := range r.all() {
		if call.d.ID == "" || call.d.ID != call.d.BrokerID || call.d.DeadLetter != nil || call.d.EnqueuedAt.IsZero() {
			e.Errorf("%q: ID %q, BrokerID %q, DeadLetter %v, EnqueuedAt %v", call.name, call.d.ID, call.d.BrokerID, call.d.DeadLetter, call.d.EnqueuedAt)
		}
	}
	equal(e, "Failures of the second delivery", r.of("plain")[1].d.Failures, 1)
	e.expectGone(q)
}

func foreignMetadata(e *env) {
	q := e.open()
	if !e.raw() {
		return
	}
	cases := map[string]map[string]string{
		"no JSON":          {queue.MetaAttribute: "{"},
		"other JSON":       {queue.MetaAttribute: `["a", 1]`},
		"a number":         {queue.MetaAttribute: "17"},
		"wrong types":      {queue.MetaAttribute: `{"id": 5, "due": "soon"}`},
		"no base64":        {queue.EncodingAttribute: "base64"},
		"unknown encoding": {queue.EncodingAttribute: "rot13"},
		"negative":         {queue.MetaAttribute: `{"n": -5, "due": -1, "enq": -1}`},
		"huge":             {queue.MetaAttribute: `{"enq": 9223372036854775807, "age": 9223372036854775807}`},
		"a gap":            {queue.MetaAttribute + "-3": "x"},
		"unknown fields":   {queue.MetaAttribute: `{"newer": {"than": "us"}}`},
	}
	for name, attrs := range cases {
		if err := e.in.PublishRaw(e.ctx, q, []byte(name+" ä?"), maps.Clone(attrs)); err != nil {
			e.Fatalf("PublishRaw(%s): %v", name, err)
		}
	}
	r := e.recorder()
	c := e.consume(q, r.handle(func(_ context.Context, _ *queue.Delivery, nth int) error {
		if nth == 1 {
			return errWork // what's settled and comes again goes through the metadata as well
		}
		return nil
	}))
	for name := range cases {
		calls := r.awaitEnds(name+" ä?", 2)
		if n := calls[0].d.Failures; n != 0 {
			e.Errorf("%s: Failures is %d before the first one", name, n)
		}
	}
	c.stop()
	if n := len(r.all()); n != 2*len(cases) {
		e.Errorf("%d deliveries, want %d", n, 2*len(cases))
	}
	e.expectGone(q)
}

// strange is an option of a provider that doesn't exist.
type strange struct{}

func (strange) System() string { return "strange_mq" }

func foreignOption(e *env) {
	q := e.open()
	m := text("m")
	m.Options = []queue.MessageOption{strange{}}
	e.wantErr(q.Publish(e.ctx, m), queue.ErrUnsupported, "publishing with another provider's option")
	m.Options = []queue.MessageOption{nil}
	e.wantErr(q.Publish(e.ctx, m), queue.ErrInvalid, "publishing with a nil option")
	e.expectGone(q)
}

func foreignHint(e *env) {
	q := e.open()
	m := text("m")
	m.Options = []queue.MessageOption{queue.Hint(strange{})}
	r := e.recorder()
	c := e.consume(q, r.ok())
	e.publish(q, m)
	r.awaitEnds("m", 1)
	c.stop()
}

func cancelledPublish(e *env) {
	q := e.open()
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	if err := q.Publish(ctx, text("m"), text("n")); err == nil {
		e.Error("Publish with a cancelled context returned nil")
	} else {
		e.wantErr(err, context.Canceled, "Publish with a cancelled context")
	}
}

func publishWhileClosing(e *env) {
	keep := e.open() // stays open for reading
	q := e.again(keep)
	const workers = 4
	var mu sync.Mutex
	var durable []string
	var failed []error
	var wg sync.WaitGroup
	begun := make(chan struct{}, workers)
	for w := range workers {
		wg.Go(func() {
			for i := range 1000 {
				name := fmt.Sprint(w, "-", i)
				err := q.Publish(e.ctx, text(name))
				mu.Lock()
				if err == nil {
					durable = append(durable, name)
				} else {
					failed = append(failed, err)
				}
				mu.Unlock()
				if err != nil {
					return
				}
				if i == 5 {
					begun <- struct{}{}
				}
			}
		})
	}
	for range workers {
		<-begun
	}
	if err := q.Close(e.ctx); err != nil {
		e.Errorf("Close while publishing: %v", err)
	}
	wg.Wait()
	for _, err := range failed {
		if !errors.Is(err, queue.ErrClosed) {
			e.Errorf("Publish while closing: got %v, want ErrClosed", err)
		}
	}
	r := e.recorder()
	c := e.consume(keep, r.ok())
	e.await("everything durable to arrive", func() bool { return r.finished() >= len(durable) })
	c.stop()
	for _, name := range durable {
		if r.started(name) == 0 {
			e.Errorf("%q was confirmed and never arrived", name)
		}
	}
}

func closedSaysSo(e *env) {
	q := e.open()
	e.publish(q, text("m"))
	d := e.take(q, 1)[0]
	for range 2 {
		if err := q.Close(e.ctx); err != nil {
			e.Errorf("Close: %v", err)
		}
	}
	e.wantErr(q.Publish(e.ctx, text("n")), queue.ErrClosed, "Publish after Close")
	_, err := q.Receive(e.ctx, 1)
	e.wantErr(err, queue.ErrClosed, "Receive after Close")
	e.wantErr(q.Settle(e.ctx, queue.Settlement{Delivery: d}), queue.ErrClosed, "Settle after Close")
	_, err = q.Extend(e.ctx, e.lease, d)
	e.wantErr(err, queue.ErrClosed, "Extend after Close")
	if q.Capabilities().Source.Name == "" {
		e.Error("Capabilities are gone after Close")
	}
}

func missingQueue(e *env) {
	for _, mode := range []queue.OpenMode{queue.ForBoth, queue.ForPublish, queue.ForConsume} {
		name := uniqueName()
		_, err := e.openNamed(opening{name, queue.OpenOptions{Mode: mode, Ordered: e.h.Ordered, Logger: e.log.logger()}})
		e.wantErr(err, queue.ErrQueueNotFound, "opening a queue that doesn't exist")
		if err != nil && !strings.Contains(err.Error(), name) {
			e.Errorf("the error doesn't name the queue: %v", err)
		}
	}
}

func nameIsChecked(e *env) {
	for _, name := range []string{"", "ab", "1abc", "has space", "ends.fifo", "googly", strings.Repeat("x", 76)} {
		_, err := e.openNamed(opening{name, queue.OpenOptions{Ordered: e.h.Ordered, Logger: e.log.logger()}})
		e.wantErr(err, queue.ErrInvalid, fmt.Sprintf("opening %q", name))
	}
}
