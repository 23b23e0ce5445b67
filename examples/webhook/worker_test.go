package main

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
	"github.com/anyqueue/anyqueue/queue"
)

func fixtureEvent(t *testing.T, kind string) (body []byte, e mailgunEvent) {
	t.Helper()
	body, err := fixtures.ReadFile("testdata/" + kind + ".json")
	require.NoError(t, err)
	var b struct {
		Event mailgunEvent `json:"event-data"`
	}
	require.NoError(t, json.Unmarshal(body, &b))
	return body, b.Event
}

func TestEachKindOfEventIsDescribed(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		name string
		has  map[string]any
	}{
		"delivered":        {"Email Delivered", map[string]any{"code": 250}},
		"failed_permanent": {"Email Bounced", map[string]any{"code": 550, "reason": "bounce"}},
		"failed_temporary": {"Email Deferred", map[string]any{"code": 452, "reason": "generic"}},
		"opened":           {"Email Opened", map[string]any{"client": "Chrome Mobile", "os": "Android"}},
		"complained":       {"Email Marked As Spam", nil},
		"unsubscribed":     {"Unsubscribed", map[string]any{"client": "Firefox"}},
		"unknown":          {"Email Event", map[string]any{"type": "preview_rendered"}},
	}
	require.Len(t, tests, len(eventKinds))
	for kind, tc := range tests {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			_, e := fixtureEvent(t, kind)
			name, properties := describe(e)
			assert.Equal(t, tc.name, name)
			for k, v := range tc.has {
				assert.Equal(t, v, properties[k], k)
			}
			if kind == "complained" {
				assert.Panics(t, func() { describeWithBug(e) })
				return
			}
			buggy, _ := describeWithBug(e)
			assert.Equal(t, name, buggy, "the bug is in complaints only")
		})
	}
}

// trackedBy collects what a handler tracks.
type trackedBy struct{ events []trackedEvent }

func (c *trackedBy) track(_ context.Context, e trackedEvent) error {
	c.events = append(c.events, e)
	return nil
}

func TestMailgunEventIsTrackedUnderItsOwnID(t *testing.T) {
	t.Parallel()
	body, e := fixtureEvent(t, "failed_permanent")
	var c trackedBy
	d := &queue.Delivery{Message: queue.Message{ID: e.ID, Body: body}}
	require.NoError(t, handleMailgun(&c, describe)(t.Context(), d))
	require.Len(t, c.events, 1)
	got := c.events[0]
	assert.Equal(t, e.ID, got.MessageID, "it's what makes a repeat harmless")
	assert.Equal(t, "nobody@example.net", got.UserID)
	assert.Equal(t, sum(body), got.Properties["source_sha256"])
	assert.Equal(t, time.Date(2026, 3, 6, 12, 26, 41, 7_100_000, time.UTC), got.Timestamp.Round(time.Millisecond/10))
}

func TestIntegrationMessageIsTrackedForItsPartner(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ body, user string }{
		"with a user":    {`{"type":"order.created","user":"u-1","data":{"n":1}}`, "u-1"},
		"without a user": {`{"type":"order.created"}`, "partner:acme"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var c trackedBy
			d := &queue.Delivery{Message: queue.Message{
				ID: "acme:k", Body: []byte(tc.body), Attributes: map[string]string{"partner": "acme"},
			}}
			require.NoError(t, handleIntegration(&c)(t.Context(), d))
			require.Len(t, c.events, 1)
			assert.Equal(t, tc.user, c.events[0].UserID)
			assert.Equal(t, "order.created", c.events[0].Event)
			assert.Equal(t, "acme", c.events[0].Properties["partner"])
		})
	}
}

func TestAnalyticsErrorsSayWhatShouldBecomeOfTheEvent(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		answer http.Handler
		want   queue.Outcome
		down   bool
	}{
		"200":                     {answer: thirdparty.Status(200, `{"success": true}`), want: queue.Outcome{Kind: queue.Success}},
		"400":                     {answer: thirdparty.Status(400, `{}`), want: queue.Outcome{Kind: queue.Rejected}},
		"401":                     {answer: thirdparty.Status(401, `{}`), want: queue.Outcome{Kind: queue.Rejected}},
		"408":                     {answer: thirdparty.Status(408, `{}`), want: queue.Outcome{Kind: queue.Failed}, down: true},
		"410":                     {answer: thirdparty.Status(410, `{}`), want: queue.Outcome{Kind: queue.Failed}, down: true},
		"429 with a time":         {answer: thirdparty.TooManyRequests(7 * time.Second), want: queue.Outcome{Kind: queue.Retry, Delay: 7 * time.Second}, down: true},
		"429 without":             {answer: thirdparty.Status(429, `{}`), want: queue.Outcome{Kind: queue.Failed}, down: true},
		"500":                     {answer: thirdparty.Status(500, `{}`), want: queue.Outcome{Kind: queue.Failed}, down: true},
		"503":                     {answer: thirdparty.Status(503, `{}`), want: queue.Outcome{Kind: queue.Failed}, down: true},
		"a lost answer":           {answer: thirdparty.New(thirdparty.Status(200, `{}`), thirdparty.Faults{LostOneIn: 1}), want: queue.Outcome{Kind: queue.Failed}, down: true},
		"the service as it is":    {answer: newFakeAnalytics("key"), want: queue.Outcome{Kind: queue.Success}},
		"with another key":        {answer: newFakeAnalytics("another key"), want: queue.Outcome{Kind: queue.Rejected}},
		"more than it would take": {answer: http.MaxBytesHandler(newFakeAnalytics("key"), 10), want: queue.Outcome{Kind: queue.Rejected}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := &analytics{
				url: "http://analytics.example", writeKey: "key",
				client: newHTTPClient(thirdparty.Network{"analytics.example": tc.answer}),
			}
			err := a.track(t.Context(), trackedEvent{MessageID: "m", UserID: "u", Event: "e"})
			assert.Equal(t, tc.want, queue.OutcomeOf(err), "%v", err)
			if tc.down {
				assert.ErrorIs(t, err, errUnavailable, "the breaker goes by it")
			} else {
				assert.NotErrorIs(t, err, errUnavailable)
			}
		})
	}
}

func TestFakeAnalyticsNotesOnlyWhatItWouldKeep(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		body string
		code int
		kept bool
	}{
		"an event":       {`{"messageId":"m","userId":"u","event":"e","properties":{"source_sha256":"s"}}`, 200, true},
		"without a user": {`{"messageId":"m","event":"e"}`, 200, false},
		"without an id":  {`{"userId":"u","event":"e"}`, 200, false},
		"not JSON":       {`{`, 400, false},
		"too long":       {`{"userId":"` + strings.Repeat("x", maxTrackBody) + `"}`, 400, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			party := thirdparty.New(newFakeAnalytics(""), thirdparty.Faults{})
			w := postTo(t, party, "/v1/track", tc.body, "Authorization", "Basic Og==")
			assert.Equal(t, tc.code, w.Code)
			require.Len(t, party.Log(), 1)
			note, kept := party.Log()[0].Note.(tracked)
			assert.Equal(t, tc.kept, kept)
			if kept {
				assert.Equal(t, tracked{id: "m", event: "e", source: "s"}, note)
			}
		})
	}
}
