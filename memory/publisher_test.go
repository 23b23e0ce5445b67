package memory_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
)

func TestMessageArrivesAsPublished(t *testing.T) {
	t.Parallel()
	attributes := func(n int) map[string]string {
		m := map[string]string{}
		for i := range n {
			m[fmt.Sprint("name", i)] = fmt.Sprint("value", i)
		}
		return m
	}
	tests := []struct {
		name string
		m    queue.Message
	}{
		{"body only", queue.Message{Body: []byte("hello")}},
		{"no body", queue.Message{Attributes: attributes(1)}},
		{"nothing at all", queue.Message{}},
		{"binary", queue.Message{Body: []byte{0, 255, 0xED, 0xA0, 0x80}}},
		{"three attributes", queue.Message{Body: []byte("x"), Attributes: attributes(3)}},
		{"four attributes", queue.Message{Body: []byte("x"), Attributes: attributes(4)}},
		{"ten attributes", queue.Message{Body: []byte("x"), Attributes: attributes(10)}},
		{"own id", queue.Message{ID: "order-7", Body: []byte("x")}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, q := open(t, nil, false)
			before := time.Now().Add(-time.Second)
			require.NoError(t, q.Publish(t.Context(), &tc.m))
			ds := receive(t, q, 10)
			require.Len(t, ds, 1)
			d := ds[0]
			assert.Equal(t, string(tc.m.Body), string(d.Body))
			assert.Len(t, d.Attributes, len(tc.m.Attributes))
			for k, v := range tc.m.Attributes {
				assert.Equal(t, v, d.Attributes[k])
			}
			assert.NotEmpty(t, d.BrokerID)
			if tc.m.ID != "" {
				assert.Equal(t, tc.m.ID, d.ID)
			} else {
				assert.Equal(t, d.BrokerID, d.ID)
			}
			assert.Equal(t, queue.Endpoint{System: "memory", Name: "orders"}, d.Source)
			assert.WithinRange(t, d.EnqueuedAt, before, time.Now().Add(time.Second))
			assert.WithinRange(t, d.Deadline, time.Now().Add(29*time.Second), time.Now().Add(30*time.Second))
		})
	}
}

func TestBrokerIDsAreUniqueAndStable(t *testing.T) {
	t.Parallel()
	b, q := open(t, nil, false)
	other := openOn(t, b, "others", false)
	seen := map[string]bool{}
	for range 200 {
		publish(t, q, "", "x")
		publish(t, other, "", "x")
	}
	for _, q := range []queue.Queue{q, other} {
		first := receive(t, q, 1000)
		require.Len(t, first, 200)
		for i := len(first) - 1; i >= 0; i-- { // back in the opposite order
			seen[first[i].ID] = true
			release(t, q, first[i], 0)
		}
		for i, d := range receive(t, q, 1000) {
			assert.Equal(t, first[199-i].ID, d.ID)
		}
	}
	assert.Len(t, seen, 400)
}

func TestNobodySeesWhatOthersChange(t *testing.T) {
	t.Parallel()
	_, q := open(t, nil, false)
	m := &queue.Message{Body: []byte("original"), Attributes: map[string]string{"a": "1", "b": "2", "c": "3", "d": "4"}}
	require.NoError(t, q.Publish(t.Context(), m))
	copy(m.Body, "CHANGED!")
	m.Attributes["a"] = "changed"

	check := func(d *queue.Delivery) {
		assert.Equal(t, "original", string(d.Body))
		assert.Equal(t, map[string]string{"a": "1", "b": "2", "c": "3", "d": "4"}, d.Attributes)
	}
	for range 2 {
		d := receive(t, q, 1)[0]
		check(d)
		copy(d.Body, "CHANGED!")
		d.Attributes["a"] = "changed"
		delete(d.Attributes, "b")
		original, ok := d.Native.(queue.Original)
		require.True(t, ok)
		body, attributes := original.Original()
		check(&queue.Delivery{Message: queue.Message{Body: body, Attributes: attributes}})
		release(t, q, d, 0)
	}
	check(receive(t, q, 1)[0])
}

