package main

import "fmt"

// measurePubSubLone sends single messages.
func measurePubSubLone(o options, r *report) error {
	cs := o.pubsubContenders(pubsubLoneName)
	turns := make([]*turn, 0, len(cs))
	for _, c := range cs {
		q, p, err := openPubSubPublisher(o, c)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		turns = append(turns, newTurn(c.name, p, q.close))
	}
	fs, err := takeTurns(turns, o.pubsubLone)
	if err != nil {
		return err
	}
	r.add("pubsub-lone", fs)
	t := cloudTarget(cs, fs, rawName, "p50 ms", target{
		Name: "Pub/Sub lone publish, p50 (generated client + 0.3 ms)", Unit: "ms", Want: fs[rawName]["p50 ms"] + 0.3,
	})
	t.Got, t.missing = t.Figure, fs[oursName] == nil || fs[rawName] == nil
	r.target(t)
	return nil
}

func openPubSubPublisher(o options, c pubsubContender) (*pubsubQueue, cloudPublisher, error) {
	q, err := openPubSub(o)
	if err != nil {
		return nil, nil, err
	}
	p, err := c.publisher(q)
	return q, p, err
}
