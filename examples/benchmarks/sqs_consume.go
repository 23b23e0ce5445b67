package main

import (
	"fmt"
	"sync/atomic"
	"time"
)

// measureSQSConsume empties a queue with 100 handlers at once, as fast as it goes.
func measureSQSConsume(o options, r *report) error {
	for _, m := range []struct {
		latency, work time.Duration
		targets       func(r *report, what string, cs []sqsContender, fs map[string]figures)
	}{
		{5 * time.Millisecond, 10 * time.Millisecond, cheapSQS},
		{20 * time.Millisecond, 0, fastSQS},
		{20 * time.Millisecond, 10 * time.Millisecond, fastSQS},
	} {
		cs := o.sqsContenders(lingerName)
		fs, err := compare(o.sqsRounds, cs, func(c sqsContender) (figures, error) { return sqsConsume(o, c.open(), m.latency, m.work) })
		if err != nil {
			return err
		}
		what := fmt.Sprintf("%d ms per call, %d ms handler", m.latency.Milliseconds(), m.work.Milliseconds())
		if m.work == 0 {
			what = fmt.Sprintf("%d ms per call, no-op", m.latency.Milliseconds())
		}
		r.add("sqs-consume, "+what, fs)
		if _, ok := fs[oursName]; ok {
			m.targets(r, what, cs, fs)
		}
	}
	return nil
}

// cheapSQS are the targets for what it costs.
func cheapSQS(r *report, _ string, cs []sqsContender, fs map[string]figures) {
	ours := fs[oursName]
	floor, ok := fs[rawName]
	r.target(cloudTarget(cs, fs, rawName, "requests/message", target{
		Name: "SQS consume, requests per message", Want: 0.21, Got: ours["requests/message"],
	}))
	r.target(cloudTarget(cs, fs, rawName, "allocs/message", target{
		Name: "SQS consume, allocations per message (raw loop + 15)", Want: floor["allocs/message"] + sqsMoreAllocs,
		Got: ours["allocs/message"], missing: !ok,
	}))
}

// fastSQS are the targets for how fast it is.
func fastSQS(r *report, what string, cs []sqsContender, fs map[string]figures) {
	ours := fs[oursName]
	floor, ok := fs[rawName]
	r.target(cloudTarget(cs, fs, rawName, "messages/s", target{
		Name: "SQS consume, times the wide raw loop, " + what, Unit: "x", Atleast: true, Want: 0.9,
		Got: ratio(ours["messages/s"], floor["messages/s"]), FigureUnit: "messages/s", missing: !ok,
	}))
	r.target(cloudTarget(cs, fs, rawName, "on expired lease", target{
		Name: "SQS handlers on an expired lease, " + what, Want: 0, Got: ours["on expired lease"],
	}))
}

func sqsConsume(o options, s sqsSystem, latency, work time.Duration) (f figures, err error) {
	q, err := openSQS(o, latency)
	if err != nil {
		return nil, err
	}
	defer func() { err = errorsFirst(err, q.close()) }()
	n := o.sqsMessages
	if err := q.fill(n); err != nil {
		return nil, err
	}
	q.link.watch(n)
	w := newSQSWork(q.link, n)
	mem, cpu, err := usage()
	if err != nil {
		return nil, err
	}
	c, err := s.consumer(q, sqsConsumerOptions{handlers: cloudHandlers, wide: true, grace: -1}, func(i int) {
		w.started(i)
		if work > 0 {
			time.Sleep(work)
		}
	})
	if err != nil {
		return nil, err
	}
	if err := w.wait(); err != nil {
		return nil, err
	}
	if _, err := c.stop(); err != nil {
		return nil, err
	}
	after, used, err := usage()
	if err != nil {
		return nil, err
	}
	again := q.link.sum(actionReceive).entries - n
	// One that was received again may have been so when it was handled already.
	if left, err := q.left(); err != nil || left > max(again, 0) {
		return nil, errorsFirst(err, fmt.Errorf("%d messages are left", left))
	}
	all := float64(n)
	return figures{
		"messages/s":       all / w.lasted().Seconds(),
		"requests/message": float64(w.receives.requests+q.link.sum(actionDelete, actionDeletes).requests) / all,
		"receives/message": float64(w.receives.requests) / all,
		"received again":   float64(again),
		"on expired lease": float64(w.expired.Load()),
		"allocs/message":   float64(after-mem) / all,
		"CPU µs/message":   float64((used - cpu).Microseconds()) / all,
	}, nil
}

// sqsWork is work whose messages come over a link.
type sqsWork struct {
	*work
	link     *link
	expired  atomic.Int64 // handlers that started when the lease was over
	receives calls        // until the end: what's asked for later is for other messages
}

func newSQSWork(l *link, n int) *sqsWork {
	w := &sqsWork{link: l}
	w.work = newWork(n, func() { w.receives = l.sum(actionReceive) })
	return w
}

// started counts a message. That somebody has extended its lease isn't seen here:
// an extended one counts as over, but nothing should have to wait so long.
func (w *sqsWork) started(i int) {
	if i >= 0 && i < len(w.done) && time.Now().After(w.link.arrival(i).Add(sqsLease)) {
		w.expired.Add(1)
	}
	w.work.started(i)
}

// lasted is how long it took from the first receive on: what a queue is asked when
// it's opened isn't part of it.
func (w *sqsWork) lasted() time.Duration { return w.end.Sub(w.link.firstSent(actionReceive)) }
