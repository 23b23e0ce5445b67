package thirdparty

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
)

// A Network is an http.RoundTripper that calls handlers directly, by the host
// of the request. It stands in for the loopback interface in tests on virtual
// time, which real connections would stop. Each request runs in a goroutine of
// its own, which ends when its handler returns, also when the caller has gone.
type Network map[string]http.Handler

// RoundTrip implements http.RoundTripper.
func (n Network) RoundTrip(r *http.Request) (*http.Response, error) {
	h, ok := n[r.URL.Host]
	if !ok {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: fmt.Errorf("no such host: %s", r.URL.Host)}
	}
	in := r.Clone(r.Context())
	in.RequestURI = r.URL.RequestURI()
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		if err = errors.Join(err, r.Body.Close()); err != nil {
			return nil, err
		}
		in.Body = io.NopCloser(bytes.NewReader(body))
	} else {
		in.Body = http.NoBody
	}

	answers := make(chan *recorder, 1)
	go func() {
		rec := &recorder{header: http.Header{}}
		defer func() {
			switch v := recover(); v {
			case nil:
				answers <- rec
			case http.ErrAbortHandler:
				answers <- nil
			default:
				panic(v)
			}
		}()
		h.ServeHTTP(rec, in)
	}()
	select {
	case rec := <-answers:
		if rec == nil {
			return nil, io.ErrUnexpectedEOF
		}
		return &http.Response{
			Status: http.StatusText(rec.code()), StatusCode: rec.code(),
			Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: rec.header, Body: io.NopCloser(&rec.body), ContentLength: int64(rec.body.Len()), Request: r,
		}, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}
