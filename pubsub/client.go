package pubsub

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	gcp "cloud.google.com/go/pubsub/v2"
	"google.golang.org/api/option"

	"github.com/anyqueue/anyqueue/queue"
)

// clients has the client of a Backend: the caller's, or one that exists as long as
// somebody uses it.
type clients struct {
	foreign bool
	dial    func(ctx context.Context) (*gcp.Client, error)

	mu     sync.Mutex
	client *gcp.Client
	users  int
}

// use returns the client. Whoever has it calls done once when he doesn't need it
// any more.
func (c *clients) use(ctx context.Context) (client *gcp.Client, done func() error, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.foreign {
		return c.client, func() error { return nil }, nil
	}
	if c.client == nil {
		// The client keeps the context for as long as it refreshes its credentials.
		if c.client, err = c.dial(context.WithoutCancel(ctx)); err != nil {
			return nil, nil, err
		}
	}
	c.users++
	return c.client, sync.OnceValue(c.done), nil
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
	detect := project == ""
	if detect {
		project = gcp.DetectProjectID
		if os.Getenv("PUBSUB_EMULATOR_HOST") != "" && os.Getenv("GOOGLE_CLOUD_PROJECT") == "" {
			return nil, errNoProject // the emulator takes any; looking for credentials would only take long
		}
	}
	client, err := gcp.NewClient(ctx, project, opts...)
	if err != nil && detect {
		return nil, fmt.Errorf("%w: %w: %w", queue.ErrPermission, errNoProject, err)
	}
	return client, err
}

var errNoProject = errors.New("no project: set Options.Project or GOOGLE_CLOUD_PROJECT, or use credentials that name one")
