package testbed

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// A Gate is a way to a broker that closes after some requests of a kind: those that
// come later wait there, and whoever asked can be killed in the middle of it.
type Gate struct {
	URL     string
	Reached chan struct{} // closed when a request waits

	mu   sync.Mutex
	left int
	gone chan struct{} // closed at the end of the test
}

// NewGate returns a gate for the requests that count.
func NewGate(t *testing.T, b *Broker, count func(*http.Request) bool, requests int) *Gate {
	t.Helper()
	to, err := url.Parse(b.URL)
	require.NoError(t, err)
	g := &Gate{Reached: make(chan struct{}), left: requests, gone: make(chan struct{})}
	proxy := NewProxy(to, b.Transport)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !count(r) || g.pass(r.Context()) {
			proxy.ServeHTTP(w, r)
		}
	}))
	server.Config.Protocols = &http.Protocols{}
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true) // gRPC
	server.Start()
	t.Cleanup(func() {
		close(g.gone)
		server.CloseClientConnections()
		server.Close()
	})
	g.URL = server.URL
	return g
}

// pass lets the first requests through; the others wait until the caller has gone.
func (g *Gate) pass(caller context.Context) bool {
	g.mu.Lock()
	g.left--
	left := g.left
	g.mu.Unlock()
	if left >= 0 {
		return true
	}
	if left == -1 {
		close(g.Reached)
	}
	select {
	case <-caller.Done():
	case <-g.gone:
	}
	return false
}

// NewProxy returns a proxy that cuts the connection where there's no answer: the
// caller may not know then what became of its request.
func NewProxy(to *url.URL, transport http.RoundTripper) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = to.Host
		},
		Transport:    transport,
		ErrorLog:     log.New(io.Discard, "", 0), // answers are lost on purpose
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
}
