package main

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
)

// The judge decides the program's exit code: it must see each kind of failure.
func TestJudgeSeesWhatWentWrong(t *testing.T) {
	t.Parallel()
	ok := func(id string, try int) sent {
		return sent{id: id, kind: "opened", try: try, source: "bytes of " + id, status: 200, want: 200}
	}
	with := func(s sent, status int) sent { s.status = status; return s }
	took := func(id, source string, f thirdparty.Fault) thirdparty.Request {
		return thirdparty.Request{
			Status: 200, Fault: f, Answered: f != thirdparty.Lost, Note: tracked{id: id, source: source},
		}
	}
	good := func(id string) thirdparty.Request { return took(id, "bytes of "+id, thirdparty.None) }
	forged := sent{id: "f", kind: "forged", try: 1, source: "bytes of f", status: 406, want: 406}

	tests := map[string]struct {
		sent []sent
		took []thirdparty.Request
		want result
		bad  bool
	}{
		"nothing at all": {},
		"as it should be": {
			sent: []sent{ok("a", 1), ok("b", 1), forged},
			took: []thirdparty.Request{good("a"), good("b")},
			want: result{Sent: 2, Accepted: 2, Refused: 1, Recorded: 2},
		},
		"accepted and gone": {
			sent: []sent{ok("a", 1), ok("b", 1)}, took: []thirdparty.Request{good("a")},
			want: result{Sent: 2, Accepted: 2, Recorded: 1, Lost: 1}, bad: true,
		},
		"refused by analytics only": {
			sent: []sent{ok("a", 1)},
			took: []thirdparty.Request{{Status: 503, Fault: thirdparty.Outage, Answered: true}},
			want: result{Sent: 1, Accepted: 1, Lost: 1}, bad: true,
		},
		"recorded twice for nothing": {
			sent: []sent{ok("a", 1)}, took: []thirdparty.Request{good("a"), good("a")},
			want: result{Sent: 1, Accepted: 1, Recorded: 1, Repeats: 1, Duplicates: 1}, bad: true,
		},
		"again after a lost answer": {
			sent: []sent{ok("a", 1)}, took: []thirdparty.Request{took("a", "bytes of a", thirdparty.Lost), good("a")},
			want: result{Sent: 1, Accepted: 1, Recorded: 1, Repeats: 1, LostAnswers: 1},
		},
		"sent twice and absorbed": {
			sent: []sent{with(ok("a", 1), 0), with(ok("a", 2), 503), ok("a", 3), ok("a", 1)}, took: []thirdparty.Request{good("a")},
			want: result{Sent: 1, Accepted: 1, Recorded: 1, Retried: 2, NoAnswer: 1, Unavailable: 1},
		},
		"other bytes than were sent": {
			sent: []sent{ok("a", 1)}, took: []thirdparty.Request{took("a", "other bytes", thirdparty.None)},
			want: result{Sent: 1, Accepted: 1, Recorded: 1, Altered: 1}, bad: true,
		},
		"a forged event came through": {
			sent: []sent{with(forged, 200)}, took: []thirdparty.Request{good("f")},
			want: result{Recorded: 1, WrongAnswers: 1, Intruders: 1}, bad: true,
		},
		"a genuine one was refused": {
			sent: []sent{with(ok("a", 1), 406)},
			want: result{Sent: 1, WrongAnswers: 1, Unaccepted: 1}, bad: true,
		},
		"an id that only the lost answer told": {
			sent: []sent{{kind: "message", try: 1, source: "body", want: 202}},
			took: []thirdparty.Request{took("acme:new", "body", thirdparty.None)},
			want: result{Sent: 1, Unknown: 1, NoAnswer: 1, Recorded: 1},
		},
		"an id that the second answer told": {
			sent: []sent{
				{kind: "message", try: 1, source: "body", status: 503, want: 202},
				{id: "acme:new", kind: "message", try: 2, source: "body", status: 202, want: 202},
			},
			took: []thirdparty.Request{took("acme:new", "body", thirdparty.None)},
			want: result{Sent: 1, Accepted: 1, Retried: 1, Unavailable: 1, Recorded: 1},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := judge(tc.sent, tc.took)
			assert.Equal(t, tc.want, r)
			assert.Equal(t, tc.bad, !r.ok())
		})
	}
}
