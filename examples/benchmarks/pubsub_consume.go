package main

import "time"

// measurePubSubConsume takes messages from a full queue with 100 handlers at once,
// as fast as it goes.
func measurePubSubConsume(o options, r *report) error {
	cs := o.pubsubContenders(pubsubConsumeName)
	for i, m := range []struct {
		what string
		work time.Duration
	}{
		{"no-op", 0},
		{"10 ms handler", 10 * time.Millisecond},
	} {
		if i > 0 {
			if err := o.freshEmulator(); err != nil {
				return err
			}
		}
		fs, err := compare(o.pubsubRounds, cs, func(c pubsubContender) (figures, error) { return pubsubConsume(o, c, m.work) })
		if err != nil {
			return err
		}
		r.add("pubsub-consume, "+m.what, fs)
		fastPubSub(r, "consume, "+m.what, cs, fs, pullsName)
		cheapPubSub(r, "consume, "+m.what, cs, fs, pullsName)
	}
	return nil
}

func pubsubConsume(o options, c pubsubContender, work time.Duration) (f figures, err error) {
	q, err := openPubSub(o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errorsFirst(err, q.close()) }()
	if err := q.fill(o.pubsubMessages); err != nil {
		return nil, err
	}
	w := newWork(o.pubsubMessages, func() {})
	mem, cpu, err := usage()
	if err != nil {
		return nil, err
	}
	s, err := c.consumer(q, pubsubConsumerOptions{handlers: cloudHandlers, pulls: o.pubsubPulls, streams: o.pubsubStreams}, func(i int) {
		w.started(i)
		if work > 0 {
			time.Sleep(work)
		}
	})
	if err != nil {
		return nil, err
	}
	n, end, err := w.waitFor(o.pubsubConsume)
	if err != nil {
		return nil, err
	}
	if n == o.pubsubMessages {
		if err := q.acknowledged(n); err != nil {
			return nil, err
		}
	}
	received := q.meter.sum(methodPull, methodStream)
	settled := q.meter.sum(methodAck, methodModify)
	if err := s.stop(); err != nil {
		return nil, err
	}
	after, used, err := usage()
	if err != nil {
		return nil, err
	}
	all := float64(w.handled()) // with those that were still to be handled when time was up
	return figures{
		"messages/s":       float64(n) / end.Sub(q.meter.firstReceive()).Seconds(),
		"requests/message": float64(received.requests+settled.requests) / all,
		"received again":   float64(max(received.entries-o.pubsubMessages, 0)),
		"allocs/message":   float64(after-mem) / all,
		"CPU µs/message":   float64((used - cpu).Microseconds()) / all,
	}, nil
}
