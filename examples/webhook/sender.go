package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// sent is one try of a fake that sends, as it stands in its log.
type sent struct {
	id     string // of the event or message, as the receiver should know it
	kind   string
	try    int    // from 1
	source string // the SHA-256 of the body
	status int    // of the answer; 0: none came
	want   int    // the status that the sender should get in the end
}

// accepted reports whether the sender was told that the other side has it.
func (s sent) accepted() bool { return s.status == http.StatusOK || s.status == http.StatusAccepted }

// A sender posts and keeps a log, which the judge goes by. It may be used
// concurrently.
type sender struct {
	client   *http.Client
	onAnswer func(sent) // called for each entry of the log, one at a time; nil: none

	mu  sync.Mutex
	log []sent
}

// post returns the answer; the status is 0 when none came.
func (s *sender) post(ctx context.Context, url string, body []byte, header http.Header) (int, []byte) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil
	}
	maps.Copy(req.Header, header)
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, nil
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil
	}
	return resp.StatusCode, text
}

func (s *sender) note(e sent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, e)
	if s.onAnswer != nil {
		s.onAnswer(e)
	}
}

func (s *sender) sentLog() []sent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

// lossy is the network between a sender and the web part. It loses one answer
// in oneIn after a success, and hangs up on one request in oneIn as soon as
// it's sent: the sender can't know what became of either.
type lossy struct {
	next      http.RoundTripper
	oneIn     int64
	requests  atomic.Int64
	successes atomic.Int64
}

var errCut = errors.New("connection cut")

func (l *lossy) RoundTrip(r *http.Request) (*http.Response, error) {
	if l.requests.Add(1)%l.oneIn == 0 {
		ctx, cancel := context.WithTimeout(r.Context(), time.Millisecond)
		defer cancel()
		r = r.WithContext(ctx)
		resp, err := l.next.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		return nil, errors.Join(errCut, resp.Body.Close())
	}
	resp, err := l.next.RoundTrip(r)
	if err != nil || resp.StatusCode/100 != 2 || l.successes.Add(1)%l.oneIn != l.oneIn/2 {
		return resp, err
	}
	return nil, errors.Join(errCut, resp.Body.Close())
}

// pause waits and reports whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func randomHex(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = "0123456789abcdef"[rand.IntN(16)] //nolint:gosec // a fake's
	}
	return string(b)
}
