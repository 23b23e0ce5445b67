package main

const (
	pubsubAllocs = 50   // that a message may cost, each way
	pubsubShare  = 0.95 // of what the best of the others reaches
)

// measurePubSubPublish has a crowd publish.
func measurePubSubPublish(o options, r *report) error {
	cs := o.pubsubContenders(pubsubPublishName)
	fs, err := compare(o.pubsubRounds, cs, func(c pubsubContender) (figures, error) { return pubsubPublish(o, c) })
	if err != nil {
		return err
	}
	r.add("pubsub-publish, 64 publishers", fs)
	fastPubSub(r, "publish", cs, fs, tensName)
	cheapPubSub(r, "publish", cs, fs, tensName)
	return nil
}

// fastPubSub is the target for how fast it is. The others are all others: what one
// writes by hand too.
func fastPubSub(r *report, what string, cs []pubsubContender, fs map[string]figures, floor string) {
	t := cloudTarget(cs, fs, floor, "messages/s", target{
		Name: "Pub/Sub " + what + ", times the best of the others", Unit: "x", Atleast: true, Want: pubsubShare, FigureUnit: "messages/s",
	})
	t.Got = ratio(t.Figure, t.Peer.value)
	t.missing = fs[oursName] == nil || t.Peer.name == ""
	r.target(t)
}

// cheapPubSub is the target for what it costs.
func cheapPubSub(r *report, what string, cs []pubsubContender, fs map[string]figures, floor string) {
	t := cloudTarget(cs, fs, floor, "allocs/message", target{Name: "Pub/Sub " + what + ", allocations per message", Want: pubsubAllocs})
	t.Got = t.Figure
	t.missing = fs[oursName] == nil
	r.target(t)
}

func pubsubPublish(o options, c pubsubContender) (f figures, err error) {
	q, p, err := openPubSubPublisher(o, c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errorsFirst(err, q.close()) }()
	return crowdRound(p, o.pubsubRound, func() calls { return q.meter.sum(methodPublish) })
}
