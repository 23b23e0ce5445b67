package testbed

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/examples/internal/backends"
	"github.com/anyqueue/anyqueue/internal/pubsubtest"
	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/config"
	"github.com/anyqueue/anyqueue/sqs"
	"github.com/anyqueue/anyqueue/sqs/awsclient"
	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// A Broker has queues that processes share, those of one test.
type Broker struct {
	URL       string
	Transport http.RoundTripper // to forward what its clients ask
	// Publishes and Acknowledges report what a client asks for.
	Publishes, Acknowledges func(*http.Request) bool
	// PerPublish is how many messages a request that publishes can hold.
	PerPublish int
	Backend    queue.Backend // of the same queues, in this process

	binary string // of the example
	prefix string
	env    func(url string) []string
}

// An End is where a process finds a broker: at its own URL, or that of something in
// between.
type End struct {
	*Broker
	URL string
}

// environment is what a process finds, and nothing of anybody's profile.
func environment(ends []End) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return slices.ContainsFunc([]string{"QUEUE_", "AWS_", "PUBSUB_", "GOOGLE_"}, func(prefix string) bool { return strings.HasPrefix(v, prefix) })
	})
	for _, e := range ends {
		env = append(append(env, backends.Prefix+"="+e.prefix), e.env(e.URL)...)
	}
	return env
}

// create makes the queues of an example's file, one after the other. Processes that
// do it at the same time lose messages on Google's emulator, where the later of two
// creations takes the place of the earlier one, with what that holds.
func create(t *testing.T, file []byte, backend string, on config.Backends) {
	t.Helper()
	f, err := config.Parse("queues.yaml", file, func(name string) (string, bool) { return backend, name == "QUEUE_BACKEND" })
	require.NoError(t, err)
	bus, err := config.OpenFile(f, on, &config.Options{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	for _, q := range f.Queues {
		_, err := bus.Queue(t.Context(), q.Name)
		require.NoError(t, err)
	}
	require.NoError(t, bus.Close(t.Context()))
}

// server is one in this process, or a real one where the environment says.
type server struct {
	name, variable string
	connect        func(t *testing.T, address, prefix string) *Broker
}

func ofSQS() []server {
	return []server{
		{"sqstest", "", onSQS},
		{"LocalStack", "ANYQUEUE_TEST_SQS_LOCALSTACK", onSQS},
		{"ElasticMQ", "ANYQUEUE_TEST_SQS_ELASTICMQ", onSQS},
	}
}

const emulatorVariable = "ANYQUEUE_TEST_PUBSUB_EMULATOR"

// OnEach calls f for each server that processes can share: those of SQS, one of them
// in this process, and Google's emulator of Pub/Sub. Connect makes a broker there,
// with the queues of the example's file, for processes of the example in the test's
// folder. It's one server after the other, as so many processes at a time wouldn't get
// to what they do before it's too late.
func OnEach(t *testing.T, file []byte, f func(t *testing.T, connect func(t *testing.T) *Broker)) {
	t.Helper()
	servers := append(ofSQS(), server{"Emulator", emulatorVariable, onPubSub})
	onServers(t, servers, func(t *testing.T, connect func(t *testing.T, prefix string) *Broker) {
		t.Helper()
		f(t, func(t *testing.T) *Broker {
			t.Helper()
			b := connect(t, newPrefix())
			create(t, file, "here", config.Backends{"here": b.Backend})
			return b
		})
	})
}

// OnBoth is OnEach for a file with queues on the backends sqs and pubsub: f is called
// for each server of SQS, each time together with Google's emulator.
func OnBoth(t *testing.T, file []byte, f func(t *testing.T, sqs, pubsub *Broker)) {
	t.Helper()
	emulator := os.Getenv(emulatorVariable)
	if emulator == "" {
		t.Skipf("%s is empty", emulatorVariable)
	}
	onServers(t, ofSQS(), func(t *testing.T, connect func(t *testing.T, prefix string) *Broker) {
		t.Helper()
		prefix := newPrefix() // that of the processes
		left, right := connect(t, prefix), onPubSub(t, emulator, prefix)
		right.binary = left.binary
		create(t, file, "", config.Backends{"sqs": left.Backend, "pubsub": right.Backend})
		f(t, left, right)
	})
}

func onServers(t *testing.T, servers []server, f func(t *testing.T, connect func(t *testing.T, prefix string) *Broker)) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "program")
	ctx := t.Context()
	built := sync.OnceValue(func() error { return build(ctx, binary) })
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			address := os.Getenv(s.variable)
			switch {
			case s.variable == "" && testing.Short():
				t.Skip("it takes a quarter of a minute")
			case s.variable == "":
				address = startSQSTest(t)
			case address == "":
				t.Skipf("%s is empty", s.variable)
			}
			require.NoError(t, built())
			f(t, func(t *testing.T, prefix string) *Broker {
				t.Helper()
				b := s.connect(t, address, prefix)
				b.binary = binary
				return b
			})
		})
	}
}

