package pubsub_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/api/option"

	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
)

const emulatorName = "emulator"

// server is a Pub/Sub server that a test runs against.
type server struct {
	name    string
	backend *pubsub.Backend
}

// pullWait is short, as Close waits for the last pull; but the emulator answers a second
// before it has to, so that with a second it wouldn't wait at all.
const pullWait = 2 * time.Second

// patience is how long something that must happen is waited for.
const patience = time.Minute

// onServers runs a test on Google's emulator and, when .ci/real-cloud asks for it, on
// Google Cloud. The names of such tests begin with TestServer, by which CI runs them.
func onServers(t *testing.T, test func(t *testing.T, s *server)) {
	t.Helper()
	t.Parallel()
	t.Run(emulatorName, func(t *testing.T) {
		t.Parallel()
		test(t, &server{emulatorName, pubsub.New(clientFor(t), &pubsub.Options{Wait: pullWait})})
	})
	if os.Getenv(realCloud) == "" {
		return
	}
	t.Run("GCP", func(t *testing.T) {
		t.Parallel()
		test(t, &server{"GCP", pubsub.NewBackend(&pubsub.Options{Wait: pullWait, ClientOptions: []option.ClientOption{counted(t)}})})
	})
}

// unique returns the name of a queue that's nobody else's.
func unique(what string) string { return os.Getenv(realCloud) + what + "-" + uuid.NewString()[:8] }

// fresh makes a queue and opens it for the length of the test.
func (s *server) fresh(t *testing.T, what string, spec *queue.QueueSpec) queue.Queue {
	t.Helper()
	if spec == nil {
		spec = &queue.QueueSpec{}
	}
	name := unique(what)
	_, err := s.backend.Ensure(t.Context(), name, spec)
	require.NoError(t, err)
	q, err := s.backend.Open(t.Context(), name, &queue.OpenOptions{Ordered: spec.Ordered})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, q.Close(context.Background())) })
	return q
}
