package main

import (
	"fmt"
	"time"

	"github.com/google/uuid"
)

// The queues. Each has its handler in a file of its own and its settings in
// queues.yaml.
const (
	listQueue     = "blast-customer-list-sender"
	mailQueue     = "blast-customer-sender"
	activityQueue = "activity-logger"

	listDeadLetters = listQueue + "-dlq"
	mailDeadLetters = mailQueue + "-dlq"
)

// A Blast is one mailing to all customers of a list. It's the message of
// blast-customer-list-sender.
type Blast struct {
	ID       uuid.UUID `json:"id"`
	Account  string    `json:"account"` // who pays
	List     string    `json:"list"`
	Template string    `json:"template"`
	Subject  string    `json:"subject"`
}

// A CustomerMail is the mail of a blast to one customer. It's the message of
// blast-customer-sender.
type CustomerMail struct {
	Blast    Blast  `json:"blast"`
	Customer string `json:"customer"`
}

// ID is the same whenever the mail to this customer is asked for, so that a
// fan-out that's repeated makes no second mail.
func (m CustomerMail) ID() string {
	return uuid.NewSHA1(m.Blast.ID, []byte(m.Customer)).String()
}

// An Activity tells what happened to a customer. It's the message of
// activity-logger.
type Activity struct {
	Blast    uuid.UUID `json:"blast"`
	Customer string    `json:"customer"`
	Kind     string    `json:"kind"` // one of those below
	Detail   string    `json:"detail,omitempty"`
	At       time.Time `json:"at"`
}

// Kinds of activities.
const (
	mailSent    = "mail_sent"
	mailSkipped = "mail_skipped"
	mailInDoubt = "mail_in_doubt"
	floodEvent  = "flood"
)

// ID is the same when the same thing is told again.
func (a Activity) ID() string {
	return uuid.NewSHA1(a.Blast, fmt.Appendf(nil, "%s/%s", a.Kind, a.Customer)).String()
}
