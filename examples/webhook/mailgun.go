package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// What Mailgun sends, and what it makes of the answers:
// https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhook-payloads
// https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks
// https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhook-retries
//
// 200 means that the event is ours now. 406 means that it's refused for good.
// After anything else Mailgun sends it again, over some eight hours.

const (
	// maxMailgunBody leaves room for what the queues add, on every backend.
	maxMailgunBody = 256 << 10
	// maxMailgunAge must be longer than Mailgun goes on retrying: a retry may
	// carry the signature of the first try.
	maxMailgunAge = 12 * time.Hour
	// maxMailgunSkew is how far Mailgun's clock may be ahead of ours.
	maxMailgunSkew = 5 * time.Minute
)

// mailgunRequest is as much of a webhook's body as the web part looks at. Who
// handles the event reads the rest.
type mailgunRequest struct {
	Signature mailgunSignature `json:"signature"`
	EventData struct {
		ID    string `json:"id"`
		Event string `json:"event"`
	} `json:"event-data"`
}

type mailgunSignature struct {
	Timestamp json.Number `json:"timestamp"` // a number or a string of one: the page has both
	Token     string      `json:"token"`
	Signature string      `json:"signature"`
	// Parent is signed with the main account's key, for events of a subaccount.
	Parent string `json:"parent-signature"`
}

// mailgunHandler serves POST /webhooks/mailgun.
type mailgunHandler struct {
	key    []byte
	pub    queue.Publisher
	budget time.Duration
	log    *slog.Logger
	tokens tokenGuard
}

func (h *mailgunHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := readBody(w, r, maxMailgunBody)
	if err != nil {
		if _, tooLong := errors.AsType[*http.MaxBytesError](err); tooLong {
			h.refuse(w, err)
			return
		}
		// The transfer broke off: the next one may be whole.
		answer(w, http.StatusBadRequest, "the body could not be read")
		return
	}

	var req mailgunRequest
	if err := json.Unmarshal(body, &req); err != nil {
		h.refuse(w, fmt.Errorf("malformed: %w", err))
		return
	}
	now := time.Now()
	if err := req.Signature.verify(h.key, now); err != nil {
		h.refuse(w, err)
		return
	}
	if err := checkID(req.EventData.ID); err != nil {
		h.refuse(w, fmt.Errorf("malformed: event-data.id: %w", err))
		return
	}
	if !h.tokens.bind(req.Signature.Token, req.EventData.ID, now) {
		h.refuse(w, errors.New("the token was used for another event"))
		return
	}

	err = publishWithin(r.Context(), h.budget, h.pub, &queue.Message{
		ID:         req.EventData.ID,
		Body:       body, // byte for byte: whoever handles it can verify it again
		Attributes: map[string]string{"source": "mailgun"},
	})
	switch {
	case err == nil:
		answer(w, http.StatusOK, "queued")
	case neverPublishable(err):
		h.refuse(w, err)
	default:
		h.log.Error("mailgun event not queued", "id", req.EventData.ID, "err", err)
		unavailable(w)
	}
}

func (h *mailgunHandler) refuse(w http.ResponseWriter, err error) {
	h.log.Warn("mailgun event refused", "err", err)
	answer(w, http.StatusNotAcceptable, err.Error())
}

// verify fails unless the signature is Mailgun's and not too old. It says
// nothing about the event: the signature covers the timestamp and the token
// only. See tokenGuard.
func (s mailgunSignature) verify(key []byte, now time.Time) error {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(s.Timestamp.String()))
	mac.Write([]byte(s.Token))
	want := mac.Sum(nil)
	if s.Token == "" || !equalHex(s.Signature, want) && !equalHex(s.Parent, want) {
		return errors.New("bad signature")
	}
	seconds, err := strconv.ParseInt(s.Timestamp.String(), 10, 64)
	if err != nil {
		return fmt.Errorf("bad timestamp: %w", err)
	}
	switch age := now.Sub(time.Unix(seconds, 0)); {
	case age > maxMailgunAge:
		return fmt.Errorf("signed %v ago, too long", age.Round(time.Second))
	case age < -maxMailgunSkew:
		return fmt.Errorf("signed %v in the future", -age.Round(time.Second))
	}
	return nil
}

// equalHex compares in constant time.
func equalHex(got string, want []byte) bool {
	b, err := hex.DecodeString(got)
	return err == nil && hmac.Equal(b, want)
}

// A tokenGuard makes one signature speak for one event only. As Mailgun doesn't
// sign the event itself, whoever has seen one request could otherwise put other
// events under its signature. The same event again is fine: that's a retry.
//
// Each process has its own: it narrows what can be forged, and asks for no
// shared store.
type tokenGuard struct {
	mu     sync.Mutex
	recent map[string]string // token to event id
	older  map[string]string
	since  time.Time
}

const maxTokens = 100_000

// bind reports whether token may speak for the event id.
func (g *tokenGuard) bind(token, id string, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.recent == nil || now.Sub(g.since) > maxMailgunAge || len(g.recent) >= maxTokens {
		g.older, g.recent, g.since = g.recent, map[string]string{}, now
	}
	bound, ok := g.recent[token]
	if !ok {
		bound, ok = g.older[token]
	}
	if ok && bound != id {
		return false
	}
	g.recent[token] = id
	return true
}
