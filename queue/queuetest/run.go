package queuetest

import (
	"sync"
	"testing"
	"testing/synctest"
)

// A rule is one promise of package queue and the test that holds a backend to
// it.
type rule struct {
	name string // what it promises
	why  string // printed when it's broken
	core bool
	test func(e *env)
}

// A theme gathers the rules of one file.
type theme struct {
	name  string
	rules []rule
}

func themes() []theme {
	return []theme{
		{"Publish", publishRules()},
		{"Limits", limitRules()},
		{"Subscriber", subscriberRules()},
		{"Outcomes", outcomeRules()},
		{"Attempts", attemptRules()},
		{"Delay", delayRules()},
		{"Order", orderRules()},
		{"Dedup", dedupRules()},
		{"Settling", settlingRules()},
		{"Lease", leaseRules()},
		{"LeaseLost", leaseLostRules()},
		{"Concurrency", concurrencyRules()},
		{"Gates", gateRules()},
		{"Pause", pauseRules()},
		{"DeadLetter", deadLetterRules()},
		{"Redrive", redriveRules()},
		{"Drain", drainRules()},
		{"Batch", batchRules()},
		{"Faults", faultRules()},
		{"Soak", soakRules()},
		{"Admin", adminRules()},
	}
}

// Run holds the backend that h describes to every promise of package queue, each
// in a subtest named theme/promise. It fails for what's broken, for a skip that
// the suite's table doesn't know, and for goroutines left behind.
func Run(t *testing.T, h Harness) {
	h.validate(t)
	all := themes()
	checkTables(t, all)
	before := ourGoroutines()
	t.Run("Rules", func(t *testing.T) {
		slots := make(chan struct{}, h.Parallel)
		var wg sync.WaitGroup
		defer wg.Wait()
		for _, th := range all {
			wg.Go(func() { t.Run(th.name, func(t *testing.T) { runTheme(t, &h, th, slots) }) })
		}
	})
	t.Run("NoGoroutineIsLeft", func(t *testing.T) { expectNoneLeft(t, before) })
}

// runTheme runs the rules of a theme side by side. They don't use t.Parallel, as
// its limit is meant for tests that compute; against a server they wait.
func runTheme(t *testing.T, h *Harness, th theme, slots chan struct{}) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, r := range th.rules {
		if h.Core && !r.core {
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			t.Run(r.name, func(t *testing.T) { runRule(t, h, th.name, r) })
		})
	}
}

func runRule(t *testing.T, h *Harness, theme string, r rule) {
	name := theme + "/" + r.name
	if reason, ok := skipReason(h, name); ok {
		t.Skip(reason)
	}
	run := func(t *testing.T) {
		t.Cleanup(func() {
			// A skip by the backend's own code would go unseen.
			if t.Skipped() {
				t.Errorf("skipped, but %q isn't in the table of allowed skips for %q", name, h.Name)
			}
		})
		r.test(newEnv(t, h, r))
	}
	if !h.Virtual {
		run(t)
		return
	}
	synctest.Test(t, run)
}
