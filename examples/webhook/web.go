package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// webConfig is what the web part needs.
type webConfig struct {
	mailgunKey   string            // Mailgun's "HTTP webhook signing key"
	partnerKeys  map[string]string // by partner
	mailgun      queue.Publisher   // of the queue mailgun-events
	integrations queue.Publisher   // of the queue integrations
	// budget is how long a request may try to publish. It must be shorter than
	// what the callers wait, and than the server's WriteTimeout.
	budget time.Duration
	log    *slog.Logger
}

// newWeb returns the web part. It answers with success only for what's durable.
func newWeb(c webConfig) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /webhooks/mailgun", &mailgunHandler{
		key: []byte(c.mailgunKey), pub: c.mailgun, budget: c.budget, log: c.log,
	})
	mux.Handle("POST /integrations/{partner}", &integrationsHandler{
		keys: c.partnerKeys, pub: c.integrations, budget: c.budget, log: c.log,
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") })
	return mux
}

// newServer returns an http.Server that slow or broken callers can't exhaust.
func newServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      20 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

// publishWithin returns nil only when msg is durable. A queue that can't be
// reached for a moment is tried again until the budget is used up or the caller
// has gone: an answer that comes a little later is better than a caller that
// comes back in five minutes. A message that was published twice that way has
// the same ID twice, which the handlers absorb.
func publishWithin(ctx context.Context, budget time.Duration, pub queue.Publisher, msg *queue.Message) error {
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	backoff := queue.Backoff{Min: 50 * time.Millisecond, Max: time.Second}
	for failures := 1; ; failures++ {
		err := pub.Publish(ctx, msg)
		if err == nil || neverPublishable(err) {
			return err
		}
		again := time.NewTimer(backoff.Delay(failures))
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return fmt.Errorf("after %d tries: %w", failures, err)
		}
	}
}

// neverPublishable says that trying again is pointless: the message itself is
// what the queue can't take. Anything else may be our own mistake, such as a
// wrong name in a file, which the callers shouldn't lose their events for.
func neverPublishable(err error) bool {
	_, overLimit := errors.AsType[*queue.LimitError](err)
	return overLimit
}

// checkID fails for what can't be an id on every backend.
func checkID(id string) error {
	switch {
	case id == "":
		return errors.New("missing")
	case len(id) > 128:
		return errors.New("longer than 128 characters")
	}
	for _, c := range []byte(id) {
		if c <= ' ' || c > '~' {
			return errors.New("not printable ASCII")
		}
	}
	return nil
}

func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	return io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
}

// unavailable says that nothing is promised, and that it's worth trying again.
func unavailable(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "5")
	answer(w, http.StatusServiceUnavailable, "not queued for sure: try again")
}

// answer writes {"status": text} or, from 400 on, {"error": text}.
func answer(w http.ResponseWriter, code int, text string) {
	key := "status"
	if code >= http.StatusBadRequest {
		key = "error"
	}
	writeJSON(w, code, map[string]string{key: text})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // a caller that has gone gets no answer; what was published stays
}
