package parties

import (
	"net/http"
	"strings"

	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
)

// CheckerKey is the key that the address checker takes.
const CheckerKey = "test_blast"

// The address checker speaks as Kickbox does: GET /v2/verify, with the results
// deliverable, undeliverable, risky and unknown and the reasons listed in
// https://docs.kickbox.com/reference/verify-an-email-address. As in its sandbox
// (https://docs.kickbox.com/docs/sandbox-api) an address says what its result
// is: user+rejected-email@example.com.
var checkResults = map[string]string{
	"accepted-email":     "deliverable",
	"rejected-email":     "undeliverable",
	"invalid-email":      "undeliverable",
	"invalid-domain":     "undeliverable",
	"low-quality":        "risky",
	"low-deliverability": "risky",
	"no-connect":         "unknown",
	"timeout":            "unknown",
	"invalid-smtp":       "unknown",
	"unavailable-smtp":   "unknown",
	"unexpected-error":   "unknown",
}

// checkNote is what the checker said about an address.
type checkNote struct {
	email, result string
}

func checkAddress(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("apikey") != CheckerKey {
		refuse(w, http.StatusForbidden, "Invalid API key")
		return
	}
	email := r.URL.Query().Get("email")
	result, reason := resultOf(email)
	thirdparty.Annotate(w, checkNote{email, result})
	answerCheck(w, email, result, reason)
}

func resultOf(email string) (result, reason string) {
	user, domain, ok := strings.Cut(email, "@")
	if !ok || user == "" || domain == "" {
		return "undeliverable", "invalid_email"
	}
	tag := user[strings.LastIndexByte(user, '+')+1:]
	if result, ok := checkResults[tag]; ok {
		return result, strings.ReplaceAll(tag, "-", "_")
	}
	return "deliverable", "accepted_email"
}

// checkTimesOut answers as the checker does when the mail server of the address
// was too slow just now.
func checkTimesOut(w http.ResponseWriter, r *http.Request) {
	answerCheck(w, r.URL.Query().Get("email"), "unknown", "timeout")
}

func answerCheck(w http.ResponseWriter, email, result, reason string) {
	user, domain, _ := strings.Cut(email, "@")
	answer(w, http.StatusOK, map[string]any{
		"result": result, "reason": reason, "role": false, "free": false, "disposable": false, "accept_all": false,
		"did_you_mean": nil, "email": email, "user": user, "domain": domain, "success": true, "message": nil,
	})
}
