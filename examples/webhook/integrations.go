package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/anyqueue/anyqueue/queue"
)

// maxIntegrationBody is what partners were told. It's what the API that the
// worker calls takes, less what the worker adds.
const maxIntegrationBody = 24 << 10

// integrationsHandler serves POST /integrations/{partner}:
//
//	202 {"id": …}      the message is durable
//	400 {"error": …}   it can't be used, and why
//	401                the key isn't the partner's
//	413                it's too long
//	503                not now: send it again, with the same Idempotency-Key
//
// A partner that sends an Idempotency-Key, or an "id" in the body, may send
// again as often as it likes. The key promises that the content is the same.
type integrationsHandler struct {
	keys   map[string]string // by partner
	pub    queue.Publisher
	budget time.Duration
	log    *slog.Logger
}

func (h *integrationsHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	partner := r.PathValue("partner")
	if !h.authentic(partner, r) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="integrations"`)
		answer(w, http.StatusUnauthorized, "unknown partner or wrong key")
		return
	}
	body, err := readBody(w, r, maxIntegrationBody)
	if err != nil {
		if tooLong, ok := errors.AsType[*http.MaxBytesError](err); ok {
			answer(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is longer than %d bytes", tooLong.Limit))
			return
		}
		answer(w, http.StatusBadRequest, "the body could not be read")
		return
	}
	id, err := integrationID(r, body)
	if err != nil {
		answer(w, http.StatusBadRequest, err.Error())
		return
	}
	// Two partners may choose the same key: the ids must differ all the same,
	// or the second message would be taken for a repeat of the first.
	id = partner + ":" + id

	err = publishWithin(r.Context(), h.budget, h.pub, &queue.Message{
		ID: id, Body: body, Attributes: map[string]string{"partner": partner},
	})
	switch {
	case err == nil:
		writeJSON(w, http.StatusAccepted, map[string]string{"id": id})
	case neverPublishable(err):
		answer(w, http.StatusBadRequest, err.Error())
	default:
		h.log.Error("integration message not queued", "id", id, "err", err)
		unavailable(w)
	}
}

// authentic compares hashes: they have one length, so that the time that it
// takes says nothing about the key.
func (h *integrationsHandler) authentic(partner string, r *http.Request) bool {
	want, known := h.keys[partner]
	got, isBearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1 && known && isBearer
}

// integrationID checks the body as far as this part needs to know it, and
// returns the message's id: the Idempotency-Key, else the body's "id", else a
// new one.
func integrationID(r *http.Request, body []byte) (string, error) {
	var m struct {
		ID   *string `json:"id"`
		Type string  `json:"type"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			if wrong.Field == "" {
				return "", errors.New("the body must be a JSON object")
			}
			return "", fmt.Errorf("%q must be a string", wrong.Field)
		}
		return "", fmt.Errorf("the body isn't JSON: %w", err)
	}
	if m.Type == "" {
		return "", errors.New(`"type" is missing`)
	}
	// A quoted key is the form of
	// https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
	if key := strings.Trim(r.Header.Get("Idempotency-Key"), `"`); key != "" {
		if err := checkID(key); err != nil {
			return "", fmt.Errorf("Idempotency-Key: %w", err)
		}
		return key, nil
	}
	if m.ID != nil {
		if err := checkID(*m.ID); err != nil {
			return "", fmt.Errorf(`"id": %w`, err)
		}
		return *m.ID, nil
	}
	return uuid.NewString(), nil
}
