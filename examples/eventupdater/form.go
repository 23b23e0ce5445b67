package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/mail"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/anyqueue/anyqueue/queue"
)

// submission is what the form sends, and the body of the message.
type submission struct {
	ID        string    `json:"id"`
	FirstName string    `json:"first_name"`
	LastName  string    `json:"last_name"`
	Company   string    `json:"company"` // may be empty: private persons ask too
	Email     string    `json:"email"`
	Interest  string    `json:"interest"`
	At        time.Time `json:"at"`
}

// Limits of the fields in characters: what the CRM's fields hold.
const (
	maxName    = 40
	maxLast    = 80
	maxCompany = 255
	maxEmail   = 80
	maxForm    = 16 << 10 // bytes of a request
)

//go:embed form.html
var formHTML string

var formPage = template.Must(template.New("form").Parse(formHTML))

// page is what the template shows.
type page struct {
	submission
	Errors map[string]string // by field
	Notice string
	Done   bool
}

// formHandler serves the form and publishes what's sent with it.
type formHandler struct {
	pub    queue.Publisher
	budget time.Duration // how long a request may try to publish
	log    *slog.Logger
}

// newWeb returns the web part.
func newWeb(pub queue.Publisher, budget time.Duration, log *slog.Logger) http.Handler {
	h := &formHandler{pub: pub, budget: budget, log: log}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", h.show)
	mux.HandleFunc("POST /leads", h.submit)
	mux.HandleFunc("GET /thanks", h.thanks)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	// Refuses forms that another site posts from a visitor's browser. There's
	// no session that such a post could abuse, but it would fill the CRM.
	return http.NewCrossOriginProtection().Handler(mux)
}

// show gives each form an id of its own. It travels with the form, so that a
// double click, a reload or a second try after an error is the same submission.
func (h *formHandler) show(w http.ResponseWriter, _ *http.Request) {
	h.render(w, http.StatusOK, page{submission: submission{ID: uuid.NewString()}})
}

func (h *formHandler) submit(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		code := http.StatusBadRequest
		if _, tooLong := errors.AsType[*http.MaxBytesError](err); tooLong {
			code = http.StatusRequestEntityTooLarge
		}
		http.Error(w, "The form could not be read.", code)
		return
	}
	s := fromForm(r.PostForm)
	if problems := s.validate(); len(problems) > 0 {
		h.render(w, http.StatusUnprocessableEntity, page{submission: s, Errors: problems, Notice: "Please look at the fields below."})
		return
	}
	s.At = time.Now().UTC()
	body, err := json.Marshal(s)
	if err != nil {
		h.log.Error("submission not encoded", "id", s.ID, "err", err)
		http.Error(w, "Something went wrong.", http.StatusInternalServerError)
		return
	}
	if err := publishWithin(r.Context(), h.budget, h.pub, &queue.Message{ID: s.ID, Body: body}); err != nil {
		h.log.Error("submission not queued", "id", s.ID, "err", err)
		w.Header().Set("Retry-After", "5")
		h.render(w, http.StatusServiceUnavailable, page{submission: s, Notice: "We could not save this just now. Please send it again."})
		return
	}
	// Only now is it safe to say thank you.
	http.Redirect(w, r, "/thanks?"+url.Values{"id": {s.ID}}.Encode(), http.StatusSeeOther)
}

func (h *formHandler) thanks(w http.ResponseWriter, r *http.Request) {
	h.render(w, http.StatusOK, page{submission: submission{ID: r.URL.Query().Get("id")}, Done: true})
}

func (h *formHandler) render(w http.ResponseWriter, code int, p page) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store") // a cached form would be sent with a used id
	w.WriteHeader(code)
	if err := formPage.Execute(w, p); err != nil {
		h.log.Debug("page not sent", "err", err)
	}
}

func fromForm(f url.Values) submission {
	field := func(name string) string { return strings.TrimSpace(f.Get(name)) }
	return submission{
		ID:        field("id"),
		FirstName: field("first_name"),
		LastName:  field("last_name"),
		Company:   field("company"),
		Email:     field("email"),
		Interest:  field("interest"),
	}
}

// interests are the choices of the form.
var interests = map[string]bool{"": true, "demo": true, "pricing": true, "newsletter": true}

// validate returns what's wrong, by field, in words for the visitor.
func (s *submission) validate() map[string]string {
	problems := map[string]string{}
	if id, err := uuid.Parse(s.ID); err != nil {
		problems["id"] = "This form has expired. Please reload the page."
	} else {
		s.ID = id.String() // one spelling: it's the key for everything that follows
	}
	text := func(field, v string, limit int, required bool) {
		switch {
		case required && v == "":
			problems[field] = "Please fill this in."
		case utf8.RuneCountInString(v) > limit:
			problems[field] = fmt.Sprintf("Please use at most %d characters.", limit)
		case !utf8.ValidString(v) || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f }):
			problems[field] = "Please use plain text."
		}
	}
	text("first_name", s.FirstName, maxName, false)
	text("last_name", s.LastName, maxLast, true)
	text("company", s.Company, maxCompany, false)
	text("email", s.Email, maxEmail, true)
	if problems["email"] == "" {
		if a, err := mail.ParseAddress(s.Email); err != nil || a.Address != s.Email {
			problems["email"] = "Please give an address such as name@example.com."
		}
	}
	if !interests[s.Interest] {
		problems["interest"] = "Please choose from the list."
	}
	return problems
}

// publishWithin returns nil only when msg is durable. It tries again until the
// budget is used up or the visitor has gone. What was published twice that way
// has the same ID twice: the CRM's record is the same.
func publishWithin(ctx context.Context, budget time.Duration, pub queue.Publisher, msg *queue.Message) error {
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	backoff := queue.Backoff{Min: 50 * time.Millisecond, Max: time.Second}
	for failures := 1; ; failures++ {
		err := pub.Publish(ctx, msg)
		if err == nil {
			return nil
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
