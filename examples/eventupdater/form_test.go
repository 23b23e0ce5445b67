package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/queue"
)

// published collects what the form published.
type published struct {
	mu   sync.Mutex
	msgs []*queue.Message
	fail int // so many calls; negative: all
}

func (p *published) Publish(_ context.Context, msgs ...*queue.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail != 0 {
		p.fail--
		return errors.New("connection refused")
	}
	p.msgs = append(p.msgs, msgs...)
	return nil
}

func testForm(pub queue.Publisher) http.Handler {
	return newWeb(pub, 2*time.Second, slog.New(slog.DiscardHandler))
}

const testID = "6f1d2a58-51b3-4cf6-9b3c-0f6f2f3f2a11"

// filledIn returns a good form, changed by pairs of field and value.
func filledIn(pairs ...string) url.Values {
	f := url.Values{
		"id": {testID}, "first_name": {"Ada"}, "last_name": {"Lovelace"}, "company": {"Engines & Co"},
		"email": {"ada@example.com"}, "interest": {"demo"},
	}
	for i := 0; i < len(pairs); i += 2 {
		f.Set(pairs[i], pairs[i+1])
	}
	return f
}

func submit(t *testing.T, h http.Handler, form url.Values, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/leads", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestFormAnswers(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		form   url.Values
		header []string
		fail   int
		want   int
		says   string
		queued int
	}{
		"filled in":                  {form: filledIn(), want: 303, queued: 1},
		"by a private person":        {form: filledIn("company", ""), want: 303, queued: 1},
		"from our own page":          {form: filledIn(), header: []string{"Sec-Fetch-Site", "same-origin"}, want: 303, queued: 1},
		"the queue down for moments": {form: filledIn(), fail: 3, want: 303, queued: 1},
		"no last name":               {form: filledIn("last_name", " "), want: 422, says: "Please fill this in"},
		"no address":                 {form: filledIn("email", ""), want: 422, says: "Please fill this in"},
		"not an address":             {form: filledIn("email", "ada"), want: 422, says: "name@example.com"},
		"an address with a name":     {form: filledIn("email", "Ada <ada@example.com>"), want: 422, says: "name@example.com"},
		"a very long company":        {form: filledIn("company", strings.Repeat("ö", 256)), want: 422, says: "at most 255"},
		"a company that just fits":   {form: filledIn("company", strings.Repeat("ö", 255)), want: 303, queued: 1},
		"a line break in a name":     {form: filledIn("first_name", "A\nB"), want: 422, says: "plain text"},
		"not UTF-8":                  {form: filledIn("first_name", "\xff"), want: 422, says: "plain text"},
		"a choice that isn't there":  {form: filledIn("interest", "everything"), want: 422, says: "from the list"},
		"no id":                      {form: filledIn("id", ""), want: 422, says: "reload the page"},
		"an id that isn't ours":      {form: filledIn("id", "1"), want: 422, says: "reload the page"},
		"from another site":          {form: filledIn(), header: []string{"Sec-Fetch-Site", "cross-site"}, want: 403},
		"from another origin":        {form: filledIn(), header: []string{"Origin", "https://elsewhere.example"}, want: 403},
		"far too long":               {form: filledIn("company", strings.Repeat("x", maxForm)), want: 413},
		"not a form":                 {form: filledIn(), header: []string{"Content-Type", "multipart/form-data; boundary"}, want: 400},
		"the queue down for longer":  {form: filledIn(), fail: -1, want: 503, says: "send it again"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				pub := &published{fail: tc.fail}
				w := submit(t, testForm(pub), tc.form, tc.header...)
				require.Equal(t, tc.want, w.Code, w.Body)
				assert.Contains(t, w.Body.String(), tc.says)
				require.Len(t, pub.msgs, tc.queued)
				switch tc.want {
				case http.StatusSeeOther:
					assert.Equal(t, "/thanks?id="+testID, w.Header().Get("Location"))
					assert.Equal(t, testID, pub.msgs[0].ID)
					var s submission
					require.NoError(t, json.Unmarshal(pub.msgs[0].Body, &s))
					s.At = time.Time{}
					assert.Equal(t, submission{
						ID: testID, FirstName: "Ada", LastName: "Lovelace", Company: tc.form.Get("company"),
						Email: "ada@example.com", Interest: "demo",
					}, s)
				case http.StatusServiceUnavailable:
					assert.Contains(t, w.Body.String(), testID, "sent again, it's the same submission")
					assert.Contains(t, w.Body.String(), "Lovelace", "nobody types it all again")
				}
			})
		})
	}
}

func TestEachFormHasAnIDOfItsOwn(t *testing.T) {
	t.Parallel()
	web := testForm(&published{})
	seen := map[string]bool{}
	for range 3 {
		w := httptest.NewRecorder()
		web.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
		require.Equal(t, http.StatusOK, w.Code)
		m := hiddenID.FindSubmatch(w.Body.Bytes())
		require.NotNil(t, m)
		_, err := uuid.Parse(string(m[1]))
		require.NoError(t, err)
		seen[string(m[1])] = true
		assert.Equal(t, "no-store", w.Header().Get("Cache-Control"), "a cached form would be sent with a used id")
	}
	assert.Len(t, seen, 3)
}

func TestTheSameFormTwiceIsOneSubmission(t *testing.T) {
	t.Parallel()
	pub := &published{}
	web := testForm(pub)
	require.Equal(t, http.StatusSeeOther, submit(t, web, filledIn()).Code)
	require.Equal(t, http.StatusSeeOther, submit(t, web, filledIn("id", strings.ToUpper(testID))).Code)
	require.Len(t, pub.msgs, 2)
	assert.Equal(t, pub.msgs[0].ID, pub.msgs[1].ID)
}

func TestWhatVisitorsWriteIsNeverMarkup(t *testing.T) {
	t.Parallel()
	const evil = `"><script>alert(1)</script>`
	web := testForm(&published{})
	w := submit(t, web, filledIn("last_name", evil, "email", evil))
	require.Equal(t, http.StatusUnprocessableEntity, w.Code)
	assert.NotContains(t, w.Body.String(), "<script>")
	w = httptest.NewRecorder()
	web.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/thanks?id="+url.QueryEscape(evil), nil))
	assert.Equal(t, http.StatusOK, w.Code)
	assert.NotContains(t, w.Body.String(), "<script>")
}
