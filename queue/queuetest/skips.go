package queuetest

import (
	"maps"
	"slices"
	"testing"
)

// feature is something that a backend may lack. The tests then assert that it's
// refused.
type feature string

const (
	featureOrdering    feature = "ordering"     // queues that keep the order of keys
	featureDedup       feature = "dedup"        // DedupID
	featureDelay       feature = "delay"        // Delay and DeliverAt
	featureRaw         feature = "raw"          // the harness can publish as a foreign program
	featureBrokerLimit feature = "broker-limit" // the broker's own limit of attempts
	featureInspect     feature = "inspect"      // Inspector
	featurePurge       feature = "purge"        // Purger
)

// lacking names, for each backend, what it may lack and why. What isn't here
// must work.
var lacking = map[string]map[feature]string{
	"memory": {
		featureDedup: "SQS standard queues and Pub/Sub don't deduplicate, so it isn't portable",
	},
	"memory-sqs-standard": {
		featureOrdering: "SQS standard queues keep no order",
		featureDedup:    "SQS standard queues don't deduplicate",
	},
	"memory-sqs-fifo": {
		featureDelay: "SQS FIFO can't delay one message",
	},
	"memory-pubsub": {
		featureDedup: "Pub/Sub doesn't deduplicate",
	},
	"sqs-standard": {
		featureOrdering: "SQS standard queues keep no order",
		featureDedup:    "SQS standard queues don't deduplicate",
	},
	"sqs-fifo": {
		featureDelay: "SQS FIFO can't delay one message",
	},
	"pubsub": {
		featureDedup: "Pub/Sub doesn't deduplicate",
	},
}

// realServers stands in the table of skips for every backend that doesn't run on
// virtual time.
const realServers = "real servers"

// skips names the tests that don't run on a backend or on a server, and why.
// Every other skip fails.
var skips = map[string]map[string]string{
	realServers: {
		"Outcomes/RetryAfterBeyondTheBrokersLimitIsNeverEarly": "takes 60 hours",
		"Attempts/FailuresSurviveAHop":                         "takes 26 hours",
		"Delay/ALongDelayIsKept":                               "takes 50 hours",
		"Dedup/AHopIsNoRepeat":                                 "takes a day",
		"Lease/TheBrokersOwnMaximumEndsTheLease":               "takes 13 hours",
		"Subscriber/AStaleSettlementHarmsNobody":               "servers differ in what an old receipt handle does, and SQS itself promises nothing",
	},
	"pstest": {
		"Admin/PurgeRemovesEverything":        "a Seek brings back messages without their content, on which its next pull crashes",
		"DeadLetter/TheBrokersOwnLimitIsANet": "it doesn't remove what it has dead-lettered, and so dead-letters it without end",
	},
	"pubsub-emulator": {
		"Order/OrderSurvivesARestart": "it puts what was given back behind what it hasn't delivered yet, where the service promises the order",
	},
	"localstack": {
		"Limits/TheLongestAttributeNameArrivesAndMoreIsRefused": "it takes names of 255 bytes, where SQS says 256",
		"Order/AHeadThatComesBackAtOnceHoldsBackItsFollowers":   "it unlocks a key as soon as one of it is given back, though another has been taken since, where SQS keeps it locked",
	},
}

// skipReason tells why a test doesn't run on h.
func skipReason(h *Harness, name string) (string, bool) {
	for _, key := range []string{h.Name, h.Server} {
		if reason, ok := skips[key][name]; ok {
			return reason, true
		}
	}
	if h.long() {
		return "", false
	}
	reason, ok := skips[realServers][name]
	return reason, ok
}

// checkTables fails for entries without a test: they'd allow what nobody asks
// for.
func checkTables(t testing.TB, all []theme) {
	t.Helper()
	names := map[string]bool{}
	for _, th := range all {
		for _, r := range th.rules {
			name := th.name + "/" + r.name
			if names[name] {
				t.Errorf("queuetest: two tests are named %q", name)
			}
			if r.why == "" {
				t.Errorf("queuetest: %q doesn't say why", name)
			}
			names[name] = true
		}
	}
	for _, backend := range slices.Sorted(maps.Keys(skips)) {
		for _, name := range slices.Sorted(maps.Keys(skips[backend])) {
			if !names[name] {
				t.Errorf("queuetest: the table of skips names %q for %q; there's no such test", name, backend)
			}
			if skips[backend][name] == "" {
				t.Errorf("queuetest: the skip of %q for %q has no reason", name, backend)
			}
		}
	}
}