func startSQSTest(t *testing.T) string {
	t.Helper()
	fake := sqstest.New(&sqstest.Options{EndCutPolls: true}) // else a dead process's poll adds another lease
	t.Cleanup(fake.Close)
	url, err := fake.Start("")
	require.NoError(t, err)
	return url
}

func newPrefix() string { return "test-" + uuid.NewString()[:8] + "-" }

// onSQS returns a broker that's a server of SQS.
func onSQS(t *testing.T, url, prefix string) *Broker {
	t.Helper()
	client, err := awsclient.New(t.Context(), &awsclient.Options{Endpoint: url})
	require.NoError(t, err)
	target := func(call string) func(*http.Request) bool { // with or without Batch
		return func(r *http.Request) bool { return strings.Contains(r.Header.Get("X-Amz-Target"), call) }
	}
	t.Cleanup(func() { deleteQueues(t, client, prefix) })
	return &Broker{
		URL: url, Transport: http.DefaultTransport,
		Publishes:    target("SendMessage"),
		Acknowledges: target("DeleteMessage"),
		PerPublish:   10,
		Backend:      backends.Prefixed(sqs.New(client, nil), prefix),
		prefix:       prefix,
		env: func(url string) []string {
			return []string{
				"QUEUE_BACKEND=sqs", "AWS_ENDPOINT_URL_SQS=" + url,
				"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test",
			}
		},
	}
}

// onPubSub returns a broker that's a server of Pub/Sub.
func onPubSub(t *testing.T, address, prefix string) *Broker {
	t.Helper()
	emulator := func(name string) (string, bool) { return address, name == "PUBSUB_EMULATOR_HOST" }
	project := backends.Project(emulator) // as the processes find it
	client := pubsubtest.Dial(t, address)
	t.Cleanup(func() { pubsubtest.DeleteQueues(t, client, project, prefix) })
	var http2 http.Protocols
	http2.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &http2}
	t.Cleanup(transport.CloseIdleConnections)
	const scheme = "http://"
	return &Broker{
		URL: scheme + address, Transport: transport,
		Publishes:    func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "Publisher/Publish") },
		Acknowledges: func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "Subscriber/Acknowledge") },
		PerPublish:   1000,
		Backend:      backends.Prefixed(pubsub.New(client, &pubsub.Options{Project: project}), prefix),
		prefix:       prefix,
		env: func(url string) []string {
			return []string{"QUEUE_BACKEND=pubsub", "PUBSUB_EMULATOR_HOST=" + strings.TrimPrefix(url, scheme)}
		},
	}
}

// deleteQueues leaves the broker as it was.
func deleteQueues(t *testing.T, client *awssqs.Client, prefix string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) // the test's own is over in a cleanup
	defer cancel()
	list, err := client.ListQueues(ctx, &awssqs.ListQueuesInput{QueueNamePrefix: &prefix})
	if !assert.NoError(t, err) {
		return
	}
	for _, u := range list.QueueUrls {
		_, err := client.DeleteQueue(ctx, &awssqs.DeleteQueueInput{QueueUrl: &u})
		assert.NoError(t, err)
	}
}
