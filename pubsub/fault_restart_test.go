package pubsub_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/internal/pubsubtest"
	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/config"
)

// emulatorJar names the environment variable with the emulator's program, for a test
// that kills it.
const emulatorJar = "ANYQUEUE_TEST_PUBSUB_JAR"

// process is an emulator of a test's own.
type process struct {
	t       *testing.T
	jar     string
	address string
	cmd     *exec.Cmd
}

func newProcess(t *testing.T) *process {
	t.Helper()
	p := &process{t: t, jar: os.Getenv(emulatorJar)}
	if p.jar == "" {
		t.Skipf("%s isn't set: start the servers with .ci/servers.sh", emulatorJar)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port that's free
	require.NoError(t, err)
	p.address = l.Addr().String()
	require.NoError(t, l.Close())
	p.start()
	t.Cleanup(p.kill)
	return p
}

// start starts it, on the same port each time, and waits until it answers.
func (p *process) start() {
	p.t.Helper()
	host, port, err := net.SplitHostPort(p.address)
	require.NoError(p.t, err)
	p.cmd = exec.Command("java", "-Xmx256m", "-jar", p.jar, "--host="+host, "--port="+port)
	require.NoError(p.t, p.cmd.Start())
	for until := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		out, err := http.Get("http://" + p.address + "/v1/projects/ready/topics")
		if err == nil {
			_ = out.Body.Close()
			if out.StatusCode == http.StatusOK {
				return
			}
		}
		require.True(p.t, time.Now().Before(until), "the emulator doesn't answer: %v", err)
	}
}

// kill kills it, as if its machine had failed.
func (p *process) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}

// The emulator is killed, and started again without its memory: the queues are gone,
// and what they held is its loss. A Bus that may create queues comes back by itself.
func TestServerTheEmulatorIsKilledAndStartedAgain(t *testing.T) {
	t.Parallel()
	p := newProcess(t)
	r := newRig(t)
	file, err := config.Parse("queues.yaml", []byte("backend: pubsub\nensure: true\nqueues:\n  orders:\n    dead_letter: {queue: orders-dlq}\n  orders-dlq: {}\n"),
		func(string) (string, bool) { return "", false })
	require.NoError(t, err)
	bus, err := config.OpenFile(file, config.Backends{"pubsub": pubsub.New(pubsubtest.Dial(t, p.address, r.ledger.intercept), nil)},
		&config.Options{Logger: slog.New(slog.DiscardHandler), Hooks: r.ledger.hooks()})
	require.NoError(t, err)
	bus.Handle("orders", func(_ context.Context, d *queue.Delivery) error {
		r.note(string(d.Body))
		return nil
	})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- bus.Run(ctx) }()
	publisher := bus.Publisher("orders")

	// Somebody publishes all the time.
	var phase string
	var wg sync.WaitGroup
	publishing, enough := context.WithCancel(t.Context())
	wg.Go(func() {
		for n := 0; publishing.Err() == nil; n++ {
			r.mu.Lock()
			now := phase
			r.mu.Unlock()
			limited, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			m := message(fmt.Sprint(now, n))
			err := queue.PublishErrors(publisher.Publish(limited, m), 1)[0]
			cancel()
			r.mu.Lock()
			r.said[string(m.Body)] = err
			r.mu.Unlock()
			time.Sleep(10 * time.Millisecond) // its pace
		}
	})
	of := func(bodies map[string]int, phase string) (n int) {
		for b := range bodies {
			if strings.HasPrefix(b, phase) {
				n++
			}
		}
		return n
	}
	enter := func(next string, n int) {
		r.mu.Lock()
		phase = next
		r.mu.Unlock()
		r.await(fmt.Sprint(n, " messages of the phase ", next), func() bool { return of(r.handled, next) >= n })
	}
	enter("before ", 50)
	p.kill()
	p.start()
	enter("again ", 1) // the queue is there again, and consumed
	enter("after ", 50)
	enough()
	wg.Wait()
	r.await("all that was confirmed since", func() bool {
		for body, err := range r.said {
			if err == nil && strings.HasPrefix(body, "after ") && r.handled[body] == 0 {
				return false
			}
		}
		return true
	})
	stop()
	assert.NoError(t, <-ended)
	closing, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	assert.NoError(t, bus.Close(closing))
	_, unknown, refused := r.confirmed()
	assert.Positive(t, unknown+refused, "the outage was noticed")
	t.Logf("%d repetitions", r.judge())
}
