package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// A service is the HTTP API of a third party.
type service struct {
	name   string
	url    string
	client *http.Client
}

// A refusal is an answer that isn't a success: what was asked wasn't done.
type refusal struct {
	service    string
	status     int
	message    string
	retryAfter time.Duration // 0: the service didn't say
}

func (r *refusal) Error() string { return fmt.Sprintf("%s: %d %s", r.service, r.status, r.message) }

var errNotFound = errors.New("not found")

func (r *refusal) Is(target error) bool {
	return target == errNotFound && r.status == http.StatusNotFound
}

// passing says that the same request may succeed later. Wrong credentials are
// put right by people, and the messages wait for that.
func (r *refusal) passing() bool {
	switch r.status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	}
	return r.status >= 500
}

// outcome says what an error of a service means for a message: whether it's
// tried again, when, or not at all. Errors without an answer are tried again.
func outcome(err error) error {
	var r *refusal
	switch {
	case !errors.As(err, &r):
		return err
	case !r.passing():
		return queue.Reject(err)
	case r.retryAfter > 0:
		return queue.RetryAfter(r.retryAfter, err)
	}
	return err
}

// notDone reports whether an error proves that the service hasn't done what it
// was asked: it said so, or it was never reached. Any other error leaves it
// open: the answer may have been lost.
func notDone(err error) bool {
	var r *refusal
	if errors.As(err, &r) {
		return true
	}
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// do sends a request and decodes the answer into result, unless that's nil.
func (s *service) do(req *http.Request, result any) error {
	resp, err := s.client.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	defer resp.Body.Close() //nolint:errcheck // it has been read
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	if resp.StatusCode/100 != 2 {
		return s.refused(resp, body)
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(body, result); err != nil {
		return fmt.Errorf("%s: answer: %w", s.name, err)
	}
	return nil
}

func (s *service) refused(resp *http.Response, body []byte) error {
	r := &refusal{service: s.name, status: resp.StatusCode, message: http.StatusText(resp.StatusCode)}
	var answer struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &answer) == nil && answer.Message != "" {
		r.message = answer.Message
	}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		r.retryAfter = time.Duration(seconds) * time.Second
	}
	return r
}

// get asks for path, which begins with a slash.
func (s *service) get(ctx context.Context, path string, result any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		return err
	}
	return s.do(req, result)
}
