package parties

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
)

// four customers: one is opted out, one unknown, one has a bad address.
func four() *Input {
	in := &Input{Customers: map[string]*Customer{}}
	in.add("ada", &Customer{ID: "ada", Email: "ada@example.com", Name: "Ada"})
	in.add("out", &Customer{ID: "out", Email: "out@example.com", OptedOut: true})
	in.add("ada", nil)
	in.add("bad", &Customer{ID: "bad", Email: "bad+rejected-email@example.com"})
	in.add("gone", nil)
	return in
}

// trial is a judge and what can be reported to it.
type trial struct{ *Judge }

func (t trial) mail(form url.Values, status int, fault thirdparty.Fault) {
	t.sawMail(thirdparty.Request{Body: []byte(form.Encode()), Status: status, Fault: fault, Answered: fault != thirdparty.Lost})
}

func (t trial) customer(id string, status int) {
	t.sawCRM(thirdparty.Request{Path: "/customers/" + id, Status: status, Answered: true})
}

func (t trial) checked(email string) {
	result, _ := resultOf(email)
	t.sawCheck(thirdparty.Request{Path: "/v2/verify?" + email, Status: 200, Answered: true, Note: checkNote{email, result}})
}

func (t trial) reserve(n int) {
	t.sawBilling(thirdparty.Request{Method: "POST", Status: 201, Note: reservation{"b", n}})
}

func (t trial) done() bool {
	select {
	case <-t.Done():
		return true
	default:
		return false
	}
}

func newTrial(resend bool) (trial, *Input) {
	in := four()
	return trial{newJudge(in, Options{Resend: resend, MailID: func(c string) string { return "id-" + c }})}, in
}

func TestJudgeFindsAFateForEachCustomer(t *testing.T) {
	t.Parallel()
	j, in := newTrial(false)
	j.reserve(4)
	j.customer("ada", 200)
	j.customer("out", 200)
	j.customer("gone", 502)
	j.customer("gone", 404)
	j.checked("bad+rejected-email@example.com")
	assert.False(t, j.done())
	j.mail(mailTo(in.Customers["ada"]), 503, thirdparty.Outage)
	j.mail(mailTo(in.Customers["ada"]), 200, thirdparty.None)
	assert.True(t, j.done())
	r, wrong := j.Verdict()
	assert.Equal(t, Result{Customers: 5, Unique: 4, Skipped: 3, Sent: 1, Retried: 2}, r)
	assert.Empty(t, wrong)
}

func TestJudgeOfAMailWithoutAnswer(t *testing.T) {
	t.Parallel()
	t.Run("held", func(t *testing.T) {
		t.Parallel()
		j, in := newTrial(false)
		j.mail(mailTo(in.Customers["ada"]), 200, thirdparty.Lost)
		assert.Equal(t, 1, j.Progress().InDoubt)
	})
	t.Run("sent again", func(t *testing.T) {
		t.Parallel()
		j, in := newTrial(true)
		j.mail(mailTo(in.Customers["ada"]), 200, thirdparty.Lost)
		assert.Equal(t, 4, j.Progress().Lost, "not at an end")
		j.mail(mailTo(in.Customers["ada"]), 200, thirdparty.None)
		r := j.Progress()
		assert.Equal(t, [3]int{1, 0, 1}, [3]int{r.Sent, r.InDoubt, r.DuplicateMails})
	})
	t.Run("to be sent again, but wasn't", func(t *testing.T) {
		t.Parallel()
		j, in := newTrial(true)
		j.mail(mailTo(in.Customers["ada"]), 200, thirdparty.Lost)
		r, _ := j.Verdict()
		assert.Equal(t, 1, r.InDoubt)
	})
	t.Run("never left, as only the database knows", func(t *testing.T) {
		t.Parallel()
		j, _ := newTrial(false)
		j.sawChange(MailPrefix+"id-ada", InDoubt)
		assert.Equal(t, 1, j.Progress().InDoubt)
	})
}

func TestJudgeComparesDeadLettersWithTheirQueue(t *testing.T) {
	t.Parallel()
	j, in := newTrial(false)
	j.mail(mailTo(in.Customers["ada"]), 400, thirdparty.None)
	assert.Equal(t, 1, j.Progress().DeadLettered)
	assert.Equal(t, 1, j.DeadLettered(nil), "it isn't there yet")
	assert.Equal(t, 0, j.DeadLettered([]string{"ada", "gone", "somebody"}))
	assert.Equal(t, 2, j.Progress().DeadLettered)

	j, in = newTrial(false)
	j.mail(mailTo(in.Customers["ada"]), 400, thirdparty.None)
	j.NoMoreDeadLetters()
	r, _ := j.Verdict()
	assert.Equal(t, 0, r.DeadLettered)
	assert.Equal(t, 4, r.Lost, "a dead letter that isn't in its queue is lost")
}

func TestJudgeSeesWhatMustNotHappen(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		run  func(j trial, in *Input)
		want string
	}{
		"opted out":   {func(j trial, in *Input) { j.mail(mailTo(in.Customers["out"]), 200, "") }, "who has opted out"},
		"bad address": {func(j trial, in *Input) { j.mail(mailTo(in.Customers["bad"]), 200, "") }, "whose address is undeliverable"},
		"unknown": {func(j trial, _ *Input) {
			j.mail(url.Values{"to": {"x@example.com"}, "v:customer": {"gone"}}, 200, "")
		}, "who isn't on the list"},
		"not personal": {func(j trial, in *Input) {
			form := mailTo(in.Customers["ada"])
			form.Set("text", "Hello {{.Name}}")
			j.mail(form, 200, "")
		}, "isn't personal"},
		"another's address": {func(j trial, in *Input) {
			form := mailTo(in.Customers["ada"])
			form.Set("to", "eve@example.com")
			j.mail(form, 200, "")
		}, "went to eve@example.com"},
		"sent again although held": {func(j trial, in *Input) {
			j.mail(mailTo(in.Customers["ada"]), 200, thirdparty.Lost)
			j.mail(mailTo(in.Customers["ada"]), 200, "")
		}, "1 mails were sent again"},
		"without credit":    {func(j trial, in *Input) { j.mail(mailTo(in.Customers["ada"]), 200, "") }, "without credit"},
		"too little credit": {func(j trial, _ *Input) { j.reserve(3) }, "is for 3 mails, not 4"},
		"credit twice": {func(j trial, _ *Input) {
			j.reserve(4)
			j.sawBilling(thirdparty.Request{Method: "POST", Status: 201, Note: reservation{"other", 4}})
		}, "reserved 2 times"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j, in := newTrial(false)
			tc.run(j, in)
			_, wrong := j.Verdict()
			require.NotEmpty(t, wrong)
			found := false
			for _, w := range wrong {
				found = found || strings.Contains(w, tc.want)
			}
			assert.True(t, found, "%q in %q", tc.want, wrong)
		})
	}
}

func TestCustomersMayShareAnAddress(t *testing.T) {
	t.Parallel()
	in := &Input{Customers: map[string]*Customer{}}
	in.add("1", &Customer{ID: "1", Email: "risky+low-quality@example.com"})
	in.add("2", &Customer{ID: "2", Email: "risky+low-quality@example.com"})
	j := trial{newJudge(in, Options{})}
	j.checked("risky+low-quality@example.com")
	assert.Equal(t, 0, j.Progress().Skipped, "who was asked about isn't known yet")
	j.checked("risky+low-quality@example.com")
	assert.Equal(t, 2, j.Progress().Skipped)
	assert.True(t, j.done())
}
