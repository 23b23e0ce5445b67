package sqs_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs"
)

var all = []types.QueueAttributeName{types.QueueAttributeNameAll}

// policyOf reads a redrive policy as SQS tells it.
func policyOf(t *testing.T, attrs map[string]string) (target, receives string) {
	t.Helper()
	var p struct {
		DeadLetterTargetArn string
		MaxReceiveCount     json.Number
	}
	require.NoError(t, json.Unmarshal([]byte(attrs["RedrivePolicy"]), &p), attrs["RedrivePolicy"])
	return p.DeadLetterTargetArn, p.MaxReceiveCount.String()
}

func TestServerEnsureMakesAQueueAndItsDeadLetterQueue(t *testing.T) {
	onServers(t, func(t *testing.T, s *server) { makesBoth(t, s, false, "") })
}

func TestServerEnsureMakesTheDeadLetterQueueOfAFIFOQueueFIFO(t *testing.T) {
	onServers(t, func(t *testing.T, s *server) {
		makesBoth(t, s, true, ".fifo")
	})
}

func makesBoth(t *testing.T, s *server, order bool, suffix string) {
	t.Helper()
	name, dead := unique("q"), unique("dead")
	spec := &queue.QueueSpec{Ordered: order, Lease: 40*time.Second + 1, Retention: time.Hour, DeadLetter: dead, BrokerMaxAttempts: 50}

	dry := *spec
	dry.DryRun = true
	want := []string{"queue " + dead + suffix, "queue " + name + suffix}
	assert.Equal(t, want, s.ensure(t, name, &dry).Created)
	_, err := s.backend.Open(t.Context(), dead, &queue.OpenOptions{Ordered: order})
	require.ErrorIs(t, err, queue.ErrQueueNotFound, "a dry run creates nothing")

	assert.Equal(t, &queue.EnsureReport{Created: want}, s.ensure(t, name, spec))
	assert.Equal(t, &queue.EnsureReport{}, s.ensure(t, name, spec), "the second time there's nothing to do")

	attrs, deadAttrs := s.attributes(t, s.open(t, name, order)), s.attributes(t, s.open(t, dead, order))
	assert.Equal(t, "41", attrs["VisibilityTimeout"])
	target, receives := policyOf(t, attrs)
	assert.Equal(t, deadAttrs["QueueArn"], target)
	assert.Equal(t, "50", receives)
	if s.name != "ElasticMQ" { // which tells no retention
		assert.Equal(t, "3600", attrs["MessageRetentionPeriod"])
		assert.Equal(t, "1209600", deadAttrs["MessageRetentionPeriod"], "a dead letter is kept as long as can be")
	}
	if order {
		assert.Equal(t, "true", attrs["FifoQueue"])
		assert.Equal(t, "true", deadAttrs["FifoQueue"])
	}
}

func TestServerEnsureSetsNoPolicyUnlessAskedTo(t *testing.T) {
	onServers(t, func(t *testing.T, s *server) {
		q := s.fresh(t, "q", &queue.QueueSpec{DeadLetter: unique("dead")})
		assert.Empty(t, s.attributes(t, q)["RedrivePolicy"])
		assert.Zero(t, q.Capabilities().BrokerMaxAttempts)
	})
}

func TestServerEnsureTellsDifferencesInWordsAndChangesNothing(t *testing.T) {
	onServers(t, func(t *testing.T, s *server) {
		name, dead, other := unique("q"), unique("dead"), unique("other")
		s.ensure(t, name, &queue.QueueSpec{
			Lease: 40 * time.Second, DeadLetter: dead, BrokerMaxAttempts: 50, Tags: map[string]string{"team": "sales", "mine": "yes"},
		})
		before := s.attributes(t, s.open(t, name, false))

		for _, c := range []struct {
			name string
			spec queue.QueueSpec
			want []string
		}{
			{"what's left open is no difference", queue.QueueSpec{DeadLetter: dead, BrokerMaxAttempts: 50}, nil},
			{"another lease", queue.QueueSpec{Lease: 90 * time.Second, DeadLetter: dead, BrokerMaxAttempts: 50},
				[]string{"queue " + name + ": lease is 40s, not 1m30s"}},
			{"another limit", queue.QueueSpec{DeadLetter: dead, BrokerMaxAttempts: 60},
				[]string{"queue " + name + ": redrive policy is " + dead + " after 50 receives, not " + dead + " after 60 receives"}},
			{"a policy that isn't asked for is the operator's", queue.QueueSpec{DeadLetter: dead}, nil},
			{"another dead-letter queue, which isn't there yet", queue.QueueSpec{DeadLetter: other, BrokerMaxAttempts: 50, DryRun: true},
				[]string{"queue " + name + ": redrive policy is " + dead + " after 50 receives, not " + other + " after 50 receives"}},
			{"tags", queue.QueueSpec{Tags: map[string]string{"team": "crm", "env": "test"}},
				[]string{"queue " + name + `: tag env is none, not "test"`, "queue " + name + `: tag team is "sales", not "crm"`}},
		} {
			assert.Equal(t, c.want, s.ensure(t, name, &c.spec).Differences, c.name)
		}
		r := s.ensure(t, dead, &queue.QueueSpec{DeadLetter: other, BrokerMaxAttempts: 7})
		assert.Equal(t, []string{"queue " + dead + ": redrive policy is none, not " + other + " after 7 receives"}, r.Differences)

		after := s.attributes(t, s.open(t, name, false))
		for _, k := range []string{"VisibilityTimeout", "RedrivePolicy", "MessageRetentionPeriod"} {
			assert.Equal(t, before[k], after[k], k)
		}
	})
}

