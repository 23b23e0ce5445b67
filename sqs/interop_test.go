package sqs_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/internal/interoptest"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// python names a Python with boto3 for the tests of interop. Where it's set they
// fail if it can't be used.
const python = "ANYQUEUE_TEST_PYTHON"

// onServersWithPython runs a test on every server that listens, against the program
// in Python.
func onServersWithPython(t *testing.T, test func(t *testing.T, s *server, py *interoptest.Program)) {
	t.Helper()
	t.Parallel()
	run := func(t *testing.T, s *server) {
		env := []string{"AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test"}
		if s.name == "AWS" {
			env = nil // what the environment says
		} else if endpoint := s.client.Options().BaseEndpoint; endpoint != nil {
			env = append(env, "AWS_ENDPOINT_URL_SQS="+*endpoint, "NO_PROXY=127.0.0.1")
		}
		// boto3 doesn't know AWS_REGION.
		test(t, s, interoptest.Python(t, python, "boto3", append(env, "AWS_DEFAULT_REGION="+s.client.Options().Region)...))
	}
	t.Run("sqstest", func(t *testing.T) {
		t.Parallel()
		local := sqstest.New(nil)
		t.Cleanup(local.Close)
		endpoint, err := local.Start("127.0.0.1:0")
		require.NoError(t, err)
		run(t, newServer("sqstest", newClient(endpoint)))
	})
	for _, at := range []struct{ name, variable string }{{"LocalStack", localStack}, {"ElasticMQ", elasticMQ}} {
		t.Run(at.name, func(t *testing.T) {
			t.Parallel()
			run(t, newServer(at.name, clientFor(t, at.variable)))
		})
	}
	onRealCloud(t, run)
}

func TestServerPythonReadsWhatIsPublished(t *testing.T) {
	onServersWithPython(t, func(t *testing.T, s *server, py *interoptest.Program) {
		q := s.fresh(t, "python", nil)
		cases := interoptest.Cases()
		for _, c := range cases {
			require.NoError(t, q.Publish(t.Context(), c.Message()), c.Name)
		}
		interoptest.ExpectCases(t, cases, py.Receive(q.Capabilities().Address, len(cases)))
	})
}

func TestServerPythonReadsAttributesThatSQSCannotCarry(t *testing.T) {
	onServersWithPython(t, func(t *testing.T, s *server, py *interoptest.Program) {
		q := s.fresh(t, "python", nil)
		attrs := map[string]string{"empty": "", "control": "a\x01b", "plain": "v"}
		require.NoError(t, q.Publish(t.Context(), &queue.Message{Body: []byte("m"), Attributes: attrs}))
		got := py.Receive(q.Capabilities().Address, 1)[0]
		assert.Equal(t, map[string]any{"empty": "", "control": "a\x01b", "plain": "v"}, got.Attributes)
	})
}

func TestServerWhatPythonSendsIsConsumed(t *testing.T) {
	onServersWithPython(t, func(t *testing.T, s *server, py *interoptest.Program) {
		q := s.fresh(t, "python", nil)
		cases := interoptest.Cases()
		var lines, got []interoptest.Line
		for _, c := range cases {
			lines = append(lines, c.Line())
		}
		py.Send(q.Capabilities().Address, lines...)
		for _, d := range receive(t, q, len(cases)) {
			assert.WithinDuration(t, time.Now(), d.EnqueuedAt, time.Minute)
			got = append(got, interoptest.LineOf(d))
		}
		interoptest.ExpectCases(t, cases, got)
	})
}

func TestServerBinaryAttributesFromPython(t *testing.T) {
	onServersWithPython(t, func(t *testing.T, s *server, py *interoptest.Program) {
		q, next := s.fresh(t, "python", nil), s.fresh(t, "next", nil)
		raw := []byte{0, 0xff, 'x'}
		py.Send(q.Capabilities().Address, interoptest.Line{Body: []byte("m"), Attributes: map[string]any{"b": map[string]any{"b64": raw}, "s": "text"}})
		d := receive(t, q, 1)[0]
		assert.Equal(t, map[string]string{"b": string(raw), "s": "text"}, d.Attributes)
		// Forwarded, it's still bytes to Python.
		require.NoError(t, next.Publish(t.Context(), &d.Message))
		assert.Equal(t, map[string]any{"b": raw, "s": "text"}, py.Receive(next.Capabilities().Address, 1)[0].Attributes)
	})
}

func TestServerKeysOfAFIFOQueueAreGroupsToPython(t *testing.T) {
	onServersWithPython(t, func(t *testing.T, s *server, py *interoptest.Program) {
		q := s.fresh(t, "python", &queue.QueueSpec{Ordered: true})
		url := q.Capabilities().Address
		for i := range 3 {
			require.NoError(t, q.Publish(t.Context(), keyed("customer-1", fmt.Sprint("go", i))))
		}
		var bodies []string
		for _, l := range py.Receive(url, 3) {
			bodies = append(bodies, string(l.Body))
			assert.Equal(t, "customer-1", l.Key)
		}
		assert.Equal(t, []string{"go0", "go1", "go2"}, bodies)

		py.Send(url, interoptest.Line{Body: []byte("py0"), Key: "customer-2"}, interoptest.Line{Body: []byte("py1"), Key: "customer-2"})
		for i := range 2 {
			d := receive(t, q, 1)[0]
			assert.Equal(t, fmt.Sprint("py", i), string(d.Body))
			assert.Equal(t, "customer-2", d.OrderingKey)
			settle(t, q, queue.Settlement{Delivery: d, Kind: queue.Ack})
		}
	})
}
