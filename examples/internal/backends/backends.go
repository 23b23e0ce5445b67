// Package backends has the messaging systems that the examples can run on, by
// the name that QUEUE_BACKEND gives them.
package backends

import (
	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue/config"
	"github.com/anyqueue/anyqueue/sqs/awsclient"
)

// Prefix is the variable of the environment that begins the names of all queues
// on a shared broker, so that two runs of an example, or two people, don't get
// each other's messages. All processes of a run have the same.
const Prefix = "QUEUE_PREFIX"

// All are the backends. None is touched before a queue of its own is opened.
// Mem is the one in memory; its queues have no prefix, as nobody else has them.
func All(mem *memory.Broker, lookup func(string) (string, bool)) config.Backends {
	prefix, _ := lookup(Prefix)
	return config.Backends{
		memory.System: mem,
		"sqs":         Prefixed(awsclient.Backend(nil), prefix),
	}
}
