package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/examples/blast/parties"
	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
	"github.com/anyqueue/anyqueue/queue"
)

func newSender(w *world, out *outbox) *CustomerSender {
	return &CustomerSender{
		CRM: w.services.crm, Addresses: w.services.addresses, Mailgun: w.services.mailgun,
		Log: &SendLog{w.services.db}, Activities: out,
	}
}

func mailFor(customer string) CustomerMail { return CustomerMail{Blast: testBlast, Customer: customer} }

func TestCustomerSenderSendsOrSkips(t *testing.T) {
	t.Parallel()
	for customer, want := range map[string]struct {
		kind, detail string
		mails        int
	}{
		"ada":    {mailSent, "", 1},
		"bo":     {mailSkipped, "opted out", 0},
		"cy":     {mailSkipped, "address: rejected_email", 0},
		"di":     {mailSkipped, "address: low_quality", 0},
		"nobody": {mailSkipped, "unknown customer", 0},
	} {
		t.Run(customer, func(t *testing.T) {
			t.Parallel()
			w, out := newWorld(t), &outbox{}
			require.NoError(t, newSender(w, out).Handle(t.Context(), mailFor(customer), &queue.Delivery{}))
			assert.Len(t, w.fakes.Mails(), want.mails)
			told := contents[Activity](t, out)
			require.Len(t, told, 1)
			assert.Equal(t, want.kind, told[0].Kind)
			assert.Equal(t, customer, told[0].Customer)
			if want.mails > 0 {
				assert.Regexp(t, `^<.*>$`, told[0].Detail, "the mail API's id")
			} else {
				assert.Equal(t, want.detail, told[0].Detail)
			}
		})
	}
}

func TestCustomerSenderOutcomes(t *testing.T) {
	t.Parallel()
	const crm, checker, mail, db = parties.CustomersPath, parties.CheckerPath, parties.MailPath, parties.DatabasePath
	for name, tc := range map[string]struct {
		customer string
		path     string
		does     http.HandlerFunc
		want     queue.Outcome
		mails    int
	}{
		"customer service down":  {"ada", crm, thirdparty.Status(502, ``), queue.Outcome{Kind: queue.Failed}, 0},
		"checker asks to wait":   {"ada", checker, thirdparty.TooManyRequests(2 * time.Second), queue.Outcome{Kind: queue.Retry, Delay: 2 * time.Second}, 0},
		"checker timed out":      {"ed", "", nil, queue.Outcome{Kind: queue.Failed}, 0},
		"mail API down":          {"ada", mail, thirdparty.Status(503, ``), queue.Outcome{Kind: queue.Failed}, 1},
		"mail API asks to wait":  {"ada", mail, thirdparty.TooManyRequests(3 * time.Second), queue.Outcome{Kind: queue.Retry, Delay: 3 * time.Second}, 1},
		"malformed recipient":    {"fay", "", nil, queue.Outcome{Kind: queue.Rejected}, 1},
		"wrong key, to be fixed": {"ada", mail, thirdparty.Status(401, ``), queue.Outcome{Kind: queue.Failed}, 1},
		"database down":          {"ada", db, thirdparty.Status(500, ``), queue.Outcome{Kind: queue.Failed}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, out := newWorld(t), &outbox{}
			if tc.path != "" {
				w.fails(tc.path, tc.does)
			}
			sender := newSender(w, out)
			for range 2 { // again: what was refused is never in doubt
				err := sender.Handle(t.Context(), mailFor(tc.customer), &queue.Delivery{})
				require.Error(t, err)
				assert.Equal(t, tc.want, queue.OutcomeOf(err))
			}
			assert.Equal(t, 2*tc.mails, w.called(mail))
			assert.Empty(t, out.msgs)
		})
	}
}

func TestAddressThatCanNeverBeCheckedIsGivenUp(t *testing.T) {
	t.Parallel()
	w, out := newWorld(t), &outbox{}
	for failures, want := range map[int]queue.OutcomeKind{0: queue.Failed, maxUnknown - 1: queue.Failed, maxUnknown: queue.Rejected} {
		err := newSender(w, out).Handle(t.Context(), mailFor("ed"), &queue.Delivery{Failures: failures})
		assert.Equal(t, want, queue.OutcomeOf(err).Kind, "after %d failures", failures)
	}
}

func TestUnknownTemplateIsRejected(t *testing.T) {
	t.Parallel()
	w, out := newWorld(t), &outbox{}
	m := mailFor("ada")
	m.Blast.Template = "no-such"
	err := newSender(w, out).Handle(t.Context(), m, &queue.Delivery{})
	assert.Equal(t, queue.Rejected, queue.OutcomeOf(err).Kind)
	assert.Empty(t, w.fakes.Mails())
}

