package queue

import (
	"context"
	"errors"
	"sync"
	"time"
)

// mover publishes what was received from one queue to another place, and only then
// removes it. It's driven by one goroutine.
type mover struct {
	from    Queue
	publish func(context.Context, ...*Message) error
	copyOf  func(d *Delivery, now time.Time) *Message
	rate    float64 // a second; 0: no limit

	keeper *leaseKeeper // of everything that's received and not settled
	ready  time.Time    // when the rate allows more

	// repeated holds, exactly, what was published but couldn't be removed: when
	// it comes again it's removed. Movers of one queue may share it.
	repeated *idSet

	failing int   // moves without a success, one after the other
	down    error // says that nothing can be published any more
	denied  error // says that nothing can be settled any more

	unremoved int   // removals without a success, one after the other
	kept      error // why the last removal has left something; nil: it has left nothing
	insist    bool  // what it has left is kept leased where trying again can help
}

// idSet is a set of brokers' ids. It may be used concurrently.
type idSet struct {
	mu  sync.Mutex
	ids map[string]struct{}
}

func newIDSet() *idSet { return &idSet{ids: map[string]struct{}{}} }

func (s *idSet) has(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.ids[id]
	return ok
}

func (s *idSet) add(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids[id] = struct{}{}
}

func (s *idSet) remove(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ids, id)
}

func (s *idSet) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ids)
}

func newMover(from Queue, publish func(context.Context, ...*Message) error, copyOf func(*Delivery, time.Time) *Message, rate float64) mover {
	return mover{
		from: from, publish: publish, copyOf: copyOf, rate: rate, keeper: newLeaseKeeper(from, from.Capabilities().Lease),
		ready: time.Now(), repeated: newIDSet(),
	}
}

// errBehind is of what was published, and is left to be published again, as an
// earlier one of its key wasn't.
var errBehind = errors.New("queue: an earlier message with the same OrderingKey couldn't be published")

// notMoved is a delivery that couldn't be published.
type notMoved struct {
	d   *Delivery
	err error
}

// move publishes ds and removes what is durable. It tells how many were published, and
// of those removed, and returns what failed. Of a key what was sent before one that
// had failed is sent once more after it: everything at least once, and in order at last.
// ctx ends the waiting between tries; work is for the calls.
func (m *mover) move(ctx, work context.Context, ds []*Delivery) (moved, removed int, failed []notMoved) {
	ds = m.keeper.ours(ds)
	if len(ds) == 0 {
		return 0, 0, nil
	}
	now := time.Now()
	msgs := make([]*Message, len(ds))
	for i, d := range ds {
		msgs[i] = m.copyOf(d, now)
	}
	var durable []*Delivery
	var down error              // not just this message can't be published
	broken := map[string]bool{} // keys of which one has failed for good
	for try := 1; len(ds) > 0; try++ {
		var leftDs []*Delivery
		var leftMsgs []*Message
		redo := map[string]bool{} // keys of which one is tried again: what follows it is too, so that it comes last
		for i, err := range PublishErrors(m.publish(work, msgs...), len(msgs)) {
			key := msgs[i].OrderingKey
			switch {
			case err == nil && !redo[key]:
				durable = append(durable, ds[i])
				continue
			case try < redriveTries && (err == nil || passing(err) && !broken[key]):
				redo[key] = key != ""
				leftDs, leftMsgs = append(leftDs, ds[i]), append(leftMsgs, msgs[i])
				continue
			case err == nil:
				err = errBehind
			}
			failed = append(failed, notMoved{ds[i], err})
			if broken[key] {
				continue // it's the one before it that can't be published
			}
			broken[key] = key != ""
			redo[key] = passing(err) && key != ""
			if passing(err) || final(err) && !errors.Is(err, ErrInvalid) {
				down = err
			}
		}
		ds, msgs = leftDs, leftMsgs
		if len(ds) > 0 && !sleep(ctx, Backoff{}.Delay(try)) {
			break // given back at the end
		}
	}
	switch {
	case len(durable) > 0:
		m.failing = 0
		if m.rate > 0 {
			m.ready = later(m.ready, now).Add(time.Duration(float64(len(durable)) / m.rate * float64(time.Second)))
		}
	case down != nil:
		if m.failing++; m.failing >= redriveFailing || final(down) {
			m.down = down
		}
	}
	return len(durable), len(m.remove(work, durable)), failed
}

// passing reports whether trying again can help.
func passing(err error) bool {
	var le *LimitError
	return !final(err) && !errors.As(err, &le)
}

// remove acknowledges what was published and returns what is gone. The rest is
// noted, to be removed when it comes again, or by those who insist. It has its own
// time, as what was published comes twice without it.
func (m *mover) remove(ctx context.Context, ds []*Delivery) (removed []*Delivery) {
	if len(ds) == 0 {
		return nil
	}
	m.keeper.drop(ds...)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), DefaultPublishTimeout)
	defer cancel()
	removed, left, errs := m.settle(ctx, ds, Settlement{Kind: Ack})
	m.kept = nil
	if m.unremoved++; len(removed) > 0 {
		m.unremoved = 0
	}
	for _, d := range removed {
		m.repeated.remove(d.BrokerID)
	}
	for i, d := range left {
		m.kept = errs[i]
		if d.BrokerID == "" {
			continue
		}
		m.repeated.add(d.BrokerID)
		if m.insist && passing(errs[i]) && !errors.Is(errs[i], ErrLeaseLost) {
			m.keeper.add(ctx, d)
		}
	}
	return removed
}

// close gives back everything that's still leased.
func (m *mover) close(ctx context.Context) {
	ds := m.keeper.close()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), DefaultPublishTimeout)
	defer cancel()
	m.settle(ctx, ds, Settlement{Kind: Release})
}

// settle tries a few times, and splits ds into what it could and what it couldn't, and
// why not.
func (m *mover) settle(ctx context.Context, ds []*Delivery, s Settlement) (done, failed []*Delivery, why []error) {
	for try := 1; len(ds) > 0; try++ {
		ss := make([]Settlement, len(ds))
		for i, d := range ds {
			ss[i] = s
			ss[i].Delivery = d
		}
		errs := settleErrors(m.from.Settle(ctx, ss...), len(ds))
		var left []*Delivery
		var leftWhy []error
		for i, d := range ds {
			switch {
			case errs == nil || errs[i] == nil:
				done = append(done, d)
			case try < redriveTries && passing(errs[i]) && !errors.Is(errs[i], ErrLeaseLost):
				left, leftWhy = append(left, d), append(leftWhy, errs[i])
			default:
				failed, why = append(failed, d), append(why, errs[i])
				if errors.Is(errs[i], ErrPermission) || errors.Is(errs[i], ErrQueueNotFound) || errors.Is(errs[i], ErrClosed) {
					m.denied = errs[i]
				}
			}
		}
		if ds = left; len(ds) > 0 && !sleep(ctx, 50*time.Millisecond<<try) {
			return done, append(failed, ds...), append(why, leftWhy...)
		}
	}
	return done, failed, why
}