func TestOneBadMessageStopsNoOther(t *testing.T) {
	t.Parallel()
	_, q := open(t, nil, false)
	err := q.Publish(t.Context(),
		&queue.Message{Body: []byte("good")},
		nil,
		&queue.Message{Body: make([]byte, 2<<20)},
		&queue.Message{Attributes: map[string]string{"queue-x": "reserved"}},
		&queue.Message{Body: []byte("fine")},
		&queue.Message{OrderingKey: "k"},
		&queue.Message{DedupID: "d"},
	)
	errs := queue.PublishErrors(err, 7)
	assert.NoError(t, errs[0])
	assert.ErrorIs(t, errs[1], queue.ErrInvalid)
	var limit *queue.LimitError
	require.ErrorAs(t, errs[2], &limit)
	assert.EqualValues(t, 1<<20, limit.Max)
	assert.ErrorIs(t, errs[3], queue.ErrInvalid)
	assert.NoError(t, errs[4])
	assert.ErrorIs(t, errs[5], queue.ErrUnsupported)
	assert.ErrorIs(t, errs[6], queue.ErrUnsupported)
	assert.ErrorContains(t, err, "memory: publish to orders:")
	assert.Equal(t, []string{"good", "fine"}, bodies(receive(t, q, 10)))
}

func TestBoundedQueueIsFull(t *testing.T) {
	t.Parallel()
	three := func(q queue.Queue) []error {
		return queue.PublishErrors(q.Publish(context.Background(),
			&queue.Message{Body: []byte("aaaa")}, &queue.Message{Body: []byte("bbbb")}, &queue.Message{Body: []byte("cccc")}), 3)
	}
	tests := []struct {
		name string
		opts memory.Options
	}{
		{"by messages", memory.Options{MaxMessages: 2}},
		{"by bytes", memory.Options{MaxBytes: 11}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, q := open(t, &tc.opts, false)
			errs := three(q)
			require.NoError(t, errs[0])
			require.NoError(t, errs[1])
			require.ErrorIs(t, errs[2], queue.ErrFull)
			ds := receive(t, q, 10)
			require.ErrorIs(t, q.Publish(t.Context(), &queue.Message{Body: []byte("dddd")}), queue.ErrFull, "what's being handled counts")
			ack(t, q, ds[0])
			require.NoError(t, q.Publish(t.Context(), &queue.Message{Body: []byte("dddd")}))
		})
		t.Run(tc.name+" all or nothing like Pub/Sub", func(t *testing.T) {
			t.Parallel()
			o := tc.opts
			o.Like = memory.PubSub
			_, q := open(t, &o, false)
			for _, err := range three(q) {
				require.ErrorIs(t, err, queue.ErrFull)
			}
			assert.Empty(t, receive(t, q, 10))
		})
	}
}

func TestPublishAfterItsContextEndedSaysSo(t *testing.T) {
	t.Parallel()
	_, q := open(t, nil, false)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, q.Publish(ctx, &queue.Message{}), context.Canceled)
	assert.Empty(t, receive(t, q, 1))
	require.NoError(t, q.Publish(t.Context()), "nothing to publish")
}

func TestDedupIDIsRememberedForFiveMinutes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, q := open(t, &memory.Options{Like: memory.SQSFIFO}, true)
		send := func(body string) {
			require.NoError(t, q.Publish(t.Context(), &queue.Message{Body: []byte(body), DedupID: "d"}))
		}
		send("first")
		send("repeat")
		ds := receive(t, q, 10)
		require.Equal(t, []string{"first"}, bodies(ds))
		ack(t, q, ds...)
		time.Sleep(5*time.Minute - time.Second)
		send("repeat after the original is gone")
		assert.Empty(t, receive(t, q, 10))
		time.Sleep(time.Second)
		send("new")
		assert.Equal(t, []string{"new"}, bodies(receive(t, q, 10)))
	})
}

func TestCloseWhilePublishingLosesNothing(t *testing.T) {
	t.Parallel()
	b := memory.New(&memory.Options{Create: true})
	q, err := b.Open(t.Context(), "orders", nil)
	require.NoError(t, err)
	var (
		wg       sync.WaitGroup
		mu       sync.Mutex
		accepted int
		begun    = make(chan struct{}, 1)
	)
	for range 4 {
		wg.Go(func() {
			for {
				err := q.Publish(context.Background(), &queue.Message{Body: []byte("x")})
				if err != nil {
					assert.ErrorIs(t, err, queue.ErrClosed)
					return
				}
				mu.Lock()
				accepted++
				mu.Unlock()
				select {
				case begun <- struct{}{}:
				default:
				}
			}
		})
	}
	<-begun
	require.NoError(t, q.Close(t.Context()))
	wg.Wait()
	assert.Len(t, b.Messages("orders"), accepted)
}

