package awsclient_test

import (
	"context"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs/awsclient"
	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// env makes an environment without anything of this machine's but what's given.
// Tests that use it aren't parallel: there's one environment.
func env(t *testing.T, vars map[string]string) {
	t.Helper()
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "") // so that it's put back
			require.NoError(t, os.Unsetenv(name))
		}
	}
	none := filepath.Join(t.TempDir(), "none")
	t.Setenv("AWS_CONFIG_FILE", none)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", none)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	for k, v := range vars {
		t.Setenv(k, v)
	}
}

// what a client is for.
type target struct{ region, endpoint, key string }

func targetOf(t *testing.T, c *awssqs.Client) target {
	t.Helper()
	o := c.Options()
	out := target{region: o.Region}
	if o.BaseEndpoint != nil {
		out.endpoint = *o.BaseEndpoint
	}
	creds, err := o.Credentials.Retrieve(t.Context())
	require.NoError(t, err)
	out.key = creds.AccessKeyID
	return out
}

func TestWhatTheEnvironmentSays(t *testing.T) {
	keys := func(more map[string]string) map[string]string {
		out := map[string]string{"AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "eu-west-1"}
		maps.Copy(out, more)
		return out
	}
	for _, c := range []struct {
		name string
		env  map[string]string
		opts awsclient.Options
		want target
	}{
		{"region and keys", keys(nil), awsclient.Options{}, target{"eu-west-1", "", "AK"}},
		{"the endpoint of SQS", keys(map[string]string{"AWS_ENDPOINT_URL_SQS": "https://vpce.example", "AWS_ENDPOINT_URL": "https://all.example"}),
			awsclient.Options{}, target{"eu-west-1", "https://vpce.example", "AK"}},
		{"the endpoint of all services", keys(map[string]string{"AWS_ENDPOINT_URL": "https://all.example"}),
			awsclient.Options{}, target{"eu-west-1", "https://all.example", "AK"}},
		{"the program's region and endpoint win", keys(map[string]string{"AWS_ENDPOINT_URL_SQS": "https://vpce.example"}),
			awsclient.Options{Region: "eu-north-1", Endpoint: "https://mine.example"}, target{"eu-north-1", "https://mine.example", "AK"}},
		{"a stand-in needs nothing else", map[string]string{"AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:4566"},
			awsclient.Options{}, target{"us-east-1", "http://127.0.0.1:4566", "test"}},
		{"a stand-in gets what's set", keys(map[string]string{"AWS_ENDPOINT_URL_SQS": "http://localstack:4566"}),
			awsclient.Options{}, target{"eu-west-1", "http://localstack:4566", "AK"}},
		{"an option of the SDK wins", keys(nil),
			awsclient.Options{Region: "eu-north-1", Load: []func(*config.LoadOptions) error{config.WithRegion("eu-south-1")}}, target{"eu-south-1", "", "AK"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			env(t, c.env)
			client, err := awsclient.New(t.Context(), &c.opts)
			require.NoError(t, err)
			assert.Equal(t, c.want, targetOf(t, client))
		})
	}
}

func TestAProfileOfTheSharedFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(file, []byte(`
[profile crm]
region = eu-central-1
aws_access_key_id = FROMFILE
aws_secret_access_key = secret
services = local

[services local]
sqs =
  endpoint_url = https://file.example
`), 0o600))
	env(t, map[string]string{"AWS_CONFIG_FILE": file})
	want := target{"eu-central-1", "https://file.example", "FROMFILE"}
	client, err := awsclient.New(t.Context(), &awsclient.Options{Profile: "crm"})
	require.NoError(t, err)
	assert.Equal(t, want, targetOf(t, client))

	t.Setenv("AWS_PROFILE", "crm")
	client, err = awsclient.New(t.Context(), nil)
	require.NoError(t, err)
	assert.Equal(t, want, targetOf(t, client))
}

