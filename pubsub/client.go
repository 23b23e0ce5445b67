package pubsub

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	gcp "cloud.google.com/go/pubsub/v2"
	"google.golang.org/api/option"
	"google.golang.org/api/transport"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/anyqueue/anyqueue/internal/remote"
	"github.com/anyqueue/anyqueue/queue"
)

// clients has the client of a Backend: the caller's, or one that exists as long as
// somebody uses it.
type clients struct {
	foreign bool
	dial    func(ctx context.Context) (*gcp.Client, error)

	mu      sync.Mutex
	client  *gcp.Client
	users   int
	dialing *dialing // while one is being made
}

// dialing is the making of a client, which may take long: credentials are looked for,
// also over the network.
type dialing struct {
	done    chan struct{}
	err     error
	waiters int // of clients.mu; they're the client's users when it's there
}

// use returns the client. Whoever has it calls done once when he doesn't need it
// any more. When ctx ends while one is made, that goes on as long as others wait.
func (c *clients) use(ctx context.Context) (client *gcp.Client, done func() error, err error) {
	if c.foreign {
		return c.client, func() error { return nil }, nil
	}
	c.mu.Lock()
	if client = c.client; client != nil {
		c.users++
		c.mu.Unlock()
		return client, sync.OnceValue(c.done), nil
	}
	d := c.dialing
	if d == nil {
		d = &dialing{done: make(chan struct{})}
		c.dialing = d
		// The client keeps the context for as long as it refreshes its credentials.
		go c.create(context.WithoutCancel(ctx), d)
	}
	d.waiters++
	c.mu.Unlock()
	select {
	case <-d.done:
	case <-ctx.Done():
		return nil, nil, c.leave(ctx, d)
	}
	if d.err != nil {
		return nil, nil, d.err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.client, sync.OnceValue(c.done), nil // it's there, as we are a user
}

func (c *clients) create(ctx context.Context, d *dialing) {
	client, err := c.dial(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dialing, d.err = nil, err
	close(d.done)
	switch {
	case err != nil:
	case d.waiters == 0:
		_ = client.Close() // it was never used
	default:
		c.client, c.users = client, d.waiters
	}
}

// leave is for who doesn't wait any longer.
func (c *clients) leave(ctx context.Context, d *dialing) error {
	c.mu.Lock()
	pending := c.dialing == d
	d.waiters--
	c.mu.Unlock()
	if !pending && d.err == nil { // too late: we are a user
		if err := c.done(); err != nil {
			return err
		}
	}
	return fmt.Errorf("pubsub: connecting: %w", context.Cause(ctx))
}

func (c *clients) done() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.users--; c.users > 0 {
		return nil
	}
	client := c.client
	c.client = nil
	return client.Close()
}

// dial makes a client. It makes no request to Pub/Sub.
func dial(ctx context.Context, project string, opts []option.ClientOption) (*gcp.Client, error) {
	if project == "" {
		var err error
		if project, err = detect(ctx, opts); err != nil {
			return nil, err
		}
	}
	// What the caller says comes last, and counts.
	opts = append([]option.ClientOption{option.WithGRPCDialOption(grpc.WithConnectParams(reconnect()))}, opts...)
	client, err := gcp.NewClient(ctx, project, opts...)
	if err != nil {
		return nil, remote.As(queue.ErrPermission, err) // it found no credentials
	}
	return client, nil
}

// reconnect is how a client of our own tries to connect again. gRPC's default waits
// longer and longer, up to two minutes: so long a queue would stand still after its
// server has come back.
func reconnect() grpc.ConnectParams {
	b := backoff.DefaultConfig
	b.MaxDelay = maxReconnectDelay
	return grpc.ConnectParams{Backoff: b, MinConnectTimeout: connectTimeout}
}

const (
	maxReconnectDelay = 8 * time.Second // with its jitter of a fifth below 10 s
	connectTimeout    = 10 * time.Second
)

// emulatorHost is the environment's name for the address of Google's emulator.
const emulatorHost = "PUBSUB_EMULATOR_HOST"

// detect finds the project as NewClient would, which leaves a half-made client
// behind where there's none.
func detect(ctx context.Context, opts []option.ClientOption) (string, error) {
	if project := os.Getenv("GOOGLE_CLOUD_PROJECT"); project != "" {
		return project, nil
	}
	if os.Getenv(emulatorHost) != "" {
		return "", errNoProject // it takes any; looking for credentials would only take long
	}
	creds, err := transport.Creds(ctx, opts...)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errNoProject, remote.As(queue.ErrPermission, err))
	}
	if creds.ProjectID == "" {
		return "", errNoProject
	}
	return creds.ProjectID, nil
}

var errNoProject error = &queue.InvalidError{Field: "Project", Reason: "there's none: set Options.Project or GOOGLE_CLOUD_PROJECT, or use credentials that name one"}
