package main

import (
	"fmt"
	"time"
)

const (
	sqsLoneLatency = 5 * time.Millisecond
	sqsLonePause   = 10 * time.Millisecond // between two messages, so that each is alone
	sqsLoneWarm    = 10                    // messages that don't count
)

// measureSQSLone sends single messages, each to a publisher that's idle. The
// systems take turns with every message: what's compared is tenths of a
// millisecond.
func measureSQSLone(o options, r *report) error {
	cs := o.sqsContenders(lingerName)
	fs := map[string]figures{}
	turns := make([]*loneTurn, 0, len(cs))
	for _, c := range cs {
		t, err := newLoneTurn(o, c)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		turns = append(turns, t)
	}
	body := newBody()
	for i := range sqsLoneWarm + o.sqsLone {
		for _, t := range turns {
			time.Sleep(sqsLonePause)
			before := time.Now()
			if err := t.publisher.publish(body); err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			if i >= sqsLoneWarm {
				t.took = append(t.took, milliseconds(time.Since(before)))
			}
		}
	}
	for _, t := range turns {
		if err := errorsFirst(t.publisher.stop(), t.q.close()); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		fs[t.name] = figures{"p50 ms": quantile(t.took, 0.5), "p99 ms": quantile(t.took, 0.99)}
	}
	r.add("sqs-lone, 5 ms per call", fs)
	ours, ok := fs[oursName]
	if !ok {
		return nil
	}
	floor, ok := fs[rawName]
	r.target(sqsTarget(cs, fs, rawName, "p50 ms", target{
		Name: "SQS lone publish, p50 (SendMessage + 0.3 ms)", Unit: "ms", Want: floor["p50 ms"] + 0.3,
		Got: ours["p50 ms"], missing: !ok,
	}))
	return nil
}

type loneTurn struct {
	name      string
	q         *sqsQueue
	publisher sqsPublisher
	took      []float64 // milliseconds
}

func newLoneTurn(o options, c sqsContender) (*loneTurn, error) {
	q, err := openSQS(o, sqsLoneLatency)
	if err != nil {
		return nil, err
	}
	p, err := alone(c).publisher(q)
	return &loneTurn{name: c.name, q: q, publisher: p}, err
}

// alone is the system for single messages, where the raw loop gathers nothing.
func alone(c sqsContender) sqsSystem {
	if c.name == rawName {
		return singleSQS{}
	}
	return c.open()
}