func TestWhatIsMissingIsSaid(t *testing.T) {
	for _, c := range []struct {
		name string
		env  map[string]string
		opts awsclient.Options
		want error
		says string
	}{
		{"no region", map[string]string{"AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "s"}, awsclient.Options{}, queue.ErrInvalid, "set AWS_REGION"},
		{"no credentials", map[string]string{"AWS_REGION": "eu-west-1"}, awsclient.Options{}, queue.ErrPermission, "set AWS_ACCESS_KEY_ID"},
		{"no credentials for an endpoint with TLS", map[string]string{"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL_SQS": "https://127.0.0.1:1"},
			awsclient.Options{}, queue.ErrPermission, "set AWS_ACCESS_KEY_ID"},
		{"an endpoint without a scheme", nil, awsclient.Options{Endpoint: "localhost:4566"}, queue.ErrInvalid, `"localhost:4566" isn't`},
	} {
		t.Run(c.name, func(t *testing.T) {
			env(t, c.env)
			_, err := awsclient.New(t.Context(), &c.opts)
			require.ErrorIs(t, err, c.want)
			assert.ErrorContains(t, err, c.says)
			_, err = awsclient.Backend(&c.opts).Open(t.Context(), "orders", nil)
			assert.ErrorIs(t, err, c.want)
			_, err = awsclient.Backend(&c.opts).Ensure(t.Context(), "orders", nil)
			assert.ErrorIs(t, err, c.want)
		})
	}
}

func TestAMissingProfileIsAnError(t *testing.T) {
	env(t, nil)
	_, err := awsclient.New(t.Context(), &awsclient.Options{Profile: "nobody"})
	assert.ErrorContains(t, err, "nobody")
}

func TestNothingIsNeededBeforeSomethingIsOpened(t *testing.T) {
	env(t, nil)
	b := awsclient.Backend(nil)
	assert.Equal(t, "aws_sqs", b.System())
	_, err := b.Open(t.Context(), "orders", nil)
	require.Error(t, err)

	// What was missing is there later, as when a pod gets its token late.
	s := sqstest.New(nil)
	t.Cleanup(s.Close)
	endpoint, err := s.Start("127.0.0.1:0")
	require.NoError(t, err)
	t.Setenv("AWS_ENDPOINT_URL_SQS", endpoint)
	r, err := b.Ensure(t.Context(), "orders", nil)
	require.NoError(t, err)
	assert.Equal(t, []string{"queue orders"}, r.Created)
	q, err := b.Open(t.Context(), "orders", nil)
	require.NoError(t, err)
	assert.NoError(t, q.Publish(t.Context(), &queue.Message{Body: []byte("m")}))
	assert.NoError(t, q.Close(context.Background()))
}

func TestTheZeroBackendIsTheDefaultOne(t *testing.T) {
	env(t, map[string]string{"AWS_REGION": "eu-west-1"})
	b := &awsclient.LazyBackend{}
	_, err := b.Open(t.Context(), "orders", nil)
	assert.ErrorIs(t, err, queue.ErrPermission, "it has looked for credentials")
	_, err = b.Ensure(t.Context(), "orders", nil)
	assert.ErrorIs(t, err, queue.ErrPermission)
}

func TestACallThatWaitsForCredentialsEndsWithItsContext(t *testing.T) {
	over := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-over }))
	t.Cleanup(slow.Close)
	t.Cleanup(func() { close(over) }) // first: the SDK doesn't cut the request off
	env(t, map[string]string{"AWS_REGION": "eu-west-1", "AWS_CONTAINER_CREDENTIALS_FULL_URI": slow.URL + "/creds"})
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(assert.AnError)
	_, err := awsclient.New(ctx, nil)
	assert.ErrorIs(t, err, assert.AnError)
	assert.NotErrorIs(t, err, queue.ErrPermission)
}

func TestManyPollsAtOnceKeepTheirConnections(t *testing.T) {
	env(t, nil)
	const polls = 60
	s := sqstest.New(nil)
	t.Cleanup(s.Close)
	var opened atomic.Int64
	var all sync.WaitGroup // of a round: nobody is answered before all have asked
	h := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".ListQueues") {
			all.Done()
			all.Wait()
		}
		s.ServeHTTP(w, r)
	}))
	h.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	h.Start()
	t.Cleanup(h.Close)
	client, err := awsclient.New(t.Context(), &awsclient.Options{Endpoint: h.URL})
	require.NoError(t, err)
	for round := range 3 {
		all.Add(polls)
		var wg sync.WaitGroup
		for range polls {
			wg.Go(func() {
				_, err := client.ListQueues(t.Context(), &awssqs.ListQueuesInput{})
				assert.NoError(t, err)
			})
		}
		wg.Wait()
		// A few more, as a connection is idle only a moment after its answer was read.
		assert.Less(t, opened.Load(), int64(2*polls), "round %d", round)
	}
}

func TestNoTimeoutCutsALongPollOff(t *testing.T) {
	env(t, map[string]string{"AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:1"})
	client, err := awsclient.New(t.Context(), nil)
	require.NoError(t, err)
	h, ok := client.Options().HTTPClient.(*awshttp.BuildableClient)
	require.True(t, ok)
	assert.Zero(t, h.GetTimeout())
	assert.Zero(t, h.GetTransport().ResponseHeaderTimeout)
	assert.Zero(t, h.GetTransport().MaxConnsPerHost)
}
