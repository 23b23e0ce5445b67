package pubsub_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
)

// own returns a backend that makes its client, and the network that this has for
// itself.
func (f *fake) own(t *testing.T, project string) (*pubsub.Backend, *network) {
	t.Helper()
	f.ensure(t, "orders", nil)
	n := f.network.another()
	return pubsub.NewBackend(&pubsub.Options{Project: project, ClientOptions: n.options()}), n
}

func TestABackendsOwnClientLivesAsLongAsItsQueues(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		b, network := f.own(t, project)
		made, open := network.dialed()
		require.Zero(t, made+open, "nobody needs it yet")

		one, err := b.Open(t.Context(), "orders", nil)
		require.NoError(t, err)
		require.NoError(t, one.Publish(t.Context(), message("a")))
		made, open = network.dialed()
		require.Positive(t, open)
		require.Equal(t, made, open)
		two, err := b.Open(t.Context(), "orders", &queue.OpenOptions{Mode: queue.ForPublish})
		require.NoError(t, err)
		made, _ = network.dialed()
		assert.Zero(t, made, "it's shared")

		require.NoError(t, one.Close(t.Context()))
		require.NoError(t, one.Close(t.Context()), "closing twice must not take it from another queue")
		require.NoError(t, two.Publish(t.Context(), message("b")))
		require.NoError(t, two.Close(t.Context()))
		_, open = network.dialed()
		assert.Zero(t, open, "nobody needs it any more")

		again, err := b.Open(t.Context(), "orders", nil)
		require.NoError(t, err)
		assert.Len(t, receive(t, again, 2), 2)
		require.NoError(t, again.Close(t.Context()))
		_, open = network.dialed()
		assert.Zero(t, open)
	})
}

func TestABackendsOwnClientEndsWithACallThatLeavesNoQueue(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		b, network := f.own(t, project)
		_, err := b.Open(t.Context(), "missing", nil)
		require.ErrorIs(t, err, queue.ErrQueueNotFound)
		_, err = b.Ensure(t.Context(), "orders", nil)
		require.NoError(t, err)
		made, open := network.dialed()
		assert.Positive(t, made)
		assert.Zero(t, open)
	})
}

// gRPC by itself would wait for up to two minutes, the longer the server was away.
func TestABackendsOwnClientConnectsAgainSoonAfterALongOutage(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		b, network := f.own(t, project)
		q, err := b.Open(t.Context(), "orders", nil)
		require.NoError(t, err)
		defer func() { assert.NoError(t, q.Close(context.Background())) }()
		try := func(patience time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			return q.Publish(ctx, message("a"))
		}
		for _, away := range []time.Duration{time.Minute, 20 * time.Minute} {
			require.NoError(t, try(time.Second))
			network.set(true)
			for begun := time.Now(); time.Since(begun) < away; {
				require.Error(t, try(20*time.Second))
			}
			network.set(false)
			back := time.Now()
			for try(100*time.Millisecond) != nil { // it mustn't be the publisher's own pauses that make it late
				require.Less(t, time.Since(back), 10*time.Minute)
			}
			assert.LessOrEqual(t, time.Since(back), 10*time.Second, "after %v", away)
		}
	})
}

// What the caller says of it counts.
func TestHowOftenToConnectIsTheCallersToSay(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.ensure(t, "orders", nil)
		n := f.network.another()
		slow := grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: time.Hour, MaxDelay: time.Hour}, MinConnectTimeout: time.Minute}
		b := pubsub.NewBackend(&pubsub.Options{Project: project, ClientOptions: append(n.options(), option.WithGRPCDialOption(grpc.WithConnectParams(slow)))})
		q, err := b.Open(t.Context(), "orders", nil)
		require.NoError(t, err)
		defer func() { assert.NoError(t, q.Close(context.Background())) }()
		n.set(true)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
		defer cancel()
		n.dialed()
		assert.Error(t, q.Publish(ctx, message("a")))
		made, _ := n.dialed()
		assert.LessOrEqual(t, made, 1)
		n.set(false)
	})
}

func TestAGivenClientStaysTheCallers(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.ensure(t, "orders", nil)
		q, err := f.backend.Open(t.Context(), "orders", nil)
		require.NoError(t, err)
		require.NoError(t, q.Close(t.Context()))
		_, err = f.client.TopicAdminClient.GetTopic(t.Context(), &pubsubpb.GetTopicRequest{Topic: topicName("orders")})
		assert.NoError(t, err)
	})
}

