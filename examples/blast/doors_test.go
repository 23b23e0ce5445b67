//go:build unix

package main

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/examples/blast/parties"
	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
)

// door is a process's own way to the third parties. What it asks of the database
// is done also when it dies meanwhile, and close waits for that: nothing of what a
// dead process has asked for happens later.
type door struct {
	url    string
	server *thirdparty.Server
	to     *http.Transport
	once   sync.Once
}

func newDoor(t *testing.T, partiesURL string) *door {
	t.Helper()
	to, err := url.Parse(partiesURL)
	require.NoError(t, err)
	d := &door{to: transport()}
	proxy := newProxy(to, d.to)
	d.server, err = thirdparty.Serve("", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, parties.DatabasePath+"/") {
			r = r.WithContext(context.WithoutCancel(r.Context()))
		}
		proxy.ServeHTTP(w, r)
	}))
	require.NoError(t, err)
	d.url = d.server.URL
	t.Cleanup(func() { d.close(t) })
	return d
}

func (d *door) close(t *testing.T) {
	t.Helper()
	d.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second) //nolint:usetesting // also called in a cleanup
		defer cancel()
		assert.NoError(t, d.server.Close(ctx))
		d.to.CloseIdleConnections()
	})
}

func newProxy(to *url.URL, transport http.RoundTripper) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = to.Host
		},
		Transport: transport,
		ErrorLog:  log.New(io.Discard, "", 0), // answers are lost on purpose
		// No answer: the caller may not know what became of its request.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
}

// gate is a way to the broker that closes after so many requests that publish.
type gate struct {
	url     string
	reached chan struct{} // closed when the gate has closed

	mu     sync.Mutex
	left   int
	closed chan struct{} // closed when the gate opens again
}

func newGate(t *testing.T, endpoint string, requests int) *gate {
	t.Helper()
	to, err := url.Parse(endpoint)
	require.NoError(t, err)
	g := &gate{reached: make(chan struct{}), left: requests, closed: make(chan struct{})}
	proxy := newProxy(to, http.DefaultTransport)
	server, err := thirdparty.Serve("", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("X-Amz-Target"), "SendMessage") && !g.pass(r.Context()) {
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	require.NoError(t, err)
	t.Cleanup(func() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		assert.NoError(t, server.Close(now))
	})
	g.url = server.URL
	return g
}

// pass waits at the closed gate, and reports whether the caller is still there.
func (g *gate) pass(ctx context.Context) bool {
	g.mu.Lock()
	g.left--
	if g.left == 0 {
		close(g.reached)
	}
	through := g.left > 0
	g.mu.Unlock()
	if through {
		return true
	}
	select {
	case <-g.closed:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

func (g *gate) open() { close(g.closed) }
