package main

import (
	"sync"
	"time"
)

// gathering is how a hand-written loop puts messages together.
type gathering struct {
	size    int           // of a request, at most
	senders int           // requests at once, where there's no linger
	linger  time.Duration // for a request that isn't full
}

// gather calls do with up to size of what comes in. With a linger a request that
// isn't full waits that long for more; there may be any number of them at once.
// Without one there are at most so many senders, and what comes meanwhile goes
// out together. It ends with in, and when all calls have returned.
func gather[T any](in <-chan T, g gathering, do func([]T)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	free := make(chan struct{}, g.senders)
	for first := range in {
		batch := append(make([]T, 0, g.size), first)
		if g.linger > 0 {
			batch = lingering(in, batch, time.After(g.linger))
			wg.Go(func() { do(batch) })
			continue
		}
		free <- struct{}{}
		batch = waiting(in, batch)
		wg.Go(func() {
			do(batch)
			<-free
		})
	}
}

// lingering fills a batch until it's full or time is up.
func lingering[T any](in <-chan T, batch []T, end <-chan time.Time) []T {
	for len(batch) < cap(batch) {
		select {
		case more, ok := <-in:
			if !ok {
				return batch
			}
			batch = append(batch, more)
		case <-end:
			return batch
		}
	}
	return batch
}

// waiting fills a batch with what's there.
func waiting[T any](in <-chan T, batch []T) []T {
	for len(batch) < cap(batch) {
		select {
		case more, ok := <-in:
			if !ok {
				return batch
			}
			batch = append(batch, more)
		default:
			return batch
		}
	}
	return batch
}

// gatherer is a publisher whose messages go out together.
type gatherer struct {
	in    chan gathered
	ended chan struct{}
}

type gathered struct {
	body []byte
	done chan error
}

func newGatherer(g gathering, send func(bodies [][]byte) error) *gatherer {
	p := &gatherer{in: make(chan gathered), ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		gather(p.in, g, func(batch []gathered) {
			bodies := make([][]byte, len(batch))
			for i := range batch {
				bodies[i] = batch[i].body
			}
			err := send(bodies)
			for i := range batch {
				batch[i].done <- err
			}
		})
	}()
	return p
}

func (p *gatherer) publish(body []byte) error {
	s := gathered{body, make(chan error, 1)}
	p.in <- s
	return <-s.done
}

func (p *gatherer) stop() error {
	close(p.in)
	<-p.ended
	return nil
}
