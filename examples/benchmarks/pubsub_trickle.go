package main

// measurePubSubTrickle sends a hundred messages a second, far below what any of them
// can do. The emulator looks for them every 50 ms or so, for pulls and streams
// alike, so that half of that is the least.
func measurePubSubTrickle(o options, r *report) error {
	cs := o.pubsubContenders(pubsubTrickleName)
	fs, err := compare(o.pubsubRounds, cs, func(c pubsubContender) (figures, error) { return pubsubTrickle(o, c) })
	if err != nil {
		return err
	}
	r.add("pubsub-trickle, 100 messages/s", fs)
	t := cloudTarget(cs, fs, pullsName, "p50 ms", target{Name: "Pub/Sub trickle, publish to handler, p50 (the best of the others + 2 ms)", Unit: "ms"})
	t.Want = t.Peer.value + 2
	t.Got, t.missing = t.Figure, fs[oursName] == nil || t.Peer.name == ""
	r.target(t)
	return nil
}

func pubsubTrickle(o options, c pubsubContender) (f figures, err error) {
	q, p, err := openPubSubPublisher(o, c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errorsFirst(err, q.close()) }()
	n := trickled(o.pubsubTrickle)
	w := newWork(n, func() {})
	s, err := c.consumer(q, pubsubConsumerOptions{handlers: handlers, pulls: 1, streams: 1}, w.started)
	if err != nil {
		return nil, err
	}
	var before calls
	sent, err := trickle(p, n, unevenly, func() { before = q.meter.sum() })
	if err != nil {
		return nil, err
	}
	if err := w.wait(); err != nil {
		return nil, err
	}
	if err := q.acknowledged(n); err != nil {
		return nil, err
	}
	all := q.meter.sum()
	if err := s.stop(); err != nil {
		return nil, err
	}
	if err := p.stop(); err != nil {
		return nil, err
	}
	took := trickleTook(sent, w.at)
	return figures{
		"requests/message": float64(all.requests-before.requests) / float64(n-trickleWarm),
		"p50 ms":           quantile(took, 0.5),
		"p99 ms":           quantile(took, 0.99),
	}, nil
}
