package sqs_test

import (
	"context"
	"testing"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/queuetest"
	"github.com/anyqueue/anyqueue/sqs"
	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// The whole suite on sqstest, by the real SDK and on virtual time: nothing but Go
// is needed.

func TestConformanceSQSTest(t *testing.T) {
	queuetest.Run(t, sqstestHarness("sqs-standard", (*sqstest.Server).Client))
}

func TestConformanceSQSTestFIFO(t *testing.T) {
	h := sqstestHarness("sqs-fifo", (*sqstest.Server).Client)
	h.Ordered = true
	queuetest.Run(t, h)
}

// With HTTP's connections between the two; as that takes several times as long,
// only the core.
func TestConformanceSQSTestPipe(t *testing.T) {
	h := sqstestHarness("sqs-standard", func(s *sqstest.Server, _ ...func(*awssqs.Options)) *awssqs.Client {
		return s.Client(func(o *awssqs.Options) { o.HTTPClient = s.Pipe() })
	})
	h.Core = true
	queuetest.Run(t, h)
}

// sqstestHarness describes the backend on a server of its own for each test.
func sqstestHarness(name string, connect func(*sqstest.Server, ...func(*awssqs.Options)) *awssqs.Client) queuetest.Harness {
	return queuetest.Harness{
		Name:    name,
		Virtual: true,
		New: func(t testing.TB) queuetest.Instance {
			server := sqstest.New(nil)
			t.Cleanup(server.Close)
			client := connect(server)
			return queuetest.Instance{
				Backend: sqs.New(client, nil),
				PublishRaw: func(ctx context.Context, q queue.Queue, body []byte, attributes map[string]string) error {
					return publishRaw(ctx, client, q, body, attributes)
				},
			}
		},
	}
}
