package pubsub_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
)

// What Pub/Sub itself has dead-lettered has a history as far as it tells, keeps its age,
// and is moved back as it was.
func TestServerADeadLetterOfTheServiceItself(t *testing.T) {
	onServers(t, func(t *testing.T, s *server) {
		name := unique("service")
		_, err := s.backend.Ensure(t.Context(), name, &queue.QueueSpec{DeadLetter: name + "-dlq", BrokerMaxAttempts: 5})
		require.NoError(t, err)
		open := func(name string) queue.Queue {
			q, err := s.backend.Open(t.Context(), name, nil)
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, q.Close(context.Background())) })
			return q
		}
		q, dead := open(name), open(name+"-dlq")
		published := time.Now()
		require.NoError(t, q.Publish(t.Context(), &queue.Message{ID: "id", Body: []byte("a"), Attributes: map[string]string{"kind": "order"}}))
		// exhaust gives the message back until Pub/Sub takes it away.
		exhaust := func() *queue.Delivery {
			t.Helper()
			for until := time.Now().Add(2 * patience); time.Now().Before(until); {
				ds, err := q.Receive(t.Context(), 1)
				require.NoError(t, err)
				require.NoError(t, q.Settle(t.Context(), settlements(queue.Release, ds...)...))
				ds, err = dead.Receive(t.Context(), 1)
				require.NoError(t, err)
				if len(ds) > 0 {
					return ds[0]
				}
			}
			require.Fail(t, "it isn't dead-lettered")
			return nil
		}
		judge := func(d *queue.Delivery, redriven int) {
			t.Helper()
			assert.Equal(t, "a", string(d.Body))
			assert.Equal(t, "id", d.ID)
			assert.Equal(t, map[string]string{"kind": "order"}, d.Attributes)
			require.NotNil(t, d.DeadLetter)
			assert.Equal(t, queue.Endpoint{System: "gcp_pubsub", Name: name}, d.DeadLetter.Source)
			assert.Equal(t, queue.ReasonBroker, d.DeadLetter.Reason)
			assert.Equal(t, "id", d.DeadLetter.ID)
			assert.GreaterOrEqual(t, d.DeadLetter.Attempt, 5)
			assert.Equal(t, redriven, d.DeadLetter.Redriven)
			assert.WithinDuration(t, published, d.EnqueuedAt, 5*time.Second, "its own publish, not that of the dead letter")
			assert.WithinDuration(t, published, d.DeadLetter.FirstAt, 5*time.Second)
			assert.False(t, d.DeadLetter.LastAt.Before(d.DeadLetter.FirstAt))
			info, ok := pubsub.InfoOf(d)
			require.True(t, ok)
			assert.Equal(t, info.Attributes["CloudPubSubDeadLetterSourceDeliveryCount"], "5", "all that came is still there to see")
		}
		for redriven := range 2 {
			d := exhaust()
			judge(d, redriven)
			require.NoError(t, dead.Settle(t.Context(), queue.Settlement{Delivery: d, Kind: queue.Release}))
			res, err := queue.Redrive(t.Context(), dead, q, &queue.RedriveOptions{Max: 1})
			require.NoError(t, err)
			require.Equal(t, 1, res.Moved)
			again := receive(t, q, 1)[0]
			info, ok := pubsub.InfoOf(again)
			require.True(t, ok)
			for k := range info.Attributes {
				assert.Contains(t, []string{"kind", "queue-meta"}, k, "what Pub/Sub has added isn't sent")
			}
			assert.WithinDuration(t, published, again.EnqueuedAt, 5*time.Second)
			assert.Equal(t, redriven+1, again.DeadLetter.Redriven)
			require.NoError(t, q.Settle(t.Context(), queue.Settlement{Delivery: again, Kind: queue.Release}))
		}
	})
}

// In a dead-letter queue that several share, what Pub/Sub itself has taken there is moved
// to where it failed.
func TestADeadLetterOfTheServiceIsMovedToItsOwnQueue(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		f.ensure(t, "dead", &queue.QueueSpec{IsDeadLetter: true})
		dead := f.open(t, "dead", nil)
		for body, from := range map[string][2]string{
			"main": {"orders", project}, "return": {"orders.return", project}, "other": {"billing", project}, "far": {"orders", otherProject},
		} {
			f.Publish(topicName("dead"), []byte(body), map[string]string{
				"CloudPubSubDeadLetterSourceSubscription": from[0], "CloudPubSubDeadLetterSourceSubscriptionProject": from[1],
				"CloudPubSubDeadLetterSourceDeliveryCount": "many", "CloudPubSubDeadLetterSourceTopicPublishTime": "once",
			})
		}
		time.Sleep(time.Second)
		res, err := queue.Redrive(t.Context(), dead, q, nil)
		require.NoError(t, err)
		assert.Equal(t, 2, res.Moved)
		assert.Equal(t, 2, res.Skipped)
		ds := receive(t, q, 2)
		assert.ElementsMatch(t, []string{"main", "return"}, bodies(ds))
		for _, d := range ds {
			assert.Empty(t, d.Attributes)
			assert.False(t, d.EnqueuedAt.IsZero(), "the dead letter's own, where it isn't told")
			assert.Zero(t, d.DeadLetter.Attempt)
		}
	})
}
