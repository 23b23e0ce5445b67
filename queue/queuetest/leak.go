package queuetest

import (
	"runtime"
	"strings"
	"testing"
	"time"
)

const modulePath = "github.com/anyqueue/anyqueue/"

// ourGoroutines counts, by where they were started, the goroutines that run code
// of this module, but for the caller and for tests.
func ourGoroutines() map[string]int {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	out := map[string]int{}
	for i, g := range strings.Split(string(buf), "\n\n") {
		if i == 0 || !strings.Contains(g, modulePath) || strings.Contains(g, "testing.tRunner") || strings.Contains(g, "testing/synctest.") {
			continue
		}
		_, by, _ := strings.Cut(g, "created by ")
		by, _, _ = strings.Cut(by, " in goroutine")
		out[by]++
	}
	return out
}

// expectNoneLeft fails when more goroutines run than before. It gives those that
// are about to end some time.
func expectNoneLeft(t *testing.T, before map[string]int) {
	t.Helper()
	var left []string
	for range 100 {
		left = left[:0]
		for by, n := range ourGoroutines() {
			if n > before[by] {
				left = append(left, by)
			}
		}
		if len(left) == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond) // the end of a goroutine can't be waited for from outside
	}
	t.Errorf("goroutines are left, started by:\n%s\nwhy: no goroutine outlives its owner; in a service that restarts its consumers they would add up", strings.Join(left, "\n"))
}
