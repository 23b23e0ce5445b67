package sqs_test

import (
	"strings"
	"testing"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs"
	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

func TestLeasesEndAndChangeTenInARequest(t *testing.T) {
	const n, requests = 25, 3
	settle := func(kind queue.SettleKind, delay time.Duration) func(*testing.T, *rig, []*queue.Delivery) {
		return func(t *testing.T, r *rig, ds []*queue.Delivery) {
			s := make([]queue.Settlement, len(ds))
			for i, d := range ds {
				s[i] = queue.Settlement{Delivery: d, Kind: kind, Delay: delay}
			}
			require.NoError(t, r.q.Settle(t.Context(), s...))
		}
	}
	for _, c := range []struct {
		name   string
		action string
		do     func(*testing.T, *rig, []*queue.Delivery)
	}{
		{"acknowledgements", deleteBatch, settle(queue.Ack, 0)},
		{"releases", changeBatch, settle(queue.Release, 0)},
		{"backoffs", changeBatch, settle(queue.Release, time.Minute)},
		{"extensions", changeBatch, func(t *testing.T, r *rig, ds []*queue.Delivery) {
			granted, err := r.q.Extend(t.Context(), time.Minute, ds...)
			require.NoError(t, err)
			for _, until := range granted {
				assert.Equal(t, time.Now().Add(time.Minute), until)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
				r.publish("m", n)
				ds := receive(t, r.q, n)
				c.do(t, r, ds)
				assert.Equal(t, requests, r.server.Requests()[c.action])
				assert.Equal(t, n, r.server.Entries()[c.action])
			})
		})
	}
}

// SQS counts the names and values of attributes: without them two of these would
// seem to go together, and be refused.
func TestABatchsBytesIncludeItsAttributes(t *testing.T) {
	faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
		msgs := r.messages("m", 4)
		for _, m := range msgs {
			m.Body = append(m.Body, strings.Repeat("b", 400<<10)...)
			m.Attributes = map[string]string{"a": strings.Repeat("a", 200<<10)}
		}
		require.NoError(t, r.q.Publish(t.Context(), msgs...))
		assert.Equal(t, 4, r.server.Requests()[sendBatch], "none was sent in vain")
		assert.Equal(t, 4, r.server.Entries()[sendBatch])
	})
}

// Without bounds of its own a request on a dead connection would take the whole
// time that a Publish has.
func TestARequestWithoutAnAnswerIsMadeAgain(t *testing.T) {
	faulty(t, queue.QueueSpec{}, func(t *testing.T, r *rig) {
		r.fail(sqstest.Fault{Action: sendBatch, Effect: sqstest.Slow, Delay: time.Hour, Times: 1})
		begun := time.Now()
		require.NoError(t, r.q.Publish(t.Context(), message("m")))
		assert.GreaterOrEqual(t, time.Since(begun), 10*time.Second)
		assert.Less(t, time.Since(begun), 11*time.Second)
		assert.Equal(t, 2, r.server.Requests()[sendBatch])
	})
}

// A server may take less than what SQS takes.
func TestABatchThatIsTooLongIsHalved(t *testing.T) {
	for _, c := range []struct {
		name string
		spec queue.QueueSpec
	}{{"standard", queue.QueueSpec{}}, {"FIFO", queue.QueueSpec{Ordered: true}}} {
		t.Run(c.name, func(t *testing.T) {
			faulty(t, c.spec, func(t *testing.T, r *rig) {
				r.fail(sqstest.Fault{Action: sendBatch, Code: "BatchRequestTooLong", Times: 2}) // ten, then the first five
				r.publish("m", 10)
				assert.Equal(t, 5, r.server.Requests()[sendBatch], "10, 5, 2, 3, 5")
				run := r.consume(r.q, 1, nil)
				r.await(10)
				run.end()
				assert.Zero(t, r.duplicates())
				if c.spec.Ordered {
					for i, m := range r.messages("m", 10) {
						assert.Equal(t, string(m.Body), r.order[i])
					}
				}
				assert.Zero(t, r.same(r.q).Retried)
			})
		})
	}
}

// MaximumMessageSize is about single messages: a request may have more bytes.
func TestServerABatchMayBeLargerThanTheLargestMessage(t *testing.T) {
	onServers(t, func(t *testing.T, s *server) {
		q := s.fresh(t, "small", nil)
		url, size := q.Capabilities().Address, map[string]string{"MaximumMessageSize": "1024"}
		_, err := s.client.SetQueueAttributes(t.Context(), &awssqs.SetQueueAttributesInput{QueueUrl: &url, Attributes: size})
		require.NoError(t, err)
		q, err = s.backend.Open(t.Context(), "small", &queue.OpenOptions{Address: url})
		require.NoError(t, err)
		if s.name != "ElasticMQ" { // which has no such attribute, and says nothing
			require.Equal(t, 1024, q.Capabilities().Wire.MaxBytes)
		}
		msgs := make([]*queue.Message, 10)
		for i := range msgs {
			msgs[i] = message(strings.Repeat("b", 1000))
		}
		require.NoError(t, q.Publish(t.Context(), msgs...))
		counts, _ := sqs.CountsOf(q)
		assert.EqualValues(t, 1, counts.Sends)
		require.NoError(t, q.Close(t.Context()))
	})
}
