package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/admin"
	"github.com/anyqueue/anyqueue/queue/config"
	"github.com/anyqueue/anyqueue/sqs"
)

const (
	hundredLatency = 20 * time.Millisecond
	redriveFrom    = "order-dlq"
	redriveTo      = "order-placed"
)

// measureHundredEnsure ensures the queues of the file where they exist already.
func measureHundredEnsure(o options, r *report) (err error) {
	q, err := openSQS(o, hundredLatency) // a link, and something to keep it
	if err != nil {
		return err
	}
	defer func() { err = errorsFirst(err, q.close()) }()
	// One bus creates them; others don't know of them yet.
	fs := map[string]figures{}
	for _, row := range []struct {
		name string
		dry  bool
	}{{"create", false}, {"plan", true}, {"ensure", false}} {
		h, err := openHundred(sqs.New(q.client, nil), nil)
		if err != nil {
			return err
		}
		begun, sent := time.Now(), q.link.sum().requests
		all, err := h.bus.Ensure(context.Background(), &config.EnsureOptions{DryRun: row.dry})
		lasted := time.Since(begun)
		for _, e := range all {
			err = errors.Join(err, e.Err)
			if row.name != "create" && len(e.Report.Created) > 0 {
				err = errors.Join(err, fmt.Errorf("%s wasn't there: %+v", e.Queue, e.Report))
			}
		}
		if err = errors.Join(err, h.close()); err != nil {
			return err
		}
		fs[row.name] = figures{"seconds": lasted.Seconds(), "requests/queue": float64(q.link.sum().requests-sent) / float64(len(all)), "queues": float64(len(all))}
	}
	r.add("hundred-ensure, 20 ms per call", fs)
	got := fs["ensure"]["seconds"]
	r.target(target{Name: "ensuring 120 queues that exist, at 20 ms per call", Unit: "s", Want: 10, Got: got, Figure: got})
	return nil
}

// measureHundredRedrive moves dead letters back, in memory and on SQS.
func measureHundredRedrive(o options, r *report) (err error) {
	inMemory, err := redrive(memory.New(&memory.Options{Create: true}), o.redriven)
	if err != nil {
		return err
	}
	fs := map[string]figures{"memory": inMemory}
	q, err := openSQS(o, sqsIdleLatency)
	if err != nil {
		return err
	}
	defer func() { err = errorsFirst(err, q.close()) }()
	onSQS, err := redriveOn(sqs.New(q.client, nil), o.redrivenSQS, func() {
		q.link.mu.Lock()
		defer q.link.mu.Unlock()
		clear(q.link.calls)
	})
	if err != nil {
		return err
	}
	n := float64(o.redrivenSQS)
	sends, deletes := q.link.sum(actionSend, actionSends), q.link.sum(actionDelete, actionDeletes)
	onSQS["requests/message"] = float64(q.link.sum().requests) / n
	onSQS["sent/request"], onSQS["removed/request"] = float64(sends.entries)/float64(sends.requests), float64(deletes.entries)/float64(deletes.requests)
	fs["SQS, 5 ms per call"] = onSQS
	r.add("hundred-redrive", fs)
	r.target(target{
		Name: "moving 100,000 dead letters back, in memory", Unit: "s", Want: 5, Figure: inMemory["seconds"],
		Got: inMemory["seconds"] * 100_000 / float64(o.redriven),
	})
	full := min(onSQS["sent/request"], onSQS["removed/request"])
	r.target(target{Name: "moving dead letters back on SQS, messages per request", Atleast: true, Want: 0.99 * sqsBatch, Got: full, Figure: full})
	return nil
}

func redrive(b queue.Backend, n int) (figures, error) { return redriveOn(b, n, func() {}) }

// redriveOn moves n dead letters back, from when start was called.
func redriveOn(b queue.Backend, n int, start func()) (f figures, err error) {
	ctx := context.Background()
	h, err := openHundred(b, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errorsFirst(err, h.close()) }()
	if _, err := h.bus.Ensure(ctx, &config.EnsureOptions{Only: []string{redriveTo}}); err != nil {
		return nil, err
	}
	if err := deadLetters(ctx, h.bus, n); err != nil {
		return nil, err
	}
	a, err := admin.New(ctx, h.bus, &admin.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	defer func() { err = errorsFirst(err, a.Close(ctx)) }()
	start()
	begun := time.Now()
	op, err := a.Redrive(ctx, admin.RedriveSpec{From: redriveFrom, To: redriveTo})
	if err != nil {
		return nil, err
	}
	if op, err = a.WaitRedrive(ctx, op.ID); err != nil {
		return nil, err
	}
	lasted := time.Since(begun).Seconds()
	if op.Status != admin.Done || op.Moved != n || op.Repeated != 0 {
		return nil, fmt.Errorf("it isn't as it should be: %+v", op)
	}
	return figures{"seconds": lasted, "messages/s": float64(n) / lasted}, nil
}

// deadLetters fills the dead-letter queue with what failed in the other.
func deadLetters(ctx context.Context, bus *config.Bus, n int) error {
	to, err := bus.Queue(ctx, redriveTo)
	if err != nil {
		return err
	}
	from, err := bus.Queue(ctx, redriveFrom)
	if err != nil {
		return err
	}
	failed := errors.New("it failed")
	now := time.Now()
	msgs := make([]*queue.Message, n)
	for i := range msgs {
		d := queue.NewDelivery(queue.Message{ID: fmt.Sprint("message-", i), Body: newBody(), Attributes: newAttributes()})
		d.Source = to.Capabilities().Source
		msgs[i] = queue.NewDeadLetter(d, failed, queue.ReasonFailures, now)
	}
	// As many at once as make full batches.
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	for part := range slices.Chunk(msgs, max(n/8, 1)) {
		wg.Go(func() {
			for batch := range slices.Chunk(part, 100) {
				if err := from.Publish(ctx, batch...); err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
