package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/queue"
)

const testKey = "key-for-the-demo-only" // the fixtures are signed with it

// published collects what a handler published.
type published struct {
	mu   sync.Mutex
	msgs []*queue.Message
	errs []error // of the next calls; then nil
}

func (p *published) Publish(_ context.Context, msgs ...*queue.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.errs) > 0 {
		err := p.errs[0]
		p.errs = p.errs[1:]
		if err != nil {
			return err
		}
	}
	p.msgs = append(p.msgs, msgs...)
	return nil
}

func testWeb(t *testing.T, pub queue.Publisher) http.Handler {
	t.Helper()
	return newWeb(webConfig{
		mailgunKey: testKey, partnerKeys: map[string]string{"acme": "secret-a", "globex": "secret-g"},
		mailgun: pub, integrations: pub, budget: 2 * time.Second, log: slog.New(slog.DiscardHandler),
	})
}

func postTo(t *testing.T, h http.Handler, path, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// signedAt returns an event signed at a time, with a key.
func signedAt(at time.Time, key, id string) string {
	return string(sign(key, json.RawMessage(fmt.Sprintf(`{"id": %q, "event": "delivered"}`, id)), at))
}

func TestFixturesCarryMailgunsSignature(t *testing.T) {
	t.Parallel()
	for _, kind := range eventKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			body, err := fixtures.ReadFile("testdata/" + kind + ".json")
			require.NoError(t, err)
			var req mailgunRequest
			require.NoError(t, json.Unmarshal(body, &req))
			seconds, err := req.Signature.Timestamp.Int64()
			require.NoError(t, err)
			at := time.Unix(seconds, 0)

			assert.NoError(t, req.Signature.verify([]byte(testKey), at))
			assert.NoError(t, req.Signature.verify([]byte(testKey), at.Add(8*time.Hour)), "Mailgun still retries after eight hours")
			assert.ErrorContains(t, req.Signature.verify([]byte("another key"), at), "bad signature")
			assert.ErrorContains(t, req.Signature.verify([]byte(testKey), at.Add(13*time.Hour)), "too long")
			assert.ErrorContains(t, req.Signature.verify([]byte(testKey), at.Add(-time.Hour)), "in the future")
		})
	}
}

// The bytes must arrive as they were sent: the signature is in the body, and
// whoever handles it may verify it again.
func TestMailgunEventIsQueuedByteForByte(t *testing.T) {
	t.Parallel()
	for _, kind := range eventKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			raw, err := fixtures.ReadFile("testdata/" + kind + ".json")
			require.NoError(t, err)
			var fixture struct {
				Event json.RawMessage `json:"event-data"`
			}
			require.NoError(t, json.Unmarshal(raw, &fixture))
			body := string(sign(testKey, fixture.Event, time.Now()))
			pub := &published{}

			w := postTo(t, testWeb(t, pub), "/webhooks/mailgun", body)
			require.Equal(t, http.StatusOK, w.Code, w.Body)
			require.Len(t, pub.msgs, 1)
			assert.Equal(t, body, string(pub.msgs[0].Body))
			var req mailgunRequest
			require.NoError(t, json.Unmarshal(raw, &req))
			assert.Equal(t, req.EventData.ID, pub.msgs[0].ID)
			assert.Empty(t, pub.msgs[0].DedupID, "a broker that drops repeats would also drop a redrive")
		})
	}
}

