package sqs_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/config"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go/middleware"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/internal/cloudtest"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/queuetest"
	"github.com/anyqueue/anyqueue/sqs"
	"github.com/anyqueue/anyqueue/sqs/awsclient"
	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// realCloud is the prefix of the names of all queues that a run makes on AWS, or
// on what the environment has in its place. .ci/real-cloud sets it.
const realCloud = "ANYQUEUE_TEST_SQS_AWS"

func TestRealCloudConformance(t *testing.T) {
	queuetest.Run(t, realCloudHarness(t, "sqs-standard"))
}

func TestRealCloudConformanceFIFO(t *testing.T) {
	h := realCloudHarness(t, "sqs-fifo")
	h.Ordered = true
	queuetest.Run(t, h)
}

func realCloudHarness(t *testing.T, name string) queuetest.Harness {
	t.Helper()
	client, prefix := realCloudClient(t)
	server := "aws"
	if client.Options().BaseEndpoint != nil { // a stand-in, to try this out
		server = "localstack"
	}
	return queuetest.Harness{
		Name: name, Server: server,
		Lease: 4 * time.Second,
		New: func(testing.TB) queuetest.Instance {
			return queuetest.Instance{
				Backend: &prefixed{sqs.New(client, &sqs.Options{Wait: 2 * time.Second}), client, prefix},
				PublishRaw: func(ctx context.Context, q queue.Queue, body []byte, attributes map[string]string) error {
					return publishRaw(ctx, client, q, body, attributes)
				},
			}
		},
	}
}

// dollarsPerRequest is the list price of FIFO requests, the dearer ones, in the
// cheaper regions. Payloads over 64 KB count several times, which isn't in it.
const dollarsPerRequest = 0.50 / 1e6

// realCloudClient returns a client as the environment says. What it has asked for
// is told when the test ends, as AWS bills by request.
func realCloudClient(t *testing.T) (client *awssqs.Client, prefix string) {
	t.Helper()
	prefix = cloudtest.Prefix(t, realCloud)
	var count cloudtest.Requests
	client, err := awsclient.New(t.Context(), &awsclient.Options{Load: []func(*config.LoadOptions) error{
		config.WithAPIOptions([]func(*middleware.Stack) error{watch(&count)}),
	}})
	require.NoError(t, err)
	t.Cleanup(func() { t.Log(count.String()) })
	return client, prefix
}

// watch counts what's sent, retries included.
func watch(count *cloudtest.Requests) func(*middleware.Stack) error {
	return func(stack *middleware.Stack) error {
		return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("anyqueue:count",
			func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
				count.Add(awsmiddleware.GetOperationName(ctx), dollarsPerRequest)
				return next.HandleDeserialize(ctx, in)
			}), middleware.Before)
	}
}

// prefixed keeps the queues of a run apart from all others of the account. The
// queues don't know: they're opened by their addresses.
type prefixed struct {
	*sqs.Backend

	client *awssqs.Client
	prefix string
}

func (p *prefixed) Open(ctx context.Context, name string, opts *queue.OpenOptions) (queue.Queue, error) {
	o := queue.OpenOptions{}
	if opts != nil {
		o = *opts
	}
	if queue.CheckName(name) != nil {
		return p.Backend.Open(ctx, name, &o) // the prefix would make it a good one
	}
	if o.Address == "" {
		full := p.prefix + name
		if o.Ordered {
			full += ".fifo"
		}
		out, err := p.client.GetQueueUrl(ctx, &awssqs.GetQueueUrlInput{QueueName: &full})
		if err != nil {
			return p.Backend.Open(ctx, p.prefix+name, &o) // which says what's wrong
		}
		o.Address = *out.QueueUrl
	}
	q, err := p.Backend.Open(ctx, name, &o)
	if err != nil || p.client.Options().BaseEndpoint != nil {
		return q, err
	}
	return cloudtest.SlowPurge(q), nil
}

func (p *prefixed) Ensure(ctx context.Context, name string, spec *queue.QueueSpec) (*queue.EnsureReport, error) {
	s := queue.QueueSpec{}
	if spec != nil {
		s = *spec
	}
	if s.DeadLetter != "" {
		s.DeadLetter = p.prefix + s.DeadLetter
	}
	return p.Backend.Ensure(ctx, p.prefix+name, &s)
}

// TestRealCloudCleanUp deletes the queues of this run, and those that crashed runs
// have left. .ci/real-cloud calls it before and after the others.
func TestRealCloudCleanUp(t *testing.T) {
	client, prefix := realCloudClient(t)
	n, err := cleanUp(t.Context(), client, prefix, time.Now())
	require.NoError(t, err)
	t.Logf("%d queues deleted", n)
}

func cleanUp(ctx context.Context, client *awssqs.Client, prefix string, now time.Time) (deleted int, err error) {
	every := cloudtest.Every
	most := int32(1000)
	var urls []string
	for pages := awssqs.NewListQueuesPaginator(client, &awssqs.ListQueuesInput{QueueNamePrefix: &every, MaxResults: &most}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return 0, err
		}
		urls = append(urls, page.QueueUrls...)
	}
	for _, url := range urls {
		name := url[strings.LastIndexByte(url, '/')+1:]
		if !cloudtest.Deletable(name, prefix, now) {
			continue
		}
		if _, err := client.DeleteQueue(ctx, &awssqs.DeleteQueueInput{QueueUrl: &url}); err != nil {
			return deleted, err
		}
		deleted++
	}
	return deleted, nil
}

func TestCleanUpDeletesThisRunsAndCrashedRunsQueuesOnly(t *testing.T) {
	t.Parallel()
	server := sqstest.New(nil)
	t.Cleanup(server.Close)
	client := server.Client()
	const mine = "anyqueue-ci-20261122T100000Z-1a2b-"
	stay := []string{"anyqueue-ci-20261122T100000Z-9z9z-other-run", "orders"}
	gone := []string{mine + "a", mine + "b.fifo", "anyqueue-ci-20250101T000000Z-bbbb-old.fifo"}
	for _, name := range append(slices.Clone(stay), gone...) {
		in := &awssqs.CreateQueueInput{QueueName: &name}
		if strings.HasSuffix(name, ".fifo") {
			in.Attributes = map[string]string{"FifoQueue": "true"}
		}
		_, err := client.CreateQueue(t.Context(), in)
		require.NoError(t, err)
	}
	n, err := cleanUp(t.Context(), client, mine, time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC))
	require.NoError(t, err)
	assert.Equal(t, len(gone), n)
	assert.ElementsMatch(t, stay, server.Queues())
}
