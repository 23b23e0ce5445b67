package main

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

const (
	sqsIdleLatency  = 5 * time.Millisecond
	sqsIdleMessages = 5
	sqsIdlePause    = time.Second // between them, so that each finds an idle queue

	// sqsStopMargin is for noticing that ReceiveGrace is over.
	sqsStopMargin = 50 * time.Millisecond
)

// measureSQSIdle has consumers with nothing to do, then sends them a few messages,
// then stops them. All contenders at once: it takes a minute, and they don't
// disturb each other.
func measureSQSIdle(o options, r *report) error {
	cs := o.sqsContenders(lingerName)
	var (
		wg   sync.WaitGroup
		all  = make([]figures, len(cs))
		errs = make([]error, len(cs))
	)
	for i, c := range cs {
		wg.Go(func() { all[i], errs[i] = sqsIdle(o, alone(c)) })
	}
	wg.Wait()
	fs := map[string]figures{}
	for i, c := range cs {
		if errs[i] != nil {
			return fmt.Errorf("%s: %w", c.name, errs[i])
		}
		fs[c.name] = all[i]
	}
	r.add("sqs-idle, 5 ms per call", fs)
	ours, ok := fs[oursName]
	if !ok {
		return nil
	}
	for _, t := range []struct {
		name, unit, figure string
		want               float64
	}{
		{"SQS idle, requests a minute", "", "requests/minute", 3.1},
		{"SQS idle, publish to handler, the slowest", "ms", "worst ms", milliseconds(50*time.Millisecond + sqsIdleLatency)},
		{"SQS idle, to stop", "ms", "stop ms", milliseconds(queue.DefaultReceiveGrace + sqsStopMargin)},
		{"SQS idle, cut polls that weren't counted", "", "uncounted cuts", 0},
	} {
		r.target(cloudTarget(cs, fs, rawName, t.figure, target{Name: t.name, Unit: t.unit, Want: t.want, Got: ours[t.figure]}))
	}
	return nil
}

func sqsIdle(o options, s sqsSystem) (f figures, err error) {
	q, err := openSQS(o, sqsIdleLatency)
	if err != nil {
		return nil, err
	}
	defer func() { err = errorsFirst(err, q.close()) }()
	p, err := s.publisher(q)
	if err != nil {
		return nil, err
	}
	started := make(chan time.Time, 2*sqsIdleMessages) // one may come twice
	c, err := s.consumer(q, sqsConsumerOptions{handlers: handlers}, func(int) { started <- time.Now() })
	if err != nil {
		return nil, err
	}
	time.Sleep(o.sqsIdle)
	f = figures{"requests/minute": q.link.perMinute()}
	var took []float64
	for range sqsIdleMessages {
		sent := time.Now()
		if err := p.publish(newBody()); err != nil {
			return nil, err
		}
		select {
		case at := <-started:
			took = append(took, milliseconds(at.Sub(sent)))
		case <-time.After(patience):
			return nil, errors.New("a message wasn't handled")
		}
		time.Sleep(min(sqsIdlePause, o.sqsIdle))
	}
	f["p50 ms"], f["worst ms"] = median(took), slices.Max(took)
	open := q.link.polls()
	begun := time.Now()
	cut, err := c.stop()
	if err != nil {
		return nil, err
	}
	f["stop ms"] = milliseconds(time.Since(begun))
	if cut >= 0 {
		f["cut polls"] = float64(cut)
		f["uncounted cuts"] = float64(max(open-cut, 0))
	}
	return f, p.stop()
}
