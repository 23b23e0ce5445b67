package sqs_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/config"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go/middleware"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/queuetest"
	"github.com/anyqueue/anyqueue/sqs"
	"github.com/anyqueue/anyqueue/sqs/awsclient"
	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// realCloud is the prefix of the names of all queues that a run makes on AWS, or
// on what the environment has in its place. .ci/real-cloud sets it.
const realCloud = "ANYQUEUE_TEST_SQS_AWS"

// runPrefix is what begins the name of a queue of any run, and when that run began.
var runPrefix = regexp.MustCompile(`^anyqueue-ci-(\d{8}T\d{6}Z)-[a-z0-9]+-`)

const runStamp = "20060102T150405Z"

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

// realCloudClient returns a client as the environment says. What it has asked for
// is told when the test ends, as AWS bills by request.
func realCloudClient(t *testing.T) (client *awssqs.Client, prefix string) {
	t.Helper()
	prefix = os.Getenv(realCloud)
	if prefix == "" {
		t.Skipf("%s isn't set: this is for .ci/real-cloud", realCloud)
	}
	require.Regexp(t, runPrefix, prefix)
	count := &requests{made: map[string]int{}}
	client, err := awsclient.New(t.Context(), &awsclient.Options{Load: []func(*config.LoadOptions) error{
		config.WithAPIOptions([]func(*middleware.Stack) error{count.watch}),
	}})
	require.NoError(t, err)
	t.Cleanup(func() { t.Log(count.String()) })
	return client, prefix
}

// requests counts what's sent, retries included.
type requests struct {
	mu   sync.Mutex
	made map[string]int
}

func (r *requests) watch(stack *middleware.Stack) error {
	return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("anyqueue:count",
		func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
			r.mu.Lock()
			r.made[awsmiddleware.GetOperationName(ctx)]++
			r.mu.Unlock()
			return next.HandleDeserialize(ctx, in)
		}), middleware.Before)
}

// dollarsPerMillion is the list price of FIFO requests, the dearer ones, in the
// cheaper regions. Payloads over 64 KB count several times, which isn't in it.
const dollarsPerMillion = 0.50

func (r *requests) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	total := 0
	var each []string
	for _, op := range slices.Sorted(maps.Keys(r.made)) {
		total += r.made[op]
		each = append(each, fmt.Sprintf("%s %d", op, r.made[op]))
	}
	return fmt.Sprintf("%d requests, about $%.3f: %s", total, float64(total)*dollarsPerMillion/1e6, strings.Join(each, ", "))
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
	return &slowPurge{q}, nil
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

// slowPurge waits for as long as AWS says that a purge may take, as the suite then
// publishes something that must stay.
type slowPurge struct{ queue.Queue }

func (s *slowPurge) Unwrap() queue.Queue { return s.Queue }

func (s *slowPurge) Purge(ctx context.Context) error {
	p, _ := queue.As[queue.Purger](s.Queue)
	if err := p.Purge(ctx); err != nil {
		return err
	}
	select {
	case <-time.After(time.Minute):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// oldRun is the age from which another run must have crashed.
const oldRun = 24 * time.Hour

// TestRealCloudCleanUp deletes the queues of this run, and those that crashed runs
// have left. .ci/real-cloud calls it before and after the others.
func TestRealCloudCleanUp(t *testing.T) {
	client, prefix := realCloudClient(t)
	n, err := cleanUp(t.Context(), client, prefix, time.Now())
	require.NoError(t, err)
	t.Logf("%d queues deleted", n)
}

func cleanUp(ctx context.Context, client *awssqs.Client, prefix string, now time.Time) (deleted int, err error) {
	every := "anyqueue-ci-"
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
		if !strings.HasPrefix(name, prefix) && !crashed(name, now) {
			continue
		}
		if _, err := client.DeleteQueue(ctx, &awssqs.DeleteQueueInput{QueueUrl: &url}); err != nil {
			return deleted, err
		}
		deleted++
	}
	return deleted, nil
}

// crashed reports whether a queue is that of a run that must be over.
func crashed(name string, now time.Time) bool {
	m := runPrefix.FindStringSubmatch(name)
	if m == nil {
		return false
	}
	began, err := time.Parse(runStamp, m[1])
	return err == nil && now.Sub(began) > oldRun
}

func TestCleanUpDeletesThisRunsAndCrashedRunsQueuesOnly(t *testing.T) {
	t.Parallel()
	server := sqstest.New(nil)
	t.Cleanup(server.Close)
	client := server.Client()
	const mine = "anyqueue-ci-20261122T100000Z-1a2b-"
	stay := []string{
		"anyqueue-ci-20261122T100000Z-9z9z-other-run", "anyqueue-ci-20261121T100001Z-aaaa-not-a-day-old", "anyqueue-ci-of-a-person",
		"anyqueue-ci-99999999T999999Z-aaaa-no-date", "orders",
	}
	gone := []string{mine + "a", mine + "b.fifo", "anyqueue-ci-20261121T095959Z-aaaa-old", "anyqueue-ci-20250101T000000Z-bbbb-older.fifo"}
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
