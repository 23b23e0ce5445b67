package main

import (
	"encoding/json"
	"io"
	"net/http"

	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
)

// maxTrackBody is the limit of the real API.
const maxTrackBody = 32 << 10

// tracked is the note that the fake puts into the log for each event it took.
type tracked struct {
	id     string
	event  string
	source string // the source_sha256 that the worker sent
}

// newFakeAnalytics returns a server that speaks Segment's HTTP tracking API as
// far as analytics uses it:
// https://www.twilio.com/docs/segment/connections/sources/catalog/libraries/server/http-api
func newFakeAnalytics(writeKey string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/track", func(w http.ResponseWriter, r *http.Request) {
		if key, _, ok := r.BasicAuth(); !ok || key != writeKey {
			writeJSON(w, http.StatusUnauthorized, map[string]any{"success": false, "message": "unknown write key"})
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxTrackBody))
		if err != nil {
			writeJSON(w, http.StatusBadRequest, map[string]any{"success": false, "message": "payload too large"})
			return
		}
		var e trackedEvent
		if err := json.Unmarshal(body, &e); err != nil {
			writeJSON(w, http.StatusBadRequest, map[string]any{"success": false, "message": "malformed JSON"})
			return
		}
		// The real API says 200 to what it then drops. The fake notes only what
		// it would keep, so that the judge misses the rest.
		if e.MessageID != "" && e.UserID != "" && e.Event != "" {
			source, _ := e.Properties["source_sha256"].(string)
			thirdparty.Annotate(w, tracked{id: e.MessageID, event: e.Event, source: source})
		}
		writeJSON(w, http.StatusOK, map[string]any{"success": true})
	})
	return mux
}
