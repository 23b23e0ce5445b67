package main

import (
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"
)

// A timeline tells a person what happens, with the time since the start. It may
// be used concurrently.
type timeline struct {
	start time.Time

	mu  sync.Mutex
	out io.Writer
	err error // of the first write that failed
}

func newTimeline(out io.Writer) *timeline { return &timeline{start: time.Now(), out: out} }

// tell prints an event.
func (t *timeline) tell(format string, args ...any) {
	line := fmt.Sprintf("%6.2fs  %s\n", time.Since(t.start).Seconds(), fmt.Sprintf(format, args...))
	t.print(line)
}

// print prints a line as it is.
func (t *timeline) print(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, err := io.WriteString(t.out, line); err != nil && t.err == nil {
		t.err = err
	}
}

// failed returns the error of the first line that couldn't be printed.
func (t *timeline) failed() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// count writes a number for people: 12,345.
func count(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
