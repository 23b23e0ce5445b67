package main

import (
	"errors"
	"net/http"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/examples/blast/parties"
	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
	"github.com/anyqueue/anyqueue/queue"
)

func TestListSenderMakesOneMessagePerCustomer(t *testing.T) {
	t.Parallel()
	w, out := newWorld(t), &outbox{}
	sender := &ListSender{CRM: w.services.crm, Mails: out}
	require.NoError(t, sender.Handle(t.Context(), testBlast, nil))
	var customers []string
	for _, m := range contents[CustomerMail](t, out) {
		customers = append(customers, m.Customer)
		assert.Equal(t, testBlast, m.Blast)
	}
	assert.Equal(t, []string{"ada", "bo", "cy", "di", "ed", "fay"}, customers, "without the repeat")
	assert.Equal(t, uuid.NewSHA1(testBlast.ID, []byte("ada")).String(), out.msgs[0].ID)
	assert.Equal(t, uuid.Version(5), uuid.MustParse(out.msgs[0].ID).Version())

	first := out.msgs
	out.msgs = nil
	require.NoError(t, sender.Handle(t.Context(), testBlast, nil), "a second run")
	for i := range first {
		assert.Equal(t, first[i].ID, out.msgs[i].ID, "the same ids, so that the second is known as a repeat")
	}
	_, wrong := w.fakes.Judge.Verdict()
	assert.Empty(t, wrong, "credit was reserved once, for six mails")
}

func TestListSenderWithoutFanOut(t *testing.T) {
	t.Parallel()
	json := func(body string) http.HandlerFunc { return thirdparty.Status(200, body) }
	account, credit := parties.CustomersPath+"/accounts/acme", parties.CustomersPath+"/accounts/acme/reservations"
	for name, tc := range map[string]struct {
		path string
		does http.HandlerFunc
		want queue.OutcomeKind
	}{
		"suspended account":           {account, json(`{"active":false}`), queue.Rejected},
		"unknown account":             {account, thirdparty.Status(404, `{}`), queue.Rejected},
		"not enough credit":           {credit, thirdparty.Status(402, `{"message":"not enough credit"}`), queue.Rejected},
		"customer service is down":    {account, thirdparty.Status(503, ``), queue.Failed},
		"customer service is busy":    {credit, thirdparty.TooManyRequests(1), queue.Retry},
		"answer isn't what we expect": {account, json(`<html>`), queue.Failed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, out := newWorld(t), &outbox{}
			w.fails(tc.path, tc.does)
			err := (&ListSender{CRM: w.services.crm, Mails: out}).Handle(t.Context(), testBlast, nil)
			require.Error(t, err)
			assert.Equal(t, tc.want, queue.OutcomeOf(err).Kind)
			assert.Empty(t, out.msgs)
		})
	}
}

func TestListSenderIsRunAgainWhenTheQueueFails(t *testing.T) {
	t.Parallel()
	w, out := newWorld(t), &outbox{fail: queue.ErrThrottled}
	err := (&ListSender{CRM: w.services.crm, Mails: out}).Handle(t.Context(), testBlast, nil)
	assert.ErrorIs(t, err, queue.ErrThrottled)
	assert.Equal(t, queue.Failed, queue.OutcomeOf(err).Kind)
}

func TestCreditWhoseAnswerWasLostIsReservedOnce(t *testing.T) {
	t.Parallel()
	w, out := newWorld(t), &outbox{}
	sender := &ListSender{CRM: w.services.crm, Mails: out}
	path := parties.CustomersPath + "/accounts/acme/reservations"
	w.fails(path, w.losesAnswer)
	require.Error(t, sender.Handle(t.Context(), testBlast, nil))
	assert.Empty(t, out.msgs)
	w.fails(path, nil)
	require.NoError(t, sender.Handle(t.Context(), testBlast, nil))
	assert.Len(t, out.msgs, 6)
	_, wrong := w.fakes.Judge.Verdict()
	assert.Empty(t, wrong)
}

func TestCrashInTheMiddleOfTheFanOut(t *testing.T) {
	t.Parallel()
	out := &outbox{}
	var told []string
	c := &crashing{Publisher: out, after: 3, tell: func(f string, _ ...any) { told = append(told, f) }}
	five := make([]*queue.Message, 5)
	assert.Panics(t, func() { _ = c.Publish(t.Context(), five...) })
	assert.Len(t, out.msgs, 3, "some were published")
	require.NoError(t, c.Publish(t.Context(), five...))
	assert.Len(t, out.msgs, 8)
	assert.Len(t, told, 2)

	out.fail = errors.New("full")
	assert.ErrorIs(t, c.Publish(t.Context(), five...), out.fail)
	inner, ok := queue.As[*outbox](c)
	assert.True(t, ok)
	assert.Same(t, out, inner)
}
