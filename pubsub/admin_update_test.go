package pubsub_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/iam/apiv1/iampb"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/anyqueue/anyqueue/queue"
)

// older makes the queue "dead" and a queue "orders" that differs from fullSpec in
// everything.
func (f *fake) older(t *testing.T) {
	t.Helper()
	f.ensure(t, "dead", &queue.QueueSpec{IsDeadLetter: true})
	for _, name := range []string{"orders", "orders.return"} {
		_, err := f.client.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topicName(name), Labels: map[string]string{"team": "old", "kept": "k"}})
		require.NoError(t, err)
		f.subscribe(t, topicName(name), subscriptionName(name), func(s *pubsubpb.Subscription) {
			s.AckDeadlineSeconds = 30
			s.MessageRetentionDuration = durationpb.New(time.Hour)
			s.ExpirationPolicy = &pubsubpb.ExpirationPolicy{Ttl: durationpb.New(48 * time.Hour)}
			s.DeadLetterPolicy = &pubsubpb.DeadLetterPolicy{DeadLetterTopic: topicName("dead"), MaxDeliveryAttempts: 9}
			s.Labels = map[string]string{"kept": "k"}
		})
	}
	f.forget()
}

func fullSpec() *queue.QueueSpec {
	return &queue.QueueSpec{
		Ordered: true, Lease: time.Minute, Retention: 24 * time.Hour, DeadLetter: "dead", BrokerMaxAttempts: 30,
		Tags: map[string]string{"team": "crm"},
	}
}

// inWords are the differences of one subscription, by what they are about.
func inWords(lines []string, name string) []string {
	var out []string
	for _, l := range lines {
		if rest, ok := strings.CutPrefix(l, name+": "); ok {
			out = append(out, rest)
		}
	}
	return out
}

func TestDifferencesAreSaidInWordsAndLeft(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.older(t)
		r := f.ensure(t, "orders", fullSpec())
		assert.Empty(t, r.Created)
		assert.Empty(t, r.Changed)
		for _, name := range []string{"orders", "orders.return"} {
			assert.Equal(t, []string{
				"message ordering is false, not true",
				"the lease is 30s, not 1m0s",
				"the retention is 1h0m0s, not 24h0m0s",
				"it expires without activity after is 48h0m0s, not never",
				"the dead-letter policy is " + topicName("dead") + " after 9 attempts, not " + topicName("dead") + " after 30 attempts",
				`the labels is none of these, not [team="crm"]`,
			}, inWords(r.Differences, subscriptionName(name)))
			assert.Equal(t, []string{`the labels is [team="old"], not [team="crm"]`}, inWords(r.Differences, topicName(name)))
		}
		assert.Zero(t, f.requests()["UpdateSubscription"]+f.requests()["UpdateTopic"])
	})
}

// What a spec doesn't name isn't compared.
func TestWhatWasNotAskedForIsLeft(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.older(t)
		r := f.ensure(t, "orders", &queue.QueueSpec{Update: true})
		assert.Empty(t, r.Differences)
		assert.Len(t, r.Changed, 2, "but a subscription doesn't expire")
		s := f.has(t, mainSub)
		assert.EqualValues(t, 30, s.GetAckDeadlineSeconds())
		assert.Equal(t, time.Hour, s.GetMessageRetentionDuration().AsDuration())
		assert.EqualValues(t, 9, s.GetDeadLetterPolicy().GetMaxDeliveryAttempts())
		assert.Equal(t, map[string]string{"kept": "k"}, s.GetLabels())
		assert.Nil(t, s.GetExpirationPolicy().GetTtl())
	})
}

func TestADeadLetterPolicyCanBeSetLater(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.ensure(t, "dead", &queue.QueueSpec{IsDeadLetter: true})
		f.ensure(t, "orders", nil)
		spec := &queue.QueueSpec{DeadLetter: "dead", BrokerMaxAttempts: 7}
		assert.Equal(t, []string{"the dead-letter policy is none, not " + topicName("dead") + " after 7 attempts"}, inWords(f.ensure(t, "orders", spec).Differences, mainSub))
		spec.Update = true
		f.ensure(t, "orders", spec)
		assert.EqualValues(t, 7, f.has(t, mainSub).GetDeadLetterPolicy().GetMaxDeliveryAttempts())
		assert.EqualValues(t, 7, f.has(t, backSub).GetDeadLetterPolicy().GetMaxDeliveryAttempts())
	})
}

