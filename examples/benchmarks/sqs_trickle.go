package main

import (
	"time"
)

const (
	sqsTrickleRate    = 100 // messages a second
	sqsTrickleLatency = 5 * time.Millisecond
	sqsTrickleWarm    = 20 // messages that don't count
)

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
	r.target(sqsTarget(cs, fs, rawName, "requests/message", target{
		Name: "SQS trickle, requests per message", Want: 2.3, Got: ours["requests/message"],
	}))
	r.target(sqsTarget(cs, fs, rawName, "p50 ms", target{
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
	n := sqsTrickleWarm + int(o.sqsTrickle.Seconds()*sqsTrickleRate)
	q.link.watch(n)
	sent := make([]time.Time, n)
	w := newSQSWork(q.link, n)
	c, err := s.consumer(q, sqsConsumerOptions{handlers: handlers, grace: -1}, w.started)
	if err != nil {
		return nil, err
	}
	p, err := s.publisher(q)
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	var before calls
	for i := range n {
		body := numbered(i)
		// The same sleep for all. A tick that's late isn't made up for by two at once.
		time.Sleep(time.Until(begun.Add(time.Duration(i) * time.Second / sqsTrickleRate)))
		if i == sqsTrickleWarm {
			before = q.link.sum()
		}
		sent[i] = time.Now()
		if err := p.publish(body); err != nil {
			return nil, err
		}
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
	took := make([]float64, 0, n)
	for i := sqsTrickleWarm; i < n; i++ {
		took = append(took, milliseconds(w.at[i].Sub(sent[i])))
	}
	return figures{
		"requests/message": float64(q.link.sum().requests-before.requests-receives) / float64(n-sqsTrickleWarm),
		"p50 ms":           quantile(took, 0.5),
		"p99 ms":           quantile(took, 0.99),
	}, nil
}
