package traffic

import (
	"strings"
	"time"
)

// Character is what the messages of a queue are like, and its handler.
type Character struct {
	// Share is the queue's part of the rate, beside the shares of the others; 0: idle.
	Share float64
	// Burst is how many messages come at once, on average; 0: one.
	Burst int
	// Keys is how many customers they are about: ordering keys, where the queue is
	// ordered.
	Keys int
	// Work is what a handler mostly takes. One in a hundred takes ten times as long.
	Work time.Duration

	// What of the messages, or of the tries, doesn't go well; of 1.
	Passing float64 // tries that fail
	Refused float64 // messages that are rejected at once
	Lasting float64 // messages that fail again and again, until they're given up
	Panics  float64 // the same, with a panic
	Hangs   float64 // the same, running into the queue's timeout
}

const ms = time.Millisecond

// families by the part of a queue's name before the first hyphen.
var families = map[string]Character{
	"webhook": {Share: 3, Work: 2 * ms, Passing: 0.01, Refused: 0.005},
	"blast":   {Share: 4, Burst: 100, Work: 25 * ms, Passing: 0.02, Refused: 0.003},
	"crm":     {Share: 2, Keys: 200, Work: 20 * ms, Passing: 0.02, Refused: 0.002, Lasting: 0.001},
	"billing": {Share: 1, Keys: 200, Work: 10 * ms, Passing: 0.01, Lasting: 0.002},
	"order":   {Share: 2, Work: 8 * ms, Passing: 0.005, Panics: 0.001},
	"remind":  {Share: 0.5, Work: 5 * ms, Passing: 0.01},
	"export":  {Share: 0.05, Work: 800 * ms, Passing: 0.05},
	"image":   {Share: 0.3, Burst: 5, Work: 60 * ms, Panics: 0.05},
	"search":  {Share: 5, Burst: 10, Work: ms, Passing: 0.005},
	"sync":    {Share: 0.5, Work: 50 * ms, Passing: 0.2, Lasting: 0.005},
	"partner": {Share: 0.3, Work: 100 * ms, Passing: 0.05, Refused: 0.02},
	"ai":      {Share: 0.05, Work: 900 * ms, Passing: 0.05},
	"fraud":   {Share: 2, Work: 4 * ms},
	"audit":   {Share: 6, Burst: 20, Work: ms / 2},
	"legacy":  {Work: 100 * ms},
	"cron":    {Share: 0.01, Work: 200 * ms},
}

// exceptions are queues that aren't like their family.
var exceptions = map[string]func(*Character){
	"partner-hooli":   func(c *Character) { c.Passing = 1 }, // it's down
	"partner-stark":   func(c *Character) { c.Refused = 0.3 },
	"partner-globex":  func(c *Character) { c.Hangs = 0.02 },
	"partner-initech": func(c *Character) { c.Work = 700 * ms }, // it's slow
	// What blocks its key would do so until somebody comes.
	"billing-ledger": func(c *Character) { c.Lasting = 0 },
}

// IsDeadLetterQueue tells those that nobody publishes to or consumes.
func IsDeadLetterQueue(name string) bool { return strings.HasSuffix(name, "-dlq") }

// CharacterOf tells what a queue's messages are like. One that's in no family is idle.
func CharacterOf(queue string) Character {
	if IsDeadLetterQueue(queue) {
		return Character{}
	}
	family, _, _ := strings.Cut(queue, "-")
	c := families[family]
	if change := exceptions[queue]; change != nil {
		change(&c)
	}
	return c
}
