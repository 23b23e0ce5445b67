package main

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	sqsPublishers     = 64
	sqsPublishLatency = 5 * time.Millisecond
	sqsMoreAllocs     = 15 // that ours may make beyond the raw loop, per message
)

// measureSQSPublish has 64 publishers that each send one message after the other,
// as the requests that an application serves do.
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
	r.target(sqsTarget(cs, fs, lingerName, "requests/message", target{
		Name: "SQS publish, requests per message", Want: 0.12, Got: ours["requests/message"],
	}))
	floor, ok := fs[lingerName]
	r.target(sqsTarget(cs, fs, lingerName, "messages/s", target{
		Name: "SQS publish, times the raw loop with linger", Unit: "x", Atleast: true, Want: 1,
		Got: ratio(ours["messages/s"], floor["messages/s"]), FigureUnit: "messages/s", missing: !ok,
	}))
	r.target(sqsTarget(cs, fs, lingerName, "allocs/message", target{
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
	if _, err := publishSQSFor(p, o.sqsRound/10); err != nil { // warms up
		return nil, err
	}
	calls := q.link.sum(actionSend, actionSends)
	mem, cpu, err := usage()
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	took, err := publishSQSFor(p, o.sqsRound)
	if err != nil {
		return nil, err
	}
	lasted := time.Since(begun).Seconds()
	after, used, err := usage()
	if err != nil {
		return nil, err
	}
	if err := p.stop(); err != nil {
		return nil, err
	}
	n := float64(len(took))
	sent := q.link.sum(actionSend, actionSends)
	if got := sent.entries - calls.entries; got != len(took) {
		return nil, fmt.Errorf("%d messages were published, %d went to the server", len(took), got)
	}
	return figures{
		"messages/s":       n / lasted,
		"requests/message": float64(sent.requests-calls.requests) / n,
		"p50 ms":           quantile(took, 0.5),
		"p99 ms":           quantile(took, 0.99),
		"allocs/message":   float64(after-mem) / n,
		"CPU µs/message":   float64((used - cpu).Microseconds()) / n,
	}, nil
}

// publishSQSFor publishes for so long, and returns how many milliseconds each took.
func publishSQSFor(p sqsPublisher, d time.Duration) ([]float64, error) {
	var (
		wg   sync.WaitGroup
		took [sqsPublishers][]float64
		errs [sqsPublishers]error
	)
	end := time.Now().Add(d)
	for i := range sqsPublishers {
		wg.Go(func() {
			body := newBody()
			for before := time.Now(); before.Before(end); {
				if errs[i] = p.publish(body); errs[i] != nil {
					return
				}
				now := time.Now()
				took[i] = append(took[i], milliseconds(now.Sub(before)))
				before = now
			}
		})
	}
	wg.Wait()
	var all []float64
	for i := range took {
		all = append(all, took[i]...)
	}
	return all, errors.Join(errs[:]...)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// usage is how often this process has allocated, and the CPU time that it has used.
func usage() (mallocs uint64, cpu time.Duration, err error) {
	cpu, err = cpuTime()
	return readMem().Mallocs, cpu, err
}

// sqsTarget completes a target with what others reach in the figure that it's about.
func sqsTarget(cs []sqsContender, fs map[string]figures, floor, figure string, t target) target {
	t.Figure, t.Floor = fs[oursName][figure], fs[floor][figure]
	for _, c := range cs {
		v, ok := fs[c.name][figure]
		better := v < t.Peer.value
		if t.Atleast {
			better = v > t.Peer.value
		}
		if c.peer && ok && (t.Peer.name == "" || better) {
			t.Peer = peer{c.name, v}
		}
	}
	return t
}
