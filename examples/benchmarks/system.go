package main

import (
	"fmt"
	"slices"
	"strings"
)

// handler processes a message. What it's given is its own: it may change it, and
// a redelivery brings the original. An error makes the message come again.
type handler func(body []byte, attrs map[string]string) error

// A system is what's compared: a broker in memory with its consumers.
type system interface {
	// start opens a queue and handles what's in it, at most so many at once. With
	// 0 handlers it's only opened, and keeps what's published.
	start(name string, handlers int, h handler) (session, error)
}

// A session is an open queue.
type session interface {
	// publisher returns a function that publishes. It's used by one goroutine,
	// which may change body and attrs afterwards.
	publisher(attrs map[string]string) func(body []byte) error

	// stop returns when what was handled is acknowledged and no handler runs; other
	// goroutines may end a little later. An error says that a message is left.
	stop() error
}

type contender struct {
	name string
	peer bool
	open func() system
}

func (c contender) called() string { return c.name }
func (c contender) isPeer() bool   { return c.peer }

const (
	floorName = "floor"
	oursName  = "anyqueue"
)

var contenders = []contender{
	{name: floorName, open: newFloor},
	{name: oursName, open: newOurs},
	{name: "watermill", peer: true, open: newWatermill},
	{name: "gocloud", peer: true, open: newGocloud},
}

func names[C contestant](cs []C) []string {
	out := make([]string, len(cs))
	for i, c := range cs {
		out[i] = c.called()
	}
	return out
}

// systemNames are those of all contenders, in memory, on SQS and on Pub/Sub.
func systemNames() []string {
	all := names(contenders)
	for _, name := range append(names(sqsContenders), names(pubsubContenders)...) {
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}

// choose returns those of the list that work in memory.
func choose(list string) ([]contender, error) {
	if list == "" {
		return contenders, nil
	}
	var out []contender
	for name := range strings.SplitSeq(list, ",") {
		if !slices.Contains(systemNames(), name) {
			return nil, fmt.Errorf("no system %q; there are %s", name, strings.Join(systemNames(), ", "))
		}
		for _, c := range contenders {
			if c.name == name {
				out = append(out, c)
			}
		}
	}
	return out, nil
}

const (
	publishers = 8
	handlers   = 16
	bodySize   = 1024
)

// newBody is a kilobyte of text, as JSON is.
func newBody() []byte { return []byte(strings.Repeat("abcdefghijklmnop", bodySize/16)) }

func newAttributes() map[string]string {
	return map[string]string{"tenant": "acme", "kind": "order", "trace": "0af7651916cd43dd8448eb211c80319c"}
}

const attributes = 3

// check is what every handler does at least: a message that arrives damaged makes
// the figures worthless.
func check(body []byte, attrs map[string]string) error {
	if len(body) != bodySize || len(attrs) != attributes {
		return fmt.Errorf("got %d bytes and %d attributes", len(body), len(attrs))
	}
	return nil
}
