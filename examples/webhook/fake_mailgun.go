package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

//go:embed testdata/*.json
var fixtures embed.FS

// eventKinds are the fixtures: webhooks as Mailgun sends them, one of each kind
// that the product uses, and one of a type that nobody has heard of.
var eventKinds = []string{
	"delivered", "failed_permanent", "failed_temporary", "opened", "complained", "unsubscribed", "unknown",
}

// mailgunSchedule is when Mailgun tries again, in its own minutes:
// https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhook-retries
// (That page excepts "the delivery notification". The fake retries all.)
var mailgunSchedule = []int{5, 10, 15, 60, 120, 240}

// fakeMailgun signs and sends webhooks and does with the answers what Mailgun
// does. It may be used concurrently.
type fakeMailgun struct {
	sender
	key    string
	url    string        // of the web part
	minute time.Duration // how long one of its minutes lasts
}

// newEvent returns an event of a kind as the value of "event-data".
func newEvent(kind string, n int, now time.Time) (id string, event json.RawMessage, err error) {
	raw, err := fixtures.ReadFile("testdata/" + kind + ".json")
	if err != nil {
		return "", nil, err
	}
	var fixture struct {
		Event map[string]any `json:"event-data"`
	}
	if err := json.Unmarshal(raw, &fixture); err != nil {
		return "", nil, fmt.Errorf("%s: %w", kind, err)
	}
	id = fmt.Sprintf("%s-%06d-%s", kind[:2], n, randomHex(10))
	fixture.Event["id"] = id
	fixture.Event["recipient"] = fmt.Sprintf("customer-%d@example.com", n)
	fixture.Event["timestamp"] = float64(now.UnixMicro()) / 1e6
	event, err = json.Marshal(fixture.Event)
	return id, event, err
}

// sign returns the body of a webhook, signed as
// https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks
// says.
func sign(key string, event json.RawMessage, now time.Time) []byte {
	timestamp, token := strconv.FormatInt(now.Unix(), 10), randomHex(50)
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(timestamp + token))
	var b bytes.Buffer
	fmt.Fprintf(&b, "{\"signature\": {\"token\": %q, \"timestamp\": %q, \"signature\": %q},\n \"event-data\": %s}\n",
		token, timestamp, hex.EncodeToString(mac.Sum(nil)), event)
	return b.Bytes()
}

// send delivers the body of a webhook and tries again until it's told 200 or
// 406, or its schedule ends.
func (m *fakeMailgun) send(ctx context.Context, s sent, body []byte) {
	s.source = sum(body)
	for s.try = 1; ; s.try++ {
		s.status, _ = m.post(ctx, m.url+"/webhooks/mailgun", body, nil)
		m.note(s)
		if s.status == http.StatusOK || s.status == http.StatusNotAcceptable || s.try > len(mailgunSchedule) {
			return
		}
		if !pause(ctx, time.Duration(mailgunSchedule[s.try-1])*m.minute) {
			return
		}
	}
}
