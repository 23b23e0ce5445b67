package main

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// upserter is where the worker writes to.
type upserter interface {
	upsert(ctx context.Context, id string, lead crmLead) error
}

// updateLead returns the handler of the queue crm-leads. limitPause is how long
// to stay away when the CRM says that we've called it too often.
func updateLead(c upserter, limitPause time.Duration) queue.Handler {
	return queue.JSON(func(ctx context.Context, s submission, _ *queue.Delivery) error {
		return outcome(c.upsert(ctx, s.ID, leadOf(s)), limitPause)
	})
}

func leadOf(s submission) crmLead {
	l := crmLead{
		FirstName: s.FirstName, LastName: s.LastName, Company: s.Company, Email: s.Email, LeadSource: "Web",
	}
	if s.Interest != "" {
		l.Description = "Interested in: " + s.Interest
	}
	return l
}

// outcome says what should become of a submission after what the CRM said.
// Whatever isn't known to be hopeless is tried again.
func outcome(err error, limitPause time.Duration) error {
	refusal, ok := errors.AsType[*crmError](err)
	if !ok {
		return err // nil, or there was no answer
	}
	switch {
	case refusal.Code == "REQUEST_LIMIT_EXCEEDED":
		return queue.RetryAfter(limitPause, err)
	case refusal.Code == "DUPLICATE_VALUE":
		// Somebody created the record between the CRM's look and its insert.
		// Next time it's an update.
		return queue.RetryAfter(100*time.Millisecond, err)
	case refusal.Code == "UNABLE_TO_LOCK_ROW":
		return err
	case refusal.Status == http.StatusBadRequest && refusal.Code != "", refusal.Status == http.StatusMultipleChoices:
		// REQUIRED_FIELD_MISSING, STRING_TOO_LONG, INVALID_EMAIL_ADDRESS, ...,
		// or several records with that id: it will be refused for ever.
		// Somebody must look at it.
		return queue.Reject(err)
	}
	return err
}

// isDown says that the CRM itself is the problem, and not one lead: no answer,
// an error of its own, or no calls left.
func isDown(err error) bool {
	refusal, ok := errors.AsType[*crmError](err)
	return !ok || refusal.Status >= http.StatusInternalServerError || refusal.Code == "REQUEST_LIMIT_EXCEEDED"
}
