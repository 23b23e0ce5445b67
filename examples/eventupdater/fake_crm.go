package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"

	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
)

// fakeCRM is a server that speaks the part of Salesforce's REST API that crm
// uses; salesforce.go names the pages. Its records and its log are what the
// judge goes by.
//
// It's honest about races: it looks whether a record exists, and only later
// inserts it; who was overtaken gets DUPLICATE_VALUE.
type fakeCRM struct {
	url          string // of itself: the instance_url that a login returns
	clientID     string
	clientSecret string
	// rival is asked between the look and the insert whether somebody else
	// creates the record just then. Default: nobody does.
	rival func(externalID string) bool

	// sessionCalls is for how many calls a session is valid. Default: for ever.
	sessionCalls int

	mu      sync.Mutex
	tokens  map[string]int // calls that each is still good for
	byID    map[string]*record
	created int
}

// record is a lead in the CRM.
type record struct {
	ID         string
	ExternalID string
	Fields     map[string]string
	Updates    int
	ByRival    bool
}

// crmNote is what the fake notes in the log about an upsert that reached it.
type crmNote struct {
	externalID string
	code       string // of a refusal
}

// requiredFields are those of the standard object Lead that have no default.
var requiredFields = []string{"LastName", "Company"}

func newFakeCRM(clientID, clientSecret string) *fakeCRM {
	return &fakeCRM{
		clientID: clientID, clientSecret: clientSecret,
		tokens: map[string]int{}, byID: map[string]*record{},
	}
}

func (f *fakeCRM) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /services/oauth2/token", f.token)
	mux.HandleFunc("PATCH /services/data/{version}/sobjects/Lead/"+externalIDField+"/{id}", f.upsert)
	return mux
}

// records returns copies of all records.
func (f *fakeCRM) records() []record {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]record, 0, len(f.byID))
	for _, r := range f.byID {
		out = append(out, *r)
	}
	return out
}

func (f *fakeCRM) token(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("grant_type") != "client_credentials" || r.FormValue("client_id") != f.clientID || r.FormValue("client_secret") != f.clientSecret {
		reply(w, http.StatusBadRequest, map[string]string{"error": "invalid_client", "error_description": "invalid client credentials"})
		return
	}
	token := fmt.Sprintf("00D000000000001!%016x%016x", rand.Uint64(), rand.Uint64()) //nolint:gosec // a fake's
	f.mu.Lock()
	f.tokens[token] = f.sessionCalls
	f.mu.Unlock()
	reply(w, http.StatusOK, map[string]string{
		"access_token": token, "instance_url": f.url, "token_type": "Bearer", "scope": "api",
		"id": f.url + "/id/00D000000000001AAA/005000000000001AAA",
	})
}

func (f *fakeCRM) upsert(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	note := crmNote{externalID: id}
	refuse := func(status int, code, message string, fields ...string) {
		note.code = code
		thirdparty.Annotate(w, note)
		refusal(status, code, message, fields...)(w, r)
	}
	if !f.authentic(r) {
		refuse(http.StatusUnauthorized, "INVALID_SESSION_ID", "Session expired or invalid")
		return
	}
	var fields map[string]string
	if err := json.NewDecoder(r.Body).Decode(&fields); err != nil {
		refuse(http.StatusBadRequest, "JSON_PARSER_ERROR", err.Error())
		return
	}
	if missing := missingFields(fields); len(missing) > 0 {
		refuse(http.StatusBadRequest, "REQUIRED_FIELD_MISSING", "Required fields are missing: ["+strings.Join(missing, ", ")+"]", missing...)
		return
	}
	if updated, recordID := f.update(id, fields); updated {
		thirdparty.Annotate(w, note)
		reply(w, http.StatusOK, upserted(recordID, false))
		return
	}
	if f.rival != nil && f.rival(id) {
		f.insert(id, map[string]string{"LastName": "(to be completed)", "Company": "?"}, true)
	}
	recordID, inserted := f.insert(id, fields, false)
	if !inserted {
		refuse(http.StatusBadRequest, "DUPLICATE_VALUE",
			"duplicate value found: "+externalIDField+" duplicates value on record with id: "+recordID)
		return
	}
	thirdparty.Annotate(w, note)
	reply(w, http.StatusCreated, upserted(recordID, true))
}

func (f *fakeCRM) authentic(r *http.Request) bool {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	f.mu.Lock()
	defer f.mu.Unlock()
	left, known := f.tokens[token]
	if !ok || !known {
		return false
	}
	if f.sessionCalls > 0 {
		if left == 0 {
			delete(f.tokens, token)
			return false
		}
		f.tokens[token] = left - 1
	}
	return true
}

func (f *fakeCRM) update(id string, fields map[string]string) (bool, string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, ok := f.byID[id]
	if !ok {
		return false, ""
	}
	maps.Copy(r.Fields, fields)
	r.Updates++
	return true, r.ID
}

// insert returns the record with that external id, and whether it's new.
func (f *fakeCRM) insert(id string, fields map[string]string, byRival bool) (string, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r, ok := f.byID[id]; ok {
		return r.ID, false
	}
	f.created++
	r := &record{ID: fmt.Sprintf("00Q%012dAAA", f.created), ExternalID: id, Fields: fields, ByRival: byRival}
	f.byID[id] = r
	return r.ID, true
}

func missingFields(fields map[string]string) []string {
	var out []string
	for _, name := range requiredFields {
		if fields[name] == "" {
			out = append(out, name)
		}
	}
	return out
}

// refusal answers as Salesforce does: with an array.
func refusal(status int, code, message string, fields ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if fields == nil {
			fields = []string{}
		}
		reply(w, status, []map[string]any{{"message": message, "errorCode": code, "fields": fields}})
	}
}

func upserted(id string, created bool) map[string]any {
	return map[string]any{"id": id, "success": true, "errors": []any{}, "created": created}
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json;charset=UTF-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a caller that has gone gets no answer
}
