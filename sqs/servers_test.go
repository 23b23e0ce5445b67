package sqs_test

import (
	"context"
	"os"
	"testing"
	"testing/synctest"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs"
	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// server is an SQS server that a test runs against.
type server struct {
	name    string
	client  *awssqs.Client
	backend *sqs.Backend
	lags    bool // what one call has done another may not see at once
	silent  bool // it doesn't answer a move from a queue that can't have one: 503 after 20 s
}

// onServers runs a test on every SQS server there is, once each: on sqstest in any
// case, on virtual time, so that a test can't have subtests of its own. The names of
// such tests begin with TestServer, by which CI runs them against the foreign ones.
func onServers(t *testing.T, test func(t *testing.T, s *server)) {
	t.Helper()
	t.Parallel()
	t.Run("sqstest", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := sqstest.New(nil)
			t.Cleanup(s.Close)
			test(t, newServer("sqstest", s.Client()))
		})
	})
	for _, at := range []struct{ name, variable string }{
		{"LocalStack", localStack},
		{"ElasticMQ", elasticMQ},
	} {
		t.Run(at.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(at.name, clientFor(t, at.variable))
			s.silent = at.variable == elasticMQ
			test(t, s)
		})
	}
	onRealCloud(t, test)
}

// onRealCloud runs a test on AWS when .ci/real-cloud asks for it.
func onRealCloud(t *testing.T, test func(t *testing.T, s *server)) {
	t.Helper()
	if os.Getenv(realCloud) == "" {
		return
	}
	t.Run("AWS", func(t *testing.T) {
		t.Parallel()
		client, _ := realCloudClient(t)
		s := newServer("AWS", client)
		s.lags = true
		test(t, s)
	})
}

func newServer(name string, client *awssqs.Client) *server {
	return &server{name: name, client: client, backend: sqs.New(client, &sqs.Options{Wait: time.Second})}
}

// unique returns the name of a queue that's nobody else's.
func unique(what string) string { return os.Getenv(realCloud) + what + "-" + uuid.NewString()[:8] }

// patience is how long a server may take until its numbers are right: AWS says a
// minute.
const patience = 2 * time.Minute

// ensure makes a queue.
func (s *server) ensure(t *testing.T, name string, spec *queue.QueueSpec) *queue.EnsureReport {
	t.Helper()
	r, err := s.backend.Ensure(t.Context(), name, spec)
	require.NoError(t, err)
	return r
}

// open opens a queue for the length of the test.
func (s *server) open(t *testing.T, name string, ordered bool) queue.Queue {
	t.Helper()
	q, err := s.backend.Open(t.Context(), name, &queue.OpenOptions{Ordered: ordered})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, q.Close(context.Background())) })
	return q
}

// fresh makes a queue and opens it.
func (s *server) fresh(t *testing.T, what string, spec *queue.QueueSpec) queue.Queue {
	t.Helper()
	if spec == nil {
		spec = &queue.QueueSpec{}
	}
	name := unique(what)
	s.ensure(t, name, spec)
	return s.open(t, name, spec.Ordered)
}

// receive takes n deliveries.
func receive(t *testing.T, q queue.Queue, n int) []*queue.Delivery {
	t.Helper()
	var out []*queue.Delivery
	for until := time.Now().Add(patience); len(out) < n; {
		require.True(t, time.Now().Before(until), "got %d of %d deliveries", len(out), n)
		ds, err := q.Receive(t.Context(), n-len(out))
		require.NoError(t, err)
		out = append(out, ds...)
	}
	return out
}

// attributes asks the server for all attributes of a queue.
func (s *server) attributes(t *testing.T, q queue.Queue) map[string]string {
	t.Helper()
	url := q.Capabilities().Address
	out, err := s.client.GetQueueAttributes(t.Context(), &awssqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: all})
	require.NoError(t, err)
	return out.Attributes
}
