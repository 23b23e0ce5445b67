package remote_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/anyqueue/anyqueue/internal/remote"
)

// ledger knows where each item is: with the broker, handed out, received, given back.
type ledger struct {
	mu       sync.Mutex
	rnd      *rand.Rand
	name     string
	next     int
	out      map[string]bool // handed out by a poll, and neither received nor given back
	received int
	returned int
	open     int
	widest   int
	wrong    []string
}

func (l *ledger) dice(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rnd.IntN(n)
}

func (l *ledger) poll(ctx context.Context, most int) ([]string, error) {
	l.mu.Lock()
	l.open++
	l.widest = max(l.widest, l.open)
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.open--
	}()
	takes := []time.Duration{0, 5 * time.Millisecond, 100 * time.Millisecond, time.Second, 5 * time.Second}[l.dice(5)]
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	switch l.dice(6) {
	case 0:
		return nil, errors.New("the broker says no")
	case 1:
		return nil, nil
	}
	n := 1 + l.dice(most)
	l.mu.Lock()
	defer l.mu.Unlock()
	items := make([]string, n)
	for i := range items {
		items[i] = fmt.Sprint(l.name, l.next)
		l.next++
		l.out[items[i]] = true
	}
	return items, nil
}

func (l *ledger) take(items []string, count *int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range items {
		if !l.out[s] {
			l.wrong = append(l.wrong, s)
		}
		delete(l.out, s)
		*count++
	}
}

// Whoever receives, however long and for however much: each item that a poll has
// brought is received or given back, once, and nothing is left at the end.
func TestEveryItemIsReceivedOrGivenBackOnce(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			l := &ledger{name: "a", rnd: rand.New(rand.NewPCG(seed, 1)), out: map[string]bool{}}
			aside := &ledger{name: "b", rnd: rand.New(rand.NewPCG(seed, 2)), out: map[string]bool{}}
			source := func(l *ledger) *remote.Polls[string] {
				return &remote.Polls[string]{
					Poll: l.poll, Keep: time.Duration(l.dice(3)) * 250 * time.Millisecond, Ordered: l.dice(2) == 0,
					GiveBack: func(_ context.Context, items []string) {
						time.Sleep(time.Duration(l.dice(50)) * time.Millisecond)
						l.take(items, &l.returned)
					},
				}
			}
			first, second := source(l), source(aside)
			second.Most = 1
			second.Keep = max(second.Keep, time.Millisecond)
			var wg sync.WaitGroup
			for caller := range 1 + l.dice(4) {
				rnd := rand.New(rand.NewPCG(seed, uint64(caller)+10))
				wg.Go(func() {
					for range 100 {
						most := 1 + rnd.IntN(10)
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rnd.IntN(2000))*time.Millisecond)
						items, err := remote.ReceiveAny(ctx, most, first, second)
						cancel()
						if len(items) > most || err != nil && len(items) > 0 {
							t.Errorf("seed %d: %d items of at most %d, beside the error %v", seed, len(items), most, err)
						}
						var ours, theirs []string
						for _, s := range items {
							if s[:1] == aside.name {
								theirs = append(theirs, s)
							} else {
								ours = append(ours, s)
							}
						}
						l.take(ours, &l.received)
						aside.take(theirs, &aside.received)
						time.Sleep(time.Duration(rnd.IntN(1000)) * time.Millisecond)
					}
				})
			}
			wg.Wait()
			first.Close(t.Context())
			second.Close(t.Context())
			for _, l := range []*ledger{l, aside} {
				assert.Empty(t, l.out, "seed %d: lost", seed)
				assert.Empty(t, l.wrong, "seed %d: received or given back twice", seed)
				assert.Equal(t, l.next, l.received+l.returned, "seed %d", seed)
				assert.Zero(t, l.open, "seed %d", seed)
				assert.Positive(t, l.received, "seed %d", seed)
			}
			assert.Equal(t, 1, aside.widest, "seed %d: polls at a time", seed)
		})
	}
}
