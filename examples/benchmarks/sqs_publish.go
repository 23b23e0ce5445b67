package main

import (
	"time"
)

const (
	sqsPublishLatency = 5 * time.Millisecond
	sqsMoreAllocs     = 15 // that ours may make beyond the raw loop, per message
)

// measureSQSPublish has a crowd publish.
func measureSQSPublish(o options, r *report) error {
	cs := o.sqsContenders()
	fs, err := compare(o.sqsRounds, cs, func(c sqsContender) (figures, error) { return sqsPublish(o, c.open()) })
	if err != nil {
		return err
	}
	r.add("sqs-publish, 64 publishers, 5 ms per call", fs)
	ours, ok := fs[oursName]
	if !ok {
		return nil
	}
	r.target(cloudTarget(cs, fs, lingerName, "requests/message", target{
		Name: "SQS publish, requests per message", Want: 0.12, Got: ours["requests/message"],
	}))
	floor, ok := fs[lingerName]
	r.target(cloudTarget(cs, fs, lingerName, "messages/s", target{
		Name: "SQS publish, times the raw loop with linger", Unit: "x", Atleast: true, Want: 1,
		Got: ratio(ours["messages/s"], floor["messages/s"]), FigureUnit: "messages/s", missing: !ok,
	}))
	r.target(cloudTarget(cs, fs, lingerName, "allocs/message", target{
		Name: "SQS publish, allocations per message (raw loop + 15)", Want: floor["allocs/message"] + sqsMoreAllocs,
		Got: ours["allocs/message"], missing: !ok,
	}))
	return nil
}

func sqsPublish(o options, s sqsSystem) (f figures, err error) {
	q, err := openSQS(o, sqsPublishLatency)
	if err != nil {
		return nil, err
	}
	defer func() { err = errorsFirst(err, q.close()) }()
	p, err := s.publisher(q)
	if err != nil {
		return nil, err
	}
	return crowdRound(p, o.sqsRound, func() calls { return q.link.sum(actionSend, actionSends) })
}