// The environment is the whole process's: these run alone.
func TestAProjectComesFromOptionsOrEnvironment(t *testing.T) {
	t.Setenv("PUBSUB_EMULATOR_HOST", "")
	for _, c := range []struct{ name, options, environment, want string }{
		{"the options", otherProject, project, otherProject},
		{"else the environment", "", otherProject, otherProject},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("GOOGLE_CLOUD_PROJECT", c.environment)
			onFakeAlone(t, func(t *testing.T, f *fake) {
				b, _ := f.own(t, c.options)
				r, err := b.Ensure(t.Context(), "elsewhere", nil)
				require.NoError(t, err)
				assert.Equal(t, "projects/"+c.want+"/topics/elsewhere", r.Created[0])
			})
		})
	}
}

func TestWithoutAProjectThereIsAClearError(t *testing.T) {
	t.Setenv("GOOGLE_CLOUD_PROJECT", "")
	nameless := option.WithAuthCredentialsJSON(option.AuthorizedUser, []byte(`{"type":"authorized_user","client_id":"a","client_secret":"b","refresh_token":"c"}`))
	for _, c := range []struct{ name, emulator string }{
		{"on an emulator", "127.0.0.1:1"},
		{"with credentials that name none", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("PUBSUB_EMULATOR_HOST", c.emulator)
			b := pubsub.NewBackend(&pubsub.Options{ClientOptions: []option.ClientOption{nameless}})
			_, err := b.Open(t.Context(), "orders", nil)
			assert.ErrorIs(t, err, queue.ErrInvalid)
			assert.NotErrorIs(t, err, queue.ErrPermission)
			assert.ErrorContains(t, err, "GOOGLE_CLOUD_PROJECT")
		})
	}
}

func TestWithoutCredentialsThereIsAClearError(t *testing.T) {
	t.Setenv("PUBSUB_EMULATOR_HOST", "")
	t.Setenv("GOOGLE_CLOUD_PROJECT", "")
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", filepath.Join(t.TempDir(), "missing.json"))
	for name, given := range map[string]string{"with a project": project, "without": ""} {
		b := pubsub.NewBackend(&pubsub.Options{Project: given})
		_, opened := b.Open(t.Context(), "orders", nil)
		_, ensured := b.Ensure(t.Context(), "orders", nil)
		for _, err := range []error{opened, ensured} {
			assert.ErrorIs(t, err, queue.ErrPermission, name)
			assert.ErrorContains(t, err, "missing.json", name)
			assert.Equal(t, given == "", errors.Is(err, queue.ErrInvalid), "the project is missing too, or isn't")
		}
	}
}

// A mistyped port, or an emulator that nobody has started.
func TestNobodyAtTheAddressIsSaid(t *testing.T) {
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, nobody.Close()) // nobody listens there now
	t.Setenv("PUBSUB_EMULATOR_HOST", nobody.Addr().String())
	b := pubsub.NewBackend(&pubsub.Options{Project: project})
	var wg sync.WaitGroup
	for what, try := range map[string]func(context.Context) error{
		"open": func(ctx context.Context) error { _, err := b.Open(ctx, "orders", nil); return err },
		"publish": func(ctx context.Context) error {
			_, err := b.Open(ctx, "orders", &queue.OpenOptions{Mode: queue.ForPublish})
			return err
		},
		"ensure": func(ctx context.Context) error {
			_, err := b.Ensure(ctx, "orders", nil)
			return err
		},
	} {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // the first try takes far less
			defer cancel()
			err := try(ctx)
			assert.ErrorIs(t, err, context.DeadlineExceeded, what)
			assert.ErrorContains(t, err, nobody.Addr().String(), what)
			assert.ErrorContains(t, err, "connection refused", what)
		})
	}
	wg.Wait()
}

func TestAMissingQueueIsNamed(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		_, err := f.backend.Open(t.Context(), "orders", nil)
		require.ErrorIs(t, err, queue.ErrQueueNotFound)
		assert.ErrorContains(t, err, "projects/"+project+"/subscriptions/orders")
		assert.ErrorContains(t, err, "Ensure")
		_, err = f.backend.Open(t.Context(), "orders", &queue.OpenOptions{Mode: queue.ForPublish})
		require.ErrorIs(t, err, queue.ErrQueueNotFound)
		assert.ErrorContains(t, err, "projects/"+project+"/topics/orders")
		assert.ErrorContains(t, err, "Ensure")
	})
}
