package pubsub_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gcp "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"github.com/anyqueue/anyqueue/internal/pubsubtest"
)

// project is that of the tests' clients.
const project = pubsubtest.Project

// network is how what's inside a bubble reaches its server: by connections in
// memory, which can be refused and cut.
type network struct {
	listener *bufconn.Listener

	mu    sync.Mutex
	down  bool
	wait  time.Duration // before a connection is made
	dials int
	open  map[net.Conn]struct{}
}

// serveInside makes a server reachable within the bubble it's called in.
func serveInside(t testing.TB, s *pstest.Server, register func(*grpc.Server), opts ...grpc.ServerOption) *network {
	t.Helper()
	n := (&network{listener: pubsubtest.Serve(t, s, register, opts...)}).another()
	t.Cleanup(func() {
		n.set(false)
		client := n.client(t) // ends the goroutine that pstest has for each subscription
		for _, of := range []string{project, otherProject} {
			pubsubtest.DeleteQueues(t, client, of, "")
		}
	})
	return n
}

var errRefused = errors.New("connection refused")

func (n *network) dial(ctx context.Context, _ string) (net.Conn, error) {
	n.mu.Lock()
	n.dials++
	down, wait := n.down, n.wait
	n.mu.Unlock()
	if down {
		return nil, errRefused
	}
	time.Sleep(wait)
	inner, err := n.listener.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	c := &conn{inner, n}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open[c] = struct{}{}
	return c, nil
}

// set cuts all connections and refuses new ones, which the client has noticed when it
// returns, or lets them be made again.
func (n *network) set(down bool) {
	n.mu.Lock()
	n.down = down
	n.mu.Unlock()
	if down {
		n.cut()
		synctest.Wait() // the client has noticed: else it'd send once more
	}
}

// stall cuts all connections and makes new ones take a while.
func (n *network) stall(wait time.Duration) {
	n.mu.Lock()
	n.wait = wait
	n.mu.Unlock()
	n.cut()
	synctest.Wait() // the client has noticed
}

// cut breaks the connections that there are.
func (n *network) cut() {
	n.mu.Lock()
	var all []net.Conn
	for c := range n.open {
		all = append(all, c)
	}
	n.mu.Unlock()
	for _, c := range all {
		_ = c.Close()
	}
}

// another is a network to the same server.
func (n *network) another() *network {
	return &network{listener: n.listener, open: map[net.Conn]struct{}{}}
}

// dialed tells how many connections were asked for since it was asked last, and how
// many there are, when everything has come to rest.
func (n *network) dialed() (made, open int) {
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	made, n.dials = n.dials, 0
	return made, len(n.open)
}

type conn struct {
	net.Conn
	n *network
}

func (c *conn) Close() error {
	c.n.mu.Lock()
	delete(c.n.open, c)
	c.n.mu.Unlock()
	return c.Conn.Close()
}

// options are those of a client that connects by n, with one connection.
func (n *network) options() []option.ClientOption { return pubsubtest.Options(n.dial) }

// client returns a client of the tests' project.
func (n *network) client(t testing.TB) *gcp.Client {
	t.Helper()
	client, err := gcp.NewClient(context.Background(), project, n.options()...)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	return client
}
