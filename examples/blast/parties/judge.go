package parties

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
)

// Result is what became of a blast. Sent, Skipped, DeadLettered and InDoubt add
// up to Unique, unless customers were lost.
type Result struct {
	Customers      int     `json:"customers"` // entries on the list
	Unique         int     `json:"unique"`
	Skipped        int     `json:"skipped"`         // opted out, unknown, or with a bad address
	Sent           int     `json:"sent"`            // the mail API took the mail and could say so
	Retried        int     `json:"retried"`         // requests refused for the time being that came again
	DeadLettered   int     `json:"dead_lettered"`   // in the dead-letter queue
	InDoubt        int     `json:"in_doubt"`        // nobody who may answer knows whether the mail went out
	Lost           int     `json:"lost"`            // none of these
	DuplicateMails int     `json:"duplicate_mails"` // mails beyond the first to a customer
	Seconds        float64 `json:"seconds"`
}

// fate is what has become of a customer.
type fate int

const (
	open fate = iota
	sent
	skipped
	deadLettered
	inDoubt
)

// A Judge follows the logs of the parties. It may be used concurrently.
type Judge struct {
	in      *Input
	resend  bool              // mails in doubt are sent again
	byMail  map[string]string // mail id -> customer
	byEmail map[string][]*caseFile

	mu         sync.Mutex
	cases      map[string]*caseFile
	open       int
	done       chan struct{}
	ended      time.Time
	counts     map[fate]int
	checks     map[string]int // definite answers about an address
	waiting    map[string]int // refused for the time being, by request
	retried    int
	reserved   map[string]int // credits by reservation
	violations []string
}

// caseFile is what the parties' logs say about one customer.
type caseFile struct {
	customer *Customer // nil: unknown
	accepted int       // mails that the API queued
	answered int       // of these, the ones it could answer
	refused  bool      // by the API, for good
	skip     bool      // a party gave a reason not to write to this customer
	dead     bool      // seen in the dead-letter queue
	doubted  bool      // by the application's database
	fate     fate
}

func newJudge(in *Input, o Options) *Judge {
	j := &Judge{
		in: in, resend: o.Resend, byMail: map[string]string{}, byEmail: map[string][]*caseFile{},
		cases: make(map[string]*caseFile, in.Unique()), open: in.Unique(), done: make(chan struct{}),
		counts: map[fate]int{}, checks: map[string]int{}, waiting: map[string]int{}, reserved: map[string]int{},
	}
	for id, customer := range in.Customers {
		c := &caseFile{customer: customer}
		j.cases[id] = c
		if customer != nil {
			j.byEmail[customer.Email] = append(j.byEmail[customer.Email], c)
		}
		if o.MailID != nil {
			j.byMail[o.MailID(id)] = id
		}
	}
	return j
}

// Done is closed when something has become of each customer.
func (j *Judge) Done() <-chan struct{} { return j.done }

// Ended is when something had become of each customer; zero: not yet.
func (j *Judge) Ended() time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ended
}

// Progress counts what has become of the customers so far.
func (j *Judge) Progress() Result {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.result()
}

// DeadLettered tells the judge which customers' messages are in the dead-letter
// queue. It returns how many are missing there: refused by the mail API for
// good.
func (j *Judge) DeadLettered(customers []string) (missing int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, id := range customers {
		if c := j.cases[id]; c != nil {
			c.dead = true
			j.settle(c)
		}
	}
	for _, c := range j.cases {
		if c.fate == deadLettered && !c.dead {
			missing++
		}
	}
	return missing
}

// NoMoreDeadLetters says that all dead letters were told: those that are missing
// are lost.
func (j *Judge) NoMoreDeadLetters() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, c := range j.cases {
		if c.refused && !c.dead {
			c.refused = false
			j.settle(c)
		}
	}
}

// Verdict ends the case: what has become of the customers, and what mustn't
// have happened at all. With hold, mails that were accepted without an answer
// are in doubt; with resend too, when nothing came after it.
func (j *Judge) Verdict() (Result, []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, c := range j.cases {
		if c.fate == open && c.accepted > 0 {
			c.doubted = true
			j.settle(c)
		}
	}
	r := j.result()
	v := slices.Clone(j.violations)
	if r.DuplicateMails > 0 && !j.resend {
		v = append(v, fmt.Sprintf("%d mails were sent again although they were to be held", r.DuplicateMails))
	}
	if len(j.reserved) > 1 {
		v = append(v, fmt.Sprintf("credit was reserved %d times", len(j.reserved)))
	}
	for id, credits := range j.reserved {
		if credits != j.in.Unique() {
			v = append(v, fmt.Sprintf("reservation %s is for %d mails, not %d", id, credits, j.in.Unique()))
		}
	}
	if r.Sent > 0 && len(j.reserved) == 0 {
		v = append(v, "mails were sent without credit")
	}
	return r, v
}

// An Outcome is what became of one customer.
type Outcome struct {
	Customer string
	Fate     string // sent, skipped, dead_lettered, in_doubt or lost
	Mails    int    // that the mail API took
}

