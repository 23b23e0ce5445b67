package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
	"github.com/anyqueue/anyqueue/queue"
)

var ada = crmLead{LastName: "Lovelace", Company: "Engines", Email: "ada@example.com", LeadSource: "Web"}

// newTestCRM returns a client of a fake CRM that's wrapped by faults.
func newTestCRM(f thirdparty.Faults) (*crm, *fakeCRM, *thirdparty.Party) {
	fake := newFakeCRM("id", "secret")
	fake.url = "http://crm.example"
	party := thirdparty.New(fake.handler(), f)
	return &crm{
		loginURL: fake.url, clientID: "id", clientSecret: "secret",
		client: &http.Client{Transport: thirdparty.Network{"crm.example": party}},
	}, fake, party
}

func TestUpsertMakesOneRecordHoweverOftenItsCalled(t *testing.T) {
	t.Parallel()
	client, fake, party := newTestCRM(thirdparty.Faults{})
	for range 3 {
		require.NoError(t, client.upsert(t.Context(), "lead/1 ü", ada))
	}
	records := fake.records()
	require.Len(t, records, 1)
	assert.Equal(t, "lead/1 ü", records[0].ExternalID, "any id can stand in the path")
	assert.Equal(t, 2, records[0].Updates)
	assert.Equal(t, map[string]string{"LastName": "Lovelace", "Company": "Engines", "Email": "ada@example.com", "LeadSource": "Web"}, records[0].Fields)
	var statuses []int
	for _, q := range party.Log() {
		statuses = append(statuses, q.Status)
	}
	assert.Equal(t, []int{200, 201, 200, 200}, statuses, "a login, a creation, two updates")
}

func TestUpsertAcceptsTheAnswerOfOlderVersions(t *testing.T) {
	t.Parallel()
	for _, status := range []int{200, 201, 204} {
		mux := http.NewServeMux()
		mux.Handle("POST /services/oauth2/token", thirdparty.Status(200, `{"access_token":"t","instance_url":"http://crm.example"}`))
		mux.HandleFunc("PATCH /", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		c := &crm{loginURL: "http://crm.example", client: &http.Client{Transport: thirdparty.Network{"crm.example": mux}}}
		assert.NoError(t, c.upsert(t.Context(), "1", ada), status)
	}
}

func TestOutcomeOfEachAnswerOfTheCRM(t *testing.T) {
	t.Parallel()
	const limitPause = 7 * time.Second
	failed := queue.Outcome{Kind: queue.Failed}
	tests := map[string]struct {
		answer http.Handler
		want   queue.Outcome
		down   bool
	}{
		"503":                    {answer: refusal(503, "SERVER_UNAVAILABLE", "down"), want: failed, down: true},
		"503 of a proxy":         {answer: thirdparty.Status(503, "<html>try later</html>"), want: failed, down: true},
		"500":                    {answer: refusal(500, "UNKNOWN_EXCEPTION", "oops"), want: failed, down: true},
		"403 request limit":      {answer: refusal(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."), want: queue.Outcome{Kind: queue.Retry, Delay: limitPause}, down: true},
		"403 not permitted":      {answer: refusal(403, "INSUFFICIENT_ACCESS_OR_READONLY", "no"), want: failed},
		"401 that a login heals": {answer: expiresOnce(), want: queue.Outcome{Kind: queue.Success}},
		"401 for ever":           {answer: refusal(401, "INVALID_SESSION_ID", "Session expired or invalid"), want: failed},
		"400 duplicate":          {answer: refusal(400, "DUPLICATE_VALUE", "duplicate value found"), want: queue.Outcome{Kind: queue.Retry, Delay: 100 * time.Millisecond}},
		"400 row lock":           {answer: refusal(400, "UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access"), want: failed},
		"400 required field":     {answer: refusal(400, "REQUIRED_FIELD_MISSING", "Required fields are missing: [Company]", "Company"), want: queue.Outcome{Kind: queue.Rejected}},
		"400 bad address":        {answer: refusal(400, "INVALID_EMAIL_ADDRESS", "invalid email address", "Email"), want: queue.Outcome{Kind: queue.Rejected}},
		"400 of a proxy":         {answer: thirdparty.Status(400, "<html>bad request</html>"), want: failed},
		"300 several records":    {answer: thirdparty.Status(300, `["/services/data/v64.0/sobjects/Lead/1","/services/data/v64.0/sobjects/Lead/2"]`), want: queue.Outcome{Kind: queue.Rejected}},
		"404":                    {answer: refusal(404, "NOT_FOUND", "no such field"), want: failed},
		"a lost answer":          {answer: thirdparty.New(thirdparty.Status(201, `{}`), thirdparty.Faults{LostOneIn: 1}), want: failed, down: true},
		"201":                    {answer: thirdparty.Status(201, `{}`), want: queue.Outcome{Kind: queue.Success}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mux := http.NewServeMux()
			mux.Handle("POST /services/oauth2/token", thirdparty.Status(200, `{"access_token":"t","instance_url":"http://crm.example"}`))
			mux.Handle("PATCH /services/data/"+apiVersion+"/sobjects/Lead/External_Id__c/{id}", tc.answer)
			c := &crm{loginURL: "http://crm.example", client: &http.Client{Transport: thirdparty.Network{"crm.example": mux}}}
			body, err := json.Marshal(submission{ID: testID, LastName: "L", Email: "l@example.com"})
			require.NoError(t, err)
			err = updateLead(c, limitPause)(t.Context(), &queue.Delivery{Message: queue.Message{ID: testID, Body: body}})
			assert.Equal(t, tc.want, queue.OutcomeOf(err), "%v", err)
			if err != nil {
				assert.Equal(t, tc.down, isDown(err), "the breaker goes by it")
			}
		})
	}
}

// expiresOnce refuses the first call as if its session had expired.
func expiresOnce() http.Handler {
	var once sync.Once
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := thirdparty.Status(201, `{}`)
		once.Do(func() { answer = refusal(401, "INVALID_SESSION_ID", "Session expired or invalid") })
		answer(w, r)
	})
}

