package broker

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSendNumberedTellsEachMessagesPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup()
		q := New[string](g, Config{Ordering: Grouped})
		now, err := g.Clock.Now()
		require.NoError(t, err)
		seqs := make([]uint64, 3)
		q.SendNumbered(now, []Entry[string]{{Item: &Item[string]{Payload: "a"}, Key: "k"}, {Item: &Item[string]{Payload: "b"}, Key: "l"}, {Item: &Item[string]{Payload: "c"}, Key: "k"}}, seqs)
		for range seqs {
			got, err := q.Receive(context.Background(), Request{Max: 1, Lease: time.Minute, Wait: -1})
			require.NoError(t, err)
			if got == nil {
				break // the rest of k waits
			}
			l := got.Leases[0]
			assert.Equal(t, seqs[l.Item.Payload[0]-'a'], l.Seq, l.Item.Payload)
		}
		assert.Less(t, seqs[0], seqs[1])
		assert.Less(t, seqs[1], seqs[2])
	})
}

func TestAckLateRemovesWhatWasntReceivedSince(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		key    string
		before func(q *Queue[string], now Instant, l Lease[string]) Instant
		want   bool
	}{
		"the lease is over": {"", func(_ *Queue[string], now Instant, _ Lease[string]) Instant { return now.Add(time.Minute) }, true},
		"given back with a delay": {"", func(q *Queue[string], now Instant, l Lease[string]) Instant {
			q.Settle(now, false, []Op[string]{{Item: l.Item, Gen: l.Gen, Kind: Release, For: time.Hour}})
			return now
		}, true},
		"still leased": {"", func(_ *Queue[string], now Instant, _ Lease[string]) Instant { return now }, false},
		"received since": {"", func(q *Queue[string], now Instant, l Lease[string]) Instant {
			q.Lose(now, l.Item, l.Gen)
			got, err := q.Receive(context.Background(), Request{Max: 1, Lease: time.Minute, Wait: -1})
			if err != nil || got == nil {
				panic("it wasn't there")
			}
			q.Lose(now, got.Leases[0].Item, got.Leases[0].Gen)
			return now
		}, false},
		"gone": {"", func(q *Queue[string], now Instant, l Lease[string]) Instant {
			q.Settle(now, false, []Op[string]{{Item: l.Item, Gen: l.Gen, Kind: Ack}})
			return now
		}, false},
		"with a key": {"k", func(_ *Queue[string], now Instant, _ Lease[string]) Instant { return now.Add(time.Minute) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := NewGroup()
				q := New[string](g, Config{Ordering: Grouped})
				now, err := g.Clock.Now()
				require.NoError(t, err)
				q.Send(now, false, []Entry[string]{{Item: &Item[string]{Payload: "m"}, Key: c.key}})
				got, err := q.Receive(context.Background(), Request{Max: 1, Lease: time.Minute, Wait: -1})
				require.NoError(t, err)
				l := got.Leases[0]
				others := []Entry[string]{{Item: &Item[string]{Payload: "n"}, Delay: time.Hour}, {Item: &Item[string]{Payload: "o"}, Delay: time.Hour}}
				q.Send(now, false, others)
				now = c.before(q, now, l)
				before, _ := q.Totals(now)
				state := q.State(now, l.Item)
				assert.Equal(t, c.want, q.AckLate(now, l.Item, l.Receives))
				total, leased := q.Totals(now)
				if c.want {
					assert.Equal(t, before-1, total)
					assert.Equal(t, Gone, q.State(now, l.Item))
				} else {
					assert.Equal(t, before, total)
					assert.Equal(t, state, q.State(now, l.Item))
				}
				assert.Equal(t, q.Counts(now).Leased, leased)
				assert.False(t, q.AckLate(now, l.Item, l.Receives), "only once")
			})
		})
	}
}

func TestPassOverKeepsTheOrderAmongBoth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup()
		q := New[string](g, Config{})
		now, err := g.Clock.Now()
		require.NoError(t, err)
		for _, p := range []string{"x1", "a1", "x2", "a2", "a3", "x3"} {
			q.Send(now, false, []Entry[string]{{Item: &Item[string]{Payload: p}}})
		}
		q.PassOver(now, func(p string) bool { return p[0] == 'x' })
		got, err := q.Receive(context.Background(), Request{Max: 5, Lease: time.Minute, Wait: -1})
		require.NoError(t, err)
		var order, leased []string
		for _, l := range got.Leases {
			order = append(order, l.Item.Payload)
		}
		assert.Equal(t, []string{"a1", "a2", "a3", "x1", "x2"}, order)
		q.EachLeased(now, func(p string) { leased = append(leased, p) })
		assert.ElementsMatch(t, order, leased)
		assert.Equal(t, 1, q.Counts(now).Ready)
	})
}
