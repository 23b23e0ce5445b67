package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
)

// network is how the parts reach each other: over the loopback interface or, in
// tests on virtual time, by calling each other.
type network interface {
	// serve serves h at addr, "" being any, until the server is closed.
	serve(ctx context.Context, addr string, h http.Handler, log *slog.Logger) (*server, error)
	transport() http.RoundTripper
}

// server is something that is being served.
type server struct {
	url    string
	failed <-chan struct{} // closed when it serves no more
	close  func(context.Context) error
}

// loopback is the network of the real program.
type loopback struct{ t *http.Transport }

func newLoopback() *loopback {
	t := http.DefaultTransport.(*http.Transport).Clone() // it's documented to be one
	// The default of two would make most concurrent calls to one host open a
	// connection of their own.
	t.MaxIdleConnsPerHost = 64
	return &loopback{t: t}
}

func (l *loopback) transport() http.RoundTripper { return l.t }

func (l *loopback) serve(ctx context.Context, addr string, h http.Handler, log *slog.Logger) (*server, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	srv := newServer(h, log)
	failed := make(chan struct{})
	var serveErr error
	go func() {
		defer close(failed)
		serveErr = srv.Serve(ln)
	}()
	return &server{
		url: "http://" + ln.Addr().String(), failed: failed,
		close: func(ctx context.Context) error {
			// Connections that we hold open to ourselves and never used would
			// keep Shutdown waiting for five seconds.
			l.t.CloseIdleConnections()
			err := srv.Shutdown(ctx)
			if err != nil {
				err = errors.Join(fmt.Errorf("shutdown: %w", err), srv.Close())
			}
			<-failed
			if !errors.Is(serveErr, http.ErrServerClosed) {
				err = errors.Join(err, serveErr)
			}
			return err
		},
	}, nil
}
