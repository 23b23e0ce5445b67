package sqs_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/uuid"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/queuetest"
	"github.com/anyqueue/anyqueue/sqs"
)

// The servers that the tests run against, when the environment says where they
// are. None of them is AWS.
const (
	localStack = "ANYQUEUE_TEST_SQS_LOCALSTACK"
	elasticMQ  = "ANYQUEUE_TEST_SQS_ELASTICMQ"
)

func TestConformanceLocalStack(t *testing.T) {
	queuetest.Run(t, harness(t, "sqs-standard", "localstack", localStack))
}

func TestConformanceLocalStackFIFO(t *testing.T) {
	h := harness(t, "sqs-fifo", "localstack", localStack)
	h.Ordered = true
	queuetest.Run(t, h)
}

func TestConformanceElasticMQ(t *testing.T) {
	queuetest.Run(t, harness(t, "sqs-standard", "elasticmq", elasticMQ))
}

func TestConformanceElasticMQFIFO(t *testing.T) {
	h := harness(t, "sqs-fifo", "elasticmq", elasticMQ)
	h.Ordered = true
	queuetest.Run(t, h)
}

// harness describes the server whose address stands in the environment variable
// to the suite.
func harness(t *testing.T, name, server, variable string) queuetest.Harness {
	t.Helper()
	client := clientFor(t, variable)
	return queuetest.Harness{
		Name: name, Server: server,
		// LocalStack takes a second for a call when 32 tests run on it.
		Lease: 4 * time.Second,
		New: func(testing.TB) queuetest.Instance {
			return queuetest.Instance{
				// Close waits for the last poll.
				Backend: sqs.New(client, &sqs.Options{Wait: 2 * time.Second}),
				PublishRaw: func(ctx context.Context, q queue.Queue, body []byte, attributes map[string]string) error {
					return publishRaw(ctx, client, q, body, attributes)
				},
			}
		},
	}
}

func clientFor(t *testing.T, variable string) *awssqs.Client {
	t.Helper()
	endpoint := os.Getenv(variable)
	if endpoint == "" {
		t.Skipf("%s isn't set: start the servers with .ci/servers.sh", variable)
	}
	return newClient(endpoint)
}

func newClient(endpoint string, more ...func(*awssqs.Options)) *awssqs.Client {
	return awssqs.New(awssqs.Options{
		Region: "us-east-1", BaseEndpoint: &endpoint,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, nil
		}),
	}, more...)
}

func publishRaw(ctx context.Context, client *awssqs.Client, q queue.Queue, body []byte, attributes map[string]string) error {
	caps := q.Capabilities()
	in := &awssqs.SendMessageInput{QueueUrl: &caps.Address, MessageBody: aws.String(string(body))}
	for k, v := range attributes {
		if in.MessageAttributes == nil {
			in.MessageAttributes = map[string]types.MessageAttributeValue{}
		}
		in.MessageAttributes[k] = types.MessageAttributeValue{DataType: aws.String("String"), StringValue: &v}
	}
	if caps.Ordering {
		in.MessageGroupId, in.MessageDeduplicationId = aws.String(uuid.NewString()), aws.String(uuid.NewString())
	}
	_, err := client.SendMessage(ctx, in)
	return err
}
