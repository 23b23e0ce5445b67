package sqstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
)

// maxRequest is far above what a batch of ten may be as JSON.
const maxRequest = 32 << 20

// host is what the server is called within the process.
const host = "sqs.test"

// Client returns a client of the SDK that calls the server within the process,
// without a network: also inside a testing/synctest bubble.
func (s *Server) Client(opts ...func(*awssqs.Options)) *awssqs.Client {
	return awssqs.NewFromConfig(s.Config(), opts...)
}

// Config is the configuration of such a client, for code that makes its own.
func (s *Server) Config() aws.Config {
	endpoint := "http://" + host
	return aws.Config{
		Region:       s.opts.Region,
		BaseEndpoint: &endpoint,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "sqstest", SecretAccessKey: "sqstest", Source: "sqstest"}, nil
		}),
		HTTPClient: &http.Client{Transport: s.Transport()},
	}
}

// Transport returns the http.RoundTripper of Config: it serves requests to any
// host within the process. When a request's context ends it returns at once,
// whatever the server does with the request, like a connection that's cut.
func (s *Server) Transport() http.RoundTripper { return (*transport)(s) }

type transport Server

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	s, ctx := (*Server)(t), r.Context()
	body, err := readBody(r)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	done, err := s.begin()
	if err != nil {
		return nil, err
	}
	trace := httptrace.ContextClientTrace(ctx)
	if trace != nil && trace.WroteHeaders != nil {
		trace.WroteHeaders()
	}
	if trace != nil && trace.WroteRequest != nil {
		trace.WroteRequest(httptrace.WroteRequestInfo{})
	}
	answered := make(chan *response, 1)
	go func() {
		defer done()
		answered <- s.serve(ctx, requestOf(r, r.URL.Host, body))
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case out := <-answered:
		if out.cut {
			return nil, &net.OpError{Op: "read", Net: "sqstest", Err: syscall.ECONNRESET}
		}
		if trace != nil && trace.GotFirstResponseByte != nil {
			trace.GotFirstResponseByte()
		}
		h := http.Header{}
		s.header(h, out)
		return &http.Response{
			Status: strconv.Itoa(out.status) + " " + http.StatusText(out.status), StatusCode: out.status,
			Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
			Header: h, ContentLength: int64(len(out.body)), Body: io.NopCloser(bytes.NewReader(out.body)),
		}, nil
	}
}

func requestOf(r *http.Request, host string, body []byte) *request {
	return &request{target: r.Header.Get("X-Amz-Target"), host: host, date: r.Header.Get("X-Amz-Date"), body: body}
}

func readBody(r *http.Request) ([]byte, error) {
	if r.Body == nil {
		return nil, nil
	}
	defer r.Body.Close()
	if n := r.ContentLength; n >= 0 && n <= maxRequest {
		b := make([]byte, n)
		_, err := io.ReadFull(r.Body, b)
		return b, err
	}
	var b bytes.Buffer
	n, err := b.ReadFrom(io.LimitReader(r.Body, maxRequest+1))
	if err != nil {
		return nil, err
	}
	if n > maxRequest {
		return nil, errors.New("sqstest: the request is too large")
	}
	return b.Bytes(), nil
}

func (s *Server) header(h http.Header, out *response) {
	h.Set("Content-Type", "application/x-amz-json-1.0")
	h.Set("X-Amzn-Requestid", newID())
	h.Set("Date", s.wall().UTC().Format(http.TimeFormat))
	if out.queryError != "" {
		h.Set("X-Amzn-Query-Error", out.queryError)
	}
}

// ServeHTTP serves a request over HTTP.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	done, err := s.begin()
	if err != nil {
		panic(http.ErrAbortHandler) // net/http's way to cut a connection
	}
	defer done()
	body, err := readBody(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.Method != http.MethodPost {
		http.Error(w, "sqstest takes POST requests of the AWS JSON protocol only", http.StatusMethodNotAllowed)
		return
	}
	out := s.serve(r.Context(), requestOf(r, r.Host, body))
	if out.cut {
		panic(http.ErrAbortHandler)
	}
	s.header(w.Header(), out)
	w.Header().Set("Content-Length", strconv.Itoa(len(out.body)))
	w.WriteHeader(out.status)
	if _, err := w.Write(out.body); err != nil {
		panic(http.ErrAbortHandler) // the caller has gone
	}
}

// Start listens on a TCP address, such as "127.0.0.1:9324", and returns the
// endpoint's URL for clients. An empty address is a free port of 127.0.0.1.
// It may be called several times, until Close ends it.
func (s *Server) Start(addr string) (endpoint string, err error) {
	if s.err != nil {
		return "", s.err
	}
	if s.isClosed() {
		return "", fmt.Errorf("sqstest: listen: %w", net.ErrClosed)
	}
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return "", err
	}
	s.listen(l)
	return "http://" + l.Addr().String(), nil
}

// Pipe returns a client whose connections are net.Pipes to the server: real HTTP
// with its connections and what can happen to them, but without a network, so
// that it works inside a testing/synctest bubble. Requests to any host arrive.
func (s *Server) Pipe() *http.Client {
	l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	s.listen(l)
	t := &http.Transport{DialContext: l.dial, MaxIdleConnsPerHost: 100}
	s.atClose(t.CloseIdleConnections)
	return &http.Client{Transport: pipeTransport{t}}
}

// pipeTransport gives requests bodies that nobody closes. The SDK closes its own
// when the answer begins, and net/http looks once more for the body's end after
// its last write: over a network long before that, but over a pipe a write takes
// until it's read.
type pipeTransport struct{ *http.Transport }

func (t pipeTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := readBody(r)
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	return t.Transport.RoundTrip(r)
}

func (s *Server) listen(l net.Listener) {
	srv := &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() {
		defer close(served)
		srv.Serve(l) //nolint:errcheck // it ends by Close
	}()
	s.atClose(func() {
		// All calls have ended; their answers may still be on the way.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if srv.Shutdown(ctx) != nil {
			srv.Close() //nolint:errcheck // the listener's, and it's gone anyway
		}
		<-served
	})
}

// atClose runs end when the server is closed; at once if it is.
func (s *Server) atClose(end func()) {
	s.mu.Lock()
	closed := s.isClosed()
	if !closed {
		s.close = append(s.close, end)
	}
	s.mu.Unlock()
	if closed {
		end()
	}
}

// pipeListener accepts the other ends of pipes.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "dial", Net: "pipe", Err: syscall.ECONNREFUSED}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }
