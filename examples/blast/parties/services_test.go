package parties

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
)

// exchange sends a request to the parties and returns status and body.
func exchange(t *testing.T, h http.Handler, req *http.Request) (int, map[string]any) {
	t.Helper()
	resp, err := (thirdparty.Network{"fake": h}).RoundTrip(req)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	var v map[string]any
	if json.Unmarshal(body, &v) != nil {
		v = map[string]any{"message": strings.TrimSpace(string(body))}
	}
	return resp.StatusCode, v
}

func request(t *testing.T, method, path, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://fake"+path, strings.NewReader(body))
	require.NoError(t, err)
	return req
}

func mailRequest(t *testing.T, form url.Values) *http.Request {
	t.Helper()
	req := request(t, http.MethodPost, MailPath+"/v3/"+MailDomain+"/messages", form.Encode())
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth("api", MailKey)
	return req
}

func mailTo(c *Customer) url.Values {
	return url.Values{"from": {"shop@example.com"}, "to": {c.Email}, "subject": {"Hi"}, "text": {"Hello " + c.Name}, "v:customer": {c.ID}}
}

func calm(in *Input) *Parties { return New(in, Options{Calm: true}) }

func TestMailAPIAnswersAsMailgun(t *testing.T) {
	t.Parallel()
	p := calm(Generate(10))
	ada := &Customer{ID: "1", Email: "ada@example.com", Name: "Ada"}
	for name, tc := range map[string]struct {
		change  func(form url.Values)
		auth    string
		status  int
		message string
	}{
		"queued":        {func(url.Values) {}, MailKey, 200, "Queued. Thank you."},
		"wrong key":     {func(url.Values) {}, "wrong", 401, "Forbidden"},
		"no recipient":  {func(f url.Values) { f.Del("to") }, MailKey, 400, "to parameter is missing"},
		"bad recipient": {func(f url.Values) { f.Set("to", "a..b@example.com") }, MailKey, 400, "'to' parameter is not a valid address. please check documentation"},
		"two at once":   {func(f url.Values) { f.Set("to", "a@example.com,b@example.com") }, MailKey, 400, "'to' parameter is not a valid address. please check documentation"},
		"no body":       {func(f url.Values) { f.Del("text") }, MailKey, 400, "Need at least one of 'text' or 'html' parameters specified"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			form := mailTo(ada)
			tc.change(form)
			req := mailRequest(t, form)
			req.SetBasicAuth("api", tc.auth)
			status, body := exchange(t, p, req)
			assert.Equal(t, tc.status, status)
			assert.Equal(t, tc.message, body["message"])
			if status == http.StatusOK {
				assert.Regexp(t, `^<.+@mg\.example\.com>$`, body["id"])
			}
		})
	}
}

func TestCheckerGoesByTheAddress(t *testing.T) {
	t.Parallel()
	p := calm(Generate(10))
	for email, want := range map[string][2]string{
		"ada@example.com":                {"deliverable", "accepted_email"},
		"ada+rejected-email@example.com": {"undeliverable", "rejected_email"},
		"low-quality@example.com":        {"risky", "low_quality"},
		"ada+timeout@example.com":        {"unknown", "timeout"},
		"ada+news@example.com":           {"deliverable", "accepted_email"},
		"":                               {"undeliverable", "invalid_email"},
		"nobody":                         {"undeliverable", "invalid_email"},
	} {
		q := url.Values{"email": {email}, "apikey": {CheckerKey}}
		status, body := exchange(t, p, request(t, http.MethodGet, CheckerPath+"/v2/verify?"+q.Encode(), ""))
		assert.Equal(t, 200, status)
		assert.Equal(t, want, [2]string{body["result"].(string), body["reason"].(string)}, email)
	}
	status, _ := exchange(t, p, request(t, http.MethodGet, CheckerPath+"/v2/verify?email=a@example.com&apikey=x", ""))
	assert.Equal(t, http.StatusForbidden, status)
}

func TestCreditIsReservedOncePerBlast(t *testing.T) {
	t.Parallel()
	p := calm(Generate(100))
	path := CustomersPath + "/accounts/acme/reservations"
	credit := func() any {
		_, body := exchange(t, p, request(t, http.MethodGet, CustomersPath+"/accounts/acme", ""))
		return body["credit"]
	}
	require.EqualValues(t, 1098, credit())
	for _, want := range []int{http.StatusCreated, http.StatusOK, http.StatusOK} {
		status, _ := exchange(t, p, request(t, http.MethodPost, path, `{"id":"b1","credits":98}`))
		assert.Equal(t, want, status)
		assert.EqualValues(t, 1000, credit())
	}
	status, body := exchange(t, p, request(t, http.MethodPost, path, `{"id":"b2","credits":1001}`))
	assert.Equal(t, http.StatusPaymentRequired, status)
	assert.Equal(t, "not enough credit", body["message"])
	status, _ = exchange(t, p, request(t, http.MethodPost, path, `{"id":""}`))
	assert.Equal(t, http.StatusBadRequest, status)
}

func TestListComesInPages(t *testing.T) {
	t.Parallel()
	in := Generate(2500)
	p := calm(in)
	var got []string
	for page := "1"; page != "0"; {
		status, body := exchange(t, p, request(t, http.MethodGet, CustomersPath+"/accounts/acme/lists/newsletter?page="+page, ""))
		require.Equal(t, 200, status)
		for _, id := range body["customers"].([]any) {
			got = append(got, id.(string))
		}
		page = strings.Split(jsonNumber(body["next"]), ".")[0]
	}
	assert.Equal(t, in.List, got)
}

func jsonNumber(v any) string {
	b, _ := json.Marshal(v) // a number always can be
	return string(b)
}

func TestActivityIsCountedOnce(t *testing.T) {
	t.Parallel()
	p := calm(Generate(10))
	for _, want := range []int{http.StatusCreated, http.StatusOK} {
		status, _ := exchange(t, p, request(t, http.MethodPut, ActivityPath+"/activities/a1", `{"kind":"mail_sent"}`))
		assert.Equal(t, want, status)
	}
	assert.Equal(t, 1, p.Activities("mail_sent", "mail_skipped"))
	status, _ := exchange(t, p, request(t, http.MethodPut, ActivityPath+"/activities/a2", `{}`))
	assert.Equal(t, http.StatusBadRequest, status)
}
