package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"
)

// visit is what one visitor wanted and saw.
type visit struct {
	submission
	valid    bool // the form is filled in as it should be
	accepted bool // and the visitor was thanked
	refused  bool // the form was shown again, with what's wrong
	clicks   int
}

// visitors fill in the form as people do: some click twice, some forget a field,
// and when there's no answer or an error they send the same page again.
type visitors struct {
	client *http.Client
	url    string
	number int
	over   time.Duration
	board  *board

	mu     sync.Mutex
	visits []*visit
}

func newVisitors(transport http.RoundTripper, url string, number int, over time.Duration, b *board) *visitors {
	return &visitors{
		url: url, number: number, over: over, board: b,
		client: &http.Client{
			Transport:     transport,
			Timeout:       20 * time.Second,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// come sends all visitors, spread over the time, and waits until each is done.
// When ctx ends no new one comes.
func (v *visitors) come(ctx context.Context) {
	var here sync.WaitGroup
	defer here.Wait()
	for n, begin := 0, time.Now(); n < v.number; n++ {
		at := begin.Add(v.over * time.Duration(n) / time.Duration(v.number))
		if wait := time.Until(at); wait > 0 && !pause(ctx, wait) || ctx.Err() != nil {
			return
		}
		here.Go(func() { v.visit(ctx, n) })
	}
}

// log returns copies of all visits.
func (v *visitors) log() []visit {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := make([]visit, 0, len(v.visits))
	for _, x := range v.visits {
		out = append(out, *x)
	}
	return out
}

func (v *visitors) visit(ctx context.Context, n int) {
	x := &visit{valid: true, submission: submission{
		FirstName: "Visitor", LastName: fmt.Sprintf("Number %d", n), Company: fmt.Sprintf("Company %d & Søn", n%50),
		Email: fmt.Sprintf("visitor-%d@example.com", n), Interest: []string{"", "demo", "pricing"}[n%3],
	}}
	switch {
	case n%33 == 5: // a private person: the form takes it, the CRM won't
		x.Company = ""
	case n%50 == 9:
		x.LastName, x.valid = "", false
	}
	const tries = 20
	for try := 0; x.ID == "" && try < tries; try++ {
		x.ID = v.openForm(ctx)
		if x.ID == "" && !pause(ctx, 200*time.Millisecond) {
			return
		}
	}
	v.mu.Lock()
	v.visits = append(v.visits, x)
	v.mu.Unlock()

	var clicks sync.WaitGroup
	defer clicks.Wait()
	clicks.Go(func() { v.click(ctx, x) })
	if n%20 == 3 { // a double click
		clicks.Go(func() { v.click(ctx, x) })
	}
}

// click sends the form until it's accepted or refused.
func (v *visitors) click(ctx context.Context, x *visit) {
	const tries = 20
	for range tries {
		status, location := v.post(ctx, x.submission)
		v.mu.Lock()
		x.clicks++
		x.accepted = x.accepted || status == http.StatusSeeOther && strings.HasPrefix(location, "/thanks")
		x.refused = x.refused || status == http.StatusUnprocessableEntity
		done := x.accepted || x.refused
		v.mu.Unlock()
		if status == http.StatusSeeOther {
			v.board.accept(x.ID)
		}
		if done || !pause(ctx, 200*time.Millisecond) {
			return
		}
	}
}

var hiddenID = regexp.MustCompile(`name="id" value="([^"]+)"`)

// openForm returns the id of a new form, or nothing.
func (v *visitors) openForm(ctx context.Context) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.url+"/", nil)
	if err != nil {
		return ""
	}
	resp, err := v.client.Do(req)
	if err != nil {
		return ""
	}
	page, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return ""
	}
	if m := hiddenID.FindSubmatch(page); m != nil {
		return string(m[1])
	}
	return ""
}

// post returns the status of the answer, 0 when none came.
func (v *visitors) post(ctx context.Context, s submission) (status int, location string) {
	form := url.Values{
		"id": {s.ID}, "first_name": {s.FirstName}, "last_name": {s.LastName}, "company": {s.Company},
		"email": {s.Email}, "interest": {s.Interest},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, v.url+"/leads", strings.NewReader(form.Encode()))
	if err != nil {
		return 0, ""
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "same-origin") // as a browser says
	resp, err := v.client.Do(req)
	if err != nil {
		return 0, ""
	}
	if _, err := io.Copy(io.Discard, resp.Body); errors.Join(err, resp.Body.Close()) != nil {
		return 0, ""
	}
	return resp.StatusCode, resp.Header.Get("Location")
}
