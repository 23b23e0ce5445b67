package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/stretchr/testify/assert"
	"google.golang.org/grpc"

	"github.com/anyqueue/anyqueue/queue"
)

// ledger notes for each message, by its body, what may make it come again.
type ledger struct {
	mu     sync.Mutex
	sent   map[string]int      // how often it was sent to be published
	causes map[string][]string // failures, interruptions, lost leases, settlements that were given up
}

func newLedger() *ledger { return &ledger{sent: map[string]int{}, causes: map[string][]string{}} }

// intercept sees every request of a client, each try.
func (l *ledger) intercept(ctx context.Context, method string, in, out any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if p, ok := in.(*pubsubpb.PublishRequest); ok {
		l.mu.Lock()
		for _, m := range p.GetMessages() {
			l.sent[string(m.GetData())]++
		}
		l.mu.Unlock()
	}
	return invoke(ctx, method, in, out, conn, opts...)
}

// note adds a cause. A hook's delivery has a body only where no handler may be at it.
func (l *ledger) note(d *queue.Delivery, why string) {
	body := d.Body
	if o, ok := d.Native.(queue.Original); ok {
		body, _ = o.Original()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.causes[string(body)] = append(l.causes[string(body)], why)
}

// hooks are for each consumer.
func (l *ledger) hooks() *queue.Hooks {
	return &queue.Hooks{
		Settled: func(s queue.Settled) {
			switch {
			case s.Interrupted:
				l.note(s.Delivery, "interrupted")
			case s.Err != nil:
				l.note(s.Delivery, "failed")
			}
		},
		SettleFailed: func(d *queue.Delivery, kind queue.SettleKind, err error, retrying bool) {
			if !retrying {
				l.note(d, "not settled ("+kind.String()+"): "+err.Error())
			}
		},
		LeaseLost: func(d *queue.Delivery) { l.note(d, "lease lost") },
	}
}

// unexplained returns the messages that came more often than there are causes: that this
// message was sent again, failed, was cut short, lost its lease, or couldn't be settled.
func (l *ledger) unexplained(handled map[string]int) (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for body, n := range handled {
		if n > max(l.sent[body], 1)+len(l.causes[body]) {
			out = append(out, fmt.Sprintf("%q came %d times; sent %d times; %q", body, n, l.sent[body], l.causes[body]))
		}
	}
	return out
}

// judge checks that nothing was handled that was refused, and that every repetition of a
// message has its cause. It returns how many repetitions there were.
func (l *ledger) judge(t *testing.T, handled map[string]int, said map[string]error) (repeated int) {
	t.Helper()
	assert.Empty(t, l.unexplained(handled), "repetitions without a cause")
	for _, n := range handled {
		repeated += n - 1
	}
	for body, err := range said {
		if err != nil && !errors.Is(err, queue.ErrUnknownOutcome) {
			assert.Zero(t, handled[body], "%q came though it was refused: %v", body, err)
		}
	}
	return repeated
}

// What happened to one message doesn't explain another one's repetition.
func TestALedgerJudgesEachMessageByItself(t *testing.T) {
	l := newLedger()
	l.sent["again"], l.sent["once"] = 3, 1
	l.note(&queue.Delivery{Message: *message("failed")}, "failed")
	assert.Empty(t, l.unexplained(map[string]int{"again": 3, "once": 1, "failed": 2}))
	assert.Len(t, l.unexplained(map[string]int{"again": 4, "once": 2, "failed": 3}), 3)
}
