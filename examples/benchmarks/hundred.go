package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/anyqueue/anyqueue/examples/hundred/traffic"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/config"
)

// hundred is the file of examples/hundred with all of its queues on one backend, and a
// bus for it.
type hundred struct {
	file *config.File
	bus  *config.Bus
	work []string // the queues that are consumed

	ran  chan error
	stop context.CancelFunc
}

// openHundred has no consumers yet. Change may change the file.
func openHundred(b queue.Backend, change func(*config.Queue)) (*hundred, error) {
	file, err := traffic.File(func(name string) (string, bool) { return "bench", name == "QUEUE_BACKEND" })
	if err != nil {
		return nil, err
	}
	h := &hundred{file: file}
	for _, q := range file.Queues {
		if change != nil {
			change(q)
		}
		if !traffic.IsDeadLetterQueue(q.Name) {
			h.work = append(h.work, q.Name)
		}
	}
	h.bus, err = config.OpenFile(file, config.Backends{"bench": b}, &config.Options{Logger: slog.New(slog.DiscardHandler)})
	return h, err
}

// run starts all consumers, and returns when they run.
func (h *hundred) run(handler func(name string) queue.Handler) error {
	for _, name := range h.work {
		h.bus.Handle(name, handler(name))
	}
	ctx, stop := context.WithCancel(context.Background())
	h.stop, h.ran = stop, make(chan error, 1)
	go func() { h.ran <- h.bus.Run(ctx) }()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		running := 0
		for _, s := range h.bus.States() {
			if s.Status == config.Running {
				running++
			}
			if s.Err != nil {
				return errors.Join(fmt.Errorf("%s: %w", s.Queue, s.Err), h.close())
			}
		}
		if running == len(h.work) {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("only %d of %d consumers run", running, len(h.work)), h.close())
		}
	}
}

func (h *hundred) close() error {
	var err error
	if h.stop != nil {
		h.stop()
		var left *queue.AbandonedError
		if err = <-h.ran; errors.As(err, &left) {
			err = nil // of the queue that's blocked
		}
	}
	return errors.Join(err, h.bus.Close(context.Background()))
}
