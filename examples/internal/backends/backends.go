// Package backends has the messaging systems that the examples can run on, by
// the name that QUEUE_BACKEND gives them, and what an example has to know of
// what they can't do.
package backends

import (
	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/pubsub"
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
	return all(mem, lookup, nil)
}

// AllCounted are the same for programs that show how many messages queues have, which
// Pub/Sub doesn't tell itself: Google Cloud Monitoring is asked. That's a few requests for
// each look, and needs the role roles/monitoring.viewer.
func AllCounted(mem *memory.Broker, lookup func(string) (string, bool)) config.Backends {
	return all(mem, lookup, Metrics(lookup))
}

func all(mem *memory.Broker, lookup func(string) (string, bool), metrics pubsub.Metrics) config.Backends {
	prefix, _ := lookup(Prefix)
	return config.Backends{
		memory.System: mem,
		"sqs":         Prefixed(awsclient.Backend(nil), prefix),
		"pubsub":      Prefixed(pubsub.NewBackend(&pubsub.Options{Project: Project(lookup), Metrics: metrics}), prefix),
	}
}

// emulatorProject is where the queues are on Google's emulator, which takes any.
const emulatorProject = "anyqueue-examples"

// Project is the project of Google Cloud Pub/Sub: that of the environment, or one
// that does for the emulator, which has no credentials that could name one. Empty:
// that of the credentials.
func Project(lookup func(string) (string, bool)) string {
	if project, ok := lookup("GOOGLE_CLOUD_PROJECT"); ok && project != "" {
		return project
	}
	if emulator, ok := lookup("PUBSUB_EMULATOR_HOST"); ok && emulator != "" {
		return emulatorProject
	}
	return ""
}
