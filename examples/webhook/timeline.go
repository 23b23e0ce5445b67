package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
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

// board follows the logs of the third parties while the demonstration runs, so
// that it knows when to go on. What counts in the end is the judge. It may be
// used concurrently.
type board struct {
	mu       sync.Mutex
	accepted map[string]string // kinds by id
	recorded map[string]bool
	missing  map[string]string // accepted and not recorded yet
	tries    int
	changed  chan struct{} // closed at the next change
}

func newBoard() *board {
	return &board{
		accepted: map[string]string{}, recorded: map[string]bool{}, missing: map[string]string{},
		changed: make(chan struct{}),
	}
}

func (b *board) answered(s sent) {
	b.change(func() {
		b.tries++
		if !s.accepted() {
			return
		}
		b.accepted[s.id] = s.kind
		if !b.recorded[s.id] {
			b.missing[s.id] = s.kind
		}
	})
}

func (b *board) took(id string) {
	b.change(func() {
		b.recorded[id] = true
		delete(b.missing, id)
	})
}

func (b *board) change(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
	close(b.changed)
	b.changed = make(chan struct{})
}

// counts returns how many requests were sent, and how many events were accepted
// and recorded.
func (b *board) counts() (tries, accepted, recorded int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tries, len(b.accepted), len(b.recorded)
}

// notRecorded returns how many accepted events aren't recorded, complaints
// apart.
func (b *board) notRecorded() (complaints, others int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range b.missing {
		if k == "complained" {
			complaints++
		} else {
			others++
		}
	}
	return complaints, others
}

// complaints returns the ids of the accepted complaints that aren't recorded.
func (b *board) complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var ids []string
	for id, k := range b.missing {
		if k == "complained" {
			ids = append(ids, id)
		}
	}
	return ids
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