// Outcomes tells what has become of the customers, in the order of their ids.
func (j *Judge) Outcomes() []Outcome {
	names := map[fate]string{open: "lost", sent: "sent", skipped: "skipped", deadLettered: "dead_lettered", inDoubt: "in_doubt"}
	j.mu.Lock()
	defer j.mu.Unlock()
	out := make([]Outcome, 0, len(j.cases))
	for _, id := range slices.Sorted(maps.Keys(j.cases)) {
		c := j.cases[id]
		out = append(out, Outcome{Customer: id, Fate: names[c.fate], Mails: c.accepted})
	}
	return out
}

func (j *Judge) result() Result {
	r := Result{
		Customers: len(j.in.List), Unique: j.in.Unique(), Retried: j.retried, Lost: j.open,
		Sent: j.counts[sent], Skipped: j.counts[skipped], DeadLettered: j.counts[deadLettered], InDoubt: j.counts[inDoubt],
	}
	for _, c := range j.cases {
		r.DuplicateMails += max(0, c.accepted-1)
	}
	return r
}

// settle decides anew what has become of a customer.
func (j *Judge) settle(c *caseFile) {
	now := open
	switch {
	case c.answered > 0:
		now = sent
	case c.accepted > 0 && !j.resend, c.doubted:
		now = inDoubt
	case c.skip:
		now = skipped
	case c.refused || c.dead:
		now = deadLettered
	}
	if now == c.fate {
		return
	}
	if c.fate == open {
		j.open--
	} else {
		j.counts[c.fate]--
	}
	c.fate = now
	if now == open {
		j.open++
		return
	}
	j.counts[now]++
	if j.open == 0 {
		select {
		case <-j.done:
		default:
			j.ended = time.Now()
			close(j.done)
		}
	}
}

// repeats counts the requests that come again after they were refused for the
// time being.
func (j *Judge) repeats(key string, refused bool) {
	if j.waiting[key] > 0 {
		j.waiting[key]--
		j.retried++
	}
	if refused {
		j.waiting[key]++
	}
}

func passing(r thirdparty.Request) bool {
	return r.Status == http.StatusTooManyRequests || r.Status >= 500
}

func (j *Judge) sawBilling(r thirdparty.Request) {
	if r.Method != http.MethodPost || !r.Handled() {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if n, ok := r.Note.(reservation); ok {
		j.reserved[n.ID] += n.Credits
	}
}

func (j *Judge) sawCRM(r thirdparty.Request) {
	escaped, ok := strings.CutPrefix(r.Path, "/customers/")
	id, err := url.PathUnescape(escaped)
	if !ok || err != nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.repeats(r.Path, passing(r))
	c := j.cases[id]
	if c == nil || !r.Answered || passing(r) {
		return
	}
	if c.customer == nil || c.customer.OptedOut {
		c.skip = true
		j.settle(c)
	}
}

func (j *Judge) sawCheck(r thirdparty.Request) {
	j.mu.Lock()
	defer j.mu.Unlock()
	n, definite := r.Note.(checkNote)
	j.repeats(r.Path, passing(r) || !definite || n.result == "unknown")
	if !definite || !r.Answered || (n.result != "undeliverable" && n.result != "risky") {
		return
	}
	// Customers may share an address: each has to have been asked about.
	j.checks[n.email]++
	if j.checks[n.email] >= len(j.byEmail[n.email]) {
		for _, c := range j.byEmail[n.email] {
			c.skip = true
			j.settle(c)
		}
	}
}

func (j *Judge) sawMail(r thirdparty.Request) {
	form, err := url.ParseQuery(string(r.Body))
	if err != nil {
		return
	}
	id := form.Get("v:customer")
	j.mu.Lock()
	defer j.mu.Unlock()
	j.repeats("mail "+id, passing(r))
	c := j.cases[id]
	if c == nil || c.customer == nil {
		if r.Handled() {
			j.violations = append(j.violations, fmt.Sprintf("a mail to %s, who isn't on the list", form.Get("to")))
		}
		return
	}
	switch {
	case r.Handled():
		j.inspect(c, form)
		c.accepted++
		if r.Answered {
			c.answered++
		}
	case r.Status == http.StatusBadRequest:
		c.refused = true
	}
	j.settle(c)
}

// inspect finds mails that mustn't have been sent, or not so.
func (j *Judge) inspect(c *caseFile, form url.Values) {
	complain := func(what string) {
		j.violations = append(j.violations, fmt.Sprintf("a mail to customer %s %s", c.customer.ID, what))
	}
	if c.customer.OptedOut {
		complain("who has opted out")
	}
	if result, _ := resultOf(c.customer.Email); result != "deliverable" {
		complain("whose address is " + result)
	}
	if form.Get("to") != c.customer.Email {
		complain("went to " + form.Get("to"))
	}
	if !strings.Contains(form.Get("text"), c.customer.Name) || strings.Contains(form.Get("text"), "{{") {
		complain("isn't personal")
	}
}

// sawChange follows the application's database, which alone knows that a mail
// is in doubt when the program died before its request had left.
func (j *Judge) sawChange(key, value string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	mail, ok := strings.CutPrefix(key, MailPrefix)
	if !ok {
		return
	}
	if c := j.cases[j.byMail[mail]]; c != nil && value == InDoubt {
		c.doubted = true
		j.settle(c)
	}
}
