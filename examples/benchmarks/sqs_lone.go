package main

import (
	"fmt"
	"time"
)

const sqsLoneLatency = 5 * time.Millisecond

// measureSQSLone sends single messages.
func measureSQSLone(o options, r *report) error {
	cs := o.sqsContenders(lingerName)
	turns := make([]*turn, 0, len(cs))
	for _, c := range cs {
		t, err := newSQSTurn(o, c)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		turns = append(turns, t)
	}
	fs, err := takeTurns(turns, o.sqsLone)
	if err != nil {
		return err
	}
	r.add("sqs-lone, 5 ms per call", fs)
	ours, ok := fs[oursName]
	if !ok {
		return nil
	}
	floor, ok := fs[rawName]
	r.target(cloudTarget(cs, fs, rawName, "p50 ms", target{
		Name: "SQS lone publish, p50 (SendMessage + 0.3 ms)", Unit: "ms", Want: floor["p50 ms"] + 0.3,
		Got: ours["p50 ms"], missing: !ok,
	}))
	return nil
}

func newSQSTurn(o options, c sqsContender) (*turn, error) {
	q, err := openSQS(o, sqsLoneLatency)
	if err != nil {
		return nil, err
	}
	p, err := alone(c).publisher(q)
	if err != nil {
		return nil, err
	}
	return newTurn(c.name, p, q.close), nil
}

// alone is the system for single messages, where the raw loop gathers nothing.
func alone(c sqsContender) sqsSystem {
	if c.name == rawName {
		return singleSQS{}
	}
	return c.open()
}
