package cloudtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Requests counts what's sent, retries included. The zero value is ready; it may be
// used concurrently.
type Requests struct {
	mu      sync.Mutex
	made    map[string]int
	dollars float64
}

// Add counts a request, and what it costs by the list.
func (r *Requests) Add(operation string, dollars float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.made == nil {
		r.made = map[string]int{}
	}
	r.made[operation]++
	r.dollars += dollars
}

// String says it in words, of which .ci/real-cloud adds up the first two numbers.
func (r *Requests) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	total := 0
	var each []string
	for _, op := range slices.Sorted(maps.Keys(r.made)) {
		total += r.made[op]
		each = append(each, fmt.Sprintf("%s %d", op, r.made[op]))
	}
	return fmt.Sprintf("%d requests, about $%.6f: %s", total, r.dollars, strings.Join(each, ", "))
}