func TestMailgunAnswers(t *testing.T) {
	t.Parallel()
	now := time.Now()
	down := errors.New("connection refused")
	always := func(err error) []error { return slicesOf(err, 1000) }
	mac := hmac.New(sha256.New, []byte(testKey))
	fmt.Fprintf(mac, "%d%s", now.Unix(), "a-token")
	signature := hex.EncodeToString(mac.Sum(nil))

	tests := map[string]struct {
		body   string
		errs   []error
		want   int
		queued int
	}{
		"a signed event":                 {body: signedAt(now, testKey, "ev-1"), want: 200, queued: 1},
		"of a type nobody knows":         {body: string(sign(testKey, json.RawMessage(`{"id":"ev-2","event":"teleported","x":[1]}`), now)), want: 200, queued: 1},
		"signed by a retry hours ago":    {body: signedAt(now.Add(-8*time.Hour), testKey, "ev-3"), want: 200, queued: 1},
		"with the timestamp as a number": {body: fmt.Sprintf(`{"signature":{"timestamp":%d,"token":"a-token","signature":%q},"event-data":{"id":"ev-4","event":"opened"}}`, now.Unix(), signature), want: 200, queued: 1},
		"of a subaccount":                {body: fmt.Sprintf(`{"signature":{"timestamp":"%d","token":"a-token","signature":"00","parent-signature":%q},"event-data":{"id":"ev-5","event":"opened"}}`, now.Unix(), signature), want: 200, queued: 1},
		"signed with another key":        {body: signedAt(now, "not the key", "ev-6"), want: 406},
		"without a signature":            {body: `{"event-data":{"id":"ev-7","event":"opened"}}`, want: 406},
		"with half a signature":          {body: fmt.Sprintf(`{"signature":{"timestamp":"%d","token":"a-token","signature":%q},"event-data":{"id":"ev-8"}}`, now.Unix(), signature[:32]), want: 406},
		"signed long ago":                {body: signedAt(now.Add(-13*time.Hour), testKey, "ev-9"), want: 406},
		"signed in the future":           {body: signedAt(now.Add(time.Hour), testKey, "ev-10"), want: 406},
		"not JSON":                       {body: "event=delivered&id=ev-11", want: 406},
		"half of it":                     {body: signedAt(now, testKey, "ev-12")[:60], want: 406},
		"no body":                        {body: "", want: 406},
		"without an id":                  {body: string(sign(testKey, json.RawMessage(`{"event":"opened"}`), now)), want: 406},
		"with an id that no queue takes": {body: signedAt(now, testKey, strings.Repeat("x", 200)), want: 406},
		"too long to be an event":        {body: string(sign(testKey, json.RawMessage(`{"id":"ev-13","x":"`+strings.Repeat("x", maxMailgunBody)+`"}`), now)), want: 406},
		"queue down for a moment":        {body: signedAt(now, testKey, "ev-14"), errs: slicesOf(down, 3), want: 200, queued: 1},
		"queue down for longer":          {body: signedAt(now, testKey, "ev-15"), errs: always(down), want: 503},
		"queue full":                     {body: signedAt(now, testKey, "ev-16"), errs: always(queue.ErrFull), want: 503},
		"outcome unknown":                {body: signedAt(now, testKey, "ev-17"), errs: always(queue.ErrUnknownOutcome), want: 503},
		"no queue takes the message":     {body: signedAt(now, testKey, "ev-18"), errs: always(&queue.LimitError{Field: "body", Got: 2, Max: 1}), want: 406},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { // retrying takes no real time
				time.Sleep(time.Until(now))
				pub := &published{errs: tc.errs}
				begin := time.Now()
				w := postTo(t, testWeb(t, pub), "/webhooks/mailgun", tc.body)
				assert.Equal(t, tc.want, w.Code, w.Body)
				assert.Len(t, pub.msgs, tc.queued)
				if tc.want == http.StatusServiceUnavailable {
					assert.Equal(t, 2*time.Second, time.Since(begin), "it must try for the whole budget before it gives up")
					assert.NotEmpty(t, w.Header().Get("Retry-After"))
				}
			})
		})
	}
}

func slicesOf[T any](v T, n int) []T {
	out := make([]T, n)
	for i := range out {
		out[i] = v
	}
	return out
}

func TestMailgunRetryWithTheSameSignatureIsAccepted(t *testing.T) {
	t.Parallel()
	pub := &published{}
	web := testWeb(t, pub)
	body := signedAt(time.Now(), testKey, "ev-1")
	assert.Equal(t, http.StatusOK, postTo(t, web, "/webhooks/mailgun", body).Code)
	assert.Equal(t, http.StatusOK, postTo(t, web, "/webhooks/mailgun", body).Code)
	assert.Len(t, pub.msgs, 2, "whoever handles it absorbs the repeat by its id")
}

// Mailgun signs only timestamp and token. Whoever has seen one webhook must not
// be able to send other events under its signature.
func TestMailgunSignatureSpeaksForOneEventOnly(t *testing.T) {
	t.Parallel()
	pub := &published{}
	web := testWeb(t, pub)
	body := signedAt(time.Now(), testKey, "ev-1")
	require.Equal(t, http.StatusOK, postTo(t, web, "/webhooks/mailgun", body).Code)
	forged := strings.Replace(body, "ev-1", "ev-2", 1)
	assert.Equal(t, http.StatusNotAcceptable, postTo(t, web, "/webhooks/mailgun", forged).Code)
	assert.Len(t, pub.msgs, 1)
}

func TestTokenGuardForgetsWhatIsTooOldToBeAccepted(t *testing.T) {
	t.Parallel()
	var g tokenGuard
	now := time.Now()
	require.True(t, g.bind("token", "a", now))
	now = now.Add(maxMailgunAge + time.Second)
	assert.False(t, g.bind("token", "b", now), "one rotation keeps it")
	require.True(t, g.bind("other", "c", now.Add(maxMailgunAge+2*time.Second)))
	now = now.Add(3 * maxMailgunAge)
	require.True(t, g.bind("another", "d", now))
	assert.True(t, g.bind("token", "b", now))
	assert.LessOrEqual(t, len(g.recent)+len(g.older), 3)
}

