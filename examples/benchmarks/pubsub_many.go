package main

import "fmt"

const pubsubMany = 100 // messages in a call

// measurePubSubMany publishes many messages in one call, or in what comes next to
// it where there's no such call.
func measurePubSubMany(o options, r *report) error {
	cs := o.pubsubContenders(pubsubManyName)
	turns := make([]*turn, 0, len(cs))
	requests := map[string]float64{}
	for _, c := range cs {
		q, p, err := openPubSubPublisher(o, c)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		t := newTurn(c.name, p, q.close)
		many, ok := p.(manyPublisher)
		if !ok {
			return fmt.Errorf("%s can't publish many", c.name)
		}
		bodies := make([][]byte, pubsubMany)
		for i := range bodies {
			bodies[i] = newBody()
		}
		n := 0
		t.call = func() error {
			n++
			return many.publishMany(bodies)
		}
		stop := t.stop
		t.stop = func() error {
			sent := q.meter.sum(methodPublish)
			if sent.entries != n*pubsubMany {
				return fmt.Errorf("%d messages were published, %d went to the server", n*pubsubMany, sent.entries)
			}
			requests[c.name] = ratio(float64(sent.requests), float64(n))
			return stop()
		}
		turns = append(turns, t)
	}
	fs, err := takeTurns(turns, o.pubsubMany)
	if err != nil {
		return err
	}
	for name, v := range requests {
		fs[name]["requests/call"] = v
	}
	r.add("pubsub-many, 100 messages in a call", fs)
	t := cloudTarget(cs, fs, rawName, "requests/call", target{Name: "Pub/Sub, 100 messages in one call, requests", Want: 1})
	t.Got, t.missing = t.Figure, fs[oursName] == nil
	r.target(t)
	return nil
}
