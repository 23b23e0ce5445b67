package main

import (
	"fmt"
	"time"
)

const (
	turnPause = 10 * time.Millisecond // between two calls, so that each is alone
	turnsWarm = 10                    // calls that don't count, at most
)

// turn is a system that's called again and again.
type turn struct {
	name string
	call func() error
	stop func() error
	took []float64 // milliseconds
}

// takeTurns makes n calls to each system, each while all are idle. The systems
// take turns with every call: what's compared is tenths of a millisecond.
func takeTurns(turns []*turn, n int) (map[string]figures, error) {
	warm := min(turnsWarm, n)
	for i := range warm + n {
		for _, t := range turns {
			time.Sleep(turnPause)
			before := time.Now()
			if err := t.call(); err != nil {
				return nil, fmt.Errorf("%s: %w", t.name, err)
			}
			if i >= warm {
				t.took = append(t.took, milliseconds(time.Since(before)))
			}
		}
	}
	fs := map[string]figures{}
	for _, t := range turns {
		if err := t.stop(); err != nil {
			return nil, fmt.Errorf("%s: %w", t.name, err)
		}
		fs[t.name] = figures{"p50 ms": quantile(t.took, 0.5), "p99 ms": quantile(t.took, 0.99)}
	}
	return fs, nil
}

// newTurn is a system that's sent single messages. Its queue is closed with it.
func newTurn(name string, p cloudPublisher, closeQueue func() error) *turn {
	body := newBody()
	return &turn{
		name: name,
		call: func() error { return p.publish(body) },
		stop: func() error { return errorsFirst(p.stop(), closeQueue()) },
	}
}
