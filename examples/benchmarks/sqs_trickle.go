package main

import (
	"time"
)

const sqsTrickleLatency = 5 * time.Millisecond

// measureSQSTrickle sends evenly, far below what any of them can do. What's cheap
// and what's quick contradict each other here: both are measured at once.
func measureSQSTrickle(o options, r *report) error {
	cs := o.sqsContenders(lingerName)
	fns := make([]sqsContender, len(cs))
	for i, c := range cs {
		fns[i] = sqsContender{name: c.name, open: func() sqsSystem { return alone(c) }}
	}
	fs, err := compare(o.sqsRounds, fns, func(c sqsContender) (figures, error) { return sqsTrickle(o, c.open()) })
	if err != nil {
		return err
	}
	r.add("sqs-trickle, 100 messages/s, 5 ms per call", fs)
	ours, ok := fs[oursName]
	if !ok {
		return nil
	}
	r.target(cloudTarget(cs, fs, rawName, "requests/message", target{
		Name: "SQS trickle, requests per message", Want: 2.3, Got: ours["requests/message"],
	}))
	r.target(cloudTarget(cs, fs, rawName, "p50 ms", target{
		Name: "SQS trickle, publish to handler, p50", Unit: "ms", Want: 9, Got: ours["p50 ms"],
	}))
	return nil
}

func sqsTrickle(o options, s sqsSystem) (f figures, err error) {
	q, err := openSQS(o, sqsTrickleLatency)
	if err != nil {
		return nil, err
	}
	defer func() { err = errorsFirst(err, q.close()) }()
	n := trickled(o.sqsTrickle)
	q.link.watch(n)
	w := newSQSWork(q.link, n)
	c, err := s.consumer(q, sqsConsumerOptions{handlers: handlers, grace: -1}, w.started)
	if err != nil {
		return nil, err
	}
	p, err := s.publisher(q)
	if err != nil {
		return nil, err
	}
	var before calls
	sent, err := trickle(p, n, evenly, func() { before = q.link.sum() })
	if err != nil {
		return nil, err
	}
	if err := w.wait(); err != nil {
		return nil, err
	}
	receives := q.link.sum(actionReceive).requests - w.receives.requests // for other messages
	if _, err := c.stop(); err != nil {
		return nil, err
	}
	if err := p.stop(); err != nil {
		return nil, err
	}
	took := trickleTook(sent, w.at)
	return figures{
		"requests/message": float64(q.link.sum().requests-before.requests-receives) / float64(n-trickleWarm),
		"p50 ms":           quantile(took, 0.5),
		"p99 ms":           quantile(took, 0.99),
	}, nil
}