func TestDelayBeyondTheLimitOfAPersonalityIsCarriedOn(t *testing.T) {
	t.Parallel()
	tests := []struct {
		like    memory.Like
		delay   time.Duration
		natural time.Duration // when it's received first
		due     bool          // it says when it's due
	}{
		{memory.Portable, 50 * time.Hour, 50 * time.Hour, false},
		{memory.SQSStandard, 1500 * time.Millisecond, 2 * time.Second, false},
		{memory.SQSStandard, 15 * time.Minute, 15 * time.Minute, false},
		{memory.SQSStandard, time.Hour, 15 * time.Minute, true},
		{memory.PubSub, time.Minute, 0, true},
	}
	for _, tc := range tests {
		synctest.Test(t, func(t *testing.T) {
			_, q := open(t, &memory.Options{Like: tc.like}, false)
			start := time.Now()
			require.NoError(t, q.Publish(t.Context(), &queue.Message{Delay: tc.delay, Attributes: map[string]string{"a": "b"}}))
			var ds []*queue.Delivery
			for len(ds) == 0 {
				var err error
				ds, err = q.Receive(t.Context(), 1)
				require.NoError(t, err)
			}
			assert.Equal(t, tc.natural, time.Since(start), "%v %v", tc.like, tc.delay)
			assert.Equal(t, map[string]string{"a": "b"}, ds[0].Attributes)
			if !tc.due {
				assert.Zero(t, ds[0].Due())
				assert.Equal(t, time.Now(), ds[0].AgeFrom(), "its age counts from now")
				ack(t, q, ds...)
				return
			}
			assert.True(t, ds[0].Due().Equal(start.Add(tc.delay)))

			// The engine defers it: it comes back later, and is still due at the
			// same time.
			first := ds[0]
			require.NoError(t, q.Settle(t.Context(), queue.Settlement{Delivery: first, Kind: queue.Defer, Until: first.Due()}))
			for ds = nil; len(ds) == 0; {
				var err error
				ds, err = q.Receive(t.Context(), 1)
				require.NoError(t, err)
			}
			assert.True(t, ds[0].Due().Equal(first.Due()))
			assert.True(t, ds[0].EnqueuedAt.Equal(first.EnqueuedAt))
			assert.Equal(t, first.ID, ds[0].ID)
			assert.NotEqual(t, first.BrokerID, ds[0].BrokerID)
			ack(t, q, ds...)
		})
	}
}

func TestLimitsOfEachPersonality(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		m     queue.Message
		fails map[memory.Like]bool
	}{
		{"11 attributes", queue.Message{Body: []byte("x"), Attributes: numbered(11)},
			map[memory.Like]bool{memory.Portable: true, memory.SQSStandard: true, memory.SQSFIFO: true}},
		{"101 attributes", queue.Message{Body: []byte("x"), Attributes: numbered(101)},
			map[memory.Like]bool{memory.Portable: true, memory.SQSStandard: true, memory.SQSFIFO: true, memory.PubSub: true}},
		{"a value of 1,025 bytes", queue.Message{Attributes: map[string]string{"a": strings.Repeat("v", 1025)}},
			map[memory.Like]bool{memory.Portable: true, memory.PubSub: true}},
		{"over 1 MiB", queue.Message{Body: make([]byte, 1<<20+1)},
			map[memory.Like]bool{memory.Portable: true, memory.SQSStandard: true, memory.SQSFIFO: true}},
		{"over 10 MB", queue.Message{Body: make([]byte, 10_000_001)},
			map[memory.Like]bool{memory.Portable: true, memory.SQSStandard: true, memory.SQSFIFO: true, memory.PubSub: true}},
		{"1 MiB of binary", queue.Message{Body: make([]byte, 1<<20)},
			map[memory.Like]bool{memory.Portable: true, memory.SQSStandard: true, memory.SQSFIFO: true}},
		{"a name with a space", queue.Message{Attributes: map[string]string{"a b": "v"}},
			map[memory.Like]bool{memory.Portable: true, memory.SQSStandard: true, memory.SQSFIFO: true}},
		{"a name of Google's", queue.Message{Attributes: map[string]string{"googol": "v"}},
			map[memory.Like]bool{memory.Portable: true, memory.PubSub: true}},
		{"an ordering key", queue.Message{OrderingKey: "k"},
			map[memory.Like]bool{memory.SQSStandard: true}},
		{"a dedup id", queue.Message{DedupID: "d"},
			map[memory.Like]bool{memory.Portable: true, memory.SQSStandard: true, memory.PubSub: true}},
		{"a delay on an ordered queue", queue.Message{Delay: time.Second},
			map[memory.Like]bool{memory.Portable: true, memory.SQSFIFO: true}},
	}
	for _, tc := range tests {
		for _, like := range []memory.Like{memory.Portable, memory.SQSStandard, memory.SQSFIFO, memory.PubSub} {
			t.Run(fmt.Sprint(tc.name, " on ", like), func(t *testing.T) {
				t.Parallel()
				_, q := open(t, &memory.Options{Like: like}, like != memory.SQSStandard)
				m := tc.m
				err := q.Publish(t.Context(), &m)
				assert.Equal(t, tc.fails[like], err != nil, "error: %v", err)
			})
		}
	}
}

