package batcher

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// broker is what the batcher of a test sends to: each request takes a while, and
// does what answer says.
type broker struct {
	Batcher[string]
	takes  time.Duration
	answer func(n int, batch []string) Report // nil: success; n counts requests, from 0

	mu       sync.Mutex
	requests [][]string
	at       []time.Duration // since the start
	start    time.Time
	open     int
	widest   int
}

func newBroker(t *testing.T, takes time.Duration) *broker {
	b := &broker{takes: takes, start: time.Now()}
	b.Batcher = Batcher[string]{MaxItems: 10, MaxBytes: 1000, MaxCalls: 64, MaxHeld: 1000, MaxHeldBytes: 1 << 20, Send: b.send}
	t.Cleanup(b.Close)
	return b
}

func (b *broker) send(ctx context.Context, batch []*Item[string]) Report {
	values := make([]string, len(batch))
	for i, it := range batch {
		values[i] = it.Value
	}
	b.mu.Lock()
	n := len(b.requests)
	b.requests = append(b.requests, values)
	b.at = append(b.at, time.Since(b.start))
	b.open++
	b.widest = max(b.widest, b.open)
	b.mu.Unlock()
	t := time.NewTimer(b.takes)
	defer t.Stop()
	var err error
	select {
	case <-t.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open--
	if err != nil {
		return all(len(batch), Result{Err: err, Again: true, Doubt: true})
	}
	if b.answer == nil {
		return all(len(batch), Result{})
	}
	return b.answer(n, values)
}

func all(n int, r Result) Report {
	out := Report{Results: make([]Result, n)}
	for i := range out.Results {
		out.Results[i] = r
	}
	return out
}

// publish sends values in one Group, of one key where they have one before a "/".
func (b *broker) publish(ctx context.Context, values ...string) []error {
	g := b.Begin(ctx, time.Now())
	items := make([]*Item[string], len(values))
	for i, v := range values {
		items[i] = &Item[string]{Value: v, Size: len(v)}
		for k := range v {
			if v[k] == '/' {
				items[i].Key = v[:k]
			}
		}
		g.Add(items[i])
	}
	g.Wait()
	errs := make([]error, len(values))
	for i, it := range items {
		errs[i] = it.Err()
	}
	return errs
}

func (b *broker) sent() [][]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.requests
}

// state tells what's held, in items and bytes, and how many keys are known.
func (b *broker) state() (held, lines int) {
	b.Batcher.mu.Lock()
	defer b.Batcher.mu.Unlock()
	return b.held + b.heldB + b.count + b.bytes, len(b.lines)
}

func none(n int) []error { return make([]error, n) }

func many(n int, prefix string) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s%d", prefix, i)
	}
	return out
}

func TestALoneItemLeavesAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, 5*time.Millisecond)
		for range 3 {
			begun := time.Now()
			assert.Equal(t, none(1), b.publish(t.Context(), "a"))
			assert.Equal(t, 5*time.Millisecond, time.Since(begun))
			time.Sleep(5 * time.Millisecond)
		}
		assert.Len(t, b.sent(), 3)
	})
}

func TestALargeGroupLeavesAtOnceInFullRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, 5*time.Millisecond)
		begun := time.Now()
		assert.Equal(t, none(25), b.publish(t.Context(), many(25, "m")...))
		assert.Equal(t, 5*time.Millisecond, time.Since(begun))
		var sizes []int
		for _, r := range b.sent() {
			sizes = append(sizes, len(r))
		}
		assert.ElementsMatch(t, []int{10, 10, 5}, sizes)
	})
}
