package pubsub_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/anyqueue/anyqueue/queue"
)

// Whatever the network does, and for however long: nothing that was confirmed is lost,
// nothing that was refused comes, and every duplicate has its cause.
func TestServerANetworkThatDoesWhatItLikes(t *testing.T) {
	for _, c := range []struct {
		name     string
		ordered  bool
		consumer func(*rig) queue.Queue
	}{
		{"to who publishes and who consumes", false, func(r *rig) queue.Queue { return r.q }},
		// The emulator doesn't hold back what follows a message that got lost on its way to
		// the consumer, so that only a publisher's faults can be judged by the order.
		{"to who publishes in order", true, func(r *rig) queue.Queue { return r.open(r.aside) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Log("seed", seed)
			r := faulty(t, &queue.QueueSpec{Ordered: c.ordered})
			consumer := c.consumer(r)
			run := r.consume(consumer, queue.ConsumerOptions{Concurrency: 10}, nil)
			stop := r.callers(seed, 4, c.ordered)
			r.more(20)
			t.Log(r.chaos(rand.New(rand.NewPCG(seed, 0)), 2*time.Second))
			r.more(100)
			stop()
			r.awaitAll()
			assert.NoError(t, run.end())

			duplicates := r.judge()
			confirmed, unknown, refused := r.confirmed()
			counts := countsOf(t, r.q)
			t.Logf("%d confirmed, %d unknown, %d refused; %d duplicates; %d sent again, %d pulls unread, %d settlements failed",
				confirmed, unknown, refused, duplicates, counts.Retried, countsOf(t, consumer).Unread, run.Stats().SettleErrors)
			assert.Positive(t, confirmed)
			assert.Positive(t, unknown+refused+int(counts.Retried), "the faults have done something")
			if !c.ordered {
				return
			}
			for _, key := range r.keys() {
				var got []string
				for _, b := range r.first(key) {
					if r.said[b] == nil {
						got = append(got, b)
					}
				}
				assert.True(t, slices.IsSorted(got), "%v", got)
			}
		})
	}
}

// chaos lets the network refuse, cut, delay and swallow, each several times and for a
// while. It returns what it did.
func (r *rig) chaos(rnd *rand.Rand, long time.Duration) (did []string) {
	for until := time.Now().Add(long); time.Now().Before(until); {
		for _, kind := range rnd.Perm(5) {
			d := time.Duration(50+rnd.IntN(450)) * time.Millisecond
			for _, f := range []struct {
				name     string
				down, up func()
			}{
				{"refuses", r.net.refuse, r.net.allow},
				{"cuts", r.net.cut, r.net.cut},
				{"delays", func() { r.net.slow(d / 5) }, func() { r.net.slow(0) }},
				{"stands still", r.net.freeze, r.net.thaw},
				{"swallows", r.net.freeze, func() {
					r.net.cut()
					r.net.thaw()
				}},
			}[kind : kind+1] {
				did = append(did, fmt.Sprint(f.name, " ", d))
				f.down()
				time.Sleep(d) // the length of the fault
				f.up()
			}
			time.Sleep(time.Duration(rnd.IntN(200)) * time.Millisecond) // of peace
		}
	}
	return did
}

// callers publish until they are stopped, each a key of its own where there's an order,
// with more or less patience.
func (r *rig) callers(seed uint64, n int, ordered bool) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for caller := range n {
		rnd := rand.New(rand.NewPCG(seed, uint64(caller)+1))
		wg.Go(func() {
			for sent := 0; ctx.Err() == nil; {
				msgs := make([]*queue.Message, 1+rnd.IntN(10))
				for i := range msgs {
					msgs[i] = message(fmt.Sprintf("k%d/%06d", caller, sent))
					if ordered {
						msgs[i].OrderingKey = fmt.Sprint("k", caller)
					}
					sent++
				}
				limited, done := context.WithTimeout(context.Background(), time.Duration(20+rnd.IntN(3000))*time.Millisecond)
				r.publish(limited, r.q, msgs...)
				done()
				select {
				case <-time.After(time.Duration(rnd.IntN(30)) * time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

// keys are the prefixes of what callers publish.
func (r *rig) keys() (keys []string) {
	for body := range r.said {
		if key := body[:3]; !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}
