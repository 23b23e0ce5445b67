package main

import (
	"math"
	"time"
)

const (
	trickleRate = 100 // messages a second
	trickleWarm = 20  // messages that don't count
)

// trickled is how many messages a trickle of so long has.
func trickled(d time.Duration) int { return trickleWarm + int(d.Seconds()*trickleRate) }

// evenly is when a message is due.
func evenly(i int) time.Duration { return time.Duration(i) * time.Second / trickleRate }

// unevenly is the same with each message somewhere within its share of time: in
// step with a server that looks for messages at a fixed rate, all would wait
// equally long.
func unevenly(i int) time.Duration {
	_, within := math.Modf(float64(i) * math.Phi)
	return evenly(i) + time.Duration(within*float64(evenly(1)))
}

// trickle sends n numbered messages when they are due, and returns when each was
// sent. warm is called before the first one that counts.
func trickle(p cloudPublisher, n int, due func(i int) time.Duration, warm func()) ([]time.Time, error) {
	sent := make([]time.Time, n)
	begun := time.Now()
	for i := range n {
		body := numbered(i)
		// The same sleep for all. A tick that's late isn't made up for by two at once.
		time.Sleep(time.Until(begun.Add(due(i))))
		if i == trickleWarm {
			warm()
		}
		sent[i] = time.Now()
		if err := p.publish(body); err != nil {
			return nil, err
		}
	}
	return sent, nil
}

// trickleTook is how many milliseconds each message that counts took from just
// before its publish to its handler.
func trickleTook(sent, started []time.Time) []float64 {
	took := make([]float64, 0, len(sent))
	for i := trickleWarm; i < len(sent); i++ {
		took = append(took, milliseconds(started[i].Sub(sent[i])))
	}
	return took
}
