package queue_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
)

// bridging is two brokers that imitate two clouds.
type bridging struct {
	*testing.T
	left, right *memory.Broker
	from, to    queue.Queue
	log         bytes.Buffer
}

// onTwoSides runs a test on virtual time.
func onTwoSides(t *testing.T, left, right memory.Options, ordered bool, fn func(b *bridging)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		left.Create, right.Create = true, true
		b := &bridging{T: t, left: memory.New(&left), right: memory.New(&right)}
		opts := &queue.OpenOptions{Ordered: ordered}
		var err error
		b.from, err = b.left.Open(t.Context(), "orders", opts)
		require.NoError(t, err)
		b.to, err = b.right.Open(t.Context(), "orders-there", opts)
		require.NoError(t, err)
		fn(b)
		require.NoError(t, b.from.Close(t.Context()))
		require.NoError(t, b.to.Close(t.Context()))
	})
}

// run bridges for a while.
func (b *bridging) run(d time.Duration, opts queue.BridgeOptions) queue.BridgeResult {
	b.Helper()
	opts.Logger = slog.New(slog.NewTextHandler(&b.log, nil))
	ctx, cancel := context.WithTimeout(b.Context(), d)
	defer cancel()
	res, err := queue.Bridge(ctx, b.from, b.to, &opts)
	require.NoError(b, err)
	return res
}

func (b *bridging) publish(msgs ...*queue.Message) {
	b.Helper()
	require.NoError(b, b.from.Publish(b.Context(), msgs...))
}

// every chooses one message of n.
func every(n int) func(*queue.Message) bool {
	var seen atomic.Int64
	return func(*queue.Message) bool { return seen.Add(1)%int64(n) == 0 }
}

func (b *bridging) there() []*queue.Delivery { return b.right.Messages("orders-there") }
func (b *bridging) here() []*queue.Delivery  { return b.left.Messages("orders") }

func TestBridgeCopiesMessagesAsTheyWere(t *testing.T) {
	onTwoSides(t, memory.Options{Like: memory.SQSStandard}, memory.Options{Like: memory.PubSub}, false, func(b *bridging) {
		binary := []byte{0, 1, 0xff}
		b.publish(&queue.Message{ID: "mine", Body: binary, Attributes: map[string]string{"k": "v"}}, &queue.Message{Body: []byte("no id")})
		nameless := b.here()[1].BrokerID
		begun := time.Now()
		time.Sleep(time.Hour)
		assert.Equal(b, queue.BridgeResult{Copied: 2}, b.run(time.Minute, queue.BridgeOptions{}))
		got := b.there()
		require.Len(b, got, 2)
		assert.Empty(b, b.here())
		byID := map[string]*queue.Delivery{got[0].ID: got[0], got[1].ID: got[1]}
		require.Contains(b, byID, "mine")
		require.Contains(b, byID, nameless, "the broker's own id keeps a repeat recognizable")
		assert.Equal(b, binary, byID["mine"].Body)
		assert.Equal(b, map[string]string{"k": "v"}, byID["mine"].Attributes)
		assert.WithinDuration(b, begun, byID["mine"].EnqueuedAt, time.Second, "its age goes along")
	})
}

