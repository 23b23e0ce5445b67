package main

import (
	"fmt"
	"time"
)

const (
	lonePause = 10 * time.Millisecond // between two messages, so that each is alone
	loneWarm  = 10                    // messages that don't count
)

// loneTurn is a system that's sent single messages.
type loneTurn struct {
	name      string
	publisher cloudPublisher
	close     func() error // its queue
	took      []float64    // milliseconds
}

// lone sends single messages, each to a publisher that's idle. The systems take
// turns with every message: what's compared is tenths of a millisecond.
func lone(turns []*loneTurn, n int) (map[string]figures, error) {
	body := newBody()
	for i := range loneWarm + n {
		for _, t := range turns {
			time.Sleep(lonePause)
			before := time.Now()
			if err := t.publisher.publish(body); err != nil {
				return nil, fmt.Errorf("%s: %w", t.name, err)
			}
			if i >= loneWarm {
				t.took = append(t.took, milliseconds(time.Since(before)))
			}
		}
	}
	fs := map[string]figures{}
	for _, t := range turns {
		if err := errorsFirst(t.publisher.stop(), t.close()); err != nil {
			return nil, fmt.Errorf("%s: %w", t.name, err)
		}
		fs[t.name] = figures{"p50 ms": quantile(t.took, 0.5), "p99 ms": quantile(t.took, 0.99)}
	}
	return fs, nil
}
