// Package traffic has a file of a hundred and twenty queues and what goes through them:
// messages fast and slow, single and in bursts, in order and delayed, and handlers that
// fail in all ways. Load tests and demonstrations stand on it.
package traffic

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/config"
)

//go:embed queues.yaml
var queuesYAML []byte

// File returns the queues, with variables of lookup.
func File(lookup func(string) (string, bool)) (*config.File, error) {
	return config.Parse("queues.yaml", queuesYAML, lookup)
}

// Options are the settings of New.
type Options struct {
	Rate float64  // messages a second over all queues
	Only []string // patterns of the queues that get messages; default: all
}

// Traffic is what goes through the queues of a bus.
type Traffic struct {
	bus    *config.Bus
	ledger *Ledger
	opts   Options
	run    string
	queues []string // that get messages
	shares float64
}

// New returns traffic for the queues of a bus, which has the ledger's hooks.
func New(bus *config.Bus, ledger *Ledger, opts Options) (*Traffic, error) {
	names, err := bus.Names(opts.Only...)
	if err != nil {
		return nil, err
	}
	t := &Traffic{bus: bus, ledger: ledger, opts: opts, run: uuid.NewString()[:8]}
	for _, name := range names {
		if share := CharacterOf(name).Share; share > 0 {
			t.queues = append(t.queues, name)
			t.shares += share
		}
	}
	return t, nil
}

// Handle gives all queues but the dead-letter queues their handlers.
func (t *Traffic) Handle() {
	for _, q := range t.bus.File().Queues {
		if !IsDeadLetterQueue(q.Name) {
			t.bus.Handle(q.Name, t.handler(CharacterOf(q.Name)))
		}
	}
}

// The handlers' errors.
var (
	errBusy    = errors.New("the other side is busy")
	errRefused = errors.New("422 Unprocessable Entity: the address doesn't exist")
	errLasting = errors.New("the customer has been merged into another one")
)

// handler is one that has the character. What becomes of a message that doesn't go well
// is the same at each try.
func (t *Traffic) handler(c Character) queue.Handler {
	return func(ctx context.Context, d *queue.Delivery) error {
		work := c.Work
		if rand.IntN(100) == 0 {
			work *= 10
		}
		at := fate(d.ID)
		for _, f := range []struct {
			part float64
			do   func() error
		}{
			{c.Refused, func() error { return queue.Reject(errRefused) }},
			{c.Lasting, func() error { return errLasting }},
			{c.Panics, func() error { panic("image: unknown format") }},
			{c.Hangs, func() error { <-ctx.Done(); return ctx.Err() }},
		} {
			if at -= f.part; at < 0 {
				return f.do()
			}
		}
		if err := rest(ctx, work); err != nil {
			return err
		}
		if rand.Float64() < c.Passing {
			return errBusy
		}
		if d.Attributes[runAttribute] == t.run {
			t.ledger.handled(d.ID)
		}
		return nil
	}
}

// fate is the same number from 0 to 1 for the same message.
func fate(id string) float64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id)) // a hash takes all
	return float64(h.Sum64()>>11) / (1 << 53)
}

// rest waits, unless ctx ends.
func rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Publish publishes to each queue at its share of the rate until ctx ends. A queue that
// is slow to publish to doesn't hold up the others. Failures are in the ledger, and the
// first one of each queue is returned.
func (t *Traffic) Publish(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make([]error, len(t.queues))
	for i, name := range t.queues {
		wg.Go(func() { errs[i] = t.publish(ctx, name) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (t *Traffic) publish(ctx context.Context, name string) (first error) {
	c := CharacterOf(name)
	p := t.bus.Publisher(name)
	q := t.bus.File().Queue(name)
	burst := max(c.Burst, 1)
	pause := time.Duration(float64(burst) / (t.opts.Rate * c.Share / t.shares) * float64(time.Second))
	for n := 0; ; {
		// As if many did so by chance.
		if rest(ctx, time.Duration(rand.ExpFloat64()*float64(pause))) != nil {
			return first
		}
		msgs := make([]*queue.Message, 0, burst)
		for range burst {
			n++
			msgs = append(msgs, t.message(q, n, c))
		}
		if err := t.send(ctx, p, q, n-burst, msgs); err != nil && first == nil && ctx.Err() == nil {
			first = fmt.Errorf("publishing to %s: %w", name, err)
		}
	}
}

// send publishes what has begun to its end. The messages are those of the queue after
// so many.
func (t *Traffic) send(ctx context.Context, p queue.Publisher, q *config.Queue, after int, msgs []*queue.Message) error {
	for i, m := range msgs {
		s := sent{number: after + i + 1}
		if q.Ordered {
			s.line = line{q.Name, m.OrderingKey}
		}
		if q.Delay > 0 {
			s.due = time.Now().Add(q.Delay)
		}
		t.ledger.sending(m.ID, s)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), queue.DefaultPublishTimeout)
	defer cancel()
	err := p.Publish(ctx, msgs...)
	for i, e := range queue.PublishErrors(err, len(msgs)) {
		t.ledger.published(msgs[i].ID, e)
	}
	return err
}

// runAttribute says which run a message is of: an earlier one may have left some.
const runAttribute = "run"

func (t *Traffic) message(q *config.Queue, n int, c Character) *queue.Message {
	customer := fmt.Sprintf("customer-%d", rand.IntN(cmp.Or(c.Keys, 1000)))
	m := &queue.Message{
		ID:         uuid.NewString(),
		Body:       fmt.Appendf(nil, `{"number":%d,"customer":%q,"text":%q}`, n, customer, strings.Repeat("lorem ipsum ", 10)),
		Attributes: map[string]string{runAttribute: t.run, "type": q.Name},
	}
	if q.Ordered {
		m.OrderingKey = customer
	}
	return m
}
