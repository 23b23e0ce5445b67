package parties

import (
	"fmt"
	"net/http"
	"net/mail"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
)

// What the mail API takes.
const (
	MailDomain = "mg.example.com"
	MailKey    = "key-blast"
)

// mailAPI speaks as Mailgun does: POST /v3/{domain}/messages with a form,
// basic auth with the user "api", and the answers of
// https://documentation.mailgun.com/docs/mailgun/api-reference/openapi-final/tag/Messages/
// and https://documentation.mailgun.com/docs/mailgun/quickstart-guide/responses.
type mailAPI struct{ queued atomic.Int64 }

func (m *mailAPI) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v3/{domain}/messages", m.send)
	return mux
}

// A sentMail is a mail that the API has queued.
type sentMail struct{ id string }

func (m *mailAPI) send(w http.ResponseWriter, r *http.Request) {
	user, key, _ := r.BasicAuth()
	if user != "api" || key != MailKey {
		http.Error(w, "Forbidden", http.StatusUnauthorized) // in plain text, as Mailgun does
		return
	}
	if r.PathValue("domain") != MailDomain {
		refuse(w, http.StatusNotFound, "Domain not found: "+r.PathValue("domain"))
		return
	}
	if err := r.ParseForm(); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	if problem := checkMail(r.PostForm); problem != "" {
		refuse(w, http.StatusBadRequest, problem)
		return
	}
	id := fmt.Sprintf("<%s.%d@%s>", time.Now().UTC().Format("20060102150405"), m.queued.Add(1), MailDomain)
	thirdparty.Annotate(w, sentMail{id})
	answer(w, http.StatusOK, map[string]string{"id": id, "message": "Queued. Thank you."})
}

func checkMail(form url.Values) (problem string) {
	for _, field := range []string{"from", "to"} {
		if form.Get(field) == "" {
			return field + " parameter is missing"
		}
		if _, err := mail.ParseAddress(form.Get(field)); err != nil {
			return "'" + field + "' parameter is not a valid address. please check documentation"
		}
	}
	if form.Get("text") == "" && form.Get("html") == "" {
		return "Need at least one of 'text' or 'html' parameters specified"
	}
	return ""
}
