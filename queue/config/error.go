package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/anyqueue/anyqueue/queue"
)

// Error lists everything that is wrong with a file, in the order of the file.
// It matches queue.ErrInvalid.
type Error struct {
	Problems []Problem
}

// Problem is one thing that is wrong with a file.
type Problem struct {
	File   string // as given to Parse or Open
	Line   int    // from 1; 0: not known, or not from a file
	Column int    // from 1; 0: not known
	Path   string // such as queues.orders.retry.min; empty: the file as a whole
	Reason string
}

// String returns "file:line:column: path: reason", without what isn't known.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
		if p.Column > 0 {
			fmt.Fprintf(&b, ":%d", p.Column)
		}
	}
	b.WriteString(": ")
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Reason)
	return b.String()
}

// Error returns one line for each problem.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Is reports that an Error is a queue.ErrInvalid.
func (e *Error) Is(target error) bool { return target == queue.ErrInvalid }

// newError sorts the problems by their place and leaves out repeats: a default
// that is wrong is found once for each queue that inherits it. It returns nil
// when there are none.
func newError(problems []Problem) error {
	if len(problems) == 0 {
		return nil
	}
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Reason, b.Reason))
	})
	return &Error{Problems: slices.Compact(problems)}
}
