package sqs_test

import (
	"context"
	"testing"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/queuetest"
	"github.com/anyqueue/anyqueue/sqs"
	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// The whole suite on sqstest, by the real SDK and on virtual time: nothing but Go
// is needed.

func TestConformanceSQSTest(t *testing.T) {
	queuetest.Run(t, sqstestHarness("sqs-standard"))
}

func TestConformanceSQSTestFIFO(t *testing.T) {
	h := sqstestHarness("sqs-fifo")
	h.Ordered = true
	queuetest.Run(t, h)
}

// sqstestHarness describes the backend on a server of its own for each test.
func sqstestHarness(name string) queuetest.Harness {
	return queuetest.Harness{
		Name:    name,
		Virtual: true,
		New: func(t testing.TB) queuetest.Instance {
			server := sqstest.New(nil)
			t.Cleanup(server.Close)
			client := server.Client()
			return queuetest.Instance{
				Backend: sqs.New(client, nil),
				PublishRaw: func(ctx context.Context, q queue.Queue, body []byte, attributes map[string]string) error {
					return publishRaw(ctx, client, q, body, attributes)
				},
			}
		},
	}
}