func TestServerEnsureChangesWhatExistsWhenAskedTo(t *testing.T) {
	onServers(t, func(t *testing.T, s *server) {
		name, dead := unique("q"), unique("dead")
		s.ensure(t, name, &queue.QueueSpec{Lease: 40 * time.Second, Tags: map[string]string{"team": "sales", "mine": "yes"}})
		spec := &queue.QueueSpec{
			Lease: 50 * time.Second, DeadLetter: dead, BrokerMaxAttempts: 50, Tags: map[string]string{"team": "crm"}, Update: true, DryRun: true,
		}
		want := &queue.EnsureReport{Created: []string{"queue " + dead}, Changed: []string{
			"queue " + name + ": lease from 40s to 50s",
			"queue " + name + ": redrive policy from none to " + dead + " after 50 receives",
			"queue " + name + `: tag team from "sales" to "crm"`,
		}}
		assert.Equal(t, want, s.ensure(t, name, spec))
		q := s.open(t, name, false)
		assert.Equal(t, "40", s.attributes(t, q)["VisibilityTimeout"], "a dry run changes nothing")

		spec.DryRun = false
		assert.Equal(t, want, s.ensure(t, name, spec))
		spec.Update = false
		require.EventuallyWithT(t, func(c *assert.CollectT) {
			r, err := s.backend.Ensure(t.Context(), name, spec)
			require.NoError(c, err)
			assert.Equal(c, &queue.EnsureReport{}, r, "now it's as asked")
		}, patience, 50*time.Millisecond)
		assert.Equal(t, "50", s.attributes(t, q)["VisibilityTimeout"])
		_, receives := policyOf(t, s.attributes(t, q))
		assert.Equal(t, "50", receives)
		url := q.Capabilities().Address
		tags, err := s.client.ListQueueTags(t.Context(), &awssqs.ListQueueTagsInput{QueueUrl: &url})
		require.NoError(t, err)
		assert.Equal(t, map[string]string{"team": "crm", "mine": "yes"}, tags.Tags, "other tags are left")
		deadTags, err := s.client.ListQueueTags(t.Context(), &awssqs.ListQueueTagsInput{QueueUrl: aws.String(s.open(t, dead, false).Capabilities().Address)})
		require.NoError(t, err)
		assert.Equal(t, map[string]string{"team": "crm"}, deadTags.Tags, "its dead-letter queue has them too")
	})
}

func TestServerEnsureTakesTheNearestLimitAndSaysSo(t *testing.T) {
	onServers(t, func(t *testing.T, s *server) {
		name, dead := unique("q"), unique("dead")
		r := s.ensure(t, name, &queue.QueueSpec{DeadLetter: dead, BrokerMaxAttempts: 1500})
		assert.Equal(t, []string{"queue " + name + ": the broker dead-letters after 1000 attempts, not 1500: SQS allows 1 to 1000"}, r.Differences)
		_, receives := policyOf(t, s.attributes(t, s.open(t, name, false)))
		assert.Equal(t, "1000", receives)
	})
}

func TestEnsureRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	b := sqs.New(f.client(), nil)
	for _, c := range []struct {
		name  string
		queue string
		spec  queue.QueueSpec
	}{
		{"a limit without a dead-letter queue", "orders", queue.QueueSpec{BrokerMaxAttempts: 3}},
		{"a negative limit", "orders", queue.QueueSpec{DeadLetter: "dead", BrokerMaxAttempts: -1}},
		{"a queue as its own dead-letter queue", "orders", queue.QueueSpec{DeadLetter: "orders"}},
		{"a lease of half a second", "orders", queue.QueueSpec{Lease: time.Second / 2}},
		{"a lease of a day", "orders", queue.QueueSpec{Lease: 24 * time.Hour}},
		{"a retention of a second", "orders", queue.QueueSpec{Retention: time.Second}},
		{"a retention of a month", "orders", queue.QueueSpec{Retention: 30 * 24 * time.Hour}},
		{"a name that isn't portable", "or.ders", queue.QueueSpec{}},
		{"such a name of the dead-letter queue", "orders", queue.QueueSpec{DeadLetter: "de.ad"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := b.Ensure(t.Context(), c.queue, &c.spec)
			assert.ErrorIs(t, err, queue.ErrInvalid)
			assert.ErrorContains(t, err, "sqs: ensure "+c.queue)
		})
	}
	_, err := sqs.New(nil, nil).Ensure(t.Context(), "orders", nil)
	assert.ErrorIs(t, err, queue.ErrInvalid, "no client")
}

func TestErrorsOfEnsure(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		answer failure
		want   error
	}{
		{"not permitted", failure{http.StatusForbidden, "AccessDeniedException"}, queue.ErrPermission},
		{"throttled", failure{http.StatusBadRequest, "com.amazonaws.sqs#RequestThrottled"}, queue.ErrThrottled},
		{"deleted within the last minute: later it can", failure{http.StatusBadRequest, "com.amazonaws.sqs#QueueDeletedRecently"}, queue.ErrThrottled},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.answers["CreateQueue"] = func(map[string]any) any { return c.answer }
			_, err := sqs.New(f.client(), nil).Ensure(t.Context(), "missing", nil)
			require.ErrorIs(t, err, c.want)
			assert.NotErrorIs(t, err, queue.ErrQueueNotFound)
		})
	}
}

func TestEnsureThatLosesARaceComparesWithTheWinner(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	asked := 0
	f.answers["GetQueueUrl"] = func(map[string]any) any {
		if asked++; asked == 1 {
			return failure{http.StatusBadRequest, "com.amazonaws.sqs#QueueDoesNotExist"}
		}
		return map[string]any{"QueueUrl": "http://sqs.test/1/races"}
	}
	f.answers["CreateQueue"] = func(map[string]any) any {
		return failure{http.StatusBadRequest, "com.amazonaws.sqs#QueueNameExists"}
	}
	r, err := sqs.New(f.client(), nil).Ensure(t.Context(), "races", &queue.QueueSpec{Lease: time.Minute})
	require.NoError(t, err)
	assert.Empty(t, r.Created)
	assert.Contains(t, r.Differences, "queue races: lease is 40s, not 1m0s")
}

func TestEnsureWaitsUntilANewQueueCanBeUsed(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.answers["CreateQueue"] = func(map[string]any) any { return map[string]any{"QueueUrl": "http://sqs.test/1/new"} }
	asked := 0
	f.answers["GetQueueAttributes"] = func(map[string]any) any {
		if asked++; asked < 3 {
			return failure{http.StatusBadRequest, "com.amazonaws.sqs#QueueDoesNotExist"}
		}
		return map[string]any{"Attributes": map[string]string{"QueueArn": "arn:aws:sqs:us-east-1:1:new"}}
	}
	r, err := sqs.New(f.client(), nil).Ensure(t.Context(), "new", nil)
	require.NoError(t, err)
	assert.Equal(t, []string{"queue new"}, r.Created)
	assert.Len(t, f.made("GetQueueAttributes"), 3)
}

func TestServerRawQueueWithAPolicyAsAStringIsUnderstood(t *testing.T) {
	onServers(t, func(t *testing.T, s *server) {
		name, dead := unique("q"), unique("dead")
		s.ensure(t, dead, &queue.QueueSpec{IsDeadLetter: true})
		arn := s.attributes(t, s.open(t, dead, false))["QueueArn"]
		_, err := s.client.CreateQueue(t.Context(), &awssqs.CreateQueueInput{QueueName: &name, Attributes: map[string]string{
			"RedrivePolicy": `{"maxReceiveCount":"5","deadLetterTargetArn":"` + arn + `"}`, // as many programs write it
		}})
		require.NoError(t, err)
		assert.Equal(t, &queue.EnsureReport{}, s.ensure(t, name, &queue.QueueSpec{DeadLetter: dead, BrokerMaxAttempts: 5}))
	})
}
