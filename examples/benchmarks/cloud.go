package main

import "strconv"

// cloudHandlers is how many handlers a backlog gets.
const cloudHandlers = 100

// cloudHandler processes a message. It's told the number that the body begins
// with, -1 when the message is damaged.
type cloudHandler func(number int)

// cloudPublisher is used by many goroutines at once.
type cloudPublisher interface {
	// publish returns when the message is durable.
	publish(body []byte) error
	stop() error
}

// calls are requests of one kind. Entries are the messages in them, or in their
// answers.
type calls struct{ requests, entries int }

// numbered is a body that begins with its number.
func numbered(i int) []byte {
	b := newBody()
	copy(b, number(i))
	return b
}

// numberOf is the number of a message with so many attributes; -1: it's damaged.
func numberOf[T ~string | ~[]byte](body T, attrs int) int {
	if len(body) != bodySize || attrs != attributes {
		return -1
	}
	i, err := strconv.Atoi(string(body[:numberWidth]))
	if err != nil {
		return -1
	}
	return i
}
