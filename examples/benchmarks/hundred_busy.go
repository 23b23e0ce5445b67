package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/config"
)

const (
	blockedQueue = "partner-initech"
	failingQueue = "partner-hooli"

	// hundredWindow is how many messages of a queue are published and not handled.
	hundredWindow = 200
	hundredRounds = 7
	hundredLeast  = 0.85 // of what the others do otherwise

	hundredOthers = "messages/s of 118"
)

// measureHundredBusy has a hundred and twenty queues in memory handle as much as they
// can, all well at one time, and one of them blocked and one failing at the other: with
// handlers that wait, as most do, and with handlers that do nothing, where it's the
// processor that all of them want.
func measureHundredBusy(o options, r *report) error {
	for _, m := range []struct {
		name string
		work time.Duration
	}{
		{"handlers of 20 ms", 20 * time.Millisecond}, {"no-op handlers", 0},
	} {
		fs, err := interleave(min(hundredRounds, o.rounds),
			func() (figures, error) { return hundredBusy(o.hundredBusy, m.work, false) },
			func() (figures, error) { return hundredBusy(o.hundredBusy, m.work, true) })
		if err != nil {
			return err
		}
		r.add("hundred-busy, "+m.name, map[string]figures{"all are well": fs[0], "one blocked, one failing": fs[1]})
		well, beside := fs[0][hundredOthers], fs[1][hundredOthers]
		r.target(target{
			Name: "118 busy queues beside a blocked and a failing one, " + m.name, Unit: "x", Atleast: true, Want: hundredLeast,
			Got: ratio(beside, well), Figure: beside, FigureUnit: "messages/s", Floor: well,
		})
	}
	return nil
}

// hundredBusy measures one round.
func hundredBusy(d, work time.Duration, sick bool) (f figures, err error) {
	broker := memory.New(&memory.Options{Create: true})
	h, err := openHundred(broker, func(q *config.Queue) {
		// What's to limit them is the machine, and what fails is to go on failing.
		q.Limit, q.Rate, q.Delay, q.DrainTimeout = "", 0, 0, -1
		if q.DeadLetter != nil {
			q.DeadLetter.MaxFailures = 0
		}
	})
	if err != nil {
		return nil, err
	}
	handled := make([]atomic.Int64, len(h.work))
	rooms := make([]chan struct{}, len(h.work))
	failed := errors.New("it's down")
	number := map[string]int{}
	for i, name := range h.work {
		number[name] = i
		rooms[i] = make(chan struct{}, hundredWindow)
	}
	var failures atomic.Int64
	if err := h.run(func(name string) queue.Handler {
		i := number[name]
		switch {
		case sick && name == blockedQueue:
			return func(ctx context.Context, _ *queue.Delivery) error {
				<-ctx.Done()
				return ctx.Err()
			}
		case sick && name == failingQueue:
			return func(context.Context, *queue.Delivery) error {
				failures.Add(1)
				return failed
			}
		}
		return func(context.Context, *queue.Delivery) error {
			if work > 0 {
				time.Sleep(work)
			}
			handled[i].Add(1)
			<-rooms[i]
			return nil
		}
	}); err != nil {
		return nil, err
	}
	defer func() { err = errorsFirst(err, h.close()) }()

	publishing, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	errs := make([]error, len(h.work))
	for i, name := range h.work {
		wg.Go(func() {
			errs[i] = hundredPublish(publishing, h.bus.Publisher(name), h.file.Queue(name).Ordered, rooms[i])
		})
	}
	time.Sleep(d / 2) // warm, and the sick ones full
	before := counts(handled)
	begun := time.Now()
	time.Sleep(d)
	after := counts(handled)
	lasted := time.Since(begun).Seconds()
	stop()
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	all, slowest := 0.0, -1.0
	for i, name := range h.work {
		if name == blockedQueue || name == failingQueue {
			continue
		}
		rate := float64(after[i]-before[i]) / lasted
		all += rate
		if slowest < 0 || rate < slowest {
			slowest = rate
		}
	}
	return figures{hundredOthers: all, "messages/s of the slowest": slowest, "failures/s": float64(failures.Load()) / lasted}, nil
}

func counts(of []atomic.Int64) []int64 {
	out := make([]int64, len(of))
	for i := range of {
		out[i] = of[i].Load()
	}
	return out
}

// hundredPublish publishes while there's room.
func hundredPublish(ctx context.Context, p queue.Publisher, ordered bool, room chan struct{}) error {
	attributes := newAttributes()
	for n := 0; ; n++ {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		m := &queue.Message{Body: newBody(), Attributes: attributes}
		if ordered {
			m.OrderingKey = string(rune('a' + n%26))
		}
		if err := p.Publish(ctx, m); err != nil && ctx.Err() == nil {
			return err
		}
	}
}
