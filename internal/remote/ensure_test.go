package remote_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/anyqueue/anyqueue/internal/remote"
	"github.com/anyqueue/anyqueue/queue"
)

func TestDeadLetterQueueIsLikeItsQueueUnlessSaidOtherwise(t *testing.T) {
	t.Parallel()
	tags := map[string]string{"team": "crm"}
	spec := queue.QueueSpec{Ordered: true, Lease: time.Minute, Retention: time.Hour, DeadLetter: "dead", BrokerMaxAttempts: 5, Tags: tags, Update: true}
	assert.Equal(t, &queue.QueueSpec{Ordered: true, IsDeadLetter: true, Tags: tags}, remote.DeadLetterSpec(&spec))
	spec.DeadLetterSpec = &queue.QueueSpec{Lease: time.Second, Retention: 2 * time.Hour, DeadLetter: "more", DryRun: true}
	assert.Equal(t, &queue.QueueSpec{Ordered: true, IsDeadLetter: true, Lease: time.Second, Retention: 2 * time.Hour}, remote.DeadLetterSpec(&spec))
}