func TestBridgeKeepsDueTimes(t *testing.T) {
	onTwoSides(t, memory.Options{Like: memory.PubSub}, memory.Options{Like: memory.SQSStandard}, false, func(b *bridging) {
		due := time.Now().Add(10 * time.Hour)
		b.publish(&queue.Message{ID: "late", Body: []byte("x"), DeliverAt: due})
		b.run(time.Minute, queue.BridgeOptions{})
		assert.Empty(b, b.here(), "what isn't due is moved at once")
		ctx, stop := context.WithCancel(b.Context())
		var at time.Time
		c, err := queue.NewConsumer(b.to, func(context.Context, *queue.Delivery) error {
			at = time.Now()
			stop()
			return nil
		}, &queue.ConsumerOptions{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(b, err)
		require.NoError(b, c.Run(ctx))
		assert.WithinRange(b, at, due, due.Add(2*time.Second))
	})
}

func TestBridgeKeepsToItsRate(t *testing.T) {
	onTwoSides(t, memory.Options{}, memory.Options{}, false, func(b *bridging) {
		for range 1000 {
			b.publish(&queue.Message{Body: []byte("x")})
		}
		res := b.run(10*time.Second, queue.BridgeOptions{Rate: 20})
		assert.InDelta(b, 200, res.Copied, 20)
	})
}

func TestBridgeKeepsTheOrderOfKeys(t *testing.T) {
	for name, like := range map[string]memory.Like{"keys are locked": memory.SQSFIFO, "keys aren't locked": memory.PubSub} {
		t.Run(name, func(t *testing.T) {
			onTwoSides(t, memory.Options{Like: like}, memory.Options{}, true, func(b *bridging) {
				b.right.Fail(memory.Fault{Effect: memory.Refuse, Match: every(3), Times: 20})
				for i := range 60 {
					b.publish(&queue.Message{Body: fmt.Append(nil, i), OrderingKey: fmt.Sprint("k", i%3)})
				}
				res := b.run(time.Hour, queue.BridgeOptions{})
				assert.Equal(b, 60, res.Copied)
				// Everything at least once, and in order at last.
				last := map[string]int{}
				for i, d := range b.there() {
					last[string(d.Body)] = i
				}
				for i := range 60 {
					assert.Contains(b, last, fmt.Sprint(i))
					if i >= 3 {
						assert.Less(b, last[fmt.Sprint(i-3)], last[fmt.Sprint(i)], "of a key")
					}
				}
			})
		})
	}
}

// One that the other side can't carry stays; on an ordered queue nothing overtakes it.
func TestBridgeLeavesWhatTheOtherSideCannotCarry(t *testing.T) {
	large := &queue.Message{ID: "large", Body: []byte(strings.Repeat("x", 2<<20))}
	t.Run("alone", func(t *testing.T) {
		onTwoSides(t, memory.Options{Like: memory.PubSub}, memory.Options{Like: memory.SQSStandard}, false, func(b *bridging) {
			b.publish(large, &queue.Message{ID: "small", Body: []byte("x")})
			res := b.run(12*time.Minute, queue.BridgeOptions{})
			assert.Equal(b, queue.BridgeResult{Copied: 1, Failed: 3, Left: 1}, res, "at once, and each five minutes")
			require.Len(b, b.here(), 1)
			assert.Equal(b, "large", b.here()[0].ID)
			assert.Contains(b, b.log.String(), "id=large")
		})
	})
	t.Run("with a key", func(t *testing.T) {
		onTwoSides(t, memory.Options{Like: memory.PubSub}, memory.Options{Like: memory.SQSFIFO}, true, func(b *bridging) {
			first := *large
			first.OrderingKey = "k"
			b.publish(&queue.Message{ID: "before", Body: []byte("x"), OrderingKey: "k"}, &first,
				&queue.Message{ID: "behind", Body: []byte("x"), OrderingKey: "k"}, &queue.Message{ID: "other", Body: []byte("x"), OrderingKey: "o"})
			b.run(12*time.Minute, queue.BridgeOptions{})
			var ids []string
			for _, d := range b.there() {
				ids = append(ids, d.ID)
			}
			assert.ElementsMatch(b, []string{"before", "other"}, ids)
			assert.Len(b, b.here(), 2)
		})
	})
}

func TestBridgeRefusesWhatWouldLoseTheOrder(t *testing.T) {
	onTwoSides(t, memory.Options{}, memory.Options{}, true, func(b *bridging) {
		loose, err := b.right.Open(b.Context(), "loose", nil)
		require.NoError(b, err)
		defer loose.Close(context.Background())
		_, err = queue.Bridge(b.Context(), b.from, loose, nil)
		assert.ErrorIs(b, err, queue.ErrUnsupported)
		_, err = queue.Bridge(b.Context(), b.from, queue.PublisherFunc(b.to.Publish), nil)
		assert.ErrorIs(b, err, queue.ErrUnsupported, "who knows what order it keeps")
		_, err = queue.Bridge(b.Context(), b.from, b.from, nil)
		assert.ErrorIs(b, err, queue.ErrInvalid)
		for _, o := range []queue.BridgeOptions{{Rate: -1}, {Parallel: -1}, {Parallel: 65}, {Aside: -1}, {Quiet: -1}, {DeadLetter: b.from}} {
			_, err = queue.Bridge(b.Context(), b.from, b.to, &o)
			assert.ErrorIs(b, err, queue.ErrInvalid)
		}
		_, err = queue.Bridge(b.Context(), nil, b.to, nil)
		assert.ErrorIs(b, err, queue.ErrInvalid)
	})
}

func TestBridgeLosesNothingWhateverFails(t *testing.T) {
	onTwoSides(t, memory.Options{}, memory.Options{}, false, func(b *bridging) {
		const n = 300
		for i := range n {
			b.publish(&queue.Message{ID: fmt.Sprint("m", i), Body: []byte("x")})
		}
		b.left.Fail(memory.Fault{Call: memory.OnReceive, Skip: 1, Times: 3})
		b.left.Fail(memory.Fault{Call: memory.OnSettle, Match: every(4)})
		b.right.Fail(memory.Fault{Effect: memory.Unanswered, Match: every(3)})
		b.run(5*time.Minute, queue.BridgeOptions{})
		assert.Empty(b, b.here())
		seen := map[string]bool{}
		for _, d := range b.there() {
			seen[d.ID] = true
		}
		assert.Len(b, seen, n)
	})
}

// The process may die at any point: what's on its way comes again.
func TestBridgeThatIsStoppedFinishesWhatIsOnItsWay(t *testing.T) {
	onTwoSides(t, memory.Options{}, memory.Options{}, false, func(b *bridging) {
		for range 500 {
			b.publish(&queue.Message{Body: []byte("x")})
		}
		var once sync.Once
		ctx, stop := context.WithCancel(b.Context())
		res, err := queue.Bridge(ctx, b.from, b.to, &queue.BridgeOptions{Parallel: 1, Progress: func(queue.BridgeResult) { once.Do(stop) }})
		require.NoError(b, err)
		assert.Equal(b, 100, res.Copied)
		assert.Len(b, b.there(), 100)
		assert.Equal(b, 400, len(b.here()))
		in, _ := queue.As[queue.Inspector](b.from)
		st, err := in.Stats(b.Context())
		require.NoError(b, err)
		assert.Zero(b, *st.InFlight)
	})
}

// While the other side is down a message isn't received over and over: that would count
// as deliveries that failed, until the broker took it away.
func TestBridgeHoldsWhatItHasWhileTheOtherSideIsDown(t *testing.T) {
	onTwoSides(t, memory.Options{}, memory.Options{}, false, func(b *bridging) {
		const n = 250
		for range n {
			b.publish(&queue.Message{Body: []byte("x")})
		}
		heal := b.right.Fail(memory.Fault{Err: queue.ErrFull})
		assert.Zero(b, b.run(2*time.Hour, queue.BridgeOptions{}).Copied)
		require.Len(b, b.here(), n)
		for _, d := range b.here() {
			assert.LessOrEqual(b, d.Attempt, 1)
		}
		heal()
		assert.Equal(b, n, b.run(time.Hour, queue.BridgeOptions{Quiet: 10 * time.Second}).Copied)
	})
}

func TestBridgeEndsWhenNothingHasComeForQuiet(t *testing.T) {
	onTwoSides(t, memory.Options{Like: memory.PubSub}, memory.Options{Like: memory.SQSStandard}, false, func(b *bridging) {
		b.publish(&queue.Message{ID: "large", Body: make([]byte, 2<<20)})
		go func() {
			for i := range 20 {
				b.publish(&queue.Message{ID: fmt.Sprint(i), Body: []byte("x")})
				time.Sleep(9 * time.Second)
			}
		}()
		begun := time.Now()
		// What stays comes back meanwhile, and isn't new.
		res := b.run(time.Hour, queue.BridgeOptions{Quiet: 10 * time.Second, Aside: 4 * time.Second})
		assert.InDelta(b, 20*9+10, time.Since(begun).Seconds(), 10)
		assert.Equal(b, 20, res.Copied)
		assert.Equal(b, 1, res.Left)
		assert.Greater(b, res.Failed, 20)
	})
}

func TestBridgeCopiesOnceWhatItCannotRemove(t *testing.T) {
	onTwoSides(t, memory.Options{}, memory.Options{}, false, func(b *bridging) {
		for range 50 {
			b.publish(&queue.Message{Body: []byte("x")})
		}
		heal := b.left.Fail(memory.Fault{Call: memory.OnSettle})
		time.AfterFunc(30*time.Minute, heal)
		assert.Equal(b, queue.BridgeResult{Copied: 50}, b.run(time.Hour, queue.BridgeOptions{Parallel: 8}))
		assert.Len(b, b.there(), 50)
		assert.Empty(b, b.here())
	})
}

// What's copied and not removed is copied again after a crash: it mustn't become more and
// more.
func TestBridgeCopiesNoMoreWhileItCannotRemove(t *testing.T) {
	onTwoSides(t, memory.Options{}, memory.Options{}, false, func(b *bridging) {
		const n = 2000
		for range n {
			b.publish(&queue.Message{Body: []byte("x")})
		}
		heal := b.left.Fail(memory.Fault{Call: memory.OnSettle})
		time.AfterFunc(30*time.Minute, func() {
			assert.LessOrEqual(b, len(b.there()), 200)
			heal()
		})
		assert.Equal(b, queue.BridgeResult{Copied: n}, b.run(time.Hour, queue.BridgeOptions{Parallel: 2}))
		assert.Len(b, b.there(), n)
		assert.Empty(b, b.here())
		assert.Contains(b, b.log.String(), "bridge held up")
	})
}

func TestBridgeEndsWhenItMayNotRemove(t *testing.T) {
	onTwoSides(t, memory.Options{}, memory.Options{}, false, func(b *bridging) {
		for range 500 {
			b.publish(&queue.Message{Body: []byte("x")})
		}
		b.left.Fail(memory.Fault{Call: memory.OnSettle, Err: queue.ErrPermission})
		res, err := queue.Bridge(b.Context(), b.from, b.to, &queue.BridgeOptions{Parallel: 1, Logger: slog.New(slog.DiscardHandler)})
		require.ErrorIs(b, err, queue.ErrPermission)
		assert.Equal(b, queue.BridgeResult{Copied: 100, Repeated: 100}, res, "it doesn't copy a queue that it can't drain")
	})
}

// elsewhere is a queue of another region.
type elsewhere struct{ queue.Queue }

func (e elsewhere) Capabilities() queue.Capabilities {
	c := e.Queue.Capabilities()
	c.Address = "there:" + c.Address
	return c
}

func TestBridgeTakesTheSameNameElsewhereForAnotherQueue(t *testing.T) {
	onTwoSides(t, memory.Options{}, memory.Options{}, false, func(b *bridging) {
		same, err := b.right.Open(b.Context(), "orders", nil)
		require.NoError(b, err)
		defer func() { assert.NoError(b, same.Close(context.Background())) }()
		b.publish(&queue.Message{Body: []byte("x")})
		res, err := queue.Bridge(b.Context(), b.from, elsewhere{same}, &queue.BridgeOptions{Quiet: time.Second})
		require.NoError(b, err)
		assert.Equal(b, 1, res.Copied)
	})
}

func TestBridgeEndsWhenASideIsGone(t *testing.T) {
	onTwoSides(t, memory.Options{}, memory.Options{}, false, func(b *bridging) {
		b.publish(&queue.Message{Body: []byte("x")})
		require.NoError(b, b.to.Close(b.Context()))
		_, err := queue.Bridge(b.Context(), b.from, b.to, nil)
		assert.ErrorIs(b, err, queue.ErrClosed)
		assert.Len(b, b.here(), 1)
	})
}
