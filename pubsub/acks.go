package pubsub

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/googleapis/gax-go/v2"

	"github.com/anyqueue/anyqueue/internal/remote"
	"github.com/anyqueue/anyqueue/queue"
)

// group is what goes in one request.
type group struct {
	indexes  []int // in the call
	receipts []*receipt
}

func groupOf(rs []*receipt) group {
	g := group{receipts: rs, indexes: make([]int, len(rs))}
	for i := range rs {
		g.indexes[i] = i
	}
	return g
}

func (g *group) add(i int, r *receipt) {
	g.indexes = append(g.indexes, i)
	g.receipts = append(g.receipts, r)
}

// parts splits a group by what a request may hold.
func (g *group) parts() []group {
	var out []group
	for from := 0; from < len(g.receipts); from += maxMessages {
		to := min(from+maxMessages, len(g.receipts))
		out = append(out, group{g.indexes[from:to], g.receipts[from:to]})
	}
	return out
}

func (g *group) ackIDs() []string {
	ids := make([]string, len(g.receipts))
	for i, r := range g.receipts {
		ids[i] = r.received.GetAckId()
	}
	return ids
}

// each calls do for every part of a group.
func (s *source) each(g group, do func(group)) {
	parts := g.parts()
	remote.Parallel(len(parts), func(i int) { do(parts[i]) })
}

// acknowledge removes messages.
func (s *source) acknowledge(ctx context.Context, g group, errs []error) {
	client := s.h.client.SubscriptionAdminClient
	s.settle(ctx, g, errs, func(ctx context.Context, ids []string, opts ...gax.CallOption) error {
		s.h.counts.acks.Add(1)
		return client.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{Subscription: s.name, AckIds: ids}, opts...)
	})
}

// modify makes leases end in so many seconds; 0 gives the messages back.
func (s *source) modify(ctx context.Context, g group, seconds int32, errs []error) {
	client := s.h.client.SubscriptionAdminClient
	s.settle(ctx, g, errs, func(ctx context.Context, ids []string, opts ...gax.CallOption) error {
		s.h.counts.modacks.Add(1)
		return client.ModifyAckDeadline(ctx, &pubsubpb.ModifyAckDeadlineRequest{
			Subscription: s.name, AckIds: ids, AckDeadlineSeconds: seconds,
		}, opts...)
	})
}

type settling func(ctx context.Context, ids []string, opts ...gax.CallOption) error

// settle makes one request, and notes what became of each message.
//
// With exactly-once delivery an answer may name the ack ids that have failed. What
// it says of the others isn't documented: on Google's emulator they are done, and
// Google's clients take them for failed. So they're asked for once more: one that's
// unknown now, but wasn't named before, was taken by the first request.
func (s *source) settle(ctx context.Context, g group, errs []error, call settling) {
	err := s.ask(ctx, g, call)
	named := ackFailures(err)
	if named == nil {
		for _, i := range g.indexes {
			errs[i] = s.h.throttled(err)
		}
		return
	}
	var rest group
	for n, i := range g.indexes {
		if why, ok := named[g.receipts[n].received.GetAckId()]; ok {
			errs[i] = ackError(why)
		} else {
			rest.add(i, g.receipts[n])
		}
	}
	if len(rest.receipts) == 0 {
		return
	}
	err = s.ask(ctx, rest, call)
	named = ackFailures(err)
	for n, i := range rest.indexes {
		switch why, ok := named[rest.receipts[n].received.GetAckId()]; {
		case ok && why == ackLost, named != nil && !ok:
		case ok:
			errs[i] = ackError(why)
		default:
			errs[i] = s.h.throttled(err)
		}
	}
}

func (s *source) ask(ctx context.Context, g group, call settling) error {
	limited, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var t try
	return t.outcome(ctx, call(limited, g.ackIDs(), t.options()...))
}

// ackError is what the service says of one ack id.
func ackError(why string) error {
	err := fmt.Errorf("pubsub says %s", why)
	if strings.HasPrefix(why, "TRANSIENT_") {
		return err
	}
	return remote.As(queue.ErrLeaseLost, err) // trying again can't help
}

// throttled counts an error that says so.
func (h *handle) throttled(err error) error {
	if errors.Is(err, queue.ErrThrottled) {
		h.counts.throttled.Add(1)
	}
	return err
}
