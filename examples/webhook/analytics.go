package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// trackedEvent is a call of Segment's HTTP tracking API:
// https://www.twilio.com/docs/segment/connections/sources/catalog/libraries/server/http-api
// A MessageID that it has seen is the same event.
type trackedEvent struct {
	MessageID  string         `json:"messageId"`
	UserID     string         `json:"userId"`
	Event      string         `json:"event"`
	Properties map[string]any `json:"properties"`
	Timestamp  time.Time      `json:"timestamp"`
}

// analytics is a client of that API. It may be used concurrently.
type analytics struct {
	url      string // https://api.segment.io
	writeKey string
	client   *http.Client
}

// errUnavailable says that the service, and not the event, is the problem.
var errUnavailable = errors.New("analytics: unavailable")

// track returns nil when the event was taken. Which of its errors are worth
// another try:
// https://support.twilio.com/hc/en-us/articles/51769112022299-Understanding-Segment-Retry-Logic-for-HTTP-Status-Codes
func (a *analytics) track(ctx context.Context, e trackedEvent) error {
	body, err := json.Marshal(e)
	if err != nil {
		return queue.Reject(fmt.Errorf("analytics: %w", err))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url+"/v1/track", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("analytics: %w", err)
	}
	req.SetBasicAuth(a.writeKey, "")
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.client.Do(req)
	if err != nil {
		// It may have been taken: the MessageID makes trying again safe.
		return fmt.Errorf("%w: %w", errUnavailable, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // for people; the status decides
	answer := strings.TrimSpace(resp.Status + " " + string(text))
	switch code := resp.StatusCode; {
	case code == http.StatusTooManyRequests:
		err = fmt.Errorf("%w: %s", errUnavailable, answer)
		if s, convErr := strconv.Atoi(resp.Header.Get("Retry-After")); convErr == nil {
			err = queue.RetryAfter(time.Duration(s)*time.Second, err)
		}
		return err
	case code/100 == 5, code == http.StatusRequestTimeout, code == http.StatusGone:
		return fmt.Errorf("%w: %s", errUnavailable, answer)
	}
	return queue.Reject(fmt.Errorf("analytics: %s", answer))
}

// newHTTPClient returns a client for a few hosts and many concurrent calls.
// Without a Timeout one server that never answers would stop a worker.
func newHTTPClient(transport http.RoundTripper) *http.Client {
	return &http.Client{
		Transport: transport,
		Timeout:   10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("an API doesn't redirect")
		},
	}
}
