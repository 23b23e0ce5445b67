package thirdparty

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// A Server serves fakes over HTTP.
type Server struct {
	URL  string // without a final slash
	http *http.Server
	done chan error

	mu     sync.Mutex
	unused map[net.Conn]struct{} // connections without a request so far
}

// Serve listens on addr; "" is any free port of the loopback interface. Close
// ends it.
func Serve(addr string, h http.Handler) (*Server, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("thirdparty: %w", err)
	}
	s := &Server{URL: "http://" + ln.Addr().String(), done: make(chan error, 1), unused: map[net.Conn]struct{}{}}
	s.http = &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ConnState: s.track}
	go func() { s.done <- s.http.Serve(ln) }()
	return s, nil
}

func (s *Server) track(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state == http.StateNew {
		s.unused[c] = struct{}{}
	} else {
		delete(s.unused, c)
	}
}

// Close waits for requests in flight until ctx ends, then cuts them.
func (s *Server) Close(ctx context.Context) error {
	// Clients open connections in advance; a shutdown would wait for their
	// first requests for seconds.
	s.mu.Lock()
	unused := slices.Collect(maps.Keys(s.unused))
	s.mu.Unlock()
	for _, c := range unused {
		_ = c.Close() // it's closed anyway
	}
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close() // cuts what's left, as promised
	}
	if err := <-s.done; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("thirdparty: %w", err)
	}
	return nil
}