func numbered(n int) map[string]string {
	m := map[string]string{}
	for i := range n {
		m[fmt.Sprint("a", i)] = "v"
	}
	return m
}

type option string

func (o option) System() string { return string(o) }

func TestOptionsOfTheImitatedSystemAreTaken(t *testing.T) {
	t.Parallel()
	tests := []struct {
		like   memory.Like
		system string
		ok     bool
	}{
		{memory.Portable, "aws_sqs", false},
		{memory.Portable, "memory", true},
		{memory.SQSStandard, "aws_sqs", true},
		{memory.SQSStandard, "gcp_pubsub", false},
		{memory.PubSub, "gcp_pubsub", true},
	}
	for _, tc := range tests {
		t.Run(fmt.Sprint(tc.system, " on ", tc.like), func(t *testing.T) {
			t.Parallel()
			b, q := open(t, &memory.Options{Like: tc.like}, false)
			o := option(tc.system)
			err := q.Publish(t.Context(), &queue.Message{Body: []byte("x"), Options: []queue.MessageOption{o}})
			if !tc.ok {
				require.ErrorIs(t, err, queue.ErrUnsupported)
				require.NoError(t, q.Publish(t.Context(), &queue.Message{Body: []byte("x"), Options: []queue.MessageOption{queue.Hint(o)}}))
				return
			}
			require.NoError(t, err)
			info, ok := memory.InfoOf(b.Messages("orders")[0])
			require.True(t, ok)
			assert.Equal(t, []queue.MessageOption{o}, info.Options)
			info, ok = memory.InfoOf(receive(t, q, 1)[0])
			require.True(t, ok)
			assert.Equal(t, []queue.MessageOption{o}, info.Options)
			assert.Equal(t, 1, info.Receives)
		})
	}
}

// The memory of bodies is used again. Nobody may ever see another message's.
func TestBodiesAreNeverMixedUp(t *testing.T) {
	t.Parallel()
	b, q := open(t, &memory.Options{Duplicate: 0.05, Reorder: 0.05, Lease: 20 * time.Millisecond}, false)
	b.Fail(memory.Fault{Call: memory.OnSettle, Effect: memory.Twice, Skip: 100, Times: 50})
	const senders, each = 4, 500
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		seen = map[string]bool{}
	)
	text := func(id string) string { return strings.Repeat(id+" ", 10+len(id)*3) }
	for s := range senders {
		wg.Go(func() {
			for i := range each {
				id := fmt.Sprint(s, "-", i)
				assert.NoError(t, q.Publish(context.Background(), &queue.Message{ID: id, Body: []byte(text(id))}))
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context()) // ends when all was seen, or something is wrong
	defer cancel()
	var kept []*queue.Delivery
	for r := range 3 {
		wg.Go(func() {
			defer cancel()
			for n := 0; ; n++ {
				ds, err := q.Receive(ctx, 7)
				if err != nil {
					return
				}
				for i, d := range ds {
					if !assert.Equal(t, text(d.ID), string(d.Body)) {
						return
					}
					original, ok := d.Native.(queue.Original)
					if !assert.True(t, ok) {
						return
					}
					switch {
					case (n+i)%13 == 0: // its lease ends by itself
						continue
					case (n+i)%7 == 0:
						body, _ := original.Original()
						assert.Equal(t, text(d.ID), string(body))
						release := queue.Settlement{Delivery: d, Kind: queue.Release}
						if err := q.Settle(context.Background(), release); err != nil {
							assert.ErrorIs(t, err, queue.ErrLeaseLost)
						}
						continue
					}
					copyOfBody := string(d.Body)
					clear(d.Body) // it's the handler's
					err := q.Settle(context.Background(), queue.Settlement{Delivery: d}, queue.Settlement{Delivery: d})
					if err != nil {
						assert.ErrorIs(t, err, queue.ErrLeaseLost)
						continue
					}
					mu.Lock()
					if r == 0 && len(kept) < 100 {
						copy(d.Body, copyOfBody)
						kept = append(kept, d)
					}
					if seen[d.ID] = true; len(seen) == senders*each {
						cancel()
					}
					mu.Unlock()
				}
				if n%50 == 0 {
					b.LoseLeases("orders")
					for _, d := range b.Messages("orders") {
						assert.Equal(t, text(d.ID), string(d.Body))
					}
				}
			}
		})
	}
	wg.Wait()
	assert.Len(t, seen, senders*each)
	for _, d := range kept { // long gone, and still what they were
		original, ok := d.Native.(queue.Original)
		require.True(t, ok)
		body, _ := original.Original()
		assert.Equal(t, text(d.ID), string(body))
		assert.Equal(t, text(d.ID), string(d.Body))
	}
}
