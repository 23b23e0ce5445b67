package remote

import (
	"sync"
	"time"
)

// Workers runs functions on goroutines that wait for a while for the next one: a
// call of an SDK needs a deep stack, and a new goroutine would have to grow it
// again. The zero value is ready; the methods may be called concurrently.
type Workers struct {
	mu     sync.Mutex
	idle   []chan func()
	closed bool
}

const (
	workerIdle = time.Second
	maxIdle    = 16
)

// Go runs f, like the statement.
func (w *Workers) Go(f func()) {
	w.mu.Lock()
	n := len(w.idle) - 1
	if n < 0 {
		w.mu.Unlock()
		go w.work(f)
		return
	}
	next := w.idle[n]
	w.idle[n] = nil
	w.idle = w.idle[:n]
	w.mu.Unlock()
	next <- f // it has room
}

// Close ends the goroutines that wait. Others end when their function has.
func (w *Workers) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for _, next := range w.idle {
		close(next)
	}
	w.idle = nil
}

func (w *Workers) work(f func()) {
	next := make(chan func(), 1)
	f()
	if !w.rest(next) {
		return
	}
	t := time.NewTimer(workerIdle)
	defer t.Stop()
	for {
		select {
		case f = <-next:
		case <-t.C:
			if w.leave(next) {
				return
			}
			f = <-next // it comes at this moment
		}
		if f == nil { // closed
			return
		}
		f()
		if !w.rest(next) {
			return
		}
		t.Reset(workerIdle)
	}
}

// rest makes a worker one that waits, unless there are enough.
func (w *Workers) rest(next chan func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || len(w.idle) >= maxIdle {
		return false
	}
	w.idle = append(w.idle, next)
	return true
}

// leave reports whether a worker may end: nothing was given to it meanwhile.
func (w *Workers) leave(next chan func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, other := range w.idle {
		if other == next {
			w.idle = append(w.idle[:i], w.idle[i+1:]...)
			return true
		}
	}
	return false
}
