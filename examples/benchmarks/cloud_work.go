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
	n, _, err := w.waitFor(patience)
	if n < len(w.done) {
		return fmt.Errorf("%d of %d messages weren't handled", len(w.done)-n, len(w.done))
	}
	return err
}

// waitFor returns when each message was handled, or when time is up: how many were
// handled, and until when.
func (w *work) waitFor(d time.Duration) (handled int, end time.Time, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	select {
	case <-w.finished:
		end = w.end
	case <-ctx.Done():
		end = time.Now()
	}
	if w.damaged.Load() > 0 {
		err = errDamaged
	}
	return w.handled(), end, err
}

// handled is how many messages were handled so far.
func (w *work) handled() int { return len(w.done) - int(w.left.Load()) }
