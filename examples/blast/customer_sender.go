package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// maxUnknown is how many failures are enough for an address that can't be
// checked.
const maxUnknown = 10

// A CustomerSender sends the mail of a blast to one customer.
type CustomerSender struct {
	CRM        *CRM
	Addresses  *AddressChecker
	Mailgun    *Mailgun
	Log        *SendLog
	Activities queue.Publisher // of activity-logger

	// Resend says what becomes of a mail that may have been sent, because no
	// answer came or the program died meanwhile: it's sent again, and some get
	// it twice. Otherwise it's held, and some don't get it.
	Resend bool
}

// Handle is the handler of blast-customer-sender.
func (s *CustomerSender) Handle(ctx context.Context, m CustomerMail, d *queue.Delivery) error {
	customer, err := s.CRM.Customer(ctx, m.Customer)
	switch {
	case errors.Is(err, errNotFound):
		return s.tell(ctx, m, mailSkipped, "unknown customer")
	case err != nil:
		return outcome(err)
	case customer.OptedOut:
		return s.tell(ctx, m, mailSkipped, "opted out")
	}

	check, err := s.Addresses.Check(ctx, customer.Email)
	if err != nil {
		return outcome(err)
	}
	switch check.Result {
	case "deliverable":
	case "undeliverable", "risky":
		return s.tell(ctx, m, mailSkipped, "address: "+check.Reason)
	default: // unknown, mostly for a time-out: ask again later
		err := fmt.Errorf("address of customer %s: %s, %s", m.Customer, check.Result, check.Reason)
		if d.Failures >= maxUnknown {
			return queue.Reject(err)
		}
		return err
	}

	mail, err := render(m, customer)
	if err != nil {
		return queue.Reject(err)
	}
	kind, detail, err := s.sendOnce(ctx, mail)
	if err != nil {
		return outcome(err)
	}
	return s.tell(ctx, m, kind, detail)
}

// sendOnce sends a mail unless that was done, or begun, before. It returns the
// kind of activity that it comes to.
func (s *CustomerSender) sendOnce(ctx context.Context, mail *Mail) (kind, detail string, err error) {
	earlier, err := s.Log.Begin(ctx, mail.ID) // from here on it may have been sent
	if err != nil {
		return "", "", err
	}
	switch {
	case earlier == sendDone:
		return mailSent, "", nil
	case earlier == sendInDoubt:
		return mailInDoubt, "", nil
	case earlier == sendBegun && !s.Resend:
		return s.hold(ctx, mail, "an earlier attempt was cut short")
	}

	id, err := s.Mailgun.Send(ctx, mail)
	// The mail is out, or not: a shutdown mustn't keep us from writing that down.
	record, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	switch {
	case err == nil:
		return mailSent, id, s.Log.End(record, mail.ID, sendDone)
	case notDone(err) && earlier == sendBegun:
		return "", "", err // this time it wasn't sent; what's in doubt stays so
	case notDone(err):
		return "", "", errors.Join(err, s.Log.End(record, mail.ID, sendNothing))
	case s.Resend:
		return "", "", err
	}
	return s.hold(record, mail, err.Error())
}

func (s *CustomerSender) hold(ctx context.Context, mail *Mail, why string) (kind, detail string, err error) {
	return mailInDoubt, why, s.Log.End(ctx, mail.ID, sendInDoubt)
}

// tell publishes what happened. Its id makes a repeat harmless.
func (s *CustomerSender) tell(ctx context.Context, m CustomerMail, kind, detail string) error {
	a := Activity{Blast: m.Blast.ID, Customer: m.Customer, Kind: kind, Detail: detail, At: time.Now()}
	return queue.PublishJSON(ctx, s.Activities, a, queue.WithID(a.ID()))
}
