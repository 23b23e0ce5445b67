package sqs_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs"
	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// Whatever goes wrong: a message whose error is nil is there, and on a FIFO queue
// once, behind the earlier ones of its caller and key; one that was refused isn't.
func TestPublishSpeaksTheTruthWhateverGoesWrong(t *testing.T) {
	for seed := range uint64(8) {
		for _, fifo := range []bool{true, false} {
			t.Run(fmt.Sprint("FIFO ", fifo, " seed ", seed), func(t *testing.T) {
				faulty(t, queue.QueueSpec{Ordered: fifo, Lease: time.Hour}, func(t *testing.T, r *rig) {
					r.server.SetLatency(20 * time.Millisecond)
					stop := r.chaos(rand.New(rand.NewPCG(seed, 1)))
					said := r.publishers(seed, 12)
					stop()
					r.server.SetLatency(0)
					time.Sleep(time.Minute) // requests whose callers have gone are over
					synctest.Wait()
					r.truth(said)
				})
			})
		}
	}
}

// chaos injects faults into sends, each for a while, until it's stopped.
func (r *rig) chaos(rnd *rand.Rand) (stop func()) {
	kinds := []sqstest.Fault{
		{Code: "ThrottlingException"},
		{Code: "InvalidMessageContents"},
		{Effect: sqstest.Unanswered},
		{Effect: sqstest.RefuseEntry},
		{Effect: sqstest.RefuseEntry, SenderFault: true, Code: "Bad"},
		{Effect: sqstest.Slow},
		{Effect: sqstest.Cut},
	}
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			f := kinds[rnd.IntN(len(kinds))]
			f.Action, f.Times = sendBatch, 1+rnd.IntN(3)
			if f.Effect == sqstest.Slow {
				f.Delay = time.Duration(1+rnd.IntN(15000)) * time.Millisecond
			}
			heal := r.server.Fail(f)
			for range 2 { // the second time in peace
				select {
				case <-over:
					heal()
					return
				case <-time.After(time.Duration(rnd.IntN(300)) * time.Millisecond):
				}
				heal()
			}
		}
	})
	return func() {
		close(over)
		wg.Wait()
	}
}

// publishers lets callers publish side by side, and returns what each message was
// told. A body is its caller and a number that grows, then the key.
func (r *rig) publishers(seed uint64, callers int) map[string]error {
	var mu sync.Mutex
	said := map[string]error{}
	var wg sync.WaitGroup
	for caller := range callers {
		rnd := rand.New(rand.NewPCG(seed, uint64(caller)+10))
		wg.Go(func() {
			n := 0
			for range 15 {
				var msgs []*queue.Message
				for range 1 + rnd.IntN(14) {
					key := fmt.Sprint("k", (caller+rnd.IntN(2))%4)
					m := message(fmt.Sprintf("c%d/%04d/%s", caller, n, key))
					if r.fifo {
						m.OrderingKey = key
					}
					msgs = append(msgs, m)
					n++
				}
				ctx, cancel := context.WithTimeout(r.t.Context(), time.Duration(rnd.IntN(20000))*time.Millisecond)
				errs := queue.PublishErrors(r.q.Publish(ctx, msgs...), len(msgs))
				cancel()
				mu.Lock()
				for i, m := range msgs {
					said[string(m.Body)] = errs[i]
				}
				mu.Unlock()
				time.Sleep(time.Duration(rnd.IntN(200)) * time.Millisecond)
			}
		})
	}
	wg.Wait()
	return said
}

// truth takes everything out of the queue and compares.
func (r *rig) truth(said map[string]error) {
	r.t.Helper()
	seen := map[string]int{}
	last := map[string]string{} // by caller and key
	for empty := 0; empty < 2; {
		ds, err := r.q.Receive(r.t.Context(), 10)
		require.NoError(r.t, err)
		if len(ds) == 0 {
			empty++
			continue
		}
		empty = 0
		var ss []queue.Settlement
		for _, d := range ds {
			b := string(d.Body)
			seen[b]++
			if r.fifo && said[b] == nil {
				parts := strings.Split(b, "/")
				line := parts[0] + parts[2]
				assert.Less(r.t, last[line], b, "the order of those that succeeded")
				last[line] = b
			}
			ss = append(ss, queue.Settlement{Delivery: d})
		}
		require.NoError(r.t, r.q.Settle(r.t.Context(), ss...))
	}
	kinds := map[string]int{}
	for b, err := range said {
		switch {
		case err == nil:
			kinds["taken"]++
			assert.NotZero(r.t, seen[b], "%s is lost", b)
		case errors.Is(err, queue.ErrUnknownOutcome):
			kinds["unknown"]++
		default:
			kinds["refused"]++
			assert.Zero(r.t, seen[b], "%s came though it was refused: %v", b, err)
		}
		if r.fifo {
			assert.LessOrEqual(r.t, seen[b], 1, "%s came again", b)
		}
	}
	assert.NotZero(r.t, kinds["taken"])
	counts, ok := sqs.CountsOf(r.q)
	require.True(r.t, ok)
	assert.NotZero(r.t, kinds["refused"]+kinds["unknown"]+int(counts.Retried+counts.Throttled), "the faults have done something")
}