func TestExpiredSessionIsRenewedOnceForAllWhoFindOut(t *testing.T) {
	t.Parallel()
	client, fake, party := newTestCRM(thirdparty.Faults{})
	var arrived sync.WaitGroup
	const callers = 20
	arrived.Add(callers)
	// The first call of each caller is answered only when all have called, so
	// that all find the same session expired.
	gate := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch && r.Header.Get("Authorization") == "Bearer old" {
			arrived.Done()
			arrived.Wait()
		}
		party.ServeHTTP(w, r)
	})
	client.client.Transport = thirdparty.Network{"crm.example": gate}
	client.session = &session{AccessToken: "old", InstanceURL: "http://crm.example"}
	var calls sync.WaitGroup
	for i := range callers {
		calls.Go(func() { assert.NoError(t, client.upsert(t.Context(), string(rune('a'+i)), ada)) })
	}
	calls.Wait()
	assert.Len(t, fake.records(), callers)
	logins := 0
	for _, q := range party.Log() {
		if isLogin(q) {
			logins++
		}
	}
	assert.Equal(t, 1, logins)
}

func TestLoginThatFailsIsNoReasonToRejectALead(t *testing.T) {
	t.Parallel()
	client, fake, _ := newTestCRM(thirdparty.Faults{})
	client.clientSecret = "another"
	err := client.upsert(t.Context(), "1", ada)
	require.ErrorContains(t, err, "invalid_client")
	assert.Equal(t, queue.Failed, queue.OutcomeOf(outcome(err, time.Second)).Kind)
	assert.Empty(t, fake.records())

	client.clientSecret = "secret"
	assert.NoError(t, client.upsert(t.Context(), "1", ada), "the next call tries again")
}

func TestLoginDoesntEndWithTheCallerThatBeganIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, _, party := newTestCRM(thirdparty.Faults{SlowOneIn: 1, SlowFor: time.Second})
		hasty, cancel := context.WithTimeoutCause(t.Context(), 500*time.Millisecond, errors.New("hasty"))
		defer cancel()
		go func() {
			assert.ErrorContains(t, client.upsert(hasty, "1", ada), "hasty")
		}()
		synctest.Wait()
		assert.NoError(t, client.upsert(t.Context(), "2", ada))
		assert.Len(t, party.Log(), 2, "one login and one upsert")
	})
}

func TestFakeCRMRefusesWhoIsOvertaken(t *testing.T) {
	t.Parallel()
	client, fake, _ := newTestCRM(thirdparty.Faults{})
	fake.rival = func(string) bool { return true }
	err := client.upsert(t.Context(), "1", ada)
	refused, ok := errors.AsType[*crmError](err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, 400, refused.Status)
	assert.Equal(t, "DUPLICATE_VALUE", refused.Code)
	require.NoError(t, client.upsert(t.Context(), "1", ada), "then it's an update")
	records := fake.records()
	require.Len(t, records, 1)
	assert.True(t, records[0].ByRival)
	assert.Equal(t, "ada@example.com", records[0].Fields["Email"])
}

func TestFakeCRMSpeaksSalesforce(t *testing.T) {
	t.Parallel()
	fake := newFakeCRM("id", "secret")
	fake.url = "http://crm.example"
	h := fake.handler()
	call := func(method, path, token, contentType, body string) (int, string) {
		r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
		r.Header.Set("Authorization", token)
		r.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	const path, isJSON, isForm = "/services/data/v64.0/sobjects/Lead/External_Id__c/1", "application/json", "application/x-www-form-urlencoded"

	code, body := call("PATCH", path, "Bearer nobody's", isJSON, `{}`)
	assert.Equal(t, 401, code)
	assert.JSONEq(t, `[{"message":"Session expired or invalid","errorCode":"INVALID_SESSION_ID","fields":[]}]`, body)

	code, body = call("POST", "/services/oauth2/token", "", isForm, "grant_type=client_credentials&client_id=id&client_secret=secret")
	require.Equal(t, 200, code)
	var s session
	require.NoError(t, json.Unmarshal([]byte(body), &s))
	assert.Equal(t, "http://crm.example", s.InstanceURL)

	code, body = call("PATCH", path, "Bearer "+s.AccessToken, isJSON, `{"LastName":"L"}`)
	assert.Equal(t, 400, code)
	assert.JSONEq(t, `[{"message":"Required fields are missing: [Company]","errorCode":"REQUIRED_FIELD_MISSING","fields":["Company"]}]`, body)

	code, body = call("PATCH", path, "Bearer "+s.AccessToken, isJSON, `{"LastName":`)
	assert.Equal(t, 400, code)
	assert.Contains(t, body, "JSON_PARSER_ERROR")

	code, body = call("PATCH", path, "Bearer "+s.AccessToken, isJSON, `{"LastName":"L","Company":"C"}`)
	assert.Equal(t, 201, code)
	assert.JSONEq(t, `{"id":"00Q000000000001AAA","success":true,"errors":[],"created":true}`, body)
}

func TestFakeCRMEndsSessions(t *testing.T) {
	t.Parallel()
	client, fake, party := newTestCRM(thirdparty.Faults{})
	fake.sessionCalls = 2
	for range 5 {
		require.NoError(t, client.upsert(t.Context(), "1", ada))
	}
	r := judge(nil, nil, party.Log(), nil)
	assert.Equal(t, 3, r.Logins)
	assert.Equal(t, 2, r.Expired)
}
