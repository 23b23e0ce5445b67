package main

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
)

// The judge decides the program's exit code: it must see each kind of failure.
func TestJudgeSeesWhatWentWrong(t *testing.T) {
	t.Parallel()
	visitor := func(id string) visit {
		return visit{submission: submission{ID: id, LastName: "L", Company: "C", Email: id + "@example.com"}, valid: true, accepted: true}
	}
	rec := func(id string, changes ...string) record {
		r := record{ExternalID: id, Fields: fieldsOf(visitor(id).submission)}
		for i := 0; i < len(changes); i += 2 {
			r.Fields[changes[i]] = changes[i+1]
		}
		return r
	}
	gaveUp := visitor("a")
	gaveUp.accepted = false
	invalid := visitor("a")
	invalid.valid, invalid.accepted = false, false
	moved := rec("a")
	moved.ExternalID = "b"
	rivals := rec("a")
	rivals.ByRival = true
	refused := thirdparty.Request{Path: "/services/data/", Status: 400, Answered: true, Note: crmNote{externalID: "a", code: "REQUIRED_FIELD_MISSING"}}

	tests := map[string]struct {
		visits  []visit
		records []record
		log     []thirdparty.Request
		dead    []string
		want    result
		bad     bool
	}{
		"nobody came":        {},
		"one record":         {visits: []visit{visitor("a")}, records: []record{rec("a")}, want: result{Submissions: 1, Accepted: 1, Records: 1}},
		"updated a rival's":  {visits: []visit{visitor("a")}, records: []record{rivals}, want: result{Submissions: 1, Accepted: 1, Records: 1, UpdatedRivals: 1}},
		"none":               {visits: []visit{visitor("a")}, want: result{Submissions: 1, Accepted: 1, Lost: 1}, bad: true},
		"two":                {visits: []visit{visitor("a")}, records: []record{rec("a"), rec("a")}, want: result{Submissions: 1, Accepted: 1, Records: 2, Duplicates: 1}, bad: true},
		"not what was wrote": {visits: []visit{visitor("a")}, records: []record{rec("a", "Company", "D")}, want: result{Submissions: 1, Accepted: 1, Records: 1, Wrong: 1}, bad: true},
		"under another id":   {visits: []visit{visitor("a")}, records: []record{moved}, want: result{Submissions: 1, Accepted: 1, Records: 1, Wrong: 1}, bad: true},
		"of nobody":          {records: []record{rec("a")}, want: result{Records: 1, Strays: 1}, bad: true},
		"a rival's, left":    {visits: []visit{visitor("a")}, records: []record{rec("a", "Email", "")}, want: result{Submissions: 1, Accepted: 1, Records: 1, Lost: 1, Strays: 1}, bad: true},
		"of a refused form":  {visits: []visit{invalid}, records: []record{rec("a")}, want: result{Invalid: 1, Records: 1, Strays: 1}, bad: true},
		"the visitor left":   {visits: []visit{gaveUp}, want: result{Submissions: 1, Unaccepted: 1}},
		"rejected":           {visits: []visit{visitor("a")}, log: []thirdparty.Request{refused}, dead: []string{"a"}, want: result{Submissions: 1, Accepted: 1, Calls: 1, Rejected: 1, DeadLettered: 1}},
		"rejected and gone":  {visits: []visit{visitor("a")}, log: []thirdparty.Request{refused}, want: result{Submissions: 1, Accepted: 1, Calls: 1, Rejected: 1, Lost: 1}, bad: true},
		"dead for nothing":   {visits: []visit{visitor("a")}, dead: []string{"a"}, want: result{Submissions: 1, Accepted: 1, DeadLettered: 1}, bad: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := judge(tc.visits, tc.records, tc.log, tc.dead)
			assert.Equal(t, tc.want, r)
			assert.Equal(t, tc.bad, !r.ok())
		})
	}
}
