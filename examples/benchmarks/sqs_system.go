package main

import (
	"slices"
	"strings"
	"time"
)

// sqsSystem is what's compared on SQS.
type sqsSystem interface {
	publisher(*sqsQueue) (cloudPublisher, error)

	// consumer handles what's in the queue, at most so many at once. A wide one has
	// as many receives open as a backlog takes where the system doesn't see to that
	// itself. ReceiveGrace is of ours alone.
	consumer(q *sqsQueue, c sqsConsumerOptions, h cloudHandler) (sqsConsumer, error)
}

type sqsConsumerOptions struct {
	handlers int
	wide     bool
	grace    time.Duration // ConsumerOptions.ReceiveGrace
}

type sqsConsumer interface {
	// stop ends it: no handler runs any more, and what was handled is deleted. It
	// returns how many receives it cut off that may have taken messages; -1: it
	// doesn't know.
	stop() (cut int, err error)
}

type sqsContender struct {
	name string
	peer bool
	open func() sqsSystem
}

func (c sqsContender) called() string { return c.name }
func (c sqsContender) isPeer() bool   { return c.peer }

const (
	rawName    = "raw"        // what an application writes on the AWS SDK: the floor
	lingerName = "raw-linger" // the same, which waits until its requests are full
)

var sqsContenders = []sqsContender{
	{name: rawName, open: func() sqsSystem { return rawSQS{} }},
	{name: lingerName, open: func() sqsSystem { return rawSQS{linger: rawLinger} }},
	{name: oursName, open: func() sqsSystem { return ourSQS{} }},
	{name: "gocloud", peer: true, open: func() sqsSystem { return gocloudSQS{} }},
}

// sqsContenders are those that were asked for, but some.
func (o options) sqsContenders(without ...string) []sqsContender {
	wanted := strings.FieldsFunc(o.systems, func(r rune) bool { return r == ',' })
	var out []sqsContender
	for _, c := range sqsContenders {
		if !slices.Contains(without, c.name) && (len(wanted) == 0 || slices.Contains(wanted, c.name)) {
			out = append(out, c)
		}
	}
	return out
}