func TestUpdateChangesWhatCanBeChanged(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.older(t)
		spec := fullSpec()
		spec.Update, spec.DryRun = true, true
		dry := f.ensure(t, "orders", spec)
		assert.Zero(t, f.requests()["UpdateSubscription"]+f.requests()["UpdateTopic"])
		spec.DryRun = false
		r := f.ensure(t, "orders", spec)
		assert.Equal(t, dry, r, "a dry run says what it would do")
		for _, name := range []string{"orders", "orders.return"} {
			assert.Equal(t, []string{"message ordering is false, not true"}, inWords(r.Differences, subscriptionName(name)), "nobody can change that")
			assert.Equal(t, []string{
				"the lease from 30s to 1m0s",
				"the retention from 1h0m0s to 24h0m0s",
				"it expires without activity after from 48h0m0s to never",
				"the dead-letter policy from " + topicName("dead") + " after 9 attempts to " + topicName("dead") + " after 30 attempts",
				`the labels from none of these to [team="crm"]`,
			}, inWords(r.Changed, subscriptionName(name)))
			s := f.has(t, subscriptionName(name))
			assert.EqualValues(t, 60, s.GetAckDeadlineSeconds())
			assert.Equal(t, 24*time.Hour, s.GetMessageRetentionDuration().AsDuration())
			assert.Nil(t, s.GetExpirationPolicy().GetTtl())
			assert.EqualValues(t, 30, s.GetDeadLetterPolicy().GetMaxDeliveryAttempts())
			assert.Equal(t, map[string]string{"team": "crm", "kept": "k"}, s.GetLabels(), "others are left")
			topic, err := f.client.TopicAdminClient.GetTopic(t.Context(), &pubsubpb.GetTopicRequest{Topic: topicName(name)})
			require.NoError(t, err)
			assert.Equal(t, map[string]string{"team": "crm", "kept": "k"}, topic.GetLabels())
		}
		assert.Empty(t, f.ensure(t, "orders", spec).Changed, "now it's so")
	})
}

// A change that's refused doesn't keep the others.
func TestARefusedChangeIsReported(t *testing.T) {
	for _, code := range []codes.Code{codes.InvalidArgument, codes.Unimplemented, codes.FailedPrecondition} {
		t.Run(code.String(), func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				f.older(t)
				f.on("UpdateSubscription", func(_ context.Context, in any, forward func() (any, error)) (any, error) {
					if in.(*pubsubpb.UpdateSubscriptionRequest).GetUpdateMask().GetPaths()[0] == "message_retention_duration" {
						return nil, status.Error(code, "not here")
					}
					return forward()
				})
				spec := fullSpec()
				spec.Update = true
				r := f.ensure(t, "orders", spec)
				assert.Contains(t, r.Differences, mainSub+": the retention is 1h0m0s, not 24h0m0s, and can't be changed: not here")
				assert.Len(t, inWords(r.Changed, mainSub), 4)
				assert.Equal(t, time.Hour, f.has(t, mainSub).GetMessageRetentionDuration().AsDuration())
			})
		})
	}
	t.Run("for want of a permission it's an error", func(t *testing.T) {
		onFake(t, func(t *testing.T, f *fake) {
			f.older(t)
			f.on("UpdateSubscription", refuse(codes.PermissionDenied))
			spec := fullSpec()
			spec.Update = true
			_, err := f.backend.Ensure(t.Context(), "orders", spec)
			assert.ErrorIs(t, err, queue.ErrPermission)
		})
	})
}

const (
	agent      = "serviceAccount:service-123456@gcp-sa-pubsub.iam.gserviceaccount.com"
	publisher  = "roles/pubsub.publisher"
	subscriber = "roles/pubsub.subscriber"
)

func granting(role string, members ...string) *iampb.Policy {
	return &iampb.Policy{Bindings: []*iampb.Binding{
		{Role: "roles/viewer", Members: []string{"user:a@example.com"}}, {Role: role, Members: members},
	}}
}

