package pubsub

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anyqueue/anyqueue/internal/remote"
	"github.com/anyqueue/anyqueue/queue"
)

// source is a subscription that's received from.
type source struct {
	h           *handle
	name        string // full name
	ackDeadline time.Duration
	exactlyOnce bool
	polls       remote.Polls[*receipt]

	// aside says that it's the return subscription: an error of it mustn't hold up the
	// main one.
	aside  bool
	silent time.Duration // after the latest of its errors; of one poll at a time
	log    *slog.Logger
}

const (
	// pollMargin is how much earlier than its caller a pull ends.
	pollMargin = 250 * time.Millisecond
	// leastToConnect is how long a pull without a connection waits for one at least
	// before that's an error.
	leastToConnect = time.Second
	// shortPause is for a caller that goes sooner than a pull is worth.
	shortPause = 100 * time.Millisecond
	// asidePulls is how much the return subscription is asked for at a time: what
	// comes that way is rare.
	asidePulls = 100

	minSilence = time.Second
	maxSilence = time.Minute
)

func (s *source) init(h *handle) {
	s.h = h
	s.polls.Poll, s.polls.GiveBack, s.polls.Ordered = s.poll, s.giveBack, h.caps.Ordering
	lease := s.ackDeadline
	if h.lease > 0 {
		lease = time.Duration(h.lease) * time.Second
	}
	// As the engine would. Each is left alone whenever the other has brought something.
	s.polls.Keep = min(lease/20, time.Second)
	if s.aside {
		s.polls.Poll = s.pollAside
		s.polls.Most = 1
	}
}

// poll pulls once.
func (s *source) poll(ctx context.Context, most int) ([]*receipt, error) {
	h := s.h
	wait := h.wait
	if until, ok := remote.Until(ctx); ok {
		wait = min(wait, time.Until(until)-pollMargin)
	}
	if wait <= 0 { // that mustn't become a pull after the other
		pause(ctx, shortPause, nil)
		return nil, nil
	}
	limited, cancel := context.WithTimeout(ctx, wait) // the server is told
	defer cancel()
	var t try
	h.counts.pulls.Add(1)
	out, err := h.client.SubscriptionAdminClient.Pull(limited, &pubsubpb.PullRequest{
		Subscription: s.name, MaxMessages: int32(most), //nolint:gosec // at most 1,000
	}, t.options()...)
	if err != nil {
		over := ctx.Err() == nil && (limited.Err() != nil || status.Code(err) == codes.DeadlineExceeded)
		if over && (t.peer.Addr != nil || wait < leastToConnect) {
			return nil, nil // nothing came
		}
		if t.maybe(err) {
			h.counts.unread.Add(1)
		}
		return nil, h.throttled(classify(ctx, err))
	}
	received := time.Now()
	block := make([]receipt, len(out.GetReceivedMessages())) // one allocation for all
	rs := make([]*receipt, len(block))
	for i, m := range out.GetReceivedMessages() {
		block[i] = receipt{from: s, received: m, deadline: received.Add(s.ackDeadline)}
		rs[i] = &block[i]
	}
	if h.lease > 0 && len(rs) > 0 {
		rs = s.shape(ctx, rs)
	}
	return rs, nil
}

// shape gives what was pulled the lease that was asked for: a pull itself can't.
// Where that fails, it's as long as the subscription says; what's lost already is
// somebody else's.
func (s *source) shape(ctx context.Context, rs []*receipt) []*receipt {
	begun := time.Now()
	errs := make([]error, len(rs))
	s.each(groupOf(rs), func(g group) { s.modify(ctx, g, s.h.lease, errs) })
	ours := rs[:0]
	for i, r := range rs {
		switch {
		case errs[i] == nil:
			r.deadline = begun.Add(time.Duration(s.h.lease) * time.Second)
		case errors.Is(errs[i], queue.ErrLeaseLost):
			continue
		case errors.Is(errs[i], queue.ErrUnknownOutcome): // either of them
			if asked := begun.Add(time.Duration(s.h.lease) * time.Second); asked.Before(r.deadline) {
				r.deadline = asked
			}
		}
		ours = append(ours, r)
	}
	return ours
}

// pollAside is poll without an error: it's said in the log, and the next pull waits.
func (s *source) pollAside(ctx context.Context, most int) ([]*receipt, error) {
	rs, err := s.poll(ctx, min(most, asidePulls))
	if err == nil {
		s.silent = 0
		return rs, nil
	}
	if ctx.Err() != nil {
		return nil, nil
	}
	if s.silent == 0 {
		s.log.Warn("the return subscription can't be received from; trying again", "queue", s.h.name, "subscription", s.name, "err", err)
	}
	s.silent = min(max(2*s.silent, minSilence), maxSilence)
	pause(ctx, s.silent, s.h.closing)
	return nil, nil
}

// pause waits, unless ctx has ended or over is closed.
func pause(ctx context.Context, d time.Duration, over <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-over:
	case <-ctx.Done():
	}
}

// giveBack makes Pub/Sub deliver again what nobody waits for. Where it fails, its
// lease ends by itself.
func (s *source) giveBack(ctx context.Context, rs []*receipt) {
	for _, r := range rs {
		s.h.unseen.Add(r.received.GetMessage().GetMessageId())
	}
	s.each(groupOf(rs), func(g group) { s.modify(ctx, g, 0, make([]error, len(rs))) })
}