func TestBrokenTransferIsNotRefusedForGood(t *testing.T) {
	t.Parallel()
	pub := &published{}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/webhooks/mailgun", iotest.ErrReader(errors.New("connection reset")))
	w := httptest.NewRecorder()
	testWeb(t, pub).ServeHTTP(w, r)
	assert.NotContains(t, []int{http.StatusOK, http.StatusNotAcceptable}, w.Code, "Mailgun must send it again")
	assert.Empty(t, pub.msgs)
}

func TestIntegrationAnswers(t *testing.T) {
	t.Parallel()
	const good = `{"type":"order.created","user":"u-1","data":{"n":1}}`
	down := slicesOf(errors.New("connection refused"), 1000)
	auth := []string{"Authorization", "Bearer secret-a"}
	tests := map[string]struct {
		path   string
		header []string
		body   string
		errs   []error
		want   int
		text   string // in the answer
		id     string // of the message
	}{
		"with a key":              {header: append(auth, "Idempotency-Key", "k-1"), body: good, want: 202, text: `"acme:k-1"`, id: "acme:k-1"},
		"with a quoted key":       {header: append(auth, "Idempotency-Key", `"k-2"`), body: good, want: 202, id: "acme:k-2"},
		"with an id in the body":  {header: auth, body: `{"id":"b-1","type":"x"}`, want: 202, id: "acme:b-1"},
		"the key goes first":      {header: append(auth, "Idempotency-Key", "k-3"), body: `{"id":"b-2","type":"x"}`, want: 202, id: "acme:k-3"},
		"without any id":          {header: auth, body: good, want: 202, text: `"id":"acme:`},
		"id null":                 {header: auth, body: `{"id":null,"type":"x"}`, want: 202},
		"queue down for a moment": {header: auth, body: good, errs: down[:3], want: 202},
		"not JSON":                {header: auth, body: `{"type":`, want: 400, text: "isn't JSON"},
		"a list":                  {header: auth, body: `[]`, want: 400, text: "must be a JSON object"},
		"two documents":           {header: auth, body: good + good, want: 400, text: "isn't JSON"},
		"without a type":          {header: auth, body: `{"id":"b-3"}`, want: 400, text: `\"type\" is missing`},
		"a number as type":        {header: auth, body: `{"type":5}`, want: 400, text: `\"type\" must be a string`},
		"a number as id":          {header: auth, body: `{"type":"x","id":5}`, want: 400, text: `\"id\" must be a string`},
		"an empty id":             {header: auth, body: `{"type":"x","id":""}`, want: 400, text: "missing"},
		"a key with a space":      {header: append(auth, "Idempotency-Key", "a b"), body: good, want: 400, text: "printable"},
		"a key that is too long":  {header: append(auth, "Idempotency-Key", strings.Repeat("k", 129)), body: good, want: 400, text: "longer"},
		"no key of the partner":   {body: good, want: 401},
		"a wrong one":             {header: []string{"Authorization", "Bearer secret-x"}, body: good, want: 401},
		"another partner's":       {header: []string{"Authorization", "Bearer secret-g"}, body: good, want: 401},
		"another scheme":          {header: []string{"Authorization", "Basic secret-a"}, body: good, want: 401},
		"an unknown partner":      {path: "/integrations/initech", header: auth, body: good, want: 401},
		"unknown, without a key":  {path: "/integrations/initech", header: []string{"Authorization", "Bearer "}, body: good, want: 401},
		"too long":                {header: auth, body: `{"type":"` + strings.Repeat("x", maxIntegrationBody) + `"}`, want: 413, text: "24576"},
		"queue down for longer":   {header: auth, body: good, errs: down, want: 503},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				pub := &published{errs: tc.errs}
				path := tc.path
				if path == "" {
					path = "/integrations/acme"
				}
				w := postTo(t, testWeb(t, pub), path, tc.body, tc.header...)
				require.Equal(t, tc.want, w.Code, w.Body)
				assert.Contains(t, w.Body.String(), tc.text)
				if tc.want != http.StatusAccepted {
					assert.Empty(t, pub.msgs)
					return
				}
				require.Len(t, pub.msgs, 1)
				var answered struct {
					ID string `json:"id"`
				}
				require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answered))
				assert.Equal(t, answered.ID, pub.msgs[0].ID)
				assert.Equal(t, tc.body, string(pub.msgs[0].Body))
				if tc.id != "" {
					assert.Equal(t, tc.id, answered.ID)
				}
			})
		})
	}
}

func TestOtherMethodsAndPathsAreRefused(t *testing.T) {
	t.Parallel()
	web := testWeb(t, &published{})
	for path, want := range map[string]int{"/webhooks/mailgun": 405, "/integrations/acme": 405, "/": 404, "/healthz": 200} {
		w := httptest.NewRecorder()
		web.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, &bytes.Buffer{}))
		assert.Equal(t, want, w.Code, path)
	}
}
