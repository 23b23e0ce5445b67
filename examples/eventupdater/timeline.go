package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
)

// timeline tells a person what happens. It may be used concurrently.
type timeline struct {
	mu    sync.Mutex
	w     io.Writer
	start time.Time
}

func newTimeline(w io.Writer) *timeline { return &timeline{w: w, start: time.Now()} }

func (t *timeline) say(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.w, "%6.1fs  %s\n", t.seconds(), fmt.Sprintf(format, args...))
}

func (t *timeline) seconds() float64 { return time.Since(t.start).Seconds() }

// board follows the visitors and the CRM while the demonstration runs, so that
// it knows when to go on. What counts in the end is the judge. It may be used
// concurrently.
type board struct {
	mu       sync.Mutex
	accepted map[string]bool
	settled  map[string]bool // written, or refused for good
	failed   int             // calls
	changed  chan struct{}   // closed at the next change
}

func newBoard() *board {
	return &board{accepted: map[string]bool{}, settled: map[string]bool{}, changed: make(chan struct{})}
}

// accept notes that a visitor was thanked.
func (b *board) accept(id string) { b.change(func() { b.accepted[id] = true }) }

// called notes a call of the CRM.
func (b *board) called(r thirdparty.Request) {
	if isLogin(r) {
		return
	}
	note, _ := r.Note.(crmNote)
	b.change(func() {
		if !r.Handled() {
			b.failed++
		}
		if r.Handled() || note.code == "REQUIRED_FIELD_MISSING" {
			b.settled[note.externalID] = true
		}
	})
}

func (b *board) change(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
	close(b.changed)
	b.changed = make(chan struct{})
}

// counts returns how many visitors were thanked, how many of their leads are
// settled, and how many calls of the CRM failed.
func (b *board) counts() (accepted, settled, failed int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.accepted), len(b.settled), b.failed
}

// settledAll reports whether nothing that was accepted is still under way.
func (b *board) settledAll() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.settled) < len(b.accepted) {
		return false
	}
	for id := range b.accepted {
		if !b.settled[id] {
			return false
		}
	}
	return true
}

// until waits until ok, which is asked after each change, and reports whether
// it came to that before ctx ended.
func (b *board) until(ctx context.Context, ok func() bool) bool {
	for {
		b.mu.Lock()
		changed := b.changed
		b.mu.Unlock()
		if ok() {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// pause waits and reports whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
