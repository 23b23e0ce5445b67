package config

import (
	"go.yaml.in/yaml/v3"

	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
)

// top is what stands at the top of a file and is read later: what's inherited
// comes before what inherits it, in whatever order the file has them.
type top struct {
	backend                  string
	defaults, limits, queues *yaml.Node
}

func (r *reader) topFields(t *top) []field {
	later := func(to **yaml.Node, s func() *schema) form {
		return form{func(_ string, n *yaml.Node) { *to = n }, s}
	}
	return []field{
		{"backend", r.text(&t.backend), "the backend of the queues that name none: one that the program has, such as memory, sqs or pubsub", nil},
		{"ensure", r.boolean(&r.file.Ensure), "whether a queue that's missing is created when it's first used, after its dead-letter queue, which suits development", false},
		{"defaults", later(&t.defaults, func() *schema { return defaultsSchema(r.defaultFields(&Queue{})) }),
			"what the queues inherit that they don't set themselves, key by key", nil},
		{"limits", later(&t.limits, func() *schema { return limitsSchema(r.limitFields(&Limit{})) }),
			"limits by name, each for all consumers in the process whose queue names it, together", nil},
		{"queues", later(&t.queues, func() *schema { return queuesSchema(r.queueFields(&Queue{})) }),
			"the queues by their name, of 3 to 75 letters, digits, hyphens and underscores, beginning with a letter and not with goog", nil},
	}
}

func (r *reader) limitFields(l *Limit) []field {
	return []field{
		{"concurrency", r.integer(&l.Concurrency, 1, 0), "most handlers at once over all queues that name the limit, at least 1; without it there's no such limit", nil},
		{"rate", r.rate(&l.Rate), "handler starts over all queues that name the limit, by second, minute, hour or day (50/s, 100/m, 1000/h, 5/d), at most 1000000/s; without it there's no such limit", nil},
	}
}

// defaultFields are the keys of a queue that others can inherit.
func (r *reader) defaultFields(q *Queue) []field {
	fields := r.queueFields(q)
	for i := range fields {
		switch f := &fields[i]; f.name {
		case "backend":
			f.form = r.refused("the default backend stands at the top of the file")
		case "address":
			f.form = r.refused("an address can't be a default: no two queues have the same")
		}
	}
	return fields
}

func (r *reader) queueFields(q *Queue) []field {
	return []field{
		{"backend", r.text(&q.Backend), "the backend where the queue is, one that the program has; without it, the one at the top of the file", nil},
		{"address", r.maybe(&q.Address), "where the queue is if its name doesn't say: a URL, an ARN or a full resource name; such a queue is never created or changed, and when it's empty the name counts", nil},
		{"ordered", r.boolean(&q.Ordered), "whether messages with an ordering key keep their order; its dead-letter queue must be ordered too, and it can't have a delay", false},
		{"concurrency", r.integer(&q.Concurrency, 1, queue.MaxConcurrency), "most handlers at once in this process, 1 to 1,000,000", queue.DefaultConcurrency},
		{"max_hold", r.integer(&q.MaxHold, 1, 0), "most deliveries that wait in this process for their time, their key or a limit, at least 1; what's more is given back to the broker", queue.DefaultMaxHold},
		{"delay", r.optional(&q.Delay, 0), "how long a message isn't handled after it was published, if it says nothing about its time, as a duration (5s, 1h30m) shorter than the retention; default none", nil},
		{"lease", r.duration(&q.Lease), "how long a delivery is ours before it's extended, as a duration (30s): 1s to 12h on SQS, 1s to 10m on Pub/Sub, shorter than the retention; default what the queue says", nil},
		{"retention", r.period(&q.Retention), "how long the broker keeps a message that nobody has handled, as a duration (4d), which is set when the queue is made: " +
			"1m to 14d on SQS, 10m to 31d on Pub/Sub; default the service's, and for a dead-letter queue the longest", nil},
		{"tags", r.tags(&q.Tags), "labels by name, for people, searches and bills, which are set when the queue is made: at most 50 tags on SQS, at most 64 labels in lower case on Pub/Sub; default none", nil},
		{"limit", r.name(&q.Limit), "the shared limit that the queue counts against, one of limits; default none", nil},
		{"rate", r.rate(&q.Rate), "handler starts in this process by second, minute, hour or day (50/s, 100/m, 1000/h, 5/d), at most 1000000/s; default no limit", nil},
		{"timeout", r.optional(&q.Timeout, 0), "how long one try of a handler may take, as a duration (30s) of at most max_extension, and of 12h on SQS; default no limit", nil},
		{"drain_timeout", r.optional(&q.DrainTimeout, -1), "how long running handlers may go on at a shutdown, as a duration, where 0s is not at all", short(queue.DefaultDrainTimeout)},
		{"receive_grace", r.optional(&q.ReceiveGrace, -1), "how long an open poll may go on at a shutdown before it's cut off, as a duration, where 0s is not at all", short(queue.DefaultReceiveGrace)},
		{"max_extension", r.duration(&q.MaxExtension), "how long a lease is kept for one delivery, as a duration over 0s", short(queue.DefaultMaxExtension)},
		{"retry", r.mapping(r.retryFields(&q.Retry)), "when a message whose handler failed is tried again", nil},
		{"dead_letter", r.deadLetter(&q.DeadLetter), "when and where a message goes that's rejected or given up; default nowhere", nil},
	}
}

func (r *reader) retryFields(to *Retry) []field {
	return []field{
		{"min", r.duration(&to.Min), "delay after the first failure, as a duration over 0s and at most max", "1s"},
		{"max", r.duration(&to.Max), "longest delay, as a duration of at least min and shorter than the retention", "5m"},
		{"factor", r.number(&to.Factor, 1, maxFactor, 0), "by how much the delay grows with each failure, 1 to 1000", 2},
		{"jitter", r.number(&to.Jitter, 0, 1, -1), "share of the delay that's random, 0 to 1", 0.5},
		{"in_place", r.integer(&to.InPlace, 0, 0), "tries more at once, before the message goes back to the broker, at least 0", 0},
	}
}

func (r *reader) deadLetterFields(to *DeadLetter) []field {
	return []field{
		{"queue", r.text(&to.Queue), "where it goes: another queue of the file, which doesn't lead back", nil},
		{"max_age", r.optional(&to.MaxAge, -1), "age since its publishing at which a failing message is given up, as a duration shorter than the retention, or off for any; default " +
			short(middleware.DefaultMaxAge) + ", or half the queue's retention if shorter", nil},
		{"max_failures", r.failures(&to.MaxFailures), "failure at which a message is given up, at least 1, or off for any number; default off", nil},
		{"on_exhausted", r.exhausted(&to.OnExhausted), "whether an ordered message that's given up is moved (skip), or goes on failing so that nothing overtakes it (block)", "skip"},
	}
}
