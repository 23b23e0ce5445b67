package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

var errDamaged = errors.New("messages arrived damaged")

// patience is how long a message may take to be handled.
const patience = time.Minute

// work watches numbered messages being handled.
type work struct {
	done    []atomic.Bool // by the number of the message
	at      []time.Time   // when its handler started first
	left    atomic.Int64  // that weren't handled yet
	damaged atomic.Int64

	last     func() // called when the last one is handled
	finished chan struct{}
	end      time.Time
}

func newWork(n int, last func()) *work {
	w := &work{done: make([]atomic.Bool, n), at: make([]time.Time, n), last: last, finished: make(chan struct{})}
	w.left.Store(int64(n))
	return w
}

// started counts a message.
func (w *work) started(i int) {
	now := time.Now()
	if i < 0 || i >= len(w.done) {
		w.damaged.Add(1)
		return
	}
	if w.done[i].Swap(true) {
		return
	}
	w.at[i] = now
	if w.left.Add(-1) == 0 {
		w.end = now
		w.last()
		close(w.finished)
	}
}

// wait returns when each message was handled at least once.
func (w *work) wait() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	select {
	case <-w.finished:
	case <-ctx.Done():
		return fmt.Errorf("%d of %d messages weren't handled", w.left.Load(), len(w.done))
	}
	if w.damaged.Load() > 0 {
		return errDamaged
	}
	return nil
}
