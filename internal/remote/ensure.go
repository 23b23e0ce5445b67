package remote

import "github.com/anyqueue/anyqueue/queue"

// DeadLetterSpec is what Ensure makes true of the dead-letter queue that a spec names.
func DeadLetterSpec(spec *queue.QueueSpec) *queue.QueueSpec {
	dead := &queue.QueueSpec{Ordered: spec.Ordered, IsDeadLetter: true, Tags: spec.Tags}
	if more := spec.DeadLetterSpec; more != nil {
		dead.Lease, dead.Retention, dead.Tags = more.Lease, more.Retention, more.Tags
	}
	return dead
}