func TestMailWithoutAnswer(t *testing.T) {
	t.Parallel()
	t.Run("is held", func(t *testing.T) {
		t.Parallel()
		w, out := newWorld(t), &outbox{}
		w.fails(parties.MailPath, w.losesAnswer)
		sender := newSender(w, out)
		require.NoError(t, sender.Handle(t.Context(), mailFor("ada"), &queue.Delivery{}))
		w.fails(parties.MailPath, nil)
		require.NoError(t, sender.Handle(t.Context(), mailFor("ada"), &queue.Delivery{}), "a repeat")
		assert.Len(t, w.fakes.Mails(), 1)
		told := contents[Activity](t, out)
		require.Len(t, told, 2)
		assert.Equal(t, mailInDoubt, told[0].Kind)
		assert.Contains(t, told[0].Detail, "EOF")
		assert.Equal(t, out.msgs[0].ID, out.msgs[1].ID)
	})
	t.Run("is sent again", func(t *testing.T) {
		t.Parallel()
		w, out := newWorld(t), &outbox{}
		w.fails(parties.MailPath, w.losesAnswer)
		sender := newSender(w, out)
		sender.Resend = true
		err := sender.Handle(t.Context(), mailFor("ada"), &queue.Delivery{})
		assert.Equal(t, queue.Failed, queue.OutcomeOf(err).Kind)
		w.fails(parties.MailPath, nil)
		require.NoError(t, sender.Handle(t.Context(), mailFor("ada"), &queue.Delivery{}))
		assert.Len(t, w.fakes.Mails(), 2)
		assert.Equal(t, mailSent, contents[Activity](t, out)[0].Kind)
	})
	t.Run("stays in doubt when the next attempt is refused", func(t *testing.T) {
		t.Parallel()
		w, out := newWorld(t), &outbox{}
		sender := newSender(w, out)
		sender.Resend = true
		w.fails(parties.MailPath, w.losesAnswer)
		require.Error(t, sender.Handle(t.Context(), mailFor("ada"), &queue.Delivery{}))
		w.fails(parties.MailPath, thirdparty.Status(503, ``))
		require.Error(t, sender.Handle(t.Context(), mailFor("ada"), &queue.Delivery{}))
		sender.Resend = false
		require.NoError(t, sender.Handle(t.Context(), mailFor("ada"), &queue.Delivery{}))
		assert.Equal(t, mailInDoubt, contents[Activity](t, out)[0].Kind)
	})
}

// The program dies after it has written down that it's about to send, and
// before or after the mail has left: nobody knows.
func TestMailOfAProgramThatDiedIsInDoubt(t *testing.T) {
	t.Parallel()
	for name, resend := range map[string]bool{"held": false, "sent": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, out := newWorld(t), &outbox{}
			sender := newSender(w, out)
			sender.Resend = resend
			w.services.db = w.fakes.Database
			sender.Log = &SendLog{w.fakes.Database}
			_, err := sender.Log.Begin(t.Context(), mailFor("ada").ID())
			require.NoError(t, err)
			require.NoError(t, sender.Handle(t.Context(), mailFor("ada"), &queue.Delivery{}))
			if resend {
				assert.Len(t, w.fakes.Mails(), 1)
				assert.Equal(t, 1, w.fakes.Judge.Progress().Sent)
				return
			}
			assert.Empty(t, w.fakes.Mails())
			assert.Equal(t, 1, w.fakes.Judge.Progress().InDoubt, "the judge reads it in the database")
		})
	}
}

func TestMailThatNeverLeftIsNotInDoubt(t *testing.T) {
	t.Parallel()
	w, out := newWorld(t), &outbox{}
	sender := newSender(w, out)
	sender.Mailgun.url = "http://nowhere"
	require.Error(t, sender.Handle(t.Context(), mailFor("ada"), &queue.Delivery{}))
	sender.Mailgun.url = "http://fake" + parties.MailPath
	require.NoError(t, sender.Handle(t.Context(), mailFor("ada"), &queue.Delivery{}))
	assert.Equal(t, mailSent, contents[Activity](t, out)[0].Kind)
}

func TestShutdownDuringASendWritesDownTheDoubt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, out := newWorld(t), &outbox{}
		sender := newSender(w, out)
		ctx, cancel := context.WithCancelCause(t.Context())
		w.fails(parties.MailPath, func(_ http.ResponseWriter, r *http.Request) {
			w.fakes.ServeHTTP(httptest.NewRecorder(), r) // the mail is sent, and nobody hears of it
			cancel(queue.ErrDraining)
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		})
		require.Error(t, sender.Handle(ctx, mailFor("ada"), &queue.Delivery{}), "the activity can't be published any more")
		w.fails(parties.MailPath, nil)
		require.NoError(t, sender.Handle(t.Context(), mailFor("ada"), &queue.Delivery{}))
		assert.Len(t, w.fakes.Mails(), 1, "not sent twice")
		assert.Equal(t, mailInDoubt, contents[Activity](t, out)[0].Kind)
	})
}

func TestActivityThatCouldNotBeToldIsToldLater(t *testing.T) {
	t.Parallel()
	w, out := newWorld(t), &outbox{fail: errors.New("queue down")}
	sender := newSender(w, out)
	require.ErrorIs(t, sender.Handle(t.Context(), mailFor("ada"), &queue.Delivery{}), out.fail)
	out.fail = nil
	require.NoError(t, sender.Handle(t.Context(), mailFor("ada"), &queue.Delivery{}))
	assert.Len(t, w.fakes.Mails(), 1, "the mail was sent before")
	assert.Equal(t, mailSent, contents[Activity](t, out)[0].Kind)
}

func TestActivityLogger(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	logger := &ActivityLogger{Service: w.services.activities}
	a := Activity{Blast: testBlast.ID, Customer: "ada", Kind: mailSent}
	d := &queue.Delivery{Message: queue.Message{ID: a.ID()}}
	for range 2 {
		require.NoError(t, logger.Handle(t.Context(), a, d))
	}
	assert.Equal(t, 1, w.fakes.Activities(mailSent))
	w.fails(parties.ActivityPath, thirdparty.Status(500, ``))
	assert.Equal(t, queue.Failed, queue.OutcomeOf(logger.Handle(t.Context(), a, d)).Kind)
}
