package main

import (
	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
)

// result is computed from the logs of the third parties alone: what the senders
// sent and were told, against what analytics got.
type result struct {
	Sent        int `json:"sent"`     // genuine events and messages
	Accepted    int `json:"accepted"` // of them: the sender was told so
	Refused     int `json:"refused"`  // requests that were refused for good, as they should be
	Retried     int `json:"retried"`  // requests beyond the first for an event
	Unavailable int `json:"unavailable"`
	NoAnswer    int `json:"no_answer"` // requests whose sender can't know
	Recorded    int `json:"recorded"`  // distinct events and messages that analytics has
	LostAnswers int `json:"lost_answers"`
	Repeats     int `json:"repeats"` // calls beyond the first for an event, each after a lost answer

	DeadLettered int `json:"dead_lettered"` // and moved back

	Unknown      int     `json:"unknown"`       // messages without an id of their own, whose only answer was lost
	Unaccepted   int     `json:"unaccepted"`    // genuine, and the sender gave up
	WrongAnswers int     `json:"wrong_answers"` // told the wrong thing
	Lost         int     `json:"lost"`          // accepted and not recorded
	Duplicates   int     `json:"duplicates"`    // recorded again without a reason
	Altered      int     `json:"altered"`       // recorded from other bytes than were sent
	Intruders    int     `json:"intruders"`     // recorded, and nobody had sent them
	Seconds      float64 `json:"seconds"`
}

// ok reports whether everything that was promised was kept.
func (r result) ok() bool {
	return r.Lost == 0 && r.Duplicates == 0 && r.Altered == 0 && r.Intruders == 0 && r.WrongAnswers == 0
}

// judge compares the senders' logs with analytics'.
func judge(sentLog []sent, analyticsLog []thirdparty.Request) result {
	var r result
	genuine, accepted := map[string]map[string]bool{}, map[string]bool{} // by id; what its bodies are
	bodies, named := map[string]bool{}, map[string]bool{}                // of all genuine requests; those whose id is known
	for _, s := range sentLog {
		if s.try > 1 {
			r.Retried++
		}
		switch {
		case s.status == 0:
			r.NoAnswer++
		case s.status == 503:
			r.Unavailable++
		case s.status != s.want:
			r.WrongAnswers++
		case !s.accepted():
			r.Refused++
		}
		if s.want != 200 && s.want != 202 {
			continue
		}
		bodies[s.source] = true
		if s.id == "" { // the receiver chose an id, and the answer with it was lost
			continue
		}
		if genuine[s.id] == nil {
			genuine[s.id] = map[string]bool{}
		}
		genuine[s.id][s.source], named[s.source] = true, true
		if s.accepted() {
			accepted[s.id] = true
		}
	}
	r.Accepted, r.Unaccepted, r.Unknown = len(accepted), len(genuine)-len(accepted), len(bodies)-len(named)
	r.Sent = len(genuine) + r.Unknown

	taken, unanswered := map[string]int{}, map[string]int{}
	for _, q := range analyticsLog {
		t, ok := q.Note.(tracked)
		if !ok || !q.Handled() {
			continue
		}
		taken[t.id]++
		if !q.Answered {
			unanswered[t.id]++
			r.LostAnswers++
		}
		switch sources := genuine[t.id]; {
		case sources != nil && !sources[t.source]:
			r.Altered++
		case sources == nil && !bodies[t.source]:
			r.Intruders++
		}
	}
	r.Recorded = len(taken)
	for id, n := range taken {
		r.Repeats += n - 1
		r.Duplicates += max(0, n-1-unanswered[id])
	}
	for id := range accepted {
		if taken[id] == 0 {
			r.Lost++
		}
	}
	return r
}
