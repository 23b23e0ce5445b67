// Package cloudtest has what the tests on real clouds share: names that tell which run
// a queue belongs to, so that it's deleted and no other is, and the count of what was
// asked for, which costs money.
package cloudtest

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// Every begins the names of all runs, and of nothing else.
const Every = "anyqueue-ci-"

// runPrefix is what begins the name of a queue of any run, and when that run began.
var runPrefix = regexp.MustCompile(`^` + Every + `(\d{8}T\d{6}Z)-[a-z0-9]+-`)

const runStamp = "20060102T150405Z"

// oldRun is the age from which another run must have crashed.
const oldRun = 24 * time.Hour

// Prefix returns what begins the names of this run: .ci/real-cloud has put it into an
// environment variable. Without it the test is skipped.
func Prefix(t *testing.T, variable string) string {
	t.Helper()
	prefix := os.Getenv(variable)
	switch {
	case prefix == "":
		t.Skipf("%s isn't set: this is for .ci/real-cloud", variable)
	case runPrefix.FindString(prefix) != prefix:
		t.Fatalf("%s is %q, which can't be told from other runs'", variable, prefix)
	}
	return prefix
}

// Deletable reports whether something by that name may be deleted: it's of this run,
// which began with prefix, or of one that must be over.
func Deletable(name, prefix string, now time.Time) bool {
	if prefix != "" && strings.HasPrefix(name, prefix) {
		return true
	}
	m := runPrefix.FindStringSubmatch(name)
	if m == nil {
		return false
	}
	began, err := time.Parse(runStamp, m[1])
	return err == nil && now.Sub(began) > oldRun
}

// SlowPurge returns q with a Purge that waits for as long as the clouds need until the
// effect of one is complete: the suite then publishes something that must stay.
func SlowPurge(q queue.Queue) queue.Queue { return &slowPurge{q} }

type slowPurge struct{ queue.Queue }

func (s *slowPurge) Unwrap() queue.Queue { return s.Queue }

func (s *slowPurge) Purge(ctx context.Context) error {
	p, _ := queue.As[queue.Purger](s.Queue)
	if err := p.Purge(ctx); err != nil {
		return err
	}
	select {
	case <-time.After(time.Minute):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