func TestMissingGrantsOfDeadLetteringAreWarnedOf(t *testing.T) {
	all := func() map[string]*iampb.Policy {
		return map[string]*iampb.Policy{topicName("dead"): granting(publisher, agent), mainSub: granting(subscriber, agent), backSub: granting(subscriber, agent)}
	}
	for _, c := range []struct {
		name   string
		change func(map[string]*iampb.Policy)
		want   []string // what warnings are about, in order
	}{
		{"all are there", func(map[string]*iampb.Policy) {}, nil},
		{"all are there by larger roles", func(p map[string]*iampb.Policy) {
			p[topicName("dead")] = granting("roles/pubsub.admin", "user:b@example.com", agent)
			p[mainSub] = granting("roles/pubsub.editor", agent)
			p[backSub] = granting("roles/owner", agent)
		}, nil},
		{"none is there", func(p map[string]*iampb.Policy) { clear(p) }, []string{topicName("dead"), mainSub, backSub}},
		{"somebody else's", func(p map[string]*iampb.Policy) {
			p[mainSub] = granting(subscriber, "serviceAccount:mine@project.iam.gserviceaccount.com")
		}, []string{mainSub}},
		{"another role", func(p map[string]*iampb.Policy) { p[backSub] = granting("roles/pubsub.viewer", agent) }, []string{backSub}},
	} {
		t.Run(c.name, func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				p := all()
				c.change(p)
				f.iam.set(p)
				r := f.ensure(t, "orders", &queue.QueueSpec{DeadLetter: "dead", BrokerMaxAttempts: 5})
				require.Len(t, r.Warnings, len(c.want))
				for i, name := range c.want {
					role, kind := subscriber, "subscriptions"
					if name == topicName("dead") {
						role, kind = publisher, "topics"
					}
					assert.Contains(t, r.Warnings[i], "lacks "+role+" on "+name)
					assert.Contains(t, r.Warnings[i], "gcloud pubsub "+kind+" add-iam-policy-binding "+name+
						" --member=serviceAccount:service-PROJECT_NUMBER@gcp-sa-pubsub.iam.gserviceaccount.com --role="+role)
				}
			})
		})
	}
}

func TestGrantsThatCannotBeSeen(t *testing.T) {
	spec := func() *queue.QueueSpec { return &queue.QueueSpec{DeadLetter: "dead", BrokerMaxAttempts: 5} }
	t.Run("may not be read", func(t *testing.T) {
		onFake(t, func(t *testing.T, f *fake) {
			f.on("GetIamPolicy", refuse(codes.PermissionDenied))
			r := f.ensure(t, "orders", spec())
			require.Len(t, r.Warnings, 3)
			assert.Equal(t, "can't see whether Pub/Sub's service account has roles/pubsub.publisher on "+topicName("dead")+": the fake says no", r.Warnings[0])
		})
	})
	t.Run("an emulator has none", func(t *testing.T) {
		onFake(t, func(t *testing.T, f *fake) {
			assert.Empty(t, f.ensure(t, "orders", spec()).Warnings)
			assert.Equal(t, 3, f.requests()["GetIamPolicy"])
		})
	})
	t.Run("another error is one", func(t *testing.T) {
		onFake(t, func(t *testing.T, f *fake) {
			f.on("GetIamPolicy", refuse(codes.NotFound))
			_, err := f.backend.Ensure(t.Context(), "orders", spec())
			assert.ErrorIs(t, err, queue.ErrQueueNotFound)
		})
	})
	t.Run("aren't looked for without a policy, nor in a dry run", func(t *testing.T) {
		onFake(t, func(t *testing.T, f *fake) {
			f.iam.set(map[string]*iampb.Policy{})
			dry := spec()
			dry.DryRun = true
			assert.Empty(t, f.ensure(t, "orders", dry).Warnings)
			assert.Empty(t, f.ensure(t, "orders", &queue.QueueSpec{DeadLetter: "dead"}).Warnings)
			assert.Zero(t, f.requests()["GetIamPolicy"])
		})
	})
}
