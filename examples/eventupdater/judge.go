package main

import (
	"maps"
	"strings"

	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
)

// result is computed from what the visitors sent and saw, the CRM's records and
// log, and what lies in the dead-letter queue.
type result struct {
	Submissions int `json:"submissions"` // forms that were filled in as they should be
	Invalid     int `json:"invalid"`     // others, which the form refused
	Accepted    int `json:"accepted"`    // the visitor was thanked
	Records     int `json:"records"`     // in the CRM, counted

	Rejected     int `json:"rejected"`      // the CRM refused them for good
	DeadLettered int `json:"dead_lettered"` // and so they wait for somebody

	Calls         int `json:"calls"` // upserts, of which
	Unavailable   int `json:"unavailable"`
	OverLimit     int `json:"over_limit"`
	Expired       int `json:"expired_session"`
	Races         int `json:"races"`        // somebody else, or a repeat, created the record just then
	LostAnswers   int `json:"lost_answers"` // done, and nobody knew
	Logins        int `json:"logins"`
	UpdatedRivals int `json:"updated_rivals"` // records that somebody else had created, and now hold our lead

	Unaccepted int     `json:"unaccepted"` // the visitor gave up
	Lost       int     `json:"lost"`       // accepted, and neither in the CRM nor dead-lettered
	Duplicates int     `json:"duplicates"` // records beyond the first for a submission
	Wrong      int     `json:"wrong"`      // records that don't say what the visitor wrote
	Strays     int     `json:"strays"`     // records of nobody
	Seconds    float64 `json:"seconds"`
}

// ok reports whether there is exactly one record for each submission, but for
// those that the CRM refused, which are all in the dead-letter queue.
func (r result) ok() bool {
	return r.Lost == 0 && r.Duplicates == 0 && r.Wrong == 0 && r.Strays == 0 && r.Rejected == r.DeadLettered
}

// judge takes the visits, the CRM's records and log, and the ids of the dead
// letters. A record belongs to the visitor whose address it holds, whatever its
// external id.
func judge(visits []visit, records []record, log []thirdparty.Request, deadLetters []string) result {
	var r result
	r.countCalls(log)

	byEmail := map[string][]record{}
	for _, rec := range records {
		byEmail[rec.Fields["Email"]] = append(byEmail[rec.Fields["Email"]], rec)
	}
	r.Records = len(records)
	dead := map[string]bool{}
	for _, id := range deadLetters {
		dead[id] = true
	}
	r.DeadLettered = len(dead)
	refused := map[string]bool{}
	for _, q := range log {
		if note, ok := q.Note.(crmNote); ok && note.code == "REQUIRED_FIELD_MISSING" {
			refused[note.externalID] = true
		}
	}
	r.Rejected = len(refused)

	for _, v := range visits {
		own := byEmail[v.Email]
		delete(byEmail, v.Email)
		if !v.valid {
			r.Invalid++
			r.Strays += len(own)
			continue
		}
		r.Submissions++
		if v.accepted {
			r.Accepted++
		} else {
			r.Unaccepted++
		}
		if v.accepted && len(own) == 0 && !dead[v.ID] {
			r.Lost++
		}
		r.Duplicates += max(0, len(own)-1)
		for _, rec := range own {
			if rec.ExternalID != v.ID || !maps.Equal(rec.Fields, fieldsOf(v.submission)) {
				r.Wrong++
			}
			if rec.ByRival {
				r.UpdatedRivals++
			}
		}
	}
	for _, rest := range byEmail {
		r.Strays += len(rest)
	}
	return r
}

func (r *result) countCalls(log []thirdparty.Request) {
	for _, q := range log {
		if isLogin(q) {
			r.Logins++
			continue
		}
		note, _ := q.Note.(crmNote)
		r.Calls++
		switch {
		case q.Status == 503:
			r.Unavailable++
		case q.Fault == overLimit:
			r.OverLimit++
		case note.code == "INVALID_SESSION_ID":
			r.Expired++
		case note.code == "DUPLICATE_VALUE":
			r.Races++
		case q.Handled() && !q.Answered:
			r.LostAnswers++
		}
	}
}

func isLogin(q thirdparty.Request) bool { return strings.HasPrefix(q.Path, "/services/oauth2/") }

// fieldsOf is what the record of a submission should say. It's written out here,
// rather than taken from the worker, which is what's being judged.
func fieldsOf(s submission) map[string]string {
	f := map[string]string{"LastName": s.LastName, "Email": s.Email, "LeadSource": "Web"}
	if s.FirstName != "" {
		f["FirstName"] = s.FirstName
	}
	if s.Company != "" {
		f["Company"] = s.Company
	}
	if s.Interest != "" {
		f["Description"] = "Interested in: " + s.Interest
	}
	return f
}
