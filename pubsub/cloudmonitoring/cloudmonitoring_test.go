package cloudmonitoring_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/api/option"

	"github.com/anyqueue/anyqueue/pubsub/cloudmonitoring"
	"github.com/anyqueue/anyqueue/queue"
)

const subscription = "projects/shop/subscriptions/orders"

// serve returns Metrics that read from a server with one answer, in the JSON of
// https://docs.cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.timeSeries/list.
func serve(t *testing.T, status int, answer string) (*cloudmonitoring.Metrics, *http.Request) {
	t.Helper()
	seen := &http.Request{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*seen = *r
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(server.Close)
	m, err := cloudmonitoring.New(t.Context(), option.WithEndpoint(server.URL), option.WithoutAuthentication())
	require.NoError(t, err)
	return m, seen
}

func point(end, value string) string {
	return fmt.Sprintf(`{"interval": {"startTime": %q, "endTime": %q}, "value": %s}`, end, end, value)
}

func TestTheNewestPointIsTheValue(t *testing.T) {
	t.Parallel()
	m, seen := serve(t, http.StatusOK, `{"timeSeries": [
		{"points": [`+point("2026-11-27T10:01:00Z", `{"int64Value": "7"}`)+`, `+point("2026-11-27T10:00:00Z", `{"int64Value": "9"}`)+`]},
		{"points": [`+point("2026-11-27T10:02:00Z", `{"int64Value": "42"}`)+`, `+point("2026-11-27T10:03:00Z", `{}`)+`]}]}`)
	value, at, ok, err := m.Latest(t.Context(), subscription, "num_undelivered_messages")
	require.NoError(t, err)
	assert.True(t, ok)
	assert.InDelta(t, 42, value, 0)
	assert.Equal(t, time.Date(2026, 11, 27, 10, 2, 0, 0, time.UTC), at)
	assert.Equal(t, "/v3/projects/shop/timeSeries", seen.URL.Path)
	q := seen.URL.Query()
	assert.Equal(t, `metric.type = "pubsub.googleapis.com/subscription/num_undelivered_messages" AND resource.labels.subscription_id = "orders"`, q.Get("filter"))
	from, err := time.Parse(time.RFC3339, q.Get("interval.startTime"))
	require.NoError(t, err)
	to, err := time.Parse(time.RFC3339, q.Get("interval.endTime"))
	require.NoError(t, err)
	assert.Equal(t, 10*time.Minute, to.Sub(from))
}

func TestAnAgeIsADouble(t *testing.T) {
	t.Parallel()
	m, _ := serve(t, http.StatusOK, `{"timeSeries": [{"points": [`+point("2026-11-27T10:01:00.5Z", `{"doubleValue": 61.5}`)+`]}]}`)
	value, _, ok, err := m.Latest(t.Context(), subscription, "oldest_unacked_message_age")
	require.NoError(t, err)
	assert.True(t, ok)
	assert.InDelta(t, 61.5, value, 0)
}

// No series isn't a zero.
func TestWithoutAPointTheValueIsUnknown(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{`{}`, `{"timeSeries": [{"points": []}]}`} {
		m, _ := serve(t, http.StatusOK, answer)
		_, _, ok, err := m.Latest(t.Context(), subscription, "num_undelivered_messages")
		assert.NoError(t, err)
		assert.False(t, ok)
	}
}

func TestErrorsHaveTheirNeutralMeaning(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]error{
		http.StatusForbidden: queue.ErrPermission, http.StatusNotFound: queue.ErrPermission, http.StatusTooManyRequests: queue.ErrThrottled,
	} {
		m, _ := serve(t, status, fmt.Sprintf(`{"error": {"code": %d, "message": "no"}}`, status))
		_, _, _, err := m.Latest(t.Context(), subscription, "num_undelivered_messages")
		assert.ErrorIs(t, err, want, "%d", status)
	}
	m, _ := serve(t, http.StatusOK, `{"timeSeries": [{"points": [`+point("yesterday", `{"int64Value": "7"}`)+`]}]}`)
	_, _, _, err := m.Latest(t.Context(), subscription, "num_undelivered_messages")
	assert.ErrorContains(t, err, "yesterday")
	_, _, _, err = m.Latest(t.Context(), "orders", "num_undelivered_messages")
	assert.ErrorIs(t, err, queue.ErrInvalid)
}
